"""ACME accounts as an operator deals with them: shown, rolled over, moved to another address, ended, imported.

These ask the CA from the process of whoever wants it, so that the answer is there at once; it needs the vault's key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from certfleet.acme_ca.account_records import AccountRecords, account_id, known_account
from certfleet.acme_ca.keys import AccountKey
from certfleet.acme_ca.presets import is_preset, resolve_ca
from certfleet.ca_list import cas_of, first_ca
from certfleet.errors import UsageError
from certfleet.lifecycle.fleet import Fleet
from certfleet.lifecycle.orders.ordering import change_order
from certfleet.limits.buckets import Buckets
from certfleet.limits.presets import Told
from certfleet.limits.registrations import Registrations
from certfleet.limits.requests import SharedTurnstile
from certfleet.models import CA, Account, App, Order
from certfleet.properties import effective
from certfleet.vault import Vault, ensure_key

if TYPE_CHECKING:
    from certfleet.acme_ca.account_changes import AccountChanges
    from certfleet.acme_ca.accounts import Accounts
    from certfleet.acme_ca.transport import Transport


@dataclass(frozen=True, slots=True)
class AccountView:
    """One account as `account ls` shows it."""

    ca: str
    email: str
    url: str | None
    """None: it is not registered yet."""
    deactivated: datetime | None
    rolling: bool
    """A change of its key was cut short: which one the CA has is found with its next use."""
    apps: int
    """How many apps are set to it."""


async def accounts(fleet: Fleet) -> list[AccountView]:
    """Every account, by CA and address."""
    used: Counter[tuple[str, str]] = Counter()
    everywhere = await fleet.inventory.properties()
    async for app in fleet.inventory.apps():
        properties = effective(app.properties, everywhere)
        used.update((ca.name, properties["email"]) for ca in cas_of(properties))
    found = [account async for account in AccountRecords(fleet.store).all() if not account.moved]
    return [
        AccountView(
            ca=account.ca,
            email=account.email,
            url=account.url,
            deactivated=account.deactivated,
            rolling=account.sealed_next is not None,
            apps=used[account.ca, account.email],
        )
        for account in sorted(found, key=lambda one: (one.ca, one.email))
    ]


async def roll_over(fleet: Fleet, email: str, ca: str | None) -> Account:
    """Give an account a new key. Raises UsageError, OwnerError, CAError, ConfigurationError."""
    async with _changes(fleet, await _ca_of(fleet, email, ca)) as changes:
        account = await changes.roll_over(email)
    await fleet.journal.write("", "account key changed", f"{account.email} at {account.ca}")
    return account


async def deactivate(fleet: Fleet, email: str, ca: str | None) -> Account:
    """End an account for ever. Raises UsageError, CAError, ConfigurationError."""
    async with _changes(fleet, await _ca_of(fleet, email, ca)) as changes:
        account = await changes.deactivate(email)
    await fleet.journal.write("", "account deactivated", f"{account.email} at {account.ca}")
    return account


async def take_over(fleet: Fleet, email: str, ca: str | None, key: AccountKey) -> tuple[Account, bool]:
    """Use an account that another client made, and whether it is new here. Raises as `roll_over`."""
    everywhere = effective({}, await fleet.inventory.properties())
    at = await _resolved(fleet, ca or first_ca(everywhere).directory)
    async with _changes(fleet, at) as changes:
        account, new = await changes.take_over(email, key)
    if new:
        await fleet.journal.write("", "account imported", f"{account.email} at {account.ca}")
    return account, new


async def register(fleet: Fleet, email: str, ca: str | None, *, agree_tos: bool) -> tuple[Account, bool]:
    """Make the account before its first order, and whether that is new here. Raises as `roll_over`, RateLimited.

    Its URL is what CAA records name (`accounturi`, RFC 8657). `agree_tos`: the operator's word on the CA's terms.
    """
    everywhere = effective({}, await fleet.inventory.properties())
    at = await _resolved(fleet, ca or first_ca(everywhere).directory)
    before = await known_account(fleet.store, at, email)
    async with _asking(fleet, at) as (accounts, _, transport):
        account, signer = await accounts.account_for(transport, email, agree_tos=agree_tos)
    new = before is None or before.url is None
    if new:
        await fleet.journal.write("", "account registered", f"{account.email} at {account.ca}: {signer.kid}")
    return account, new


async def change_email(fleet: Fleet, old: str, new: str, ca: str | None = None) -> list[Account]:
    """Give the accounts with this address another one, at every CA or one; orders under way go on.

    Raises as `roll_over`. Nothing is changed before every CA has answered for its account.

    The properties that name it are the caller's. Asked for again after a crash, it goes on where it was.
    """
    moved: list[Account] = []
    async with AsyncExitStack() as stack:
        desks = [
            (account, await stack.enter_async_context(_changes(fleet, await _resolved(fleet, account.ca))))
            for account in await _to_move(fleet, old, new, ca)
        ]
        for _, changes in desks:
            await changes.try_email(old, new)
        for account, changes in desks:
            moved.append(await changes.change_email(old, new))
            await _move_limits(fleet, account.id, moved[-1])
            await fleet.journal.write("", "account address changed", f"{old} is {new} at {account.ca}")
    return moved


async def _to_move(fleet: Fleet, old: str, new: str, ca: str | None) -> list[Account]:
    """The accounts with this address, at every CA or one, and those that moved from it to `new` already.

    Not those that no CA knows yet, and not those that were ended, unless nothing else is there: they have no contact
    to change, and whoever needs an account at their CA gets one with the new address. Raises UsageError.
    """
    at = None if ca is None else await _resolved(fleet, ca)
    found = [
        one
        async for one in AccountRecords(fleet.store).all()
        if one.email == old and one.moved in ("", new) and (at is None or one.id == account_id(at, old))
    ]
    known = [one for one in found if one.url is not None or one.moved]
    if not known:
        where = f" at {at.name}" if at is not None else ""
        raise UsageError("account", old, f"is none{where}: `certfleet account ls` shows every account")
    return [one for one in known if one.deactivated is None] or known


async def move_orders(fleet: Fleet, apps: list[App], old: str, new: str) -> None:
    """Let the live orders of these apps go on under the new address: the account is the same."""

    def change(order: Order) -> Order:
        return replace(order, email=new) if order.email == old else order

    for name, order in (await fleet.records.orders([app.name for app in apps])).items():
        if order.email == old:
            await change_order(fleet, name, change)


async def _move_limits(fleet: Fleet, before: str, account: Account) -> None:
    """What was set for the account holds on under its new name."""
    old = [told for told in await fleet.limits.all() if getattr(told, "account", None) == before]
    new: list[Told] = [told.model_copy(update={"account": account.id, "email": account.email}) for told in old]
    if old:
        await fleet.limits.change(new, [told.name for told in old])


async def _ca_of(fleet: Fleet, email: str, ca: str | None) -> CA:
    """The CA that is named, or the only one where there is such an account, registered. Raises UsageError."""
    if ca is not None:
        return await _resolved(fleet, ca)
    kept = [one async for one in AccountRecords(fleet.store).all() if one.email == email and not one.moved]
    found = [one.ca for one in kept if one.url is not None]
    if not found:
        raise UsageError("account", email, "is none: `certfleet account ls` shows every account")
    if len(found) > 1:
        raise UsageError("ca", None, f"{email} has accounts at {', '.join(sorted(found))}: name one with --ca")
    return await _resolved(fleet, found[0])


async def _resolved(fleet: Fleet, ca: str) -> CA:
    """A CA with the roots that the fleet trusts it by: those for all apps, or of an app that is set to it."""
    everywhere = await fleet.inventory.properties()
    at = resolve_ca(ca)
    if is_preset(ca):
        return at
    if bundle := effective({"ca": ca}, everywhere)["ca-bundle"]:
        return resolve_ca(ca, bundle=bundle)
    async for app in fleet.inventory.apps():
        properties = effective(app.properties, everywhere)
        for trusted in cas_of(properties):
            if trusted.bundle and trusted.directory == at.directory:
                return trusted
    return at


@asynccontextmanager
async def _asking(fleet: Fleet, ca: CA) -> AsyncIterator[tuple[Accounts, Vault, Transport]]:
    """A connection to the CA that keeps to its limits as every worker does. Raises ConfigurationError."""
    # Late: 250 ms of HTTP client that most commands do without.
    from certfleet.acme_ca.accounts import Accounts  # noqa: PLC0415
    from certfleet.acme_ca.transport import Transport  # noqa: PLC0415

    settings = fleet.settings
    ensure_key(settings)
    vault, buckets = Vault(settings), Buckets(fleet.store)
    accounts = Accounts(fleet.store, vault, Registrations(buckets, fleet.limits, settings.egress_address))
    turnstile = SharedTurnstile(buckets, fleet.limits, ca, settings.egress_address)
    async with Transport(ca, nameservers=settings.nameservers, turnstile=turnstile) as transport:
        yield accounts, vault, transport


@asynccontextmanager
async def _changes(fleet: Fleet, ca: CA) -> AsyncIterator[AccountChanges]:
    from certfleet.acme_ca.account_changes import AccountChanges  # noqa: PLC0415  late as above

    async with _asking(fleet, ca) as (accounts, vault, transport):
        yield AccountChanges(accounts, vault, transport)
