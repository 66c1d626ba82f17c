"""Which names share a certificate, when somebody asks what another division would mean for the limits."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from certfleet.limits.names import covering


@dataclass(slots=True)
class Group:
    """The names of one certificate."""

    names: dict[str, None]
    """In the order in which they came, each once."""
    members: list[int]
    """Whose they are: indexes of what was grouped."""


def regroup(sets: Sequence[tuple[Hashable, tuple[str, ...]]], most: int) -> list[Group]:
    """Certificates with up to `most` names, for names that are given in sets (of an app, say).

    Sets with the same key and the same registered domains share a certificate while they fit, in their order; a set
    is divided only if it is larger than `most`. A name that two of them share is there once.
    """
    found: list[Group] = []
    growing: dict[Hashable, Group] = {}
    for index, (key, names) in enumerate(sets):
        for start in range(0, len(names), most):
            part = dict.fromkeys(names[start : start + most])
            place = (key, frozenset(covering(name) for name in part))
            group = growing.get(place)
            if group is None or len(group.names | part) > most:
                group = growing[place] = Group({}, [])
                found.append(group)
            group.names |= part
            if not group.members or group.members[-1] != index:
                group.members.append(index)
    return found
