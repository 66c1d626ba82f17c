"""Keys that an app's host makes and keeps (property `key-on-host`): only the request for a certificate comes here.

An order that is ready for its key puts a wish on its host's list and waits; the host is visited as for an installation,
by a worker of its zone, once for all that waits; then the orders go on. A host that is down is asked again, and its
orders wait: that is no failure of the CA's, and nobody's turn is lost by it.

A wish (unmade.py) is taken away at the host's first visit after its order has ended: mostly the one that brings the
certificate.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509

from certfleet.acme_ca.keys import PublicHalf, load_key
from certfleet.agenda import Claim
from certfleet.errors import InstallError
from certfleet.install.answer import AppAnswer, State
from certfleet.install.csr import Wanted, checked_csr
from certfleet.lifecycle.hosts.unmade import list_of
from certfleet.lifecycle.orders.key_reuse import has_leaked
from certfleet.lifecycle.orders.ordering import LONG_AGO
from certfleet.lifecycle.records import Command, check_member, host_member, order_member
from certfleet.lifecycle.renewals.renewal import retry_after
from certfleet.lifecycle.work import Waiting
from certfleet.models import Certificate, Host, Order, OrderState, dump, load, utcnow
from certfleet.vault import Vault

if TYPE_CHECKING:
    from certfleet.lifecycle.fleet import Fleet
    from certfleet.lifecycle.workbench import Workbench

AT_ONCE = 10  # per session: a large RSA key takes a slow host seconds
LOOK = timedelta(seconds=5)  # shortest time for an order between two looks; it is woken sooner
VISITED = timedelta(minutes=2)  # for somebody to visit the host; longer than a session takes to fail
LONGEST = timedelta(minutes=10)  # between two looks or tries: the CA's order lives for hours only
KEY_LOST = "key lost"
"""Why a certificate has to be replaced whose key is not on its host any more."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A request that a host is to make for an order, and what came of it."""

    wanted: Wanted
    since: datetime
    csr: str = ""
    """DER, base64; it was compared with what is wanted."""
    error: str = ""
    """Why there is none yet."""
    attempts: int = 0
    retry_at: datetime | None = None


def kept_key(vault: Vault, order: Order) -> PublicHalf | None:
    """What the order's certificate is for: its key, or its host's request; None: nothing yet. Raises VaultError."""
    if order.csr:
        return _read(order.csr)
    return load_key(vault.open(order.sealed_key)) if order.sealed_key else None


def _read(csr: str) -> x509.CertificateSigningRequest:
    return x509.load_der_x509_csr(base64.b64decode(csr))


# ------------------------------------------------------------------------------------------ the order's side


async def requested(fleet: Fleet, claim: Claim, order: Order, served: Certificate | None) -> str:
    """The request of the key that the order's host made (DER, base64). Raises Waiting until there is one, LeaseLost."""
    if order.csr:
        return order.csr
    wish = await _wished(fleet, order)
    if not wish.csr:
        raise await _not_yet(fleet, claim, order, wish)
    if has_leaked(_read(wish.csr), served):
        wrong = replace(wish, csr="", error="it has answered with the key that is in other hands", since=utcnow())
        await fleet.store.redis.hset(list_of(fleet.store, order.key_on), order.app, dump(wrong))
        raise await _not_yet(fleet, claim, order, wrong)
    return wish.csr


async def _wished(fleet: Fleet, order: Order) -> Wish:
    """The order's wish as it stands on its host's list, put there if it is not."""
    text = await fleet.store.redis.hget(list_of(fleet.store, order.key_on), order.app)
    known = load(Wish, text) if text else None
    if known is not None and known.wanted == _wanted(order):
        return known
    wish = Wish(_wanted(order), utcnow())
    await fleet.store.redis.hset(list_of(fleet.store, order.key_on), order.app, dump(wish))
    return wish


async def _not_yet(fleet: Fleet, claim: Claim, order: Order, wish: Wish) -> Waiting:
    """Let the host be visited, and tell why there is no key when there was a try."""
    now, host = utcnow(), order.key_on
    why = wish.error
    if not why and now - wish.since > VISITED:
        why = "nobody has visited it; does a worker run for its zone?"
    error = f"host {host} is to make the key: {why}" if why else None
    if error and (order.error, order.retry_at) != (error, wish.retry_at):
        entries = [fleet.journal.entry(order.app, "key not made", f"{host}: {why}")] if error != order.error else []
        failing = replace(order, state=OrderState.RETRY, error=error, retry_at=wish.retry_at, held=None)
        await fleet.records.save_order(claim, failing, *entries)
    if wish.retry_at is not None and wish.retry_at > now:
        return Waiting(wish.retry_at + LOOK)  # the host has a time of its own, and wakes the order
    await fleet.agenda.schedule(host_member(host), now)
    return Waiting(now + min(max((now - wish.since) / 4, LOOK), LONGEST), (host_member(host),))


# ------------------------------------------------------------------------------------------ the host's side


async def visit(bench: Workbench, claim: Claim, host: Host) -> tuple[datetime | None, tuple[str, ...]]:
    """Have a host make the keys that orders wait for. The answer: when to look again, and orders that became due.

    `claim` is the host's. Raises LeaseLost.
    """
    fleet = bench.fleet
    texts: dict[str, str] = await fleet.store.redis.hgetall(list_of(fleet.store, host.name))
    if not texts:
        return None, ()
    wishes = {app: load(Wish, text) for app, text in texts.items()}
    orders = await fleet.records.orders(wishes)
    for app in [app for app, wish in wishes.items() if not _is_awaited(wish, orders.get(app))]:
        await fleet.records.write(claim, _if_still(fleet, host.name, app, texts[app], "HDEL", app))
        del wishes[app]
    open_ = {app: wish for app, wish in wishes.items() if not wish.csr}
    now = utcnow()
    due = [app for app, wish in sorted(open_.items()) if wish.retry_at is None or wish.retry_at <= now]
    times = [wish.retry_at for app, wish in open_.items() if app not in due and wish.retry_at is not None]
    answered = await _ask(bench, host, {app: open_[app] for app in due[:AT_ONCE]})
    for app, wish in answered.items():
        times += [wish.retry_at] if wish.retry_at is not None else []
        await fleet.records.write(claim, _if_still(fleet, host.name, app, texts[app], "HSET", app, dump(wish)))
        await fleet.agenda.schedule(order_member(app), now)
    again = now if len(due) > AT_ONCE else min(times, default=None)
    return again, tuple(order_member(app) for app in answered)


def _is_awaited(wish: Wish, order: Order | None) -> bool:
    """Whether the order is still there, and what it was: one that was begun anew puts another wish there."""
    return order is not None and order.state is not OrderState.PARKED and _wanted(order) == wish.wanted


async def _ask(bench: Workbench, host: Host, wishes: Mapping[str, Wish]) -> dict[str, Wish]:
    """One session for all; each wish with its request, or with why there is none."""
    if not wishes:
        return {}
    try:
        said = (await bench.driver(host).request(host, [wish.wanted for wish in wishes.values()])).apps
    except InstallError as error:
        return {app: _failed(wish, error.at(host.name)) for app, wish in wishes.items()}
    return {app: _answered(wish, said[app]) for app, wish in wishes.items()}


def _answered(wish: Wish, said: AppAnswer) -> Wish:
    if said.state is not State.REQUESTED:
        return _failed(wish, said.message or str(said.state))
    try:
        der = checked_csr(said.csr, wish.wanted)
    except InstallError as error:
        return _failed(wish, str(error))
    return replace(wish, csr=base64.b64encode(der).decode(), error="", retry_at=None)


def _failed(wish: Wish, why: str) -> Wish:
    attempts = wish.attempts + 1
    again = utcnow() + retry_after(attempts, LONGEST)
    return replace(wish, error=" ".join(why.split()), attempts=attempts, retry_at=again)


def _if_still(fleet: Fleet, host: str, app: str, text: str, verb: str, *words: str) -> list[Command]:
    """A write to the host's list, unless the order has put another wish there meanwhile."""
    key = list_of(fleet.store, host)
    return [("NEEDS", key), ("STILL", key, app, text), (verb, key, *words)]


async def lost(fleet: Fleet, certificate: Certificate, host: str) -> str:
    """A host has lost the key of its certificate: another one is ordered. The agenda's member that became due."""
    told = f"{host}: the key of generation {certificate.generation} is not there any more, and no copy is anywhere"
    entry = fleet.journal.entry(certificate.app, "key lost", f"{told}: a certificate with a new key is ordered")

    def withdraw(now: Certificate) -> Certificate:
        return replace(now, withdrawn=now.withdrawn or KEY_LOST) if now.serial == certificate.serial else now

    if certificate.withdrawn != KEY_LOST:
        await fleet.revocations.ask(None, certificate.app, withdraw, entry)
    await fleet.agenda.schedule(check_member(certificate.app), LONG_AGO)
    return check_member(certificate.app)


def _wanted(order: Order) -> Wanted:
    return Wanted(order.app, order.id, order.key_type, order.identifiers)
