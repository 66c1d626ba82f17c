"""What commands answer: sentences, tables, JSON, exit statuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from certfleet.cli.commands import app as command_line
from certfleet.client import PATIENCE
from tests.cli.conftest import PRIVATE_CA, Door
from tests.rig import run_certfleet


def test_idn_names_are_shown_as_typed(fleet: Door) -> None:
    """A-labels are for the CA; people see what they wrote, each name once."""
    words = [word for name in ("Bücher.example.com", "bücher.example.com", "例え.jp") for word in ("--domain", name)]
    fleet.done("app", "add", "shop", *words, "--host", "web1", "--email", "ops@example.com")
    for command in (["ls"], ["info", "shop"], ["app", "show", "shop"], ["app", "list"]):
        said = fleet.done(*command).out
        assert "Bücher.example.com" in said
        assert "xn--" not in said
    shown = json.loads(fleet.done("app", "show", "shop", "--json").out)["app"]
    assert shown["shown"] == ["Bücher.example.com", "例え.jp"]
    assert shown["identifiers"] == ["xn--bcher-kva.example.com", "xn--r8jz45g.jp"]


def test_enable_and_disable_are_idempotent(fleet: Door) -> None:
    """The second time changes nothing and says why in one line."""
    assert fleet.done("enable", "blog").out == "blog: enabled, the certificate is being ordered\n"
    before = fleet.everything()
    assert fleet.done("enable", "blog").out == "blog: is enabled already; it is waiting\n"
    assert fleet.everything() == before
    assert fleet.done("disable", "blog").out == "blog: disabled; it has no certificate\n"
    before = fleet.everything()
    assert fleet.done("disable", "blog").out == "blog: is not enabled\n"
    assert fleet.everything() == before


def test_a_change_that_is_none(fleet: Door) -> None:
    """Names and hosts as they are: nothing to do, and said so."""
    said = fleet.done("app", "change", "blog", "--domain", "blog.example.com", "--host", "web1")
    assert said.out == "blog: nothing to change, it is like that already\n"


def test_properties_are_set_all_or_none(fleet: Door, bundle: Path) -> None:
    """A private CA and its bundle belong together: one command sets both, for an app whose name needs both."""
    fleet.done("enable", "blog")
    said = fleet.done("set", f"ca={PRIVATE_CA}", f"ca-bundle={bundle}", "graceperiod=12h")
    assert "every app: ca-bundle = 1 certificates" in said.out
    values = json.loads(fleet.done("properties", "--app", "blog", "--json").out)["properties"]
    assert values["ca"] == PRIVATE_CA
    assert values["ca-bundle"].startswith("-----BEGIN CERTIFICATE-----")
    assert values["graceperiod"] == "12h"
    assert "(set)" in fleet.done("properties").out
    fleet.done("set", "--app", "blog", "ca=letsencrypt")
    values = json.loads(fleet.done("properties", "--app", "blog", "--json").out)["properties"]
    assert values["ca-bundle"] == "", "a bundle for all apps is not for those at a publicly known CA"
    assert fleet.done("set", "graceperiod=").out == "every app: graceperiod is not set\n"


FIELDS: dict[str, set[str]] = {
    "ls": {"apps"},
    "info blog": {
        "app",
        "installations",
        "properties",
        "history",
        "external_accounts",
        "revocations",
        "revocation_lists",
    },
    "app list": {"apps"},
    "app show blog": {"app"},
    "host list": {"hosts"},
    "host show web1": {"host"},
    "properties": {"properties"},
}
OVERVIEW = {"name", "state", "domains", "hosts", "served_on", "ca", "generation", "serial", "not_after", "renew_at",
            "spread_from", "window_start", "window_end", "explanation", "next_try", "reason",
            "error", "wave", "waits_for", "waits_until", "place", "places", "profile",
            "revoked", "revoked_for", "issued_by", "asked_ca", "passed_over",
            "warning", "key_on", "away_since"}  # fmt: skip


@pytest.mark.parametrize("command", FIELDS)
def test_json_has_a_version_and_its_fields(fleet: Door, command: str) -> None:
    """Standard output is one JSON object with nothing beside it."""
    said = fleet.done(*command.split(), "--json")
    answer: dict[str, Any] = json.loads(said.out)
    assert answer.keys() == {"version"} | FIELDS[command]
    assert answer["version"] == 1
    assert said.err == ""
    if command == "ls":
        assert answer["apps"][0].keys() == OVERVIEW
    if command == "info blog":
        assert answer["app"].keys() == OVERVIEW
        assert answer["installations"][0].keys() >= {"host", "wanted", "installed", "served", "error", "retry_at"}
        assert answer["history"][0].keys() == {"at", "app", "event", "detail"}
        assert answer["history"][0]["at"].endswith("Z")


def test_not_served_in_time_is_status_3(fleet: Door) -> None:
    """Nobody works on it here: the wait ends with 3, how it is on standard output, the sentence on standard error."""
    said = fleet.run("enable", "blog", "--wait", "--timeout", "0.2")
    assert said.status == 3
    assert "blog: waiting, served on 0 of 1" in said.out
    assert said.err.startswith("certfleet: not all were served within")


def test_renew_of_what_is_not_enabled_fails(fleet: Door) -> None:
    """Status 1 and the command that helps; without names, such apps are simply not meant."""
    for more in ([], ["--wait"], ["--force"]):
        said = fleet.run("renew", "blog", *more)
        assert (said.status, said.err) == (1, "blog: is not enabled: `certfleet enable blog`\n")
    assert fleet.done("renew").out == "No app is enabled: `certfleet enable --help`.\n"


def test_a_removed_app_leaves_nothing(fleet: Door) -> None:
    """After `app rm` and `host rm` there is only the journal."""
    fleet.done("enable", "blog")
    fleet.done("renew", "blog", "--force")
    fleet.done("app", "rm", "blog")
    fleet.done("host", "rm", "web1")
    left = {key.decode() for key in fleet.everything()}
    assert {key for key in left if not key.startswith("certfleet:broker:")} <= {
        "certfleet:journal", "certfleet:agenda:fence"
    }  # fmt: skip


def test_no_apps_yet(door: Door) -> None:
    """An empty fleet is no error, and the next step is named."""
    assert "certfleet app add" in door.done("ls").out
    assert json.loads(door.done("ls", "--json").out) == {"version": 1, "apps": []}


def test_without_redis_one_sentence_soon(short_directory: Path) -> None:
    """Status 1 after a short patience, from a real process: neither the embedded one nor a named one answers."""
    assert PATIENCE <= 5
    nobody = {"CERTFLEET_HOME": str(short_directory)}
    for more, where in (({}, "certfleet up"), ({"CERTFLEET_REDIS_URL": "redis://u:geheim@127.0.0.1:9/0"}, "REDIS_URL")):
        said = run_certfleet("ls", "--json", environment=os.environ | nobody | more)
        assert (said.returncode, said.stdout) == (1, "")
        assert said.stderr.startswith("certfleet: Redis does not answer (")
        assert where in said.stderr
        assert said.stderr.count("\n") == 1
        assert "geheim" not in said.stderr
    assert list(short_directory.iterdir()) == [], "looking makes nothing"


def test_a_setting_that_is_wrong_is_one_sentence(short_directory: Path) -> None:
    """Bad set-up is status 1; the sentence names the variable and does not show a password."""
    for value in ("http://u:geheim@x/", "redis://u:geheim@x:port/", "geheim"):
        said = run_certfleet(
            "ls", environment=os.environ | {"CERTFLEET_HOME": str(short_directory), "CERTFLEET_REDIS_URL": value}
        )
        assert (said.returncode, said.stdout) == (1, "")
        assert said.stderr.startswith("certfleet: CERTFLEET_REDIS_URL: has to be redis://")
        assert "geheim" not in said.stderr


def every_command() -> list[list[str]]:
    """The words of every command and group."""
    found: list[list[str]] = [[]]
    for info in command_line.registered_commands:
        assert info.callback is not None
        found.append([info.name or info.callback.__name__])
    for group in command_line.registered_groups:
        assert group.name is not None
        assert group.typer_instance is not None
        found.append([group.name])
        for info in group.typer_instance.registered_commands:
            assert info.callback is not None
            found.append([group.name, info.name or info.callback.__name__])
    return found


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_help_can_be_followed(door: Door, words: list[str]) -> None:
    """-h and --help say the same; every option and argument is explained; nothing is cut or folded away."""
    said = door.done(*words, "--help")
    assert door.done(*words, "-h").out == said.out
    assert "..." not in said.out.replace("]...", "").replace("}...", "")
    lines = said.out.splitlines()
    for number, line in enumerate(lines):
        if line.startswith(("  -", "  --")):
            explained = line.strip().split("  ", 1)
            following = lines[number + 1].startswith("      ") if number + 1 < len(lines) else False
            assert len(explained) == 2 or following, f"not explained: {line}"
    for heading in ("Arguments:", "Commands:"):
        if heading in lines:
            line = lines[lines.index(heading) + 1]
            assert "  " in line.strip().replace("  [required]", ""), f"not explained: {line}"
    for line in lines[lines.index("Commands:") :] if "Commands:" in lines else ():
        assert len(line) <= 76, f"is cut in a terminal of 80 columns, of which click leaves four alone: {line}"


def test_the_examples_in_help_are_commands(fleet: Door) -> None:
    """What a newcomer types after reading works as printed."""
    text = fleet.done("--help").out.replace("\\\n", " ")
    examples = [line.split("  ")[0:4] for line in text.splitlines() if line.strip().startswith("certfleet ")]
    words = [" ".join(part for part in example if part.strip()).split() for example in examples]
    names = {tuple(w[1:2]) for w in words}
    assert names == {("up",), ("host",), ("app",), ("set",), ("snippet",), ("enable",), ("ls",)}
    fleet.done("app", "rm", "blog")
    add = next(line for line in text.splitlines() if "app add" in line).split()[1:]
    fleet.done(*add)
    assert "ssl_certificate" in fleet.done("snippet", "blog").out
