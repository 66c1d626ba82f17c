"""Failures of an order, sorted: when it is tried again, and whether the CA's order is of any more use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from certfleet.errors import (
    AcmeProblem,
    CAMisbehaved,
    CAUnreachable,
    CAUntrusted,
    OwnerError,
    RateLimited,
    SlowedDown,
)
from certfleet.lifecycle.orders.trouble import (
    EXPECTED,
    OrderInvalid,
    OrderUseless,
    is_silence,
    may_have_issued,
    not_to_be_had,
    sort,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=3)
MINUTE, HOUR, SOON = timedelta(minutes=1), timedelta(hours=1), timedelta(seconds=5)


def problem(status: int, kind: str, retry_at: datetime | None = None) -> AcmeProblem:
    return AcmeProblem(status=status, type=kind, detail="the CA's own words", retry_at=retry_at)


TABLE = [
    pytest.param(problem(429, "rateLimited"), 1, HOUR, False, id="rate limited, not told until when"),
    pytest.param(problem(429, "rateLimited"), 9, timedelta(days=1), False, id="rate limited again and again"),
    pytest.param(problem(429, "rateLimited", LATER), 1, LATER - NOW, False, id="rate limited, told until when"),
    pytest.param(problem(503, "serverInternal", LATER), 1, LATER - NOW, False, id="busy, told until when"),
    pytest.param(problem(500, "serverInternal"), 2, 10 * MINUTE, False, id="the CA's own trouble"),
    pytest.param(problem(400, "accountDoesNotExist"), 1, SOON, True, id="the account is gone"),
    pytest.param(problem(404, "malformed"), 1, SOON, True, id="the order is gone"),
    pytest.param(problem(404, "malformed"), 2, 10 * MINUTE, True, id="the new order is gone too"),
    pytest.param(problem(403, "unauthorized"), 1, MINUTE, True, id="refused"),
    pytest.param(problem(400, "rejectedIdentifier"), 4, timedelta(days=1), True, id="a name that it never certifies"),
    pytest.param(CAUnreachable("cut"), 1, SOON, False, id="a connection was cut"),
    pytest.param(CAUnreachable("cut"), 3, 100 * MINUTE, False, id="it cannot be reached"),
    pytest.param(CAMisbehaved("nonsense"), 1, SOON, False, id="not what RFC 8555 says"),
    pytest.param(CAMisbehaved("nonsense"), 4, 100 * MINUTE, False, id="nonsense again and again"),
    pytest.param(CAMisbehaved("nonsense"), 5, timedelta(days=1), True, id="nonsense for hours"),
    pytest.param(OrderUseless("not ours"), 1, SOON, True, id="an order of which nothing comes"),
    pytest.param(OrderUseless("not ours"), 2, 10 * MINUTE, True, id="and another one"),
    pytest.param(OrderInvalid("gave up"), 2, 10 * MINUTE, True, id="the CA gave the order up"),
    pytest.param(RateLimited("new accounts", LATER), 3, LATER - NOW, False, id="no token before then"),
    pytest.param(OwnerError("points away"), 1, MINUTE, False, id="the owner has to mend it"),
]


@pytest.mark.parametrize(("error", "attempts", "wait", "new_order"), TABLE)
def test_sorted(error: Exception, attempts: int, wait: timedelta, *, new_order: bool) -> None:
    """Never before the CA said, never at once, and the error's own sentence is kept for people."""
    trouble = sort(error, attempts, NOW)
    assert trouble.at == NOW + wait
    assert trouble.new_order is new_order
    assert getattr(error, "waits_for", str(error)) in trouble.sentence
    assert isinstance(error, EXPECTED)


@pytest.mark.parametrize(("error", "attempts", "wait", "new_order"), TABLE)
def test_it_never_gets_quicker(error: Exception, attempts: int, wait: timedelta, *, new_order: bool) -> None:
    """The more often it failed, the longer the wait: no fault becomes a busy loop."""
    del wait, new_order
    waits = [sort(error, n, NOW).at for n in range(attempts, attempts + 10)]
    assert waits == sorted(waits)
    assert waits[-1] - NOW >= timedelta(seconds=25)


@pytest.mark.parametrize(
    "error",
    [problem(429, "rateLimited", LATER), problem(429, "rateLimited"), problem(503, "x", LATER), SlowedDown("x", LATER)],
)
def test_a_limit_is_no_failure(error: Exception) -> None:
    """It is shown as what the order waits for, and counts for no back-off."""
    assert sort(error, 1, NOW).held
    assert not sort(problem(500, "serverInternal"), 1, NOW).held


@pytest.mark.parametrize(
    ("error", "silent"),
    [
        (CAUnreachable("refused"), True),
        (CAUntrusted("another certificate"), False),
        (problem(500, "serverInternal"), True),
        (problem(500, "serverInternal", LATER), True),
        (problem(502, "about:blank"), True),
        (problem(503, "about:blank"), True),
        (problem(503, "rateLimited", LATER), False),
        (problem(504, "about:blank"), True),
        (problem(400, "badNonce"), True),
        (problem(400, "malformed"), False),
        (problem(429, "rateLimited"), False),
        (CAMisbehaved("nonsense"), False),
        (SlowedDown("x", LATER), False),
        (OwnerError("points away"), False),
    ],
)
def test_silence_is_the_cas_alone(error: Exception, *, silent: bool) -> None:
    """What no order mends, and nobody else fares better with; limits and refusals are answers."""
    assert is_silence(error) is silent


def test_what_was_issued_is_not_given_up() -> None:
    """A download that is not found keeps the order; what finalize came to is unknown after 404 and nonsense."""
    gone, refused = problem(404, "malformed"), problem(403, "unauthorized")
    assert isinstance(not_to_be_had(gone), CAMisbehaved)
    assert not sort(not_to_be_had(gone), 1, NOW).new_order
    assert not_to_be_had(refused) is refused
    assert [may_have_issued(e) for e in (gone, CAMisbehaved("x"), refused, OrderInvalid("no"))] == [
        True,
        True,
        False,
        False,
    ]
