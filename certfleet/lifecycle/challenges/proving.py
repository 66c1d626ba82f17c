"""How control of an order's names is shown, before the CA is told to look: one way for each kind of challenge."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from http import HTTPStatus

from certfleet.acme_ca import protocol
from certfleet.acme_ca.account_records import known_account
from certfleet.acme_ca.challenges import dns01, dns_persist01
from certfleet.acme_ca.challenges.http01 import key_authorization
from certfleet.acme_ca.protocol import AcmeOrder, Challenge
from certfleet.errors import AcmeProblem, CAMisbehaved, CARefuses
from certfleet.lifecycle.challenges import txt
from certfleet.lifecycle.challenges.publishing import hand_out, wish
from certfleet.lifecycle.challenges.standing import ends, look, require_standing, zones_for
from certfleet.lifecycle.orders.authorizations import authorizations
from certfleet.lifecycle.orders.run import Run

Challenges = list[tuple[str, Challenge]]
"""Each with the name that it is for."""


async def prove(run: Run, acme: AcmeOrder) -> None:
    """Show control of every name that the CA does not take for proven, and let it look; once for each order.

    Raises Waiting, OwnerError, CAError.
    """
    if run.order.answered:
        return
    challenges = await _challenges(run, acme)
    await WAYS[run.properties["challenge"]](run, challenges)
    await asyncio.gather(*(_answer(run, acme, challenge.url) for _, challenge in challenges))
    run.order = replace(run.order, answered=tuple(challenge.url for _, challenge in challenges))


async def _answer(run: Run, acme: AcmeOrder, url: str) -> None:
    """Tell the CA to look; it may have looked already, told by a run that lost the answer."""
    try:
        await protocol.answer_challenge(run.transport, run.signer, url)
    except AcmeProblem as problem:
        if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR or problem.retry_at is not None:
            raise
        open_still = [one for one in await authorizations(run, acme) if one.status == "pending"]
        way = run.properties["challenge"]
        if any(challenge.url == url for one in open_still if (challenge := one.offered(way)) is not None):
            raise


async def _challenges(run: Run, acme: AcmeOrder) -> Challenges:
    """The challenge to answer for each name that is still to be proven, a wildcard and its own name one each."""
    wanted, challenges = run.properties["challenge"], []
    for authorization in await authorizations(run, acme):
        if authorization.status == "pending":
            challenge = authorization.offered(wanted)
            if challenge is None:
                raise CARefuses(f"{authorization.name}: the CA does not offer {wanted} for this name")
            challenges.append((authorization.name, challenge))
    return challenges


async def _by_http(run: Run, challenges: Challenges) -> None:
    """Let the responder or the app's hosts answer for the tokens. Raises Waiting, OwnerError."""
    answers = {c.token: key_authorization(c.token, run.signer.key) for _, c in challenges}
    run.order = replace(run.order, tokens=tuple(answers))
    records = run.bench.fleet.records
    await records.save_order(run.claim, run.order, *records.answers(answers))
    if (via := run.properties["challenge-via"]) != "responder":
        wanted = wish(run.app, via, list(answers), run.signer.key.thumbprint)
        await hand_out(run.bench.fleet, run.app, wanted, run.order.retry_at)
    if run.properties["self-check"] == "on":
        await _self_check(run, challenges)


async def _self_check(run: Run, challenges: Challenges) -> None:
    """Fetch each challenge as the CA will. Raises OwnerError: a failed authorization at the CA is what it saves."""
    check = run.bench.self_check(int(run.properties["http-port"]))
    key = run.signer.key
    await asyncio.gather(*(check.check(name, c.token, key_authorization(c.token, key)) for name, c in challenges))


async def _by_dns(run: Run, challenges: Challenges) -> None:
    """Have each name's TXT record at every server of its zone. Raises Waiting, OwnerError."""
    values = [
        (dns01.record_name(name), dns01.record_value(challenge.token, run.signer.key)) for name, challenge in challenges
    ]
    await txt.show(run.bench, run.app, run.order, run.properties, values)


async def _by_standing_record(run: Run, challenges: Challenges) -> None:
    """See that the record of each name stands; nothing is written. Raises OwnerError with those to make."""
    issuers = [name for _, first in challenges[:1] for name in first.issuers]
    issuers = [name for name in issuers if all(name in challenge.issuers for _, challenge in challenges)]
    if challenges and not issuers:
        raise CAMisbehaved("the CA does not say what it is called in the record that it wants for dns-persist-01")
    if run.properties["self-check"] != "on":
        return
    account = await known_account(run.bench.fleet.store, run.transport.ca, run.order.email)
    former = account.former if account else ()
    prefix = (await run.transport.directory()).meta.account_hash_prefix
    holder = dns_persist01.Holder(run.signer.kid, (run.signer.key.thumbprint, *former), prefix)
    wanted = dns_persist01.wanted([name for name, _ in challenges], issuers, holder)
    seen = await look(zones_for(run.bench.fleet.settings, run.properties), wanted)
    require_standing(run.app, seen, ends(run.properties))


WAYS: dict[str, Callable[[Run, Challenges], Awaitable[None]]] = {
    "http-01": _by_http,
    "dns-01": _by_dns,
    dns_persist01.METHOD: _by_standing_record,
}
"""By the property `challenge`: what has to be there before the CA looks."""
