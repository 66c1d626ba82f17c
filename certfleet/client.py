"""What other programs import to ask things of the fleet; the command line is made of it.

    async with open_client() as client:
        await client.add_app("blog", ["blog.example.com"], ["web1"], {"email": "ops@example.com"})
        await client.enable("blog")
        await client.wait(["blog"], timeout=60)

Every method checks what it is given and raises UsageError with one sentence before anything is changed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from certfleet.acme_ca.account_files import read_account_key
from certfleet.acme_ca.presets import presets, resolve_ca
from certfleet.acme_ca.revoking import Reason
from certfleet.errors import UsageError
from certfleet.hint import send_hint
from certfleet.identifiers import normalise_all
from certfleet.install.login import parse_login
from certfleet.install.servers import check_server
from certfleet.inventory import check_address, check_name
from certfleet.journal import Entry
from certfleet.lifecycle import accounts
from certfleet.lifecycle.accounts import AccountView
from certfleet.lifecycle.dns_credentials import DNSCredentials, forget_credentials, keep_credentials, list_credentials
from certfleet.lifecycle.errands import CLEANUP, app_of, removal
from certfleet.lifecycle.estimate import Estimate
from certfleet.lifecycle.external import Bound, Offer, account_of, checked, every, find, forget, keep, offer
from certfleet.lifecycle.fleet import Fleet, open_fleet
from certfleet.lifecycle.forecast import estimate
from certfleet.lifecycle.limiting import Publication, Rule, rules, set_limits
from certfleet.lifecycle.ordering import LONG_AGO, change_order, forgiven, hurried, make_order
from certfleet.lifecycle.publishing import forget_host
from certfleet.lifecycle.records import check_member, host_member, order_member
from certfleet.lifecycle.replacing import Progress, Selection, begin, progress, select
from certfleet.lifecycle.revocation import COMPROMISED, ask_revocation
from certfleet.lifecycle.revocations import Revocation
from certfleet.lifecycle.whatif import what_if
from certfleet.limits.line import Lines
from certfleet.limits.view import BucketInUse, buckets_in_use
from certfleet.models import App, Host, Installation, utcnow
from certfleet.overview import Overview, State, overview, standing
from certfleet.plan import Planned
from certfleet.properties import check_property, effective, require_usable
from certfleet.settings import Settings, load_settings

if TYPE_CHECKING:
    from certfleet.install.answer import Point
    from certfleet.install.pinning import Approve
    from certfleet.lifecycle.doctor import Finding

PATIENCE = 3.0  # seconds that a person waits for Redis: a restart takes a second or two
LOOK = 0.05  # seconds between two looks of `wait`
PAGE = 500  # apps put together at once
AT_ONCE = 50  # questions to Redis under way; below the store's connections
HINTED = 100  # members that workers are told of at once; a tick finds more within a second


@dataclass(frozen=True, slots=True)
class Done:
    """What a request did: `changed` is False when there was nothing to do; the sentence says why."""

    changed: bool
    sentence: str


class Client:
    """The fleet, seen from outside."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    # --- hosts -------------------------------------------------------------------------------------

    async def add_host(self, host: Host) -> None:
        """Add a host. Raises UsageError."""
        check_name("host", host.name)
        if host.zone is not None:
            check_name("zone", host.zone)
        # It becomes a line of the web server's configuration: nothing that means something there.
        if not re.fullmatch(r"/[A-Za-z0-9._/@+-]*", host.root) or ".." in host.root.split("/"):
            wanted = "is not an absolute path of letters, digits and . _ - + @: give one such as /var/lib/certificates"
            raise UsageError("root", host.root, wanted)
        check_address(host.address)
        check_server(host)
        if host.driver != "local":
            for login in (*(hop.login for hop in host.jump), host.login):
                parse_login(login)
            if not all((*(hop.host_keys for hop in host.jump), host.host_keys)):
                raise UsageError("host key", None, f"{host.login} has to be pinned, so that nobody can pose as it")
        await self._fleet.inventory.add_host(host)
        await self._fleet.journal.write(host.name, "host added", f"driver {host.driver}, preset {host.preset}")

    async def pin(self, host: Host, approve: Approve) -> Host:
        """The host with the keys that it and its jump hosts show to this machine, each approved (install/pinning.py).

        Raises UsageError, HostUnreachable.
        """
        from certfleet.install.pinning import pin  # noqa: PLC0415  170 ms of asyncssh that a quick `ls` does not need

        return await pin(host, approve)

    async def trust_host(self, name: str, approve: Approve) -> Done:
        """Pin the keys that a host shows now, and try again what failed there. Raises UsageError, HostUnreachable."""
        before = await self.host(name)
        if before.driver == "local":
            raise UsageError("host", name, "is this machine, it has no host key")
        host = await self.pin(before, approve)
        if host == before:
            return Done(changed=False, sentence=f"{name}: shows the key that is pinned already")
        await self._fleet.inventory.save_host(host, before)
        await self._fleet.journal.write(name, "host key pinned", host.login)
        await self._host_mended(name)
        return Done(changed=True, sentence=f"{name}: the host key is pinned")

    async def set_up_host(self, name: str, *, user: str | None = None, by: str | None = None) -> Host:
        """Put the receiver on a host, with its configuration and the key that may run it and nothing else.

        `user` runs it there, and is made when there is none (None: who the fleet logs in as). `by`, user or
        user@host[:port], is who does this, with this machine's SSH agent, keys and configuration (None: the same).
        Raises UsageError, InstallError, ConfigurationError.
        """
        from certfleet.lifecycle.hosts import set_up_host  # noqa: PLC0415  late as above

        host = await self.host(name)
        if host.driver != "ssh":
            key = f"; `certfleet host key | ssh root@{host.address} dokku ssh-keys:add certfleet` lets certfleet in"
            wanted = f"has the driver {host.driver}: there is nothing to set up on it"
            raise UsageError("host", name, wanted + key * (host.driver == "dokku"))
        login = parse_login(host.login)
        if user is not None and not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user):
            raise UsageError("user", user, "is not a user's name: give one such as certfleet")
        by = by or host.login
        admin = by if "@" in by else str(replace(login, user=by))
        parse_login(admin, "as")
        ready = await set_up_host(self._fleet, host, user=user or login.user, by=admin)
        await self._host_mended(name)
        return ready

    async def _host_mended(self, name: str) -> None:
        """Somebody has done something about a host: no back-off is waited for."""
        apps = await self._fleet.inventory.find_apps(await self._fleet.inventory.hosted(name))
        await self._look_again(list(apps.values()))
        await self._visit([name])

    async def check_host(self, name: str, *, reload: bool = False) -> list[Point]:
        """What works on a host, point by point. Raises UnknownName, InstallError, ConfigurationError.

        With `reload` its web server is reloaded, the only proof that it may be. This asks from here: for a host in a
        zone, on a machine of that zone.
        """
        from certfleet.lifecycle.hosts import check_host  # noqa: PLC0415  late as above

        return await check_host(self._fleet, await self.host(name), reload=reload)

    async def installer_key(self) -> str:
        """The fleet's public SSH key, as a line of authorized_keys; made on first use. Raises ConfigurationError."""
        from certfleet.lifecycle.hosts import installer_key  # noqa: PLC0415  late as above

        return await installer_key(self._fleet)

    async def remove_host(self, name: str) -> None:
        """Forget a host that serves no app; its files stay. Raises UsageError."""
        await self._fleet.inventory.remove_host(name)
        await forget_host(self._fleet, name)
        await self._fleet.agenda.drop(host_member(name))
        for errand in await self._fleet.errands.forget(name):
            app = app_of(errand)
            if app is not None:
                await self._fleet.journal.write(app, "given up", f"{errand}: {name}: the host was removed")
        await self._fleet.journal.write(name, "host removed")

    async def hosts(self) -> list[Host]:
        """Every host by name."""
        return await self._fleet.inventory.hosts()

    async def host(self, name: str) -> Host:
        """One host. Raises UnknownName."""
        return await self._fleet.inventory.host(name)

    async def clean_up(self, names: Sequence[str] = ()) -> list[Done]:
        """Have old generations removed from the named hosts (none named: all). Raises UnknownName."""
        hosts = [await self.host(name) for name in names] if names else await self.hosts()
        await self._errand([host.name for host in hosts], CLEANUP)
        return [Done(changed=True, sentence=f"{host.name}: is being cleaned up") for host in hosts]

    async def _errand(self, hosts: Sequence[str], errand: str) -> None:
        """Have something done on hosts, as soon as each can be reached."""
        for host in hosts:
            await self._fleet.errands.ask(host, errand)
        await self._visit(hosts)

    async def _visit(self, hosts: Sequence[str]) -> None:
        """Put hosts on the agenda as due. No hint: the next tick knows which zone's workers reach each."""
        for host in hosts:
            await self._fleet.agenda.schedule(host_member(host), LONG_AGO)

    # --- apps --------------------------------------------------------------------------------------

    async def add_app(
        self, name: str, domains: Sequence[str], hosts: Sequence[str], properties: Mapping[str, str] | None = None
    ) -> App:
        """Add an app, not enabled yet. Raises UsageError."""
        check_name("app", name)
        names = normalise_all(domains)
        app = App(
            name=name,
            identifiers=tuple(names),
            shown=tuple(names.values()),
            hosts=tuple(dict.fromkeys(hosts)),
            properties={key: check_property(key, value) for key, value in (properties or {}).items()},
        )
        await self._acceptable(app)
        await self._fleet.inventory.add_app(app)
        await self._fleet.journal.write(name, "added", ", ".join(app.shown))
        return app

    async def change_app(
        self, name: str, *, domains: Sequence[str] | None = None, hosts: Sequence[str] | None = None
    ) -> Done:
        """Replace an app's names or hosts; an enabled one gets a certificate for the new names. Raises UsageError."""
        before = await self._fleet.inventory.app(name)
        app = before
        if domains is not None:
            names = normalise_all(domains)
            app = replace(app, identifiers=tuple(names), shown=tuple(names.values()))
        if hosts is not None:
            app = replace(app, hosts=tuple(dict.fromkeys(hosts)))
        if app == before:
            return Done(changed=False, sentence=f"{name}: nothing to change, it is like that already")
        await self._acceptable(app)
        await self._fleet.inventory.save_app(app, before)
        await self._fleet.journal.write(name, "changed", f"{', '.join(app.shown)} on {', '.join(app.hosts)}")
        await self._look_again([app])
        return Done(changed=True, sentence=f"{name}: changed")

    async def remove_app(self, name: str, *, purge: bool = False) -> Done:
        """Forget an app and its certificate. Raises UnknownName.

        Its files on hosts stay and are served on; with `purge` they are taken away, from a host that is down as soon
        as it can be reached.
        """
        app = await self._fleet.inventory.app(name)
        files = "its files stay on its hosts"
        if purge:
            # First: what is wanted on a host is not taken away, and nothing remembers it once the app is gone.
            await self.disable(name)
            files = await self._purged(app)
        await self._fleet.inventory.remove_app(app)
        for member in (check_member(name), order_member(name)):
            await self._fleet.agenda.drop(member)
        await self._fleet.rooms.leave(name)
        await self._fleet.records.forget_app(app)
        await self._fleet.journal.write(name, "removed")
        return Done(changed=True, sentence=f"{name}: removed; {files}")

    async def _purged(self, app: App) -> str:
        """Have the files of an app that is not enabled taken away from its hosts; what is done, in words."""
        await self._errand(app.hosts, removal(app.name))
        await self._fleet.journal.write(app.name, "purge asked", ", ".join(app.hosts))
        return f"its files are being taken away from {', '.join(app.hosts)}"

    async def apps(self) -> list[App]:
        """Every app by name."""
        return [app async for app in self._fleet.inventory.apps()]

    async def app(self, name: str) -> App:
        """One app. Raises UnknownName."""
        return await self._fleet.inventory.app(name)

    async def _acceptable(self, app: App) -> None:
        """Raises UsageError for what no CA or host could make good."""
        known = {host.name for host in await self._fleet.inventory.hosts()}
        for host in app.hosts:
            if host not in known:
                raise UsageError("host", host, f"is not known: `certfleet host add {host}` first")
        values = effective(app.properties, await self._fleet.inventory.properties())
        require_usable(app, values)
        if values["dns"]:
            await self._fleet.dns.get(values["dns"])

    # --- properties --------------------------------------------------------------------------------

    async def set_property(self, name: str, value: str, app: str | None = None) -> None:
        """Set one property, as `set_properties` does."""
        await self.set_properties({name: value}, app)

    async def set_properties(self, values: Mapping[str, str], app: str | None = None) -> int:
        """Set properties on an app or globally, all or none; an empty value takes one away. Raises UsageError.

        The answer: how many enabled apps this is for; they are looked at now.
        """
        kept = {name: check_property(name, value) for name, value in values.items()}
        if app is None:
            return await self._set_for_all(kept)
        before = await self._fleet.inventory.app(app)
        properties = before.properties | kept
        changed = replace(before, properties={name: value for name, value in properties.items() if value})
        if changed == before:
            return 0
        await self._acceptable(changed)
        await self._fleet.inventory.save_app(changed, before)
        await self._fleet.journal.write(app, "property set", ", ".join(values))
        return await self._look_again([changed])

    async def _set_for_all(self, kept: dict[str, str]) -> int:
        """Globally: refused when an enabled app could not go on with it."""
        before = await self._fleet.inventory.properties()
        if all(before.get(name, "") == value for name, value in kept.items()):
            return 0
        if kept.get("dns"):
            await self._fleet.dns.get(kept["dns"])
        after = before | kept
        async for app in self._fleet.inventory.apps():
            if app.enabled and not kept.keys() <= app.properties.keys():
                _go_on(app, after)
        await self._fleet.inventory.set_properties(kept)
        await self._fleet.journal.write("", "property set", ", ".join(kept))
        count = 0
        async for page in self._pages():
            count += await self._look_again([app for app in page if not kept.keys() <= app.properties.keys()])
        return count

    async def properties(self, app: str | None = None) -> dict[str, str]:
        """Every property's value, as it holds for an app or globally. Raises UnknownName."""
        own = (await self._fleet.inventory.app(app)).properties if app else {}
        return effective(own, await self._fleet.inventory.properties())

    # --- external accounts, profiles ---------------------------------------------------------------

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
            await self._look_again(
                [app for app, own in values if own["email"] == account and _directory(own) == at.directory]
            )
        return Done(changed=True, sentence=f"{at.name} {account}: kept; it is used when the account is made")

    async def unbind_account(self, *, ca: str | None = None, email: str | None = None) -> Done:
        """Forget what a CA gave; an account that was made with it stays. Raises UsageError."""
        at, account = account_of(await self.properties() | checked(ca, email))
        if not await forget(self._fleet, at, account):
            return Done(changed=False, sentence=f"{at.name} {account}: there is none")
        await self._fleet.journal.write("", "external account removed", f"{at.name} {account}")
        return Done(changed=True, sentence=f"{at.name} {account}: forgotten; an account made with it stays")

    async def bound_accounts(self, app: str | None = None) -> list[Bound]:
        """Every external account, or the one of an app's CA and e-mail; never a key. Raises UnknownName."""
        if app is None:
            return await every(self._fleet)
        properties = await self.properties(app)
        found = await find(self._fleet, *account_of(properties)) if properties["email"] else None
        return [found] if found else []

    async def offer(self, *, ca: str | None = None, app: str | None = None) -> Offer:
        """What a CA offers (an app's; neither: the one set for all apps), asked from here. Raises CAError."""
        properties = await self.properties(app) | checked(ca, None)
        return await offer(self._fleet, resolve_ca(properties["ca"], bundle=properties["ca-bundle"] or None))

    # --- DNS ---------------------------------------------------------------------------------------

    async def set_dns(self, name: str, provider: str, values: Mapping[str, str]) -> Done:
        """Keep what a DNS provider has to be given, sealed, under a name for the property `dns`.

        Orders that failed with the values before are tried again now. Raises UsageError, which shows no value, and
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

    # --- limits ------------------------------------------------------------------------------------

    async def set_limits(
        self, values: Mapping[str, str], *, ca: str | None = None, account: str | None = None, domain: str | None = None
    ) -> Done:
        """Set limits of a CA, all or none; an empty value takes one away. Raises UsageError.

        `ca`: name or directory; None: the one that is set for all apps. `account` (its e-mail address) or `domain`:
        for that one alone.
        """
        at, changed = await set_limits(self._fleet, values, ca=ca, account=account, domain=domain)
        if changed:
            await self._fleet.rooms.open_all(utcnow())
        return Done(changed=changed, sentence=f"{at.name}: " + ("set" if changed else "it is like that already"))

    async def buckets(self) -> list[BucketInUse]:
        """The CA's limits as they stand: each bucket that is not full, or that somebody waits for."""
        directories = {name: preset.directory for name, preset in presets().items()}
        return await buckets_in_use(self._fleet.store, self._fleet.limits, directories)

    async def limits(self, ca: str | None = None) -> tuple[Publication, list[Rule]]:
        """The limits that hold at a CA, and where they come from. Raises UsageError."""
        return await rules(self._fleet, ca)

    # --- certificates ------------------------------------------------------------------------------

    async def enable(self, name: str, *, urgent: bool = False, agree_tos: bool = False) -> Done:
        """Take care of an app from now on. Idempotent. Raises UsageError before anything is touched.

        `urgent`: its first certificate goes before every other order that waits for a limit of the CA's. `agree_tos`:
        the property agree-tos of this app is on from now on.
        """
        if agree_tos:
            await self.set_property("agree-tos", "on", name)
        app = await self._fleet.inventory.app(name)
        await self._acceptable(app)
        if app.enabled:
            return Done(
                changed=False, sentence=f"{name}: is enabled already; {standing((await self._views([app]))[0])}"
            )
        await self._fleet.inventory.save_app(replace(app, enabled=True), app)
        await self._fleet.journal.write(name, "enabled")
        for host in app.hosts:
            await self._fleet.errands.withdraw(host, removal(name))
        if urgent and await self._fleet.records.certificate(name) is None:
            await self._order_now(app, "first issue", urgent=True)
        await self._look_again([replace(app, enabled=True)])
        return Done(changed=True, sentence=f"{name}: enabled, the certificate is being ordered")

    async def disable(self, name: str, *, purge: bool = False) -> Done:
        """Leave an app alone from now on. Raises UnknownName.

        Its certificate stays where it is; with `purge` it is taken away from its hosts, also of one that was disabled
        before.
        """
        app = await self._fleet.inventory.app(name)
        if not app.enabled:
            files = f"; {await self._purged(app)}" if purge else ""
            return Done(changed=purge, sentence=f"{name}: is not enabled{files}")
        await self._fleet.inventory.save_app(replace(app, enabled=False), app)
        await self._fleet.agenda.drop(check_member(name))
        if await self._fleet.records.order(name) is not None:
            await self._due("order", [name])  # the machine gives it up as soon as it sees that nobody wants it
        await self._fleet.journal.write(name, "disabled")
        if purge:
            return Done(changed=True, sentence=f"{name}: disabled; {await self._purged(app)}")
        return Done(changed=True, sentence=f"{name}: disabled; its certificate stays installed and is not renewed")

    async def renew(self, names: Sequence[str], *, force: bool = False, urgent: bool = False) -> list[Done]:
        """Look at apps now (none named: all); with `force`, order even what is not due. Raises UnknownName.

        `urgent`: the order that there is goes before every other one that waits for a limit of the CA's.
        """
        answers: list[Done] = []
        async for page in self._pages(names):
            asked = page if names else [app for app in page if app.enabled]
            stands = {app.name: standing(view) for app, view in zip(asked, await self._views(asked), strict=True)}
            for app in asked:
                if not app.enabled:
                    sentence = f"{app.name}: is not enabled: `certfleet enable {app.name}`"
                elif force:
                    await self._order_now(app, "forced", urgent=urgent)
                    sentence = f"{app.name}: a new certificate is being ordered"
                else:
                    sentence = f"{app.name}: is being looked at; {stands[app.name]}"
                answers.append(Done(changed=app.enabled, sentence=sentence))
            if urgent:
                for app in asked:
                    await change_order(self._fleet, app.name, hurried)
            if names:  # a person who names an app has mended something: no back-off is waited for
                await self._look_at_hosts(asked)
                await self._fleet.records.ask_for_renewal([app.name for app in asked if app.enabled], utcnow())
                await self._look_again(asked)
            else:
                await self._due("check", [app.name for app in asked])
        return answers

    # --- revocation --------------------------------------------------------------------------------

    async def revoke(self, name: str, *, reason: str = Reason.UNSPECIFIED, compromised: bool = False) -> Done:
        """Have an app's certificate revoked by a worker; an enabled app gets another one. Raises UsageError.

        `reason` is one of acme_ca.revoking.Reason. `compromised`: another one with a new key is brought to every host
        first, and this one is revoked with keyCompromise then.
        """
        if reason not in list(Reason):
            raise UsageError("reason", reason, f"is not one of {', '.join(Reason)}")
        why = Reason.KEY_COMPROMISE if compromised else Reason(reason)
        app = await self._fleet.inventory.app(name)
        await ask_revocation(self._fleet, app, why, after=compromised, withdrawn=COMPROMISED if compromised else "")
        if compromised:
            await change_order(self._fleet, name, lambda order: hurried(forgiven(order)))
            await self._due("check", [name])
        await self._due("revoke", [name])
        then = "when every host serves another one, with a new key" if compromised else "now"
        more = "; another one is ordered" if app.enabled else ""
        return Done(changed=True, sentence=f"{name}: its certificate is being revoked ({why}), {then}{more}")

    async def revocations(self, name: str) -> list[Revocation]:
        """What is still to be revoked of an app's certificates, and what it waits for. Raises UnknownName."""
        await self._fleet.inventory.app(name)
        return await self._fleet.revocations.of(name)

    async def select(self, wanted: Selection) -> list[str]:
        """The enabled apps whose present certificate is one of these (lifecycle/replacing.py), by name."""
        return [app.name for app, _ in await select(self._fleet, wanted)]

    async def replace(self, wanted: Selection, *, revoke: str | None = None) -> Progress:
        """Replace these certificates, and revoke each afterwards for a reason (None: not). May be asked for again.

        Raises UsageError.
        """
        if revoke is not None and revoke not in list(Reason):
            raise UsageError("reason", revoke, f"is not one of {', '.join(Reason)}")
        chosen = await select(self._fleet, wanted)
        await begin(self._fleet, chosen, None if revoke is None else Reason(revoke))
        await self._due("check", [app.name for app, _ in chosen])
        return await progress(self._fleet)

    async def replacement(self) -> Progress:
        """How far what `replace` was asked for has come."""
        return await progress(self._fleet)

    async def forecast_replacement(self, wanted: Selection) -> Estimate:
        """When the CA's limits will have let all of these be replaced, if it was asked for now. Raises UsageError."""
        chosen = [app for app, _ in await select(self._fleet, wanted)]
        return await estimate(self._fleet, what_if(), replaced=chosen)

    # --- accounts ----------------------------------------------------------------------------------

    async def accounts(self) -> list[AccountView]:
        """Every ACME account, by CA and e-mail address."""
        return await accounts.accounts(self._fleet)

    async def roll_over_account(self, email: str, ca: str | None = None) -> Done:
        """Give an account a new key, in this process. Raises UsageError, OwnerError, CAError, ConfigurationError.

        `ca` may be left out where only one CA has an account with this address.
        """
        account = await accounts.roll_over(self._fleet, email, ca)
        return Done(changed=True, sentence=f"{account.email} at {account.ca}: has a new key")

    async def change_account_email(self, old: str, new: str) -> Done:
        """Give the accounts with an address another one, at every CA; properties that say `old` follow.

        Raises as `roll_over_account`.
        """
        old, new = check_property("email", old), check_property("email", new)
        if old == new:
            return Done(changed=False, sentence=f"{old}: is the address already")
        moved = await accounts.change_email(self._fleet, old, new)
        everywhere = (await self._fleet.inventory.properties()).get("email") == old
        followed = 0
        async for page in self._pages():
            mine = [app for app in page if app.properties.get("email") == old]
            apps = [app for app in page if app in mine or (everywhere and not app.properties.get("email"))]
            await accounts.move_orders(self._fleet, apps, old, new)
            for app in mine:
                await self.set_properties({"email": new}, app.name)
            followed += len(apps)
        if everywhere:
            await self.set_properties({"email": new})
        at = ", ".join(account.ca for account in moved)
        return Done(changed=True, sentence=f"{old} is {new} now at {at}; {followed} apps follow")

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

    # --- what the above share ----------------------------------------------------------------------

    async def _look_again(self, apps: Sequence[App]) -> int:
        """Check the enabled ones of these apps now, and try now what failed; how many these are."""
        names = [app.name for app in apps if app.enabled]
        orders = await self._fleet.records.orders(names)
        for installations in (await self._fleet.records.installations_of(names)).values():
            for installation in installations.values():
                if installation.retry_at is not None:
                    await self._fleet.records.want(replace(installation, retry_at=None, error=None, fault=None))
        for name in orders:
            await change_order(self._fleet, name, forgiven)
        await self._due("check", names)
        await self._due("order", list(orders))
        return len(names)

    async def _look_at_hosts(self, apps: Sequence[App]) -> None:
        """Ask the endpoints of these apps with the next check, and their hosts what is current there, now."""
        names = [app.name for app in apps if app.enabled]
        for installations in (await self._fleet.records.installations_of(names)).values():
            for installation in installations.values():
                if installation.asked is not None:
                    await self._fleet.records.note(replace(installation, asked=None))
        hosts = list(dict.fromkeys(host for app in apps if app.enabled for host in app.hosts))
        await self._fleet.records.audit_now(hosts)
        await self._visit(hosts)

    async def _order_now(self, app: App, reason: str, *, urgent: bool) -> None:
        properties = effective(app.properties, await self._fleet.inventory.properties())
        await make_order(self._fleet, app, properties, reason, utcnow(), urgent=urgent)

    async def _due(self, kind: str, names: Sequence[str]) -> None:
        """Put members on the agenda as due, and send workers a hint so that nobody waits for the next tick."""
        for start in range(0, len(names), AT_ONCE):
            members = [f"{kind}:{name}" for name in names[start : start + AT_ONCE]]
            await asyncio.gather(*(self._fleet.agenda.schedule(member, LONG_AGO) for member in members))
        if 0 < len(names) <= HINTED:
            await asyncio.to_thread(send_hint, self._fleet.settings, kind, list(names))

    # --- looking -----------------------------------------------------------------------------------

    async def overviews(self, names: Sequence[str] = ()) -> AsyncIterator[Overview]:
        """The named apps, or all by name. Raises UnknownName."""
        lines = Lines(self._fleet.store)
        async for page in self._pages(names):
            for view in await self._views(page, lines):
                yield view

    async def _pages(self, names: Sequence[str] = ()) -> AsyncIterator[list[App]]:
        """The named apps at once, or all by name, a page at a time. Raises UnknownName."""
        page: list[App] = [await self._fleet.inventory.app(name) for name in names]
        if not names:
            async for app in self._fleet.inventory.apps():
                page.append(app)
                if len(page) == PAGE:
                    yield page
                    page = []
        if page:
            yield page

    async def _views(self, apps: Sequence[App], lines: Lines | None = None) -> list[Overview]:
        """How these apps are; `lines` are waiting rooms that were read for a page before."""
        names = [app.name for app in apps]
        everywhere = await self._fleet.inventory.properties()
        certificates = await self._fleet.records.certificates(names)
        orders = await self._fleet.records.orders(names)
        renewals = await self._fleet.records.renewals(names)
        installations = await self._fleet.records.installations_of(names)
        places = await (lines or Lines(self._fleet.store)).places(list(orders))
        return [
            overview(
                app,
                effective(app.properties, everywhere),
                certificates.get(app.name),
                orders.get(app.name),
                installations[app.name],
                place=places.get(app.name),
                told=renewals.get(app.name),
            )
            for app in apps
        ]

    async def installations(self, name: str) -> list[Installation]:
        """What is wanted, installed and served on each host of an app. Raises UnknownName."""
        app = await self._fleet.inventory.app(name)
        known = await self._fleet.records.installations(name)
        return [known.get(host, Installation(name, host)) for host in app.hosts]

    async def doctor(self, name: str) -> list[Finding]:
        """What is in the way of an app's certificate, point by point; nothing is ordered.

        Asks from here, which needs the vault's key. Raises UnknownName, ConfigurationError.
        """
        from certfleet.lifecycle.doctor import diagnose  # noqa: PLC0415  late as above

        return await diagnose(self._fleet, await self.app(name))

    async def history(self, name: str) -> list[Entry]:
        """The newest entries of an app's journal, oldest first."""
        return await self._fleet.journal.latest(name)

    async def forecast(
        self,
        plan: Sequence[Planned] | None = None,
        *,
        ca: str | None = None,
        email: str | None = None,
        limits: Mapping[str, str] | None = None,
        lifetime: str | None = None,
        names_per_certificate: int | None = None,
    ) -> Estimate:
        """When the apps of a plan (plan.read_plan) would be done; without one, the orders that wait now.

        The rest is what if: the CA and e-mail of planned apps that name none, other rates of limits, another lifetime
        (45d), up to so many names of one domain on a certificate. Raises UsageError.
        """
        assumed = what_if(
            ca=ca, email=email, limits=limits, lifetime=lifetime, names_per_certificate=names_per_certificate
        )
        return await estimate(self._fleet, assumed, plan)

    async def wait(
        self, names: Sequence[str], timeout: float, newer_than: Mapping[str, int] | None = None
    ) -> list[Overview]:
        """Wait until each app is served by all its hosts, or is failing; at most `timeout` seconds.

        `newer_than`: generations by app that do not count any more. The answer may hold apps that are
        neither, when the time is up.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        old = newer_than or {}

        def settled(view: Overview) -> bool:
            if view.state is State.SERVED:
                return view.generation > old.get(view.name, 0)
            return view.state in (State.FAILING, State.PARKED, State.DISABLED)

        while True:
            views = [view async for view in self.overviews(names)]
            if all(settled(view) for view in views) or asyncio.get_running_loop().time() > deadline:
                return views
            await asyncio.sleep(LOOK)


def _directory(properties: Mapping[str, str]) -> str:
    return resolve_ca(properties["ca"]).directory


def _go_on(app: App, everywhere: Mapping[str, str]) -> None:
    try:
        require_usable(app, effective(app.properties, everywhere))
    except UsageError as error:
        wanted = f"enabled app {app.name} could not go on: {error}"
        raise UsageError(error.field, None, wanted) from None


@asynccontextmanager
async def open_client(settings: Settings | None = None) -> AsyncIterator[Client]:
    """A client on this machine's settings. Raises ConfigurationError, RedisUnavailable."""
    async with open_fleet(settings or load_settings(), PATIENCE) as fleet:
        yield Client(fleet)
