"""What a forecast may assume otherwise than it is: other limits, another lifetime, another division of names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from certfleet.acme_ca.presets import known_profiles
from certfleet.errors import UsageError
from certfleet.identifiers import MAXIMUM_NAMES
from certfleet.lifecycle.renewals.renewal import SHORT
from certfleet.limits.buckets import Bucket, Charge
from certfleet.limits.keys import today
from certfleet.limits.presets import Limit, Limits, overridden, override
from certfleet.properties import UNITS, check_property

LIFETIME = timedelta(days=90)
"""Of certificates of which nobody says anything else; Let's Encrypt's until 2027-02-10 (profile "classic")."""
DEFAULT = ""
"""Stands for the profile that a CA takes when none is named."""
SHORTEST, LONGEST = timedelta(hours=1), timedelta(days=3650)
ASKED = (Limit.ORDERS, Limit.DOMAIN, Limit.SET)
"""Limits that a wanted certificate meets; the others are about failures, accounts and requests."""


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Nothing given: as it is."""

    properties: Mapping[str, str] = field(default_factory=dict)
    """For planned apps that say nothing else; where a property is missing here, that of all apps holds."""
    rates: Mapping[Limit, str] = field(default_factory=dict)
    """At every CA, in the words of presets.toml; what is set for one account or domain stays as it is."""
    lifetimes: Mapping[str, timedelta] = field(default_factory=dict)
    """By profile, of certificates that are issued from now on; where one is missing, what the CA documents."""
    names_per_certificate: int | None = None
    """None: each app has one certificate."""

    def lifetime(self, ca: str, profile: str = DEFAULT) -> timedelta:
        """Of a certificate of this CA by this profile. A profile that is the CA's default goes by either name."""
        profiles = known_profiles(ca)
        default = next((name for name, known in profiles.items() if known.default), DEFAULT)
        names = (profile, *((default, DEFAULT) if profile in (default, DEFAULT) else ()))
        given = next((self.lifetimes[name] for name in names if name in self.lifetimes), None)
        if given is not None:
            return given
        known = profiles.get(profile or default)
        return known.validity if known else self.lifetimes.get(DEFAULT, LIFETIME)

    def limits(self, limits: Limits) -> Limits:
        """A CA's limits under these rates."""
        return overridden(
            limits, [override(ca=limits.ca, limit=limit, rate=rate) for limit, rate in self.rates.items()]
        )

    def charge(self, charge: Charge, limits: Limits) -> Charge | None:
        """What an order was to be charged, under these limits of its CA; None: that limit holds no more."""
        bucket = today(limits, charge.bucket) if self.rates else charge.bucket
        if bucket is None:
            return None
        return replace(charge, bucket=bucket, keep=_scaled(charge, bucket))


def _scaled(charge: Charge, bucket: Bucket) -> int:
    """The same share of another burst."""
    return charge.keep * bucket.rate.burst // charge.bucket.rate.burst


def period(lifetime: timedelta) -> timedelta:
    """Between two renewals: a third of the lifetime is left, half under 10 days."""
    return lifetime - lifetime / (2 if lifetime < SHORT else 3)


def what_if(
    *,
    ca: str | None = None,
    email: str | None = None,
    limits: Mapping[str, str] | None = None,
    lifetimes: Mapping[str, str] | None = None,
    names_per_certificate: int | None = None,
) -> WhatIf:
    """The assumptions in a person's words. Raises UsageError."""
    if names_per_certificate is not None and not 1 <= names_per_certificate <= MAXIMUM_NAMES:
        raise UsageError("names-per-certificate", names_per_certificate, f"is not a number from 1 to {MAXIMUM_NAMES}")
    given = {"ca": ca, "email": email}
    return WhatIf(
        properties={name: check_property(name, value) for name, value in given.items() if value is not None},
        rates={_limit(name, rate): rate for name, rate in (limits or {}).items()},
        lifetimes={_profile(name): parse_lifetime(value) for name, value in (lifetimes or {}).items()},
        names_per_certificate=names_per_certificate,
    )


def _limit(name: str, rate: str) -> Limit:
    if name not in ASKED:
        raise UsageError("limit", name, f"is not one of {', '.join(ASKED)}")
    try:
        override(ca="any", limit=name, rate=rate)
    except UsageError as error:  # of the rate, which has no name of its own here
        raise UsageError("limit", None, f"{name}: {str(error).removeprefix('rate: ')}") from None
    return Limit(name)


def _profile(name: str) -> str:
    return check_property("profile", name)


def parse_lifetime(value: str) -> timedelta:
    """The validity of a certificate: 45d, 160h. Raises UsageError."""
    found = re.fullmatch(r"([0-9]{1,7})([smhd])", value)
    span = timedelta(seconds=int(found[1]) * UNITS[found[2]]) if found else timedelta()
    if not SHORTEST <= span <= LONGEST:
        wanted = f"is not a lifetime of a certificate: give one from 1h to {LONGEST.days}d, such as 45d"
        raise UsageError("lifetime", value, wanted)
    return span
