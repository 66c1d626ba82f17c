"""The CAs of an app: one, or a list in the order in which they are asked (property `ca`). Decisions only: no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from certfleet.acme_ca.presets import is_preset, normal, resolve_ca
from certfleet.errors import UsageError
from certfleet.models import CA, Passed

MOST = 5
"""CAs in a list: each that does not issue takes half of the time that is left."""


def parse_cas(value: str, field: str = "ca") -> tuple[str, ...]:
    """The CAs that a person named, separated by commas: presets or https URLs of directories. Raises UsageError."""
    names = tuple(name.strip() for name in value.split(","))
    if "" in names:
        raise UsageError(field, value, "has a comma too many: write one CA, or several as in A,B")
    if len(names) > MOST:
        raise UsageError(field, value, f"are too many CAs: name {MOST} at most")
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(resolve_ca(name).directory, name)
        if other is not name:
            raise UsageError(field, value, f"names the same CA twice: {name} is {other}; leave one of them out")
    return tuple(normal(name) for name in names)


def ca_of(name: str, properties: Mapping[str, str]) -> CA:
    """A CA as an app with these properties trusts it: the bundle is for those that are no presets."""
    return resolve_ca(name, bundle=None if is_preset(name) else properties["ca-bundle"] or None)


def cas_of(properties: Mapping[str, str]) -> tuple[CA, ...]:
    """The CAs of an app with these properties, the first to be asked first."""
    return tuple(ca_of(name, properties) for name in parse_cas(properties["ca"]))


def first_ca(properties: Mapping[str, str]) -> CA:
    """The CA that an app with these properties wants its certificates from."""
    return ca_of(parse_cas(properties["ca"])[0], properties)


def asked_ca(cas: Sequence[CA], passed_over: Sequence[Passed]) -> CA | None:
    """Whose turn it is: the first that was not passed over; None: all were."""
    passed = {one.ca for one in passed_over}
    return next((ca for ca in cas if ca.name not in passed), None)
