"""Whether standing records (dns-persist-01) will still be there for the next renewal: looked at with expiry checks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from certfleet.acme_ca.challenges.dns_persist01 import METHOD
from certfleet.agenda import Claim
from certfleet.ca_list import cas_of
from certfleet.errors import CAError, OwnerError, VaultError
from certfleet.lifecycle.challenges.standing import Sighting, sightings
from certfleet.lifecycle.workbench import Workbench
from certfleet.models import CA, App, Certificate

PATIENCE = 30.0  # seconds for one look at all records of an app; the next check looks again


async def watch(
    bench: Workbench, claim: Claim, app: App, certificate: Certificate, properties: Mapping[str, str]
) -> None:
    """Look at an app's standing records, and keep and tell what is wrong with them. Raises LeaseLost."""
    if properties["challenge"] != METHOD:
        return
    cas = cas_of(properties)
    told = [await _seen(bench, app, ca, certificate, properties) for ca in cas]
    wrong = [f"at {ca.name}: {words}" if len(cas) > 1 else words for ca, words in zip(cas, told, strict=True) if words]
    found = "; ".join(wrong) if wrong or None not in told else None
    records, journal = bench.fleet.records, bench.fleet.journal
    known = (await records.warnings([app.name])).get(app.name, "")
    if found is None or found == known:
        return
    if found:
        entry = journal.entry(app.name, "standing record wrong", found)
    else:
        entry = journal.entry(app.name, "standing record right", "every DNS server shows what the CA looks for")
    await records.save_warning(claim, app.name, found, entry)


async def _seen(
    bench: Workbench, app: App, ca: CA, certificate: Certificate, properties: Mapping[str, str]
) -> str | None:
    """What is wrong with the records for one CA, as `warning` has it."""
    try:
        async with asyncio.timeout(PATIENCE):
            seen = await sightings(bench, app, ca, properties)
    except (CAError, OwnerError, VaultError, TimeoutError):
        return None  # what is known stays; an order that cannot go on for it says why
    return warning(app, seen, certificate)


def warning(app: App, seen: Sequence[Sighting], certificate: Certificate) -> str | None:
    """What a person should know before the next renewal; empty: all is well. None: nobody could say.

    A record has to stand as long as the certificate does: until then its renewal may have to be tried.
    """
    show = f"`certfleet dns-persist show {app.name}` has what to put there"
    if wrong := [one for one in seen if one.stands is False]:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        name, told = wrong[0].want.name, wrong[0].message
        return f"the next renewal will fail: {name} is not as it has to be ({told}){more}; {show}"
    ending = [(one.until, one.want.name) for one in seen if one.until is not None and one.until < certificate.not_after]
    if ending:
        until, name = min(ending)
        return (
            f"{name} is good until {until:%Y-%m-%d %H:%M} UTC, and the certificate until "
            f"{certificate.not_after:%Y-%m-%d %H:%M} UTC: put a later one in its place; {show}"
        )
    return "" if all(one.stands for one in seen) else None
