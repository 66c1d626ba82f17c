"""The one word for how an app is: the worst news that holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from certfleet.cli.output import note
from certfleet.limits.outages import Outage
from certfleet.models import App, Certificate, Installation, KeyType, Order, OrderState
from certfleet.overview import State, overview
from certfleet.properties import effective

NOW = datetime(2026, 1, 1, tzinfo=UTC)
APP = App("blog", ("xn--bcher-kva.example",), ("web1", "web2"), ("bücher.example",), enabled=True)
CERTIFICATE = Certificate(
    "blog", 2, "ca", APP.identifiers, KeyType.P256, "12", NOW, NOW + timedelta(days=90), NOW, "", "", ""
)
ORDER = Order("o", "blog", "ca", "ops@example.com", APP.identifiers, KeyType.P256, "renewal", NOW)
SERVED = {host: Installation("blog", host, 2, 2, 2) for host in APP.hosts}
OLD = SERVED | {"web2": Installation("blog", "web2", 2, 1, 1)}
BROKEN = SERVED | {"web2": Installation("blog", "web2", 2, 1, 1, error="refused", retry_at=NOW)}


@pytest.mark.parametrize(
    ("app", "certificate", "order", "installations", "state"),
    [
        pytest.param(APP, None, None, {}, State.WAITING, id="just enabled"),
        pytest.param(APP, None, ORDER, {}, State.ORDERING, id="first order"),
        pytest.param(APP, CERTIFICATE, None, {}, State.INSTALLING, id="issued"),
        pytest.param(APP, CERTIFICATE, None, OLD, State.INSTALLING, id="one host has the old one"),
        pytest.param(APP, CERTIFICATE, None, SERVED, State.SERVED, id="all hosts"),
        pytest.param(APP, CERTIFICATE, ORDER, SERVED, State.ORDERING, id="renewal"),
        pytest.param(APP, CERTIFICATE, replace(ORDER, error="no"), SERVED, State.FAILING, id="renewal failed"),
        pytest.param(APP, CERTIFICATE, None, BROKEN, State.FAILING, id="a host refused"),
        pytest.param(APP, None, replace(ORDER, state=OrderState.PARKED), {}, State.PARKED, id="parked"),
        pytest.param(replace(APP, enabled=False), CERTIFICATE, None, BROKEN, State.DISABLED, id="disabled"),
        pytest.param(replace(APP, hosts=("web1",)), CERTIFICATE, None, BROKEN, State.SERVED, id="was on that host"),
    ],
)
def test_states(
    app: App,
    certificate: Certificate | None,
    order: Order | None,
    installations: dict[str, Installation],
    state: State,
) -> None:
    """What people see for what the records say."""
    assert overview(app, effective({}, {}), certificate, order, installations).state is state


def test_every_error_is_told() -> None:
    """The order's comes first; of several hosts each is named; the earliest next try counts."""
    errors = {host: replace(BROKEN["web2"], host=host, retry_at=NOW + timedelta(hours=1)) for host in APP.hosts}
    view = overview(APP, effective({}, {}), CERTIFICATE, None, errors)
    assert view.error == "web1: refused; web2: refused"
    view = overview(APP, effective({}, {}), CERTIFICATE, replace(ORDER, error="no", retry_at=NOW), errors)
    assert (view.error, view.next_try) == ("no", NOW)
    assert view.domains == ("bücher.example",)


def test_a_warning_is_of_standing_records() -> None:
    """It is shown while these are how the names are proven, beside whatever the state is."""
    for challenge, warning in (("dns-persist-01", "gone"), ("dns-01", None), ("http-01", None)):
        view = overview(APP, effective({"challenge": challenge}, {}), CERTIFICATE, None, SERVED, warning="gone")
        assert (view.state, view.warning) == (State.SERVED, warning)


def test_a_ca_that_does_not_answer() -> None:
    """Since when, and when it is tried again; not an error. When it answers again the order is under way."""
    waiting = replace(ORDER, state=OrderState.AWAY)
    away = Outage("https://ca.example/", NOW, NOW + timedelta(minutes=5))
    view = overview(APP, effective({}, {}), CERTIFICATE, waiting, SERVED, outage=away)
    assert (view.state, view.error, view.away_since, view.waits_until) == (State.AWAY, None, NOW, away.next_try)
    assert note(view) == "the CA does not answer since 2026-01-01 00:00 UTC, being tried just now"
    assert overview(APP, effective({}, {}), CERTIFICATE, waiting, SERVED).state is State.ORDERING
    assert overview(APP, effective({}, {}), CERTIFICATE, ORDER, SERVED, outage=away).state is State.ORDERING
