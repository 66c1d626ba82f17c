"""A new certificate goes to one host first, then in waves to the others. Decisions only: no clock, no I/O.

`wave` is a list of sizes, each a number of hosts or a share of them: with "1, 25%, 100%" and 20 hosts the first wave
ends when 1 host serves the new certificate, the second when 5 do, the last with all. What a wave waits for:

- A host that refused the certificate, or does not serve it, stops the rest until it is mended: they keep the old one.
- A host that is down, or whose own state is in the way, is waited for until its second failure (a minute later). Then
  the wave takes another host in its place, so that the first to get a certificate is always one that can show it.
- A host without a certificate has nothing to lose and waits for nobody: new apps and new hosts.
- A host that has shown this certificate before waits for nobody either: it is being put right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import ceil

from certfleet.errors import UsageError
from certfleet.models import Fault, Installation

PATIENCE = 2
"""Failures in a row after which a wave goes on without a host that is down."""
HELD_LOOK = timedelta(minutes=1)
"""How often a host looks whether its turn has come. It is woken when it has; this is for when that was lost."""
LOOKS_APART = timedelta(seconds=1)
"""Held hosts of one app look less often the more they are: a look among 5,000 takes 30 ms of a processor."""
STOPPED_LOOK = timedelta(hours=1)
"""The same while another host's failure holds it."""
MOST_WAVES = 20
_SIZE = re.compile(r"([0-9]{1,6})(%?)")
_WHOLE = 100  # per cent
_ANY_TIME = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Size:
    """How many hosts have the certificate when a wave is over."""

    count: int
    share: bool
    """`count` is in per cent of all."""

    def of(self, hosts: int) -> int:
        """In hosts; at least one, and no more than there are."""
        return min(hosts, max(1, ceil(hosts * self.count / _WHOLE) if self.share else self.count))


def parse_waves(value: str, field: str = "wave") -> tuple[Size, ...]:
    """The sizes of "1, 25%, 100%". Raises UsageError."""
    sizes: list[Size] = []
    for word in value.split(","):
        found = _SIZE.fullmatch(word.strip())
        if not found or int(found[1]) == 0 or (found[2] and int(found[1]) > _WHOLE):
            raise UsageError(field, value, "is not a list of numbers of hosts or shares of them, such as 1, 25%, 100%")
        sizes.append(Size(int(found[1]), bool(found[2])))
    if len(sizes) > MOST_WAVES:
        raise UsageError(field, value, f"has {len(sizes)} waves: at most {MOST_WAVES}")
    if any(a.share == b.share and a.count >= b.count for a, b in pairwise(sizes)):
        raise UsageError(field, value, "has to grow from one wave to the next, such as 1, 25%, 100%")
    return tuple(sizes)


def ends(waves: Sequence[Size], hosts: int) -> tuple[int, ...]:
    """How many of `hosts` have the certificate at the end of each wave; the last is all of them."""
    return tuple(sorted({*(size.of(hosts) for size in waves), hosts})) if hosts else ()


@dataclass(frozen=True, slots=True)
class Rollout:
    """How far one certificate has come."""

    go: tuple[str, ...]
    """The hosts that are to have it now, and do not serve it yet."""
    held: tuple[str, ...]
    """The hosts that keep the old one for now."""
    stopped_by: tuple[str, ...]
    """The hosts whose failure holds the others."""
    proven: int
    """Hosts that have shown it."""
    wave: int
    """Which wave is under way; 1 is the first."""
    waves: int


def rollout(
    hosts: Sequence[str], installations: Mapping[str, Installation], generation: int, waves: Sequence[Size]
) -> Rollout:
    """Which of an app's hosts go next; `hosts` in the order in which their turns come."""
    known = {host: installations.get(host, Installation("", host)) for host in hosts}
    # Sets beside the lists: each of thousands of hosts asks this with its visit.
    proven = [host for host in hosts if max(known[host].proven, known[host].served) >= generation]
    again = [host for host in proven if known[host].served != generation]
    has_shown = set(proven)
    unprotected = [host for host in hosts if host not in has_shown and not _has_one(known[host])]
    aside = has_shown.union(unprotected)
    rest = [host for host in hosts if host not in aside]
    stopped_by = tuple(host for host in rest if _blames_certificate(known[host], generation))
    last = ends(waves, len(hosts))
    wave = sum(1 for end in last if end <= len(proven))
    if stopped_by:
        go = list(stopped_by)
    else:
        room = last[wave] - len(proven) if wave < len(last) else 0
        go = _by_turn(rest, known, generation)[:room]
    going = set(go)
    return Rollout(
        go=(*again, *unprotected, *go),
        held=tuple(host for host in rest if host not in going),
        stopped_by=stopped_by,
        proven=len(proven),
        wave=min(wave + 1, len(last)),
        waves=len(last),
    )


def first_looks(held: Sequence[str]) -> dict[str, timedelta]:
    """In how long each held host looks for the first time: one after the other."""
    return {host: HELD_LOOK + number * LOOKS_APART for number, host in enumerate(held)}


def next_look(standing: Rollout) -> timedelta:
    """In how long a held host looks again."""
    return max(STOPPED_LOOK if standing.stopped_by else HELD_LOOK, len(standing.held) * LOOKS_APART)


def _by_turn(hosts: Iterable[str], known: Mapping[str, Installation], generation: int) -> list[str]:
    """Those that are waited for, as they were named; then those that are not, whose next try is due first."""
    waited_for, skipped = list[str](), list[str]()
    for host in hosts:
        (skipped if is_skipped(known[host], generation) else waited_for).append(host)
    skipped.sort(key=lambda host: known[host].retry_at or _ANY_TIME)
    return waited_for + skipped


def _has_one(installation: Installation) -> bool:
    return max(installation.installed, installation.served, installation.proven) > 0


def _blames_certificate(installation: Installation, generation: int) -> bool:
    return installation.wanted == generation and installation.fault in (Fault.REFUSED, Fault.UNSERVED)


def is_skipped(installation: Installation, generation: int) -> bool:
    """Whether its wave goes on without this host."""
    own = installation.wanted == generation and installation.fault in (Fault.DOWN, Fault.UNFIT)
    return own and installation.attempts >= PATIENCE


def hosts_named(hosts: Sequence[str], most: int = 3) -> str:
    """The first few, and how many more."""
    more = f" and {len(hosts) - most} more" if len(hosts) > most else ""
    return ", ".join(hosts[:most]) + more
