"""Revoking: asked for by a person, done by workers, and the certificate of an enabled app is replaced.

    revoke APP                 at once; an enabled app gets another certificate ("revoked")
    revoke APP --compromised   another one with a new key first ("compromised"), on every host; then with keyCompromise
    replace … --revoke         the same for many, each as soon as its own replacement is served

The wish is written before anything is asked of the CA, and stays until the CA has done it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from certfleet.acme_ca.account_records import account_id
from certfleet.acme_ca.keys import load_key, signing_key
from certfleet.acme_ca.presets import resolve_ca
from certfleet.acme_ca.reasons import Reason
from certfleet.acme_ca.revoking import revoke_certificate
from certfleet.acme_ca.transport import Transport
from certfleet.agenda import Claim
from certfleet.errors import AcmeProblem, OwnerError, UnknownName
from certfleet.lifecycle.orders.ordering import LONG_AGO
from certfleet.lifecycle.orders.trouble import EXPECTED, sort
from certfleet.lifecycle.records import Command, check_member
from certfleet.lifecycle.revocations.book import Revocation, missing, put_off
from certfleet.lifecycle.work import Next
from certfleet.lifecycle.workbench import Workbench
from certfleet.models import App, Certificate, dump, utcnow

NOT_ITS_ACCOUNT = frozenset({"accountDoesNotExist", "unauthorized"})
"""What a CA says when the one that it was issued to is gone, and another has its e-mail address by now."""
LOOKS = (timedelta(seconds=2), timedelta(minutes=5))  # shortest and longest wait for hosts between two looks


async def revoke(bench: Workbench, claim: Claim) -> Next:
    """Revoke what may be revoked of one app's certificates now."""
    fleet = bench.fleet
    try:
        app: App | None = await fleet.inventory.app(claim.name)
    except UnknownName:
        app = None
    later: list[datetime] = []
    members: tuple[str, ...] = ()
    for entry in await fleet.revocations.of(claim.name):
        try:
            if await _waits(bench, claim, app, entry, later):
                continue
            await _revoke(bench, entry)
        except EXPECTED as error:
            trouble = sort(error, entry.attempts + 1, utcnow())
            told = fleet.journal.entry(entry.app, "revocation failed", f"serial {entry.serial}: {trouble.sentence}")
            await _keep(bench, claim, entry, put_off(entry, trouble.sentence, trouble.at, failed=True), told)
            later.append(trouble.at)
            continue
        members += await _done(bench, claim, app, entry)
    return Next(min(later, default=None), members)


async def _waits(bench: Workbench, claim: Claim, app: App | None, entry: Revocation, later: list[datetime]) -> bool:
    """Whether it cannot be done yet, or any more; the reason is kept, and when to look again is in `later`."""
    now, fleet = utcnow(), bench.fleet
    if entry.not_after <= now:
        await _drop(bench, claim, entry, "it has expired")
        return True
    if entry.after:
        if app is None or not app.enabled:
            if entry.reason is Reason.KEY_COMPROMISE:
                return False  # nothing will take its place, and its key is in other hands
            await _drop(bench, claim, entry, "the app is not enabled any more, nothing takes its place")
            return True
        known = await fleet.records.installations(app.name)
        stands = missing(entry.after, await fleet.records.certificate(app.name), app.hosts, known)
        if stands is not None:
            shortest, longest = LOOKS
            at = now + min(max((now - entry.asked) / 4, shortest), longest)
            told = fleet.journal.entry(app.name, "revocation waits", f"serial {entry.serial}: {stands}")
            await _keep(bench, claim, entry, put_off(entry, stands, at), *([told] if stands != entry.stands else []))
            later.append(at)
            return True
    if entry.retry_at is not None and entry.retry_at > now and entry.attempts:
        later.append(entry.retry_at)
        return True
    return False


async def _revoke(bench: Workbench, entry: Revocation) -> None:
    """Tell the CA. Raises CAError, OwnerError, VaultError."""
    transport = bench.transport(resolve_ca(entry.ca, bundle=entry.bundle or None))
    accounts = bench.accounts
    account = await accounts.records.get(account_id(transport.ca, entry.email))
    if account is None or account.deactivated is not None or not (account.url or account.moved):
        await _by_its_own_key(bench, transport, entry)
        return
    used, signer = await accounts.account_for(transport, entry.email)
    try:
        await revoke_certificate(transport, signer, entry.leaf, entry.reason)
    except AcmeProblem as problem:
        if await accounts.changed(transport, used):
            _, again = await accounts.account_for(transport, entry.email)
            await revoke_certificate(transport, again, entry.leaf, entry.reason)
        elif problem.type in NOT_ITS_ACCOUNT:
            await _by_its_own_key(bench, transport, entry)
        else:
            raise


async def _by_its_own_key(bench: Workbench, transport: Transport, entry: Revocation) -> None:
    """Without its account, whoever has the certificate's key may revoke it (RFC 8555 §7.6)."""
    certificate = await bench.fleet.records.certificate(entry.app)
    if certificate is None or certificate.serial != entry.serial:
        raise OwnerError(
            f"serial {entry.serial} cannot be revoked: its account {entry.email} at {transport.ca.name} is gone, "
            "and so is its key; import the account's key (`certfleet account import`), or ask the CA"
        )
    if certificate.key_on:
        raise OwnerError(
            f"serial {entry.serial} cannot be revoked: its account {entry.email} at {transport.ca.name} is gone, and "
            f"its key is on host {certificate.key_on} alone; import the account's key (`certfleet account import`)"
        )
    own = signing_key(load_key(bench.vault.open(certificate.sealed_key)))
    await revoke_certificate(transport, own, entry.leaf, entry.reason)


async def _done(bench: Workbench, claim: Claim, app: App | None, entry: Revocation) -> tuple[str, ...]:
    """Keep that it is revoked; if the app still uses it, another one is due."""
    fleet, now = bench.fleet, utcnow()
    newest = await fleet.revocations.ask(
        None, entry.app, lambda found: _revoked(found, entry, now) if found.serial == entry.serial else found
    )
    told = f"serial {entry.serial}, {entry.reason}"
    await _write(bench, claim, entry, fleet.journal.entry(entry.app, "revoked", told))
    if app is None or not app.enabled or newest is None or newest.serial != entry.serial:
        return ()
    await fleet.agenda.schedule(check_member(app.name), LONG_AGO)
    return (check_member(app.name),)


def _revoked(found: Certificate, entry: Revocation, now: datetime) -> Certificate:
    if found.revoked is not None:  # the CA did it before our word, as its revocation list said
        return found
    return replace(found, revoked=now, revoked_for=entry.reason)


async def _drop(bench: Workbench, claim: Claim, entry: Revocation, why: str) -> None:
    told = f"revocation of serial {entry.serial}: {why}"
    await _write(bench, claim, entry, bench.fleet.journal.entry(entry.app, "given up", told))


async def _write(bench: Workbench, claim: Claim, entry: Revocation, told: Command) -> None:
    """Take it off the list, unless it was asked for anew meanwhile."""
    gone: Command = ("HDEL", bench.fleet.revocations.key(entry.app), entry.serial)
    await bench.fleet.records.write(claim, [*_if_still(bench, entry), gone, told])


async def _keep(bench: Workbench, claim: Claim, before: Revocation, after: Revocation, *told: Command) -> None:
    """Keep what it waits for, or why it failed, unless it was asked for anew meanwhile."""
    kept: Command = ("HSET", bench.fleet.revocations.key(after.app), after.serial, dump(after))
    await bench.fleet.records.write(claim, [*_if_still(bench, before), kept, *told])


def _if_still(bench: Workbench, entry: Revocation) -> list[Command]:
    key = bench.fleet.revocations.key(entry.app)
    return [("NEEDS", key), ("STILL", key, entry.serial, dump(entry))]
