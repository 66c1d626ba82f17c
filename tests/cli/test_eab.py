"""`certfleet eab …` and `certfleet profiles` at the door: what they take, what they never show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from certfleet.cli.commands import app
from tests.cli.conftest import PRIVATE_CA, Door

MAC = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"


@pytest.fixture
def key_file(short_directory: Path) -> Path:
    """A file with a MAC key."""
    path = short_directory / "mac.key"
    path.write_text(MAC + "\n")
    return path


def test_kept_shown_without_its_key_and_forgotten(fleet: Door, key_file: Path) -> None:
    """For the CA and e-mail that are named, else for those of all apps."""
    fleet.done("set", "email=ops@example.com")
    words = ["eab", "set", "--kid", "kid-1", "--key-file", str(key_file)]
    said = fleet.done(*words), fleet.done(*words, "--ca", PRIVATE_CA, "--email", "a@example.com")
    assert "letsencrypt ops@example.com: kept" in said[0].out
    listed = json.loads(fleet.done("eab", "list", "--json").out)["external_accounts"]
    assert listed == [
        {"ca": PRIVATE_CA, "email": "a@example.com", "kid": "kid-1", "key": "****"},
        {"ca": "letsencrypt", "email": "ops@example.com", "kid": "kid-1", "key": "****"},
    ]
    assert "kid-1, key ****" in fleet.done("info", "blog").out
    assert not any(MAC.encode() in str(value).encode() for value in fleet.everything().values())
    assert "forgotten" in fleet.done("eab", "rm").out
    assert "there is none" in fleet.done("eab", "rm").out
    assert json.loads(fleet.done("info", "blog", "--json").out)["external_accounts"] == []
    fleet.done("eab", "rm", "--ca", PRIVATE_CA, "--email", "a@example.com")
    assert "No external accounts" in fleet.done("eab", "list").out


def test_the_key_by_standard_input(fleet: Door) -> None:
    """No file is needed: it comes from a pipe."""
    words = ["eab", "set", "--email", "ops@example.com", "--kid", "kid-1", "--key-file", "-"]
    result = CliRunner().invoke(app, words, input=MAC)
    assert result.exit_code == 0, result.output
    assert "kid-1" in fleet.done("eab", "list").out


def test_one_ca_at_a_time(fleet: Door, key_file: Path) -> None:
    """A list is for apps: what one CA gave is no other's, and an app's profiles are those of one."""
    given = ["--email", "ops@example.com", "--kid", "kid-1", "--key-file", str(key_file)]
    several = f"{PRIVATE_CA},letsencrypt"
    for words in (["eab", "set", "--ca", several, *given], ["profiles", "--ca", several]):
        assert fleet.refused(*words) == f"ca: {several!r} are several CAs: give one at a time"


def test_a_new_vault_key_seals_it_anew(fleet: Door, key_file: Path) -> None:
    """As every other secret."""
    fleet.done("eab", "set", "--email", "ops@example.com", "--kid", "kid-1", "--key-file", str(key_file))
    [before] = [value for key, value in fleet.everything().items() if b":eab:" in key]
    fleet.done("vault", "rotate")
    [after] = [value for key, value in fleet.everything().items() if b":eab:" in key]
    assert before != after


def test_what_is_no_key(fleet: Door, short_directory: Path) -> None:
    """One sentence; what the file holds is not in it."""
    path = short_directory / "wrong"
    words = ["eab", "set", "--email", "ops@example.com", "--kid", "kid-1", "--key-file", str(path)]
    assert "cannot be read" in fleet.refused(*words)
    for content in ("", "my secret password is 12345", "c2hvcnQ", "A" * 5000):
        path.write_text(content)
        said = fleet.refused(*words)
        assert said.startswith("key-file: ")
        assert not content or content not in said
    path.write_bytes(b"\xff\xfe\x00secret")
    assert "not text" in fleet.refused(*words)


def test_what_is_no_account(fleet: Door, key_file: Path) -> None:
    """A CA or e-mail that cannot be, none at all, a key identifier of two words."""
    words = ["eab", "set", "--key-file", str(key_file)]
    assert fleet.refused(*words, "--kid", "k").startswith("email: is not set for all apps")
    assert fleet.refused(*words, "--kid", "k", "--email", "nobody").startswith("email: ")
    assert fleet.refused(*words, "--kid", "k", "--email", "a@example.com", "--ca", "http://x").startswith("ca: ")
    assert fleet.refused(*words, "--kid", "two words", "--email", "a@example.com").startswith("kid: ")


def test_profiles_of_a_ca_that_cannot_be_asked(fleet: Door) -> None:
    """Wrong usage, or a CA that does not answer: one sentence."""
    assert fleet.refused("profiles", "--ca", "letsencrypt", "--app", "blog").startswith("ca: ")
    assert fleet.refused("profiles", "--app", "nobody").startswith("app: ")
    said = fleet.run("profiles", "--ca", "https://127.0.0.1:1/directory")
    assert (said.status, said.out) == (1, "")
    assert "cannot be reached" in said.err
