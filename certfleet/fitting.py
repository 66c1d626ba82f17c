"""Whether a CA's profile takes an app's names, as far as its documentation tells: said before an order is wasted.

What is not documented (another CA, a profile that is new) is left to the CA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from certfleet.acme_ca.presets import known_profiles
from certfleet.acme_ca.profiles import Known
from certfleet.errors import UsageError
from certfleet.identifiers import address_of


def require_fitting(app: str, names: Sequence[tuple[str, str]], ca: str, profile: str) -> None:
    """Raise UsageError when the profile (empty: the CA's default) has no such certificates.

    `names`: each identifier, and as it was typed. An IP address wants a profile that has them (at Let's Encrypt
    shortlived), and every profile has a largest number of names (letsencrypt.org/docs/profiles).
    """
    profiles = known_profiles(ca)
    name = profile or next((name for name, known in profiles.items() if known.default), "")
    if name not in profiles:
        return
    address = next((shown for identifier, shown in names if address_of(identifier) is not None), None)
    if address is not None and not profiles[name].addresses:
        others = " or ".join(other for other, known in profiles.items() if known.addresses)
        wanted = f"is an IP address, which {ca} certifies by the profile {others} only, not {name}: "
        raise UsageError("domain", address, wanted + f"set profile={others} for app {app} (`--profile {others}`)")
    if len(names) > profiles[name].names:
        wanted = f"names are too many for the profile {name} of {ca}: at most {profiles[name].names}"
        raise UsageError("domain", len(names), wanted + _roomier(profiles, len(names)))


def require_provable(names: Sequence[tuple[str, str]], challenge: str) -> None:
    """Raise UsageError for an IP address that is to be proven by DNS, where it has no place (RFC 8738 §7)."""
    for identifier, shown in names:
        if challenge.startswith("dns-") and address_of(identifier) is not None:
            raise UsageError(
                "domain", shown, f"is an IP address, which {challenge} cannot prove: set challenge=http-01"
            )


def _roomier(profiles: Mapping[str, Known], count: int) -> str:
    others = [name for name, known in profiles.items() if known.names >= count]
    return f" ({', '.join(others)} takes more)" if others else ""
