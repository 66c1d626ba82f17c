"""What a forecast says: times, limits and shares, for people and for JSON (docs/json.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from certfleet.limits.buckets import Bucket
from certfleet.limits.forecast import Forecast
from certfleet.limits.presets import Limit
from certfleet.limits.upkeep import Upkeep
from certfleet.limits.words import meaning
from certfleet.models import from_microseconds

EPOCH = from_microseconds(0)


@dataclass(frozen=True, slots=True)
class Summary:
    """All in all."""

    asked_at: datetime
    apps: int
    certificates: int
    """How many these need: more or fewer than apps where their names are divided otherwise, or some have theirs."""
    already: int
    """Apps of the plan that are in the fleet just as it wants them, and count as they are."""
    done: int
    """Apps that are done by `looked_until`."""
    done_at: datetime | None
    """When the last app is done; None: not all are, or there are none."""
    looked_until: datetime
    binding_ca: str | None
    binding_limit: str | None
    """The limit that the last one waits for; None: nobody waits."""
    binding_of: str | None
    lifetime_seconds: int
    """Of certificates that are issued from now on, by the default profile of the CA that most are asked of."""
    profile_lifetimes_seconds: dict[str, int]
    """Likewise by the other profiles that these apps or the fleet's have."""
    renewals_per_day: float
    """Once all are issued: those of the plan and those of the fleet."""
    sustainable: bool
    """Whether the limits let all of them be renewed for ever."""
    busiest_ca: str | None
    busiest_limit: str | None
    """The limit of which renewals need the largest share; the first to fail. None: they need nothing."""
    busiest_of: str | None
    busiest_share: float
    """Of the tokens that come; above 1 it fails."""


@dataclass(frozen=True, slots=True)
class LimitForecast:
    """One limit of one CA, over all its buckets."""

    ca: str
    limit: str
    waited: int
    """Certificates that wait longer for it than for any other."""
    until: datetime | None
    """When the last of them is ordered; None: there are none, or it never is."""
    of: str | None
    """What the last of them is counted under; None: there are none."""
    renewals_share: float
    """The largest share of one bucket that renewals need."""
    renewals_of: str | None
    """What that bucket counts; None: they need nothing."""


@dataclass(frozen=True, slots=True)
class BucketForecast:
    """One bucket that somebody waits for."""

    ca: str
    limit: str
    of: str
    waited: int
    until: datetime | None
    """When the last of them is ordered; None: it never is."""


@dataclass(frozen=True, slots=True)
class AppForecast:
    """One app."""

    app: str
    done_at: datetime | None
    """When its last certificate is ordered; None: not by `looked_until`."""
    limit: str | None
    """What that one waited for longest; None: it did not wait."""
    of: str | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What becomes of the apps that were asked about, and why then."""

    summary: Summary
    binding: str | None
    """The binding limit in words."""
    busiest: str | None
    """Likewise the one that renewals need most of."""
    limits: tuple[LimitForecast, ...]
    buckets: tuple[BucketForecast, ...]
    """The one that is waited for longest first."""
    apps: tuple[AppForecast, ...]
    """In the order in which they are done."""


def estimate_of(
    found: Forecast,
    needs: Upkeep,
    *,
    apps: Sequence[tuple[str, Sequence[int]]],
    already: int,
    emails: Mapping[str, str],
    now: int,
    lifetimes: Mapping[str, timedelta],
) -> Estimate:
    """Put the answer together.

    `apps`: each app and the indexes of its outcomes (none: it is done); `already`: how many of them are in the fleet
    as they were planned; `emails`: of accounts by id; `lifetimes`: by profile, with the
    CA's default under no name.
    """
    rows = sorted((_app(name, indexes, found, emails, now) for name, indexes in apps), key=_when)
    done = [row.done_at for row in rows if row.done_at is not None]
    seconds = {profile: round(lifetime.total_seconds()) for profile, lifetime in lifetimes.items()}
    binding, busiest = found.binding, needs.first_to_fail
    summary = Summary(
        asked_at=from_microseconds(now),
        apps=len(rows),
        certificates=len(found.outcomes),
        already=already,
        done=len(done),
        done_at=max(done) if done and len(done) == len(rows) else None,
        looked_until=from_microseconds(max(now, found.seen)),
        binding_ca=binding.ca if binding else None,
        binding_limit=binding.limit if binding else None,
        binding_of=_of(binding, emails) if binding else None,
        lifetime_seconds=seconds[""],
        profile_lifetimes_seconds={profile: each for profile, each in seconds.items() if profile},
        renewals_per_day=round(needs.per_day, 3),
        sustainable=needs.sustainable,
        busiest_ca=busiest.ca if busiest else None,
        busiest_limit=busiest.limit if busiest else None,
        busiest_of=_of(busiest, emails) if busiest else None,
        busiest_share=round(needs.shares[busiest], 6) if busiest else 0.0,
    )
    return Estimate(
        summary=summary,
        binding=meaning(binding, emails) if binding else None,
        busiest=meaning(busiest, emails) if busiest else None,
        limits=_limits(found, needs, emails),
        buckets=tuple(
            BucketForecast(w.bucket.ca, w.bucket.limit, _of(w.bucket, emails), w.waited, _time(w.until))
            for w in found.waits
        ),
        apps=tuple(rows),
    )


def _app(name: str, indexes: Sequence[int], found: Forecast, emails: Mapping[str, str], now: int) -> AppForecast:
    if not indexes:
        return AppForecast(name, _time(now), None, None)
    outcomes = [found.outcomes[index] for index in indexes]
    last = max(outcomes, key=lambda outcome: (outcome.at is None, outcome.at or 0))
    bucket = last.bucket
    return AppForecast(
        app=name,
        done_at=_time(last.at),
        limit=bucket.limit if bucket else None,
        of=_of(bucket, emails) if bucket else None,
    )


def _when(row: AppForecast) -> tuple[bool, datetime, str]:
    return (row.done_at is None, row.done_at or EPOCH, row.app)


def _limits(found: Forecast, needs: Upkeep, emails: Mapping[str, str]) -> tuple[LimitForecast, ...]:
    """Those that somebody waits for in the order of `waits`, then the others."""
    names = dict.fromkeys([(w.bucket.ca, w.bucket.limit) for w in found.waits])
    worst: dict[tuple[str, str], Bucket] = {}
    for bucket, share in needs.shares.items():
        name = (bucket.ca, bucket.limit)
        if name not in worst or (-share, bucket.key) < (-needs.shares[worst[name]], worst[name].key):
            worst[name] = bucket
    rows = []
    for ca, limit in [*names, *sorted(worst.keys() - names.keys())]:
        waits = [w for w in found.waits if (w.bucket.ca, w.bucket.limit) == (ca, limit)]
        most = worst.get((ca, limit))
        rows.append(
            LimitForecast(
                ca=ca,
                limit=limit,
                waited=sum(w.waited for w in waits),
                until=_time(waits[0].until) if waits else None,
                of=_of(waits[0].bucket, emails) if waits else None,
                renewals_share=round(needs.shares[most], 6) if most else 0.0,
                renewals_of=_of(most, emails) if most else None,
            )
        )
    return tuple(rows)


def _time(at: int | None) -> datetime | None:
    return None if at is None else from_microseconds(at)


def _of(bucket: Bucket, emails: Mapping[str, str]) -> str:
    """What the bucket counts; an account by its e-mail address, which people know it by."""
    if bucket.limit == Limit.SET:
        return bucket.key.partition("/")[0].removesuffix("+0")
    first, slash, rest = bucket.key.partition("/")
    return emails.get(first, first) + slash + rest
