"""Asking for a certificate to be revoked; workers do it (revocation.py).

The wish is written before anything is asked of the CA, and stays until the CA has done it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from certfleet.acme_ca.reasons import Reason
from certfleet.ca_list import ca_of
from certfleet.errors import UsageError
from certfleet.lifecycle.fleet import Fleet
from certfleet.lifecycle.records import check_member
from certfleet.lifecycle.revocations.book import Revocation, revoke_member
from certfleet.models import App, Certificate, utcnow
from certfleet.properties import effective

SAFETY = timedelta(seconds=10)  # after it a wish is looked at whose asker died before it could say that it is there
COMPROMISED, REPLACED = "compromised", "replaced"


async def ask_revocation(fleet: Fleet, app: App, reason: Reason, *, after: bool = False, withdrawn: str = "") -> None:
    """Have the app's present certificate revoked: now, or `after` another one is served in its place.

    `withdrawn`: why another one has to come. Raises UsageError when there is none, or it is revoked already.
    """
    found = await fleet.records.certificate(app.name)
    if found is None:
        raise UsageError("app", app.name, "has no certificate here: there is nothing to revoke")
    if after and not app.enabled:
        wanted = "is not enabled, nothing would take the place of its certificate: `certfleet revoke` it without that"
        raise UsageError("app", app.name, wanted)
    properties = effective(app.properties, await fleet.inventory.properties())
    wish = Revocation(
        app=app.name,
        serial=found.serial,
        leaf=found.leaf,
        ca=found.ca,
        bundle=ca_of(found.ca, properties).bundle or "",
        email=found.email or properties["email"],
        reason=reason,
        asked=utcnow(),
        not_after=found.not_after,
        after=found.generation if after else 0,
    )
    told = f"serial {found.serial}, {reason}" + ("; when every host serves another one" if after else "")
    await fleet.agenda.schedule(revoke_member(app.name), utcnow() + SAFETY)
    if withdrawn:
        await fleet.agenda.schedule(check_member(app.name), utcnow() + SAFETY)
    entry = fleet.journal.entry(app.name, "revocation asked", told)
    await fleet.revocations.ask(wish, app.name, _withdraw(found, reason, withdrawn), entry)


def _withdraw(found: Certificate, reason: Reason, withdrawn: str) -> Callable[[Certificate], Certificate]:
    def change(now: Certificate) -> Certificate:
        if now.serial != found.serial:
            raise UsageError("app", now.app, "has got another certificate just now: look at it, and ask again")
        if now.revoked is not None:
            wanted = f"its certificate was revoked on {now.revoked:%Y-%m-%d %H:%M} UTC already"
            raise UsageError("app", now.app, f"has nothing to revoke: {wanted}")
        leaked = now.leaked or reason is Reason.KEY_COMPROMISE
        return replace(now, leaked=leaked, withdrawn=withdrawn or now.withdrawn)

    return change
