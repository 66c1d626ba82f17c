"""Apps of a plan that are in the fleet already: they count as they are, not once more as new ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from certfleet.lifecycle.fleet import Fleet
from certfleet.limits.line import admitted
from certfleet.models import App, Certificate, microseconds
from certfleet.plan import Planned
from certfleet.properties import PROPERTIES


async def as_they_are(
    fleet: Fleet, apps: Sequence[App], *, wanted: Mapping[str, Planned], waiting: Collection[str], now: int
) -> set[str]:
    """Those of the apps whose order waits, or that need none: it is under way, or their certificate is there.

    `wanted`: what was planned of apps that the plan does not change, by name; `waiting`: names.
    """
    names = [app.name for app in apps if app.name in wanted]
    found = {name for name in names if name in waiting}
    open_ = [name for name in names if name not in found]
    certificates = await fleet.records.certificates(open_)
    found |= {name for name, one in certificates.items() if _valid(one, wanted[name], now)}
    return found | await admitted(fleet.store, [name for name in open_ if name not in found])


def changes_nothing(row: Planned, app: App, said: Mapping[str, str], everywhere: Mapping[str, str]) -> bool:
    """Whether the plan wants the app just as it is: these names, and what is said of it otherwise.

    `said`: of all planned apps that say nothing else. Where neither says anything, the app stays as it is.
    """
    if set(row.identifiers) != set(app.identifiers):
        return False
    given = {**said, **row.own}
    return all(
        (app.properties.get(name) or everywhere.get(name) or PROPERTIES[name].default) == value
        for name, value in given.items()
    )


def _valid(certificate: Certificate, row: Planned, now: int) -> bool:
    """Whether it is for these names and nothing has to take its place at once."""
    good = certificate.revoked is None and not certificate.withdrawn and microseconds(certificate.not_after) > now
    return good and set(certificate.identifiers) == set(row.identifiers)
