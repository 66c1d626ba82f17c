"""Requests about certificates: enabling, renewing, revoking, replacing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from certfleet.acme_ca.reasons import Reason, parse_reason
from certfleet.client.desk import Done
from certfleet.client.looking import Looks
from certfleet.lifecycle.forecasts.estimate import Estimate
from certfleet.lifecycle.forecasts.forecast import estimate
from certfleet.lifecycle.forecasts.whatif import what_if
from certfleet.lifecycle.hosts.errands import removal
from certfleet.lifecycle.orders.ordering import FORGIVEN, HURRIED, ask_order
from certfleet.lifecycle.revocations.book import Revocation
from certfleet.lifecycle.revocations.crl_book import WatchedList
from certfleet.lifecycle.revocations.replacing import Choice, Progress, Selection, begin, choose, progress, select
from certfleet.lifecycle.revocations.withdrawal import COMPROMISED, ask_revocation
from certfleet.models import utcnow
from certfleet.overview import standing


class CertificateRequests(Looks):
    """Taking care of apps, renewing, revoking and replacing their certificates."""

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
                    await ask_order(self._fleet, app.name, HURRIED)
            if names:  # a person who names an app has mended something: no back-off is waited for
                await self._look_at_hosts(asked)
                await self._fleet.records.ask_for_renewal([app.name for app in asked if app.enabled], utcnow())
                await self._look_again(asked)
            else:
                await self._due("check", [app.name for app in asked])
        return answers

    async def revoke(self, name: str, *, reason: str = Reason.UNSPECIFIED, compromised: bool = False) -> Done:
        """Have an app's certificate revoked by a worker; an enabled app gets another one. Raises UsageError.

        `reason` is one of acme_ca.reasons.Reason. `compromised`: another one with a new key is brought to every host
        first, and this one is revoked with keyCompromise then.
        """
        said = parse_reason(reason)
        why = Reason.KEY_COMPROMISE if compromised else said
        app = await self._fleet.inventory.app(name)
        await ask_revocation(self._fleet, app, why, after=compromised, withdrawn=COMPROMISED if compromised else "")
        if compromised:
            await ask_order(self._fleet, name, FORGIVEN, HURRIED)
            await self._due("check", [name])
        await self._due("revoke", [name])
        then = "when every host serves another one, with a new key" if compromised else "now"
        more = "; another one is ordered" if app.enabled else ""
        return Done(changed=True, sentence=f"{name}: its certificate is being revoked ({why}), {then}{more}")

    async def revocations(self, name: str) -> list[Revocation]:
        """What is still to be revoked of an app's certificates, and what it waits for. Raises UnknownName."""
        await self._fleet.inventory.app(name)
        return await self._fleet.revocations.of(name)

    async def revocation_list(self, name: str) -> WatchedList | None:
        """The CA's list in which an app's present certificate would stand; None: none is looked at.

        Raises UnknownName.
        """
        await self._fleet.inventory.app(name)
        certificate = await self._fleet.records.certificate(name)
        return await self._fleet.crls.of(certificate) if certificate is not None else None

    async def choose(self, wanted: Selection) -> Choice:
        """Which certificates `replace` would replace, and which it was asked for already. Changes nothing."""
        return await choose(self._fleet, wanted)

    async def replace(self, wanted: Selection, *, revoke: str | None = None) -> Progress:
        """Replace these certificates, and revoke each afterwards for a reason (None: not). May be asked for again.

        Raises UsageError.
        """
        reason = None if revoke is None else parse_reason(revoke)
        chosen = await select(self._fleet, wanted)
        await begin(self._fleet, chosen, reason)
        await self._due("check", [app.name for app, _ in chosen])
        return await progress(self._fleet)

    async def replacement(self) -> Progress:
        """How far what `replace` was asked for has come."""
        return await progress(self._fleet)

    async def forecast_replacement(self, wanted: Selection) -> Estimate:
        """When the CA's limits will have let all of these be replaced, if it was asked for now. Raises UsageError."""
        chosen = [app for app, _ in await select(self._fleet, wanted)]
        return await estimate(self._fleet, what_if(), replaced=chosen)
