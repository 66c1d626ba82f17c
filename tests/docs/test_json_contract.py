"""docs/json.md is the contract: what the code answers has the documented fields, types and nulls."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass
from datetime import datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from certfleet.acme_ca.crl import distribution_point
from certfleet.acme_ca.reasons import Reason
from certfleet.cli.revocation import RevocationListView, RevocationView
from certfleet.demo.story import Summary
from certfleet.install.answer import Point
from certfleet.journal import Entry
from certfleet.lifecycle.accounts import AccountView
from certfleet.lifecycle.challenges.dns_credentials import DNSCredentials
from certfleet.lifecycle.challenges.standing import StandingRecord
from certfleet.lifecycle.doctor import Finding
from certfleet.lifecycle.external import Bound, Profile
from certfleet.lifecycle.forecasts.estimate import AppForecast, BucketForecast, LimitForecast
from certfleet.lifecycle.forecasts.estimate import Summary as ForecastSummary
from certfleet.lifecycle.limiting import Publication, Rule
from certfleet.lifecycle.revocations.book import Revocation
from certfleet.lifecycle.revocations.crl_book import WatchedList
from certfleet.lifecycle.revocations.replacing import Progress
from certfleet.limits.outages import Outage, id_of
from certfleet.limits.view import BucketInUse
from certfleet.models import Account, App, Cause, Host, Installation, Passed, dump, utcnow
from certfleet.overview import Overview, State
from certfleet.properties import PROPERTIES
from tests.certificate_records import record
from tests.cli.conftest import Door, bundle, door, fleet
from tests.docs.pages import ROOT, page
from tests.revoking_ca import RevokingCA

__all__ = ["bundle", "door", "fleet"]  # fixtures

CONTRACT = page("docs/json.md")
OBJECTS = {
    "revocation": RevocationView,
    "revocation_list": RevocationListView,
    "account": AccountView,
    "replacement": Progress,
    "overview": Overview,
    "installation": Installation,
    "entry": Entry,
    "credentials": DNSCredentials,
    "app": App,
    "host": Host,
    "point": Point,
    "finding": Finding,
    "summary": Summary,
    "external_account": Bound,
    "standing_record": StandingRecord,
    "profile": Profile,
    "passed_over": Passed,
    "bucket": BucketInUse,
    "outage": Outage,
    "publication": Publication,
    "limit": Rule,
    "forecast": ForecastSummary,
    "forecast_limit": LimitForecast,
    "forecast_bucket": BucketForecast,
    "forecast_app": AppForecast,
}
WORDS: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", datetime: "time"}
KINDS = {
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "boolean": lambda v: isinstance(v, bool),
    "time": lambda v: isinstance(v, str) and bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", v)),
    "list of objects": lambda v: isinstance(v, list) and all(isinstance(one, dict) for one in v),
    "list of strings": lambda v: isinstance(v, list) and all(isinstance(one, str) for one in v),
    "object of integers": lambda v: isinstance(v, dict) and all(isinstance(one, int) for one in v.values()),
    "object of strings": lambda v: isinstance(v, dict) and all(isinstance(one, str) for one in v.values()),
}


def word(kind: Any) -> str:
    """A Python type in the contract's words."""
    if isinstance(kind, UnionType):
        [plain] = [part for part in get_args(kind) if part is not NoneType]
        return f"{word(plain)} or null"
    if get_origin(kind) is tuple:
        return f"list of {word(get_args(kind)[0])}s"
    if get_origin(kind) is dict:
        return f"object of {word(get_args(kind)[1])}s"
    if is_dataclass(kind):
        inside = {word(hint) for hint in get_type_hints(kind).values()}
        return f"object of {inside.pop()}s" if len(inside) == 1 else "object"
    return "string" if issubclass(kind, str) else WORDS[kind]


def documented(name: str) -> dict[str, str]:
    """Field -> type of one object."""
    return {row[0]: row[1] for row in CONTRACT.table(f"### {name}\n")}


@pytest.mark.parametrize("name", OBJECTS)
def test_fields_and_types(name: str) -> None:
    """Every field is documented in its place, with its type and whether it may be null."""
    hints = get_type_hints(OBJECTS[name])
    assert documented(name) == {field.name: word(hints[field.name]) for field in fields(OBJECTS[name])}


def commands() -> dict[str, dict[str, str]]:
    """Command -> field -> what it holds, as the contract says."""
    found: dict[str, dict[str, str]] = {}
    for command, field, content in CONTRACT.table("## Commands"):
        found.setdefault(command, {})[field] = content
    return found


@pytest.mark.parametrize("command", commands())
def test_answers_are_as_documented(fleet: Door, command: str, tmp_path: Path) -> None:
    """One JSON object with the documented fields; each object in it has the documented fields and kinds of value."""
    fleet.done("set", "--app", "blog", "key-type=p384")
    fleet.done("dns", "set", "cf", "cloudflare", "auth_token=t0ken")
    fleet.redis.set("certfleet:limit:letsencrypt:certificates-per-domain:example.com", f"{10**17} 1")
    away = {"directory": "https://ca.example/", "open": "1", "since": "1700000000000000", "next": "1700000300000000"}
    for field, value in away.items():
        fleet.redis.hset(f"certfleet:outage:{id_of(away['directory'])}", field, value)
    fleet.redis.hset("certfleet:outages", id_of(away["directory"]), away["directory"])
    key = tmp_path / "mac.key"
    key.write_text("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY")
    fleet.done("eab", "set", "--email", "ops@example.com", "--kid", "kid-1", "--key-file", str(key))
    account = Account("1", "letsencrypt", "ops@example.com", "sealed", "https://ca.example/1")
    fleet.redis.set("certfleet:account:1", dump(account))
    now = utcnow()
    ours = Revocation("blog", "1f", "", "letsencrypt", "", "ops@example.com", Reason.SUPERSEDED, now, now)
    fleet.redis.hset("certfleet:revocations:blog", "1f", dump(ours))
    watched(fleet)
    plan = tmp_path / "plan.csv"
    plan.write_text("app,domains,email\n" + "".join(f"a{n},a{n}.example.org,a@example.org\n" for n in range(60)))
    words = command.replace("APP", "blog").replace("HOST", "web1").replace("FILE", str(plan)).split()[1:]
    answer = json.loads(fleet.done(*words).out)
    contents = commands()[command]
    assert list(answer) == ["version", *contents]
    assert answer["version"] == 1
    for field, content in contents.items():
        target = re.search(r"\(#(\w+)\)", content)
        assert target is not None, content
        values = answer[field] if content.startswith("list of") else [answer[field]]
        assert values, f"{field} is empty, nothing was compared"
        for value in values:
            check(target[1], value, without={"ca-bundle"} if "without ca-bundle" in content else set())


def watched(fleet: Door) -> None:
    """Blog's certificate names a list, which is looked at."""
    leaf = RevokingCA().leaf()
    place = distribution_point(leaf)
    assert place is not None
    app = App("blog", ("blog.example.com",), ("web1",))
    fleet.redis.set("certfleet:certificate:blog", dump(record(app, utcnow(), leaf=leaf)))
    fleet.redis.set(f"certfleet:crl:{place.name}", dump(WatchedList(place.name, place.url, "")))


def check(name: str, value: dict[str, Any], without: set[str]) -> None:
    """Compare one object of an answer with its table."""
    if name == "properties":
        assert list(value) == [name for name in PROPERTIES if name not in without]
        assert all(isinstance(one, str) for one in value.values())
        return
    kinds = documented(name)
    assert list(value) == list(kinds)
    for field, kind in kinds.items():
        if not (value[field] is None and kind.endswith(" or null")):
            assert KINDS[kind.removesuffix(" or null")](value[field]), f"{name}.{field} is {value[field]!r}, not {kind}"


def test_every_json_option_is_in_the_contract() -> None:
    """A command that learns --json gets its row here."""
    source = "\n".join(path.read_text() for path in (ROOT / "certfleet" / "cli").glob("*.py"))
    # These need a host, a CA or DNS: tests/hosts/test_setup.py, tests/dns/test_persist.py, and test_profiles.py and
    # test_doctor.py in tests/lifecycle.
    told = [
        *commands(),
        "certfleet host check HOST --json",
        "certfleet profiles --json",
        "certfleet doctor APP --json",
        "certfleet dns-persist show APP --json",
    ]
    assert source.count("print_json(") - source.count("def print_json(") == len(told)


def test_states() -> None:
    """All words that `state` may be."""
    assert {row[0] for row in CONTRACT.table("### states")} == {str(state) for state in State}


def test_causes() -> None:
    """All words that `cause` may be."""
    told = next(row[2] for row in CONTRACT.table("### passed_over\n") if row[0] == "cause")
    assert re.findall(r"(\w+): ", told) == [str(cause) for cause in Cause]


def test_events() -> None:
    """All words that the journal writes."""
    told = {row[0] for row in CONTRACT.table("### events")}
    written = {"install failed", "served"}  # chosen by a condition, lifecycle/hosts/install.py
    for path in (ROOT / "certfleet").rglob("*.py"):
        written |= set(re.findall(r'journal\.(?:write|entry)\([^,]+, "([^"]+)"', path.read_text()))
    assert told == written
