"""The CA's renewal information by itself: windows as Let's Encrypt has them, and who may replace what."""

from __future__ import annotations

import pytest

from tests.ca.renewals import Known, Made, Renewals, Window

ME, OTHER = "https://ca/account/1", "https://ca/account/2"
NAMES = ("a.example.com", "b.example.com")
DAY = 86_400.0


def renewals(days: float = 90) -> Renewals:
    found = Renewals(on=True)
    found.certificates["c1"] = Known(ME, NAMES, 0.0, days * DAY)
    return found


def made(found: Renewals, order: str, status: str = "pending", *, replaces: str | None = "c1") -> None:
    found.order_made(order, Made(ME, NAMES, f"https://ca/{order}", b"{}"), replaces, exempt=True, now=1.0)
    found.order_seen(order, {"status": status, "certificate": f"https://ca/certZ/{order}"}, b"{}")


@pytest.mark.parametrize(
    ("days", "start", "end"),
    [(90, 59.1, 60.9), (45, 29.55, 30.45), (160 / 24, 3.2667, 3.4)],
)
def test_windows_of_lets_encrypt(days: float, start: float, end: float) -> None:
    """Centred on two thirds, or half below ten days; 2 % wide: 3.2 hours of 160."""
    window = renewals(days).window("c1")
    assert window is not None
    assert (window.start / DAY, window.end / DAY) == pytest.approx((start, end), abs=1e-3)


def test_exempt_inside_the_window_only() -> None:
    """[start, end); outside it is a replacement that takes its turn."""
    found = renewals()
    found.move("a.example.com", Window(100, 200))
    exempt = [found.judge(ME, NAMES, "c1", now).exempt for now in (99.9, 100, 199.9, 200)]
    assert exempt == [False, True, True, False]
    assert all(found.judge(ME, NAMES, "c1", now).problem is None for now in (99.9, 200))


@pytest.mark.parametrize(
    ("account", "names", "certificate", "status"),
    [(OTHER, NAMES, "c1", 403), (ME, ("z.example.com",), "c1", 400), (ME, NAMES, "c2", 404)],
)
def test_who_may_not(account: str, names: tuple[str, ...], certificate: str, status: int) -> None:
    """Another account, no name shared, no such certificate."""
    problem = renewals().judge(account, names, certificate, 0).problem
    assert problem is not None
    assert problem.status == status


@pytest.mark.parametrize(
    ("status", "free"), [("pending", False), ("ready", False), ("valid", False), ("invalid", True)]
)
def test_one_replacement_at_a_time(status: str, free: bool) -> None:  # noqa: FBT001
    """A pending order counts as well as one that was issued; one that failed does not."""
    found = renewals()
    made(found, "o1", status)
    problem = found.judge(ME, NAMES, "c1", 0).problem
    assert (problem is None) is free
    if problem is not None:
        assert (problem.status, problem.type) == (409, "alreadyReplaced")
    assert found.replacements["o1"].issued is (status == "valid")


def test_an_order_under_way_is_given_again() -> None:
    """To the same account, for the same names in any order."""
    found = renewals()
    made(found, "o1", replaces=None)
    assert found.reused(ME, NAMES[::-1]) is found.made["o1"]
    assert found.reused(OTHER, NAMES) is None
    assert found.reused(ME, NAMES[:1]) is None
    found.order_seen("o1", {"status": "valid"}, b"{}")
    assert found.reused(ME, NAMES) is None
