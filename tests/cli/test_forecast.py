"""`certfleet forecast`: plans, what-ifs, and what it says to people and programs."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Door


def plan_of(directory: Path, count: int, domain: str = "example.org", email: str = "ops@example.org") -> str:
    """A plan of so many apps with one name each under one domain."""
    path = directory / "plan.csv"
    rows = [f"app{number},app{number}.{domain},{email}\n" for number in range(count)]
    path.write_text("app,domains,email\n" + "".join(rows))
    return str(path)


def answer(door: Door, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(door.done("forecast", *words, "--json").out)
    return found


def days(found: dict[str, Any]) -> float:
    """From now until all are done."""
    summary = found["summary"]
    span = datetime.fromisoformat(summary["done_at"]) - datetime.fromisoformat(summary["asked_at"])
    return span.total_seconds() / 86400


def test_what_people_read(fleet: Door, tmp_path: Path) -> None:
    """The limits, the first and the last apps, and one sentence with the end and the limit that binds."""
    before = fleet.everything()
    said = fleet.done("forecast", "--plan", plan_of(tmp_path, 107))
    assert fleet.everything() == before, "a forecast changes nothing"
    assert said.err == ""
    lines = said.out.splitlines()
    assert lines[0].split() == ["CA", "LIMIT", "WAIT", "UNTIL", "LAST", "FOR", "FOR", "RENEWALS"]
    assert "certificates-per-domain" in lines[1]
    assert "97 more" in said.out
    assert "app106" in said.out
    done = next(line for line in lines if line.startswith("all "))
    assert done.startswith("all 107 done on 20")
    assert " UTC, in 7 d; " in done
    assert done.endswith("the limit that binds: certificates per registered domain example.org")
    assert lines[-1].startswith("at a lifetime of 90 d, 1.8 renewals a day: they need at most 2.3% of a limit, ")


def test_few_apps_are_done_at_once(fleet: Door, tmp_path: Path) -> None:
    """No limit binds, and each app is shown."""
    said = fleet.done("forecast", "--plan", plan_of(tmp_path, 3)).out
    assert "all 3 can be done at once; no limit binds" in said
    assert "more" not in said


def test_without_a_plan_and_without_orders(fleet: Door) -> None:
    """Nothing waits, and the fleet's own apps are renewed for ever."""
    assert fleet.done("forecast").out.startswith("no order waits for a limit; `certfleet forecast --plan FILE`")
    assert answer(fleet)["summary"]["renewals_per_day"] == 0, "blog is not enabled"
    fleet.done("enable", "blog")
    found = answer(fleet)
    assert found["apps"] == []
    assert found["summary"]["renewals_per_day"] == pytest.approx(1 / 60, abs=0.001)


def test_planned_apps_that_are_there_already(fleet: Door, tmp_path: Path) -> None:
    """How many, on standard error; programs read it too. An app without a certificate or an order counts as new."""
    plan = plan_of(tmp_path, 3)
    assert answer(fleet, "--plan", plan)["summary"]["already"] == 0
    for number in range(2):
        name = ("--domain", f"app{number}.example.org", "--host", "web1", "--email", "ops@example.org")
        fleet.done("app", "add", f"app{number}", *name)
    assert fleet.done("forecast", "--plan", plan).err == ""
    fleet.redis.hset("certfleet:admission:app0", "state", "admitted")
    said = fleet.done("forecast", "--plan", plan, "--json")
    assert said.err == "1 of these 3 apps is there already: counted once, as it is\n"
    assert json.loads(said.out)["summary"]["already"] == 1
    fleet.redis.hset("certfleet:admission:app1", "state", "ordered")
    said = fleet.done("forecast", "--plan", plan)
    assert said.err == "2 of these 3 apps are there already: counted once, as they are\n"
    assert "all 3 can be done at once" in said.out


def test_other_limits(fleet: Door, tmp_path: Path) -> None:
    """60 names of a domain: the last ten wait 12,096 s each; with twice the rate all go at once; others bind then."""
    plan = plan_of(tmp_path, 60)
    assert days(answer(fleet, "--plan", plan)) == pytest.approx(1.4, abs=0.001)
    assert days(answer(fleet, "--plan", plan, "--limit", "certificates-per-domain=100/7d")) == 0
    found = answer(
        fleet,
        *("--plan", plan, "--limit", "certificates-per-domain=100/7d", "--limit", "orders-per-account=1/1h burst 40"),
    )
    assert (found["summary"]["binding_limit"], found["summary"]["binding_of"]) == (
        "orders-per-account", "ops@example.org"
    )  # fmt: skip
    assert days(found) * 24 == pytest.approx(30, abs=0.001), "a quarter of the forty is kept for renewals"


def test_names_on_certificates(fleet: Door, tmp_path: Path) -> None:
    """Many names on one: one certificate for all; one on each: as many as names, and the app waits for the last."""
    plan = plan_of(tmp_path, 60)
    found = answer(fleet, "--plan", plan, "--names-per-certificate", "100")
    assert (found["summary"]["apps"], found["summary"]["certificates"], days(found)) == (60, 1, 0)
    assert len(found["apps"]) == 60
    path = tmp_path / "wide.json"
    names = [f"n{number}.example.net" for number in range(60)]
    path.write_text(json.dumps([{"app": "wide", "domains": names, "email": "ops@example.org"}]))
    assert answer(fleet, "--plan", str(path))["summary"]["certificates"] == 1
    found = answer(fleet, "--plan", str(path), "--names-per-certificate", "1")
    assert (found["summary"]["apps"], found["summary"]["certificates"]) == (1, 60)
    assert found["apps"][0]["of"] == "example.net"
    assert days(found) == pytest.approx(1.4, abs=0.001)


def test_other_lifetimes(fleet: Door, tmp_path: Path) -> None:
    """Half the lifetime, twice the renewals; where the CA exempts nothing they may be too many for ever."""
    plan = plan_of(tmp_path, 60)
    long, short = (answer(fleet, "--plan", plan, "--lifetime", value)["summary"] for value in ("90d", "45d"))
    assert (long["renewals_per_day"], short["renewals_per_day"]) == (1, 2)
    assert short["busiest_limit"] == "certificates-per-set"
    assert short["sustainable"] is True
    buypass = ("--ca", "https://api.buypass.com/acme/directory", "--lifetime", "45d")
    found = answer(fleet, "--plan", plan, *buypass)
    assert found["summary"]["busiest_limit"] == "certificates-per-domain"
    assert found["summary"]["sustainable"] is False
    assert found["summary"]["done_at"] is None
    assert found["summary"]["done"] < 60
    said = fleet.done("forecast", "--plan", plan, *buypass).out
    assert "are not done by 21" in said
    assert "too many for ever, they need " in said


def test_lifetimes_of_profiles(fleet: Door, tmp_path: Path) -> None:
    """A column says which an app has; each profile has its own lifetime, and so has the CA's default."""
    path = tmp_path / "plan.csv"
    path.write_text("app,domains,email,profile\na,a.com,ops@example.org,shortlived\nb,b.com,ops@example.org,\n")
    lifetimes = ("--lifetime", "45d", "--lifetime", "shortlived=96h")
    found = answer(fleet, "--plan", str(path), *lifetimes)["summary"]
    assert found["renewals_per_day"] == pytest.approx(24 / 48 + 1 / 30, abs=0.001)
    assert (found["lifetime_seconds"], found["profile_lifetimes_seconds"]) == (45 * 86_400, {"shortlived": 96 * 3600})
    said = fleet.done("forecast", "--plan", str(path), *lifetimes).out
    assert "at a lifetime of 45 d (shortlived: 96 h), 0.53 renewals a day: " in said


def test_a_row_says_where_it_is_ordered(fleet: Door, tmp_path: Path) -> None:
    """Columns before options, options before properties; accounts are told apart by their e-mail."""
    fleet.done("set", "email=all@example.org", "ca=letsencrypt-staging")
    path = tmp_path / "plan.json"
    rows: list[dict[str, Any]] = [{"app": f"a{number}", "domains": f"a{number}.example.org"} for number in range(60)]
    path.write_text(json.dumps(rows))
    found = answer(fleet, "--plan", str(path))
    assert days(found) == 0
    assert {row["ca"] for row in found["limits"]} == {"letsencrypt-staging"}
    found = answer(fleet, "--plan", str(path), "--ca", "letsencrypt")
    assert found["summary"]["binding_ca"] == "letsencrypt"
    path.write_text(json.dumps([row | {"ca": "letsencrypt-staging"} for row in rows]))
    assert days(answer(fleet, "--plan", str(path), "--ca", "letsencrypt")) == 0
    few = ("--limit", "orders-per-account=1/1h")
    path.write_text(json.dumps([{**row, "email": f"{row['app']}@example.org"} for row in rows]))
    assert days(answer(fleet, "--plan", str(path), *few)) == 0
    path.write_text(json.dumps(rows))
    found = answer(fleet, "--plan", str(path), "--email", "few@example.org", *few)
    assert found["summary"]["binding_of"] == "few@example.org"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--limit", "certificates-per-domain"], "limit: 'certificates-per-domain' is not NAME=RATE"),
        (["--limit", "certificates=1/1d"], "limit: 'certificates' is not one of orders-per-account"),
        (["--limit", "requests-new-order=1/1d"], "limit: 'requests-new-order' is not one of"),
        (["--limit", "orders-per-account=many"], "limit: orders-per-account: 'many' is not a rate; write for example"),
        (["--limit", "orders-per-account=0/1d"], "limit: orders-per-account: "),
        (
            ["--limit", "certificates-per-set="],
            "limit: certificates-per-set: '' is not a rate; write for example 50/7d",
        ),
        (["--lifetime", "45"], "lifetime: '45' is not a lifetime of a certificate: give one from 1h to 3650d"),
        (["--lifetime", "1s"], "lifetime: '1s' is not"),
        (["--lifetime", "short lived=96h"], "profile: 'short lived' is not the name of a profile"),
        (["--lifetime", "9999999d"], "lifetime: '9999999d' is not"),
        (["--names-per-certificate", "0"], "names-per-certificate: 0 is not a number from 1 to 100"),
        (["--names-per-certificate", "101"], "names-per-certificate: 101 is not"),
        (["--ca", "nowhere"], "ca: 'nowhere' is not a CA"),
        (["--email", "nobody"], "email: 'nobody' is not an e-mail address"),
        (["--names-per-certificate", "100"], "names-per-certificate: 100 is for a plan: give --plan too"),
        (["--ca", "letsencrypt"], "ca: 'letsencrypt' is for a plan: give --plan too"),
        (["--email", "ops@example.org"], "email: 'ops@example.org' is for a plan: give --plan too"),
        (
            ["--limit", "certificates-per-set=5/1d", "--limit", "certificates-per-set=5/2d"],
            "limit: 'certificates-per-set=5/2d' is the second one for the same limit: give one for each",
        ),
        (
            ["--lifetime", "45d", "--lifetime", "30d"],
            "lifetime: '30d' is the second one for the same profile: give one for each",
        ),
        (
            ["--lifetime", "classic=45d", "--lifetime", "64d", "--lifetime", "classic=45d"],
            "lifetime: 'classic=45d' is the second one for the same profile: give one for each",
        ),
        (["--plan", "/none.csv"], "plan: '/none.csv' cannot be read (No such file or directory)"),
    ],
)
def test_what_cannot_be_assumed(fleet: Door, words: list[str], said: str) -> None:
    """One sentence, status 2."""
    assert fleet.refused("forecast", *words).startswith(said)


def test_plans_that_could_not_be_added(fleet: Door, tmp_path: Path) -> None:
    """No account to order with; a name that a public CA cannot certify, and whose it is."""
    path = tmp_path / "plan.csv"
    path.write_text("app,domains\nshop,shop.example.org\n")
    assert fleet.refused("forecast", "--plan", str(path)).startswith("email: app shop has none: give --email")
    path.write_text("app,domains\nblog2,blog2.example.org\nshop,shop.internal\n")
    said = fleet.refused("forecast", "--plan", str(path), "--email", "ops@example.org")
    assert said.startswith("plan: app shop: domain: 'shop.internal' has no public suffix")
