"""Requests about what the CA and DNS know us by: accounts, external accounts, DNS credentials."""

from __future__ import annotations

from collections.abc import Mapping

from certfleet.acme_ca.account_files import read_account_key
from certfleet.acme_ca.presets import resolve_ca
from certfleet.ca_list import cas_of, first_ca
from certfleet.client.apps import AppRequests
from certfleet.client.desk import Done
from certfleet.errors import UsageError
from certfleet.lifecycle import accounts
from certfleet.lifecycle.accounts import AccountView
from certfleet.lifecycle.challenges.dns_credentials import (
    DNSCredentials,
    forget_credentials,
    keep_credentials,
    list_credentials,
)
from certfleet.lifecycle.external import Bound, Offer, account_of, checked, every, find, forget, keep, offer
from certfleet.models import CA
from certfleet.properties import check_property, effective


class CredentialRequests(AppRequests):
    """Accounts at CAs, what they were made with, and what DNS providers are given."""

    async def accounts(self) -> list[AccountView]:
        """Every ACME account, by CA and e-mail address."""
        return await accounts.accounts(self._fleet)

    async def roll_over_account(self, email: str, ca: str | None = None) -> Done:
        """Give an account a new key, in this process. Raises UsageError, OwnerError, CAError, ConfigurationError.

        `ca` may be left out where only one CA has an account with this address.
        """
        account = await accounts.roll_over(self._fleet, email, ca)
        return Done(changed=True, sentence=f"{account.email} at {account.ca}: has a new key")

    async def register_account(
        self, email: str | None = None, ca: str | None = None, *, agree_tos: bool = False
    ) -> Done:
        """Make an account before its first order, in this process, as a CAA record needs to name it. Raises as above.

        `email`, `ca`: None: those set for all apps. `agree_tos`: the operator's word on this CA's terms of service,
        besides the property.
        """
        properties = await self.properties()
        address = properties["email"] if email is None else check_property("email", email)
        if not address:
            raise UsageError("email", None, "is not set for all apps: give one such as ops@example.com")
        agreed = agree_tos or properties["agree-tos"] == "on"
        account, new = await accounts.register(self._fleet, address, ca, agree_tos=agreed)
        told = f"{account.email} at {account.ca}: the account {account.url}"
        return Done(changed=new, sentence=told + (" is registered" if new else " was registered before"))

    async def change_account_email(self, old: str, new: str, ca: str | None = None) -> Done:
        """Give the accounts with an address another one, at every CA; properties that say `old` follow.

        `ca`: at this one only. Its apps get the property themselves then, the one for all apps stays as it is. Raises
        as `roll_over_account`.
        """
        new = check_property("email", new)  # `old` is looked for as it is: it may be one that was kept before a check
        if old == new:
            return Done(changed=False, sentence=f"{old}: is the address already")
        moved = await accounts.change_email(self._fleet, old, new, ca)
        everywhere = await self._fleet.inventory.properties()
        for_all = everywhere.get("email") == old
        followed = 0
        async for page in self._pages():
            values = {app.name: effective(app.properties, everywhere) for app in page}
            apps = [app for app in page if values[app.name]["email"] == old]
            if ca is not None:
                apps = [app for app in apps if _is_asked(values[app.name], resolve_ca(ca))]
            await accounts.move_orders(self._fleet, apps, old, new)
            for app in apps:
                if ca is not None or app.properties.get("email"):
                    await self.set_properties({"email": new}, app.name)
            followed += len(apps)
        if for_all and ca is None:
            await self.set_properties({"email": new})
        at = ", ".join(account.ca for account in moved)
        stays = f"; the one for all apps is {old} still" if for_all and ca is not None else ""
        return Done(changed=True, sentence=f"{old} is {new} now at {at}; {followed} apps follow{stays}")

    async def deactivate_account(self, email: str, ca: str | None = None) -> Done:
        """End an account for ever; apps that use it fail until they have another one. Raises as above."""
        account = await accounts.deactivate(self._fleet, email, ca)
        return Done(changed=True, sentence=f"{account.email} at {account.ca}: deactivated, for ever")

    async def import_account(self, content: bytes, email: str, ca: str | None = None) -> Done:
        """Use the account whose key is in this file of certbot's, lego's or acme.sh's. Raises as above.

        `ca`: None is the one that is set for all apps.
        """
        email = check_property("email", email)
        if not email:
            raise UsageError("email", None, "which address is it to be used for? Give one such as ops@example.com")
        account, new = await accounts.take_over(self._fleet, email, ca, read_account_key(content))
        told = f"{account.email} at {account.ca}: the account {account.url}"
        return Done(changed=new, sentence=told + (" is used from now on" if new else " is used already"))

    async def bind_account(self, kid: str, key: str, *, ca: str | None = None, email: str | None = None) -> Done:
        """Keep what a CA gave to make an account with (external account binding, RFC 8555 §7.3.4).

        `key` is its MAC key in base64url; it is sealed, never shown. `ca`, `email`: None: those set for all apps. Apps
        of that account try again now. Raises UsageError, ConfigurationError.
        """
        at, account = account_of(await self.properties() | checked(ca, email))
        await keep(self._fleet, at, account, kid, key)
        await self._fleet.journal.write("", "external account set", f"{at.name} {account}: {kid}")
        async for page in self._pages():
            everywhere = await self._fleet.inventory.properties()
            values = [(app, effective(app.properties, everywhere)) for app in page]
            await self._look_again([app for app, own in values if own["email"] == account and _is_asked(own, at)])
        return Done(changed=True, sentence=f"{at.name} {account}: kept; it is used when the account is made")

    async def unbind_account(self, *, ca: str | None = None, email: str | None = None) -> Done:
        """Forget what a CA gave; an account that was made with it stays. Raises UsageError."""
        at, account = account_of(await self.properties() | checked(ca, email))
        if not await forget(self._fleet, at, account):
            return Done(changed=False, sentence=f"{at.name} {account}: there is none")
        await self._fleet.journal.write("", "external account removed", f"{at.name} {account}")
        return Done(changed=True, sentence=f"{at.name} {account}: forgotten; an account made with it stays")

    async def bound_accounts(self, app: str | None = None) -> list[Bound]:
        """Every external account, or those of an app's CAs and e-mail; never a key. Raises UnknownName."""
        if app is None:
            return await every(self._fleet)
        properties = await self.properties(app)
        found = [await find(self._fleet, ca, properties["email"]) for ca in cas_of(properties)]
        return [one for one in found if one is not None]

    async def offer(self, *, ca: str | None = None, app: str | None = None) -> Offer:
        """What a CA offers, asked from here: an app's, or that of all apps, of a list the first. Raises CAError."""
        properties = await self.properties(app) | checked(ca, None)
        return await offer(self._fleet, first_ca(properties))

    async def set_dns(self, name: str, provider: str, values: Mapping[str, str]) -> Done:
        """Keep what a DNS provider has to be given, sealed, under a name for the property `dns`.

        Orders that failed with the values before are tried again now. Raises UsageError, which shows no secret, and
        ConfigurationError without the vault's key.
        """
        apps = await keep_credentials(self._fleet, name, provider, values)
        await self._look_again(apps)
        told = (
            f"; {len(apps)} apps use it" if apps else f"; `certfleet set --app APP challenge=dns-01 dns={name}` uses it"
        )
        return Done(changed=True, sentence=f"{name}: the credentials for {provider} are kept{told}")

    async def remove_dns(self, name: str) -> Done:
        """Forget credentials. Raises UnknownName, and UsageError while an app or a written record needs them."""
        await forget_credentials(self._fleet, name)
        return Done(changed=True, sentence=f"{name}: the credentials are forgotten")

    async def dns(self) -> list[DNSCredentials]:
        """The credentials by name, without their values."""
        return await list_credentials(self._fleet)


def _is_asked(properties: Mapping[str, str], ca: CA) -> bool:
    return any(one.directory == ca.directory for one in cas_of(properties))
