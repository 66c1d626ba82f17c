"""The order machine: look at the record and at the CA, do the one next thing, persist, repeat.

    record without URL ── tokens (admission.py) ── newOrder ──▶ URL kept ──▶ what the CA says of the order:
      pending ── authorizations → challenges published → self-check → answered → polled ─┐
      (dns-01:                    records written → seen at every server →)              │
      ready ──── key sealed and kept → finalize → polled ────────────────────────────────┤ again
      processing ── polled ──────────────────────────────────────────────────────────────┘
      valid ──── certificate fetched, stored and wanted on every host in one write: done
      invalid ── the evidence kept, a new order after the back-off

What a crash must not lose is written before the request that makes it matter; every step may run again.
An answer that does not come within a second or two is waited for on the agenda.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from http import HTTPStatus

from certfleet.acme_ca import protocol
from certfleet.acme_ca.challenges.dns01 import record_name, record_value
from certfleet.acme_ca.challenges.http01 import key_authorization
from certfleet.acme_ca.keys import key_pem, load_key, make_csr, make_key
from certfleet.acme_ca.pace import Pace, poll
from certfleet.acme_ca.presets import resolve_ca
from certfleet.acme_ca.protocol import AcmeOrder, Authorization, Challenge, Issued, Signer
from certfleet.acme_ca.transport import Transport
from certfleet.agenda import Claim
from certfleet.errors import AcmeProblem, CAMisbehaved, OwnerError, SlowedDown, UnknownName
from certfleet.lifecycle import txt
from certfleet.lifecycle.admission import Admission, admission
from certfleet.lifecycle.issued import afterwards, store
from certfleet.lifecycle.publishing import hand_out, wish
from certfleet.lifecycle.renewal import renew_at
from certfleet.lifecycle.trouble import EXPECTED, OrderInvalid, Parked, sort
from certfleet.lifecycle.work import Next, Waiting
from certfleet.lifecycle.workbench import Workbench
from certfleet.limits.refusals import paused
from certfleet.limits.rooms import Standing
from certfleet.models import CA, App, Certificate, KeyType, Order, OrderState, utcnow
from certfleet.properties import effective, parse_grace

ROUNDS = 8  # states that one run may go through; a CA that jumps about more often than that is not believed
PATIENCE = (timedelta(seconds=3), timedelta(minutes=10))  # shortest and longest wait between looks on the agenda

Challenges = list[tuple[str, Challenge]]
"""Each with the name that it is for."""


@dataclass(slots=True)
class Run:
    """One run of the machine over one order."""

    bench: Workbench
    claim: Claim
    app: App
    order: Order
    properties: dict[str, str]
    transport: Transport
    signer: Signer
    admission: Admission
    standing: Standing

    async def save(self, **changes: object) -> None:
        """Persist the order with changes, under our fence. Raises LeaseLost."""
        self.order = replace(self.order, **changes)  # type: ignore[arg-type]  # fields by name
        await self.bench.fleet.records.save_order(self.claim, self.order)


async def advance(bench: Workbench, claim: Claim) -> Next:
    """Bring one order as far as the CA lets us now."""
    fleet = bench.fleet
    order = await fleet.records.order(claim.name)
    try:
        app = await fleet.inventory.app(claim.name)
    except UnknownName:
        return Next(None)
    if order is None:  # it was completed, and its worker died before it could say so
        await fleet.rooms.completed(app.name)
        return Next(None, await afterwards(fleet, app, utcnow()))
    if not app.enabled or order.state is OrderState.PARKED:
        if not app.enabled:
            await fleet.records.remove_order(claim, order)
            await fleet.rooms.leave(app.name)
        return Next(None, await txt.settled(fleet, app))
    properties = effective(app.properties, await fleet.inventory.properties())
    order = as_wished(order, app, properties)
    try:
        certificate = await _drive(bench, claim, app, order, properties)
    except Waiting as waiting:
        return Next(waiting.at, waiting.members)
    except EXPECTED as error:
        return await _troubled(bench, claim, app, error)
    due = renew_at(certificate, parse_grace(properties["graceperiod"]))
    return Next(None, await afterwards(fleet, app, due) + await txt.settled(fleet, app))


def as_wished(order: Order, app: App, properties: dict[str, str]) -> Order:
    """The order, begun anew when names, CA, account or key type are not what the app is set to now."""
    wish = (app.identifiers, properties["ca"], properties["email"], KeyType(properties["key-type"]))
    if (order.identifiers, order.ca, order.email, order.key_type) == wish:
        return order
    identifiers, ca, email, key_type = wish
    return replace(without_url(order), identifiers=identifiers, ca=ca, email=email, key_type=key_type)


def without_url(order: Order) -> Order:
    """The wish alone: what belonged to the CA's order is forgotten, the next run makes another."""
    return replace(
        order,
        url=None,
        authorizations=(),
        finalize=None,
        answered=(),
        since=None,
        sealed_key=None,
        state=OrderState.NEW,
    )


async def _drive(bench: Workbench, claim: Claim, app: App, order: Order, properties: dict[str, str]) -> Certificate:
    ca: CA = resolve_ca(order.ca, bundle=properties["ca-bundle"] or None)
    served = await bench.fleet.records.certificate(app.name)
    asked = await admission(bench, claim, order, properties, ca=ca, served=served)
    standing = await asked.enter(ordered=order.url is None)
    transport = bench.transport(ca)
    account, signer = await bench.accounts.account_for(transport, order.email)
    run = Run(bench, claim, app, order, properties, transport, signer, asked, standing)
    try:
        acme = await _made(run)
        for _ in range(ROUNDS):
            match acme.status:
                case "pending":
                    acme = await _prove(run, acme)
                case "ready":
                    acme = await _finalize(run, acme)
                case "processing":
                    acme = await _polled(run, transport.valid, lambda seen: seen.status != "processing", acme)
                case "valid":
                    certificate = await store(bench.fleet, claim, app, run.order, await _download(run, acme))
                    await asked.issued()
                    return certificate
                case "invalid":
                    raise await _invalid(run, acme)
    except AcmeProblem as problem:
        if problem.type == "accountDoesNotExist":
            await bench.accounts.forget(account)
        raise
    raise CAMisbehaved(f"the order did not come to an end in {ROUNDS} steps")


async def _made(run: Run) -> AcmeOrder:
    """The CA's order: the one we know, or a new one, its URL kept the moment it is known."""
    if run.order.url is not None:
        return await protocol.get_order(run.transport, run.signer, run.order.url)
    async with run.admission.turn(run.standing):
        try:
            acme = await protocol.new_order(run.transport, run.signer, run.order.identifiers)
        except AcmeProblem as problem:
            if problem.type == "rateLimited" and problem.status == HTTPStatus.TOO_MANY_REQUESTS:
                raise await _refused(run, problem) from problem
            if problem.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                await run.admission.uncounted()
            raise
        except SlowedDown:  # it was not sent
            await run.admission.uncounted()
            raise
        await run.save(
            url=acme.url,
            authorizations=acme.authorizations,
            finalize=acme.finalize,
            since=utcnow(),
            state=OrderState.PENDING,
            error=None,
            retry_at=None,
            held=None,
        )
        await run.admission.ordered(run.standing)
    return acme


async def _refused(run: Run, problem: AcmeProblem) -> Exception:
    """What a 429 to newOrder comes to: it is parked for a person, or goes back to a waiting room."""
    journal = run.bench.fleet.journal
    if found := paused(problem.detail):
        return Parked(
            f"the CA has paused {found.name} for this account: "
            + (f"ask for it again at {found.link}" if found.link else f"it says: {problem.detail}")
            + f", then `certfleet renew {run.app.name}`"
        )
    await run.admission.refused(problem)
    until = f"{problem.retry_at:%Y-%m-%d %H:%M:%S} UTC" if problem.retry_at else "an unknown time"
    await journal.write(run.app.name, "rate limited", f"until {until}: {problem.detail}")
    return Waiting(utcnow())


async def _prove(run: Run, acme: AcmeOrder) -> AcmeOrder:
    """Show control of every name that the CA does not take for proven, then wait for its verdict."""
    if not run.order.answered:
        challenges = await _challenges(run, acme)
        if run.properties["challenge"] == "dns-01":
            await _show_records(run, challenges)
        else:
            await _publish(run, challenges)
            if run.properties["self-check"] == "on":
                await _self_check(run, challenges)
        await asyncio.gather(
            *(protocol.answer_challenge(run.transport, run.signer, challenge.url) for _, challenge in challenges)
        )
        run.order = replace(run.order, answered=tuple(challenge.url for _, challenge in challenges))
    return await _polled(run, run.transport.ready, lambda seen: seen.status != "pending", acme)


async def _challenges(run: Run, acme: AcmeOrder) -> Challenges:
    """The challenge to answer for each name that is still to be proven, a wildcard and its own name one each."""
    found: list[Authorization] = await asyncio.gather(
        *(protocol.get_authorization(run.transport, run.signer, url) for url in acme.authorizations)
    )
    wanted, challenges = run.properties["challenge"], []
    for authorization in found:
        if authorization.status == "pending":
            challenge = authorization.dns01 if wanted == "dns-01" else authorization.http01
            if challenge is None:
                raise OwnerError(f"{authorization.identifier}: the CA does not offer {wanted} for this name")
            challenges.append((authorization.identifier, challenge))
    return challenges


async def _show_records(run: Run, challenges: Challenges) -> None:
    """Have each name's TXT record at every server of its zone, before anybody asks. Raises Waiting, OwnerError."""
    values = [(record_name(name), record_value(challenge.token, run.signer.key)) for name, challenge in challenges]
    await txt.show(run.bench, run.app, run.order, run.properties, values)


async def _publish(run: Run, challenges: Challenges) -> None:
    """Let the responder or the app's hosts answer for the tokens, before anybody asks. Raises Waiting, OwnerError."""
    answers = {c.token: key_authorization(c.token, run.signer.key) for _, c in challenges}
    run.order = replace(run.order, tokens=tuple(answers))
    records = run.bench.fleet.records
    await records.save_order(run.claim, run.order, *records.answers(answers))
    if (via := run.properties["challenge-via"]) != "responder":
        wanted = wish(run.app, via, list(answers), run.signer.key.thumbprint)
        await hand_out(run.bench.fleet, run.app, wanted, run.order.retry_at)


async def _self_check(run: Run, challenges: Challenges) -> None:
    """Fetch each challenge as the CA will. Raises OwnerError: a failed authorization at the CA is what it saves."""
    check = run.bench.self_check(int(run.properties["http-port"]))
    key = run.signer.key
    await asyncio.gather(*(check.check(name, c.token, key_authorization(c.token, key)) for name, c in challenges))


async def _finalize(run: Run, acme: AcmeOrder) -> AcmeOrder:
    """Send the CSR; its key is kept first, so that a crash never leaves a certificate without its key."""
    if run.order.sealed_key is None:
        key = await make_key(run.order.key_type)
        await run.save(sealed_key=run.bench.vault.seal(key_pem(key)), state=OrderState.FINALIZING)
    else:
        key = load_key(run.bench.vault.open(run.order.sealed_key))
    csr = make_csr(key, run.order.identifiers)
    return await protocol.finalize(run.transport, run.signer, acme, csr)


async def _download(run: Run, acme: AcmeOrder) -> Issued:
    if run.order.sealed_key is None or acme.certificate is None:
        run.order = without_url(run.order)
        raise CAMisbehaved("the CA's order is valid, but not by a request of ours: a new one is made")
    key = load_key(run.bench.vault.open(run.order.sealed_key))
    return await protocol.download(
        run.transport, run.signer, acme.certificate, key=key, identifiers=run.order.identifiers
    )


async def _polled(run: Run, pace: Pace, done: Callable[[AcmeOrder], bool], acme: AcmeOrder) -> AcmeOrder:
    """Poll the order for a second or two. Raises Waiting when that was not enough, with the order persisted."""

    async def look() -> AcmeOrder:
        return await protocol.get_order(run.transport, run.signer, acme.url)

    seen = await poll(look, done, pace, retry_at=acme.retry_at)
    if seen is not None and done(seen):
        return seen
    await run.save()
    shortest, longest = PATIENCE
    now = utcnow()
    at = now + min(max((now - (run.order.since or now)) / 4, shortest), longest)
    asked = (seen or acme).retry_at
    raise Waiting(max(at, asked) if asked else at)


async def _invalid(run: Run, acme: AcmeOrder) -> OrderInvalid:
    """Why the CA gave the order up: its own word, else that of the authorization that failed."""
    evidence, failed = ([str(acme.error)] if acme.error else []), []
    for url in acme.authorizations:
        authorization = await protocol.get_authorization(run.transport, run.signer, url)
        if authorization.status == "invalid":
            failed.append(authorization.identifier)
        if authorization.error:
            evidence.append(f"{authorization.identifier}: {authorization.error}")
    await run.admission.failed(failed)
    return OrderInvalid("the CA refused: " + ("; ".join(evidence) or "without a reason"))


async def _troubled(bench: Workbench, claim: Claim, app: App, error: Exception) -> Next:
    """Keep what went wrong on the order, and when it is tried again."""
    order = await bench.fleet.records.order(claim.name)
    if order is None:
        return Next(None, await afterwards(bench.fleet, app, utcnow()))
    if isinstance(error, Parked):
        await _park(bench, claim, app, order, str(error))
        return Next(None, await txt.settled(bench.fleet, app))
    trouble = sort(error, order.attempts + 1, utcnow())
    if trouble.new_order:
        order = without_url(order)
    if trouble.held:
        order = replace(order, state=OrderState.LIMITED, retry_at=trouble.at, held=trouble.sentence, error=None)
        await bench.fleet.records.save_order(claim, order)
    else:
        order = replace(
            order,
            state=OrderState.RETRY,
            attempts=order.attempts + 1,
            retry_at=trouble.at,
            error=trouble.sentence,
            held=None,
        )
        entry = bench.fleet.journal.entry(app.name, "order failed", trouble.sentence)
        await bench.fleet.records.save_order(claim, order, entry)
    if order.url is None or trouble.at - utcnow() > PATIENCE[1]:
        await bench.fleet.rooms.leave(app.name)  # nobody else has to wait for tokens that it does not use now
    return Next(trouble.at, await txt.settled(bench.fleet, app) if order.url is None else ())


async def _park(bench: Workbench, claim: Claim, app: App, order: Order, sentence: str) -> None:
    """Leave the order to a person; the journal does not hold the CA's link, which carries a token."""
    parked = replace(without_url(order), state=OrderState.PARKED, retry_at=None, error=sentence, held=None)
    entry = bench.fleet.journal.entry(app.name, "parked", "the CA has paused a name: `certfleet info` says what to do")
    await bench.fleet.records.save_order(claim, parked, entry)
    await bench.fleet.rooms.leave(app.name)
