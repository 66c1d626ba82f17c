"""The order machine: look at the record and at the CA, do the one next thing, persist, repeat.

    record without URL ── tokens (admission.py) ── newOrder ──▶ URL kept ──▶ what the CA says of the order:
      pending ── authorizations → control shown (proving.py) → answered → polled ────────┐
      ready ──── key sealed and kept → finalize → polled ────────────────────────────────┤ again
      processing ── polled ──────────────────────────────────────────────────────────────┘
      valid ──── certificate fetched, stored and wanted on every host in one write: done
      invalid ── the evidence kept, a new order after the back-off

What a crash must not lose is written before the request that makes it matter; every step may run again.
An answer that does not come within a second or two is waited for on the agenda.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus

from certfleet.acme_ca import protocol
from certfleet.acme_ca.account_records import is_one_account
from certfleet.acme_ca.keys import CertificateKey, key_pem, load_key, make_csr, make_key
from certfleet.acme_ca.pace import Pace, poll
from certfleet.acme_ca.protocol import AcmeOrder, Issued
from certfleet.agenda import Claim
from certfleet.ca_list import ca_of
from certfleet.errors import AcmeProblem, CAError, CAMisbehaved, OrderUnreadable, SlowedDown, UnknownName
from certfleet.lifecycle.challenges import txt
from certfleet.lifecycle.challenges.proving import prove
from certfleet.lifecycle.fleet import Fleet
from certfleet.lifecycle.orders import host_key
from certfleet.lifecycle.orders.admission import admission
from certfleet.lifecycle.orders.ahead import look_ahead
from certfleet.lifecycle.orders.authorizations import authorizations, invalid
from certfleet.lifecycle.orders.issued import afterwards, store
from certfleet.lifecycle.orders.key_reuse import has_leaked, reused_key
from certfleet.lifecycle.orders.ordering import as_asked
from certfleet.lifecycle.orders.outage import answering, require_answering
from certfleet.lifecycle.orders.passing import held_up
from certfleet.lifecycle.orders.replacement import as_replacement, not_replacing, note_refusal
from certfleet.lifecycle.orders.run import Run
from certfleet.lifecycle.orders.setback import PATIENCE, tried_now
from certfleet.lifecycle.orders.trouble import EXPECTED, OrderInvalid, OrderUseless, Parked, Unanswered, not_to_be_had
from certfleet.lifecycle.orders.wishes import as_wished
from certfleet.lifecycle.renewals.renewal import renew_at
from certfleet.lifecycle.renewals.renewal_info import FIRST_LOOK
from certfleet.lifecycle.work import CASlow, Next, Waiting
from certfleet.lifecycle.workbench import Workbench
from certfleet.limits.refusals import paused
from certfleet.models import App, Certificate, Order, OrderState, utcnow
from certfleet.properties import effective, parse_grace

STUCK = timedelta(minutes=1)  # an order that is pending for longer is asked what for
ROUNDS = 8  # states that one run may go through; a CA that jumps about more often than that is not believed


async def advance(bench: Workbench, claim: Claim) -> Next:
    """Bring one order as far as the CA lets us now."""
    fleet = bench.fleet
    order, asked = await fleet.records.order_asked(claim.name)
    try:
        app = await fleet.inventory.app(claim.name)
    except UnknownName:  # it was removed just as a check made an order
        await fleet.rooms.leave(claim.name)
        if order is not None:
            await fleet.records.remove_order(claim, order)
        return Next(None)
    if order is None:  # it was completed, and its worker died before it could say so
        await fleet.rooms.completed(app.name)
        return Next(None, await afterwards(fleet, app, utcnow()))
    if asked:
        order = await as_asked(fleet, claim, order, asked)
    if not app.enabled or order.state is OrderState.PARKED:
        await fleet.agenda.extend(claim)
        await fleet.rooms.leave(app.name)  # while its order is there: without one it is taken for completed
        if not app.enabled:
            await fleet.records.remove_order(claim, order)
        return Next(None, await txt.settled(fleet, app))
    properties = effective(app.properties, await fleet.inventory.properties())
    order = await tried_now(fleet, claim, await _as_wished(fleet, claim, order, app, properties))
    served = await fleet.records.certificate(app.name)
    try:
        async with answering(bench, bench.transport(ca_of(order.ca, properties)), order, served, properties):
            certificate = await _drive(bench, claim, app, order, properties, served=served)
    except (Waiting, *EXPECTED) as stop:
        return await held_up(bench, claim, app, properties, stop)
    due = renew_at(certificate, parse_grace(properties["graceperiod"]))
    if bench.transport(ca_of(certificate.ca, properties)).has_renewal_info:
        due = min(due, utcnow() + FIRST_LOOK)
    return Next(None, await afterwards(fleet, app, due) + await txt.settled(fleet, app))


async def _as_wished(fleet: Fleet, claim: Claim, order: Order, app: App, properties: Mapping[str, str]) -> Order:
    """The order by what the app is set to now. Raises LeaseLost."""
    email = properties["email"]
    if order.email != email and await is_one_account(fleet.store, ca_of(order.ca, properties), order.email, email):
        order = replace(order, email=email)  # its account's address was changed: no reason to begin anew
        await fleet.records.save_order(claim, order)
    wished = as_wished(order, app, properties)
    if wished.url is None and (order.sealed_key is not None or order.csr):
        # The CA may issue the other all the same: it counts.
        await fleet.agenda.extend(claim)
        await fleet.rooms.counted(app.name)
        await fleet.records.save_order(claim, wished)
    return wished


async def _drive(
    bench: Workbench,
    claim: Claim,
    app: App,
    order: Order,
    properties: dict[str, str],
    *,
    served: Certificate | None,
) -> Certificate:
    ca = ca_of(order.ca, properties)
    transport = bench.transport(ca)
    if order.url is None:  # before it takes a token, or a place in a line
        order = await look_ahead(bench, transport, app, order, properties)
    agreed = properties["agree-tos"] == "on"
    order = await as_replacement(bench, transport, order, served, agree_tos=agreed)
    asked = await admission(bench, claim, order, properties, ca=ca, served=served)
    standing = await asked.enter(ordered=order.url is None)
    account, signer = await bench.accounts.account_for(transport, order.email, agree_tos=agreed)
    run = Run(bench, claim, app, order, properties, transport, signer, asked, standing, served)
    try:
        return await _to_its_end(run)
    except AcmeProblem as problem:
        if problem.type == "accountDoesNotExist":
            await bench.accounts.forget(account)
        elif await bench.accounts.changed(transport, account):
            raise Waiting(utcnow()) from problem
        raise


async def _to_its_end(run: Run) -> Certificate:
    acme = await _made(run)
    for _ in range(ROUNDS):
        match acme.status:
            case "pending":
                await prove(run, acme)
                acme = await _polled(run, run.transport.ready, lambda seen: seen.status != "pending", acme)
            case "ready":
                acme = await _finalize(run, acme)
            case "processing":
                acme = await _polled(run, run.transport.valid, lambda seen: seen.status != "processing", acme)
            case "valid":
                try:
                    issued = await _download(run, acme)
                except CAError as error:
                    await run.admission.counted()  # by the CA, whether we get it or not
                    raise not_to_be_had(error) from error
                fleet, account = run.bench.fleet, run.signer.kid
                certificate = await store(
                    fleet, run.claim, run.app, run.order, issued, account=account, served=run.served
                )
                await run.admission.issued()
                return certificate
            case "invalid":
                raise await invalid(run, acme)
    raise CAMisbehaved(f"the order did not come to an end in {ROUNDS} steps")


async def _made(run: Run) -> AcmeOrder:
    """The CA's order: the one we know, or a new one, its URL kept the moment it is known."""
    if run.order.url is not None:
        return await protocol.get_order(run.transport, run.signer, run.order.url)
    async with run.admission.turn(run.standing):
        try:
            await require_answering(run.bench, run.transport, run.order, run.served, run.properties)
            acme = await protocol.new_order(
                run.transport,
                run.signer,
                run.order.identifiers,
                profile=run.order.profile,
                replaces=run.order.replaces,
            )
        except AcmeProblem as problem:
            if problem.type == "invalidProfile":  # offered when the directory was read
                run.transport.doubt_directory()
            if problem.type == "rateLimited" and problem.status == HTTPStatus.TOO_MANY_REQUESTS:
                raise await _refused(run, problem) from None
            if problem.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                await run.admission.uncounted()
            if run.order.replaces and not_replacing(problem):
                raise await _not_replacing(run, problem) from problem
            raise
        except (SlowedDown, Unanswered):  # it was not sent
            await run.admission.uncounted()
            raise
        except OrderUnreadable as error:
            await run.save(url=error.url, since=utcnow(), state=OrderState.PENDING, turn_ends=None, settled=False)
            await run.admission.ordered(run.standing)
            return await protocol.get_order(run.transport, run.signer, error.url)
        await run.save(
            url=acme.url,
            authorizations=acme.authorizations,
            finalize=acme.finalize,
            since=utcnow(),
            state=OrderState.PENDING,
            error=None,
            retry_at=None,
            held=None,
            turn_ends=None,
            settled=False,
        )
        await run.admission.ordered(run.standing)
    return acme


async def _refused(run: Run, problem: AcmeProblem) -> Exception:
    """What a 429 to newOrder comes to: it is parked for a person, goes back to a waiting room, or waits by itself."""
    journal = run.bench.fleet.journal
    if found := paused(problem.detail):
        await run.admission.uncounted()
        return Parked(
            f"the CA has paused {found.name} for this account: "
            + (f"ask for it again at {found.link}" if found.link else f"it says: {problem.detail}")
            + f", then `certfleet renew {run.app.name}`"
        )
    waits = await run.admission.refused(problem)
    if run.order.exempt:  # the CA does not think so: from now on it needs tokens as any order does
        await run.save(exempt=False, ordinary=True)
    until = f"{problem.retry_at:%Y-%m-%d %H:%M:%S} UTC" if problem.retry_at else "an unknown time"
    await journal.write(run.app.name, "rate limited", f"until {until}: {problem.detail}")
    return Waiting(utcnow()) if waits else problem


async def _not_replacing(run: Run, problem: AcmeProblem) -> Waiting:
    """The CA has an order that replaces the certificate, or does not know it: ask again without `replaces`.

    An order of ours whose URL was lost is what the CA answers then; tokens are asked for first, as for any order.
    """
    await run.save(replaces="", exempt=False, ordinary=True)
    await note_refusal(run.bench.fleet.journal, run.app.name, problem)
    return Waiting(utcnow())


async def _finalize(run: Run, acme: AcmeOrder) -> AcmeOrder:
    """Send the CSR; its key is kept first, so that a crash never leaves a certificate without its key."""
    if run.order.key_on:
        request = await host_key.requested(run.bench.fleet, run.claim, run.order, run.served)
        await run.save(csr=request, state=OrderState.FINALIZING, error=None, retry_at=None)
        return await _sent(run, acme, base64.b64decode(request))
    key = _kept_key(run)
    if key is None:
        key = reused_key(run.bench.vault, run.order, run.served, run.properties) or await make_key(run.order.key_type)
        await run.save(sealed_key=run.bench.vault.seal(key_pem(key)), state=OrderState.FINALIZING)
    return await _sent(run, acme, make_csr(key, run.order.identifiers))


async def _sent(run: Run, acme: AcmeOrder, csr: bytes) -> AcmeOrder:
    """The order after finalize. One that the CA does not take for ready says itself how it is (RFC 8555 §7.4)."""
    try:
        return await protocol.finalize(run.transport, run.signer, acme, csr)
    except AcmeProblem as problem:
        if problem.type != "orderNotReady":
            raise
        # Mostly it was finalized before, with an answer that was lost, and shown to us as it had been.
        seen = await protocol.get_order(run.transport, run.signer, acme.url)
        if seen.status == "ready":
            raise CAMisbehaved(f"the CA shows the order as ready, and says that it is not: {problem}") from problem
        return seen


def _kept_key(run: Run) -> CertificateKey | None:
    """The key that this order has already, unless it is one that leaked since."""
    if run.order.sealed_key is None:
        return None
    key = load_key(run.bench.vault.open(run.order.sealed_key))
    return None if has_leaked(key, run.served) else key


async def _download(run: Run, acme: AcmeOrder) -> Issued:
    key = host_key.kept_key(run.bench.vault, run.order)
    if key is None:
        raise OrderUseless("the CA's order is valid, but not by a request of ours: a new one is made")
    if acme.certificate is None:
        raise CAMisbehaved("the CA's order is valid, and names no certificate")
    preferred = run.properties["preferred-chain"]
    issued = await protocol.download(
        run.transport, run.signer, acme.certificate, key=key, identifiers=run.order.identifiers, preferred=preferred
    )
    # As it is said by now: what a person says while the CA issues must not be written over with the same key.
    if has_leaked(key, await run.bench.fleet.records.certificate(run.app.name)):
        raise OrderInvalid("it was asked for with a key that has leaked since: a new order is made")
    if preferred and issued.issuer != preferred:
        told = f"{preferred}: the CA has chains up to {', '.join(issued.issuers)}; its default is taken"
        await run.bench.fleet.journal.write(run.app.name, "chain not offered", told)
    return issued


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
    if acme.status == "pending" and now - (run.order.since or now) > STUCK:
        await authorizations(run, acme)
    at = now + min(max((now - (run.order.since or now)) / 4, shortest), longest)
    asked = (seen or acme).retry_at
    raise CASlow(max(at, asked) if asked else at)
