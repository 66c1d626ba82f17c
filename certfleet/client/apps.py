"""Requests about apps and properties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from certfleet.client.desk import Desk, Done, asked_now
from certfleet.errors import UsageError
from certfleet.identifiers import normalise_all
from certfleet.inventory import check_name
from certfleet.key_place import require_able
from certfleet.lifecycle.hosts.errands import removal
from certfleet.lifecycle.records import check_member, order_member
from certfleet.models import App, Host
from certfleet.properties import check_property, effective, require_usable


class AppRequests(Desk):
    """Adding, changing and removing apps, and what can be set on them."""

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
        for host in set(app.hosts) - set(before.hosts):
            # It had the app before, perhaps, and may be another machine by now.
            await self._fleet.records.amend(name, host, asked_now)
        await self._fleet.journal.write(name, "changed", f"{', '.join(app.shown)} on {', '.join(app.hosts)}")
        await self._look_again([app])
        return Done(changed=True, sentence=f"{name}: changed")

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
        await self._fleet.crls.drop(name)
        if await self._fleet.records.order(name) is not None:
            await self._due("order", [name])  # the machine gives it up as soon as it sees that nobody wants it
        await self._fleet.journal.write(name, "disabled")
        if purge:
            return Done(changed=True, sentence=f"{name}: disabled; {await self._purged(app)}")
        served = await self._fleet.records.certificate(name) is not None
        stays = "its certificate stays installed and is not renewed" if served else "it has no certificate"
        return Done(changed=True, sentence=f"{name}: disabled; {stays}")

    async def remove_app(self, name: str, *, purge: bool = False) -> Done:
        """Forget an app and its certificate. Raises UnknownName.

        Its files on hosts stay and are served on; with `purge` they are taken away, from a host that is down as soon
        as it can be reached.
        """
        app = await self._fleet.inventory.app(name)
        known = (await self._fleet.records.installations(name)).values()
        files = "; its files stay on its hosts" if any(one.installed for one in known) else ""
        if app.enabled:  # first of all, and the app itself last: who dies in between has a disabled app to remove again
            await self._fleet.inventory.save_app(replace(app, enabled=False), app)
        if purge:  # what is wanted on a host is not taken away, and nothing remembers it once the app is gone
            files = f"; {await self._purged(app)}"
        for member in (check_member(name), order_member(name)):
            await self._fleet.agenda.drop(member)
        await self._fleet.rooms.leave(name)
        await self._fleet.crls.drop(name)
        await self._fleet.spreading.forget(name)
        await self._fleet.inventory.remove_app(app, *await self._fleet.records.app_forgotten(app))
        if await self._fleet.written.any(name):  # its order is gone: so are its TXT records, without waiting
            await self._due("dns", [name])
        await self._fleet.journal.write(name, "removed")
        return Done(changed=True, sentence=f"{name}: removed{files}")

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
        known = {host.name: host for host in await self._fleet.inventory.hosts()}
        for host in app.hosts:
            if host not in known:
                raise UsageError("host", host, f"is not known: `certfleet host add {host}` first")
        values = effective(app.properties, await self._fleet.inventory.properties())
        require_usable(app, values)
        require_able(app, values, known)
        if values["dns"]:
            await self._fleet.dns.get(values["dns"])

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
        after, hosts = before | kept, {host.name: host for host in await self._fleet.inventory.hosts()}
        async for app in self._fleet.inventory.apps():
            if app.enabled and not kept.keys() <= app.properties.keys():
                _go_on(app, after, hosts)
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


def _go_on(app: App, everywhere: Mapping[str, str], hosts: Mapping[str, Host]) -> None:
    values = effective(app.properties, everywhere)
    try:
        require_usable(app, values)
        require_able(app, values, hosts)
    except UsageError as error:
        wanted = f"enabled app {app.name} could not go on: {error}"
        raise UsageError(error.field, None, wanted) from None
