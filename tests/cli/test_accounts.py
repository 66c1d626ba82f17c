"""`account`, `revoke` and `replace` without a CA: what is refused, and what is said of what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from certfleet.acme_ca.account_records import account_id
from certfleet.acme_ca.presets import resolve_ca
from certfleet.models import Account, dump
from tests.cli.conftest import Door


def known(fleet: Door, *cas: str, **fields: object) -> None:
    """Accounts of ops@example.com as Redis has them."""
    for ca in cas:
        name = account_id(resolve_ca(ca), "ops@example.com")
        values = {"url": f"https://{ca}/1"} | fields
        record = Account(name, ca, "ops@example.com", "sealed", **values)  # type: ignore[arg-type]
        fleet.redis.set(f"certfleet:account:{name}", dump(record))


def test_accounts_are_shown(fleet: Door) -> None:
    """With the number of apps that are set to each; what is sealed is not shown."""
    assert fleet.done("account", "ls").out.startswith("No accounts yet")
    known(fleet, "letsencrypt", "letsencrypt-staging", sealed_next="sealed too")
    said = fleet.done("account", "ls")
    rows = [line.split() for line in said.out.splitlines()[1:]]
    assert [row[:3] for row in rows] == [
        ["letsencrypt", "ops@example.com", "1"],
        ["letsencrypt-staging", "ops@example.com", "0"],
    ]
    assert "a change of its key was cut short" in said.out
    assert "sealed" not in said.out + fleet.done("account", "ls", "--json").out


def test_accounts_that_are_none(fleet: Door) -> None:
    """Nothing is asked of any CA."""
    for words in (["rollover"], ["deactivate"], ["deactivate", "--yes"]):
        assert fleet.refused("account", *words, "who@example.com").startswith("account: 'who@example.com' is")
    assert fleet.refused("account", "email", "who@example.com", "new@example.com").startswith("account: ")
    said = fleet.refused("account", "email", "ops@exämple.com", "new@example.com")
    assert said.startswith("account: 'ops@exämple.com' is none"), "looked for, as an older version may have kept it"
    assert fleet.refused("account", "email", "ops@example.com", "nonsense").startswith("email: 'nonsense' is not an")
    known(fleet, "letsencrypt", "letsencrypt-staging")
    said = fleet.refused("account", "rollover", "ops@example.com")
    assert said == "ca: ops@example.com has accounts at letsencrypt, letsencrypt-staging: name one with --ca"
    assert fleet.refused("account", "deactivate", "ops@example.com") == said


def test_the_end_of_an_account_is_asked_for(fleet: Door) -> None:
    """Without an answer nothing is done; the question says how many apps are set to it."""
    known(fleet, "letsencrypt")
    before = fleet.everything()
    said = fleet.run("account", "deactivate", "ops@example.com")
    assert said.status == 1
    assert "End ops@example.com at letsencrypt for ever? 1 apps are set to it." in said.err
    known(fleet, "letsencrypt-staging")
    before = fleet.everything()
    said = fleet.run("account", "deactivate", "ops@example.com", "--ca", "letsencrypt-staging")
    assert said.status == 1
    assert "at letsencrypt-staging for ever? 0 apps" in said.err
    assert fleet.everything() == before


def test_an_account_that_was_never_registered_is_none_to_choose_from(fleet: Door) -> None:
    """Its CA was down when the first order came: the other account is the one that is meant, without --ca."""
    known(fleet, "letsencrypt-staging", url=None)
    for words in (["rollover"], ["deactivate"]):
        assert "is none" in fleet.refused("account", *words, "ops@example.com"), "nothing is asked"
    known(fleet, "letsencrypt")
    said = fleet.run("account", "deactivate", "ops@example.com")
    assert said.status == 1
    assert "End ops@example.com at letsencrypt for ever?" in said.err
    said = fleet.run("account", "rollover", "ops@example.com")
    assert said.status == 1, "what is sealed here opens with no key, and no CA is asked"
    assert "name one with --ca" not in said.err


@pytest.mark.parametrize("content", [None, "secret words"])
def test_files_that_cannot_be_imported(fleet: Door, tmp_path: Path, content: str | None) -> None:
    """One sentence without what is in the file."""
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_text(content)
    said = fleet.refused("account", "import", str(path), "--email", "ops@example.com")
    assert said.startswith("file: ")
    assert "secret" not in said


def test_revocations_that_cannot_be(fleet: Door) -> None:
    """Nothing to revoke, an unknown app, a reason that no CA takes, two that do not fit."""
    assert fleet.refused("revoke", "blog") == "app: 'blog' has no certificate here: there is nothing to revoke"
    assert fleet.refused("revoke", "shop").startswith("app: 'shop' is not known")
    assert fleet.refused("revoke", "blog", "--reason", "cACompromise").startswith("reason: 'cACompromise' is not one")
    said = fleet.refused("revoke", "blog", "--compromised", "--reason", "superseded")
    assert said.startswith("reason: 'superseded' is not the one of --compromised")


def test_replacements_that_cannot_be(fleet: Door, tmp_path: Path) -> None:
    """Wrong words are refused, and without a certificate that fits nothing is done."""
    serials = tmp_path / "serials"
    serials.write_text("a1\nxyz\n")
    assert fleet.refused("replace", "--file", str(serials)).startswith("file: 'xyz' (line 2) is not a serial")
    assert fleet.refused("replace", "--file", str(tmp_path / "none")).startswith("file: ")
    assert fleet.refused("replace", "--ca", "x", "--yes").startswith("ca: 'x' is not a CA")
    assert fleet.refused("replace", "--all-issued-between", "now", "then").startswith("all-issued-between: 'now' is")
    for words in (("0001-01-01T00:00+14:00", "2031-01-01"), ("2031-01-01", "9999-12-31T23:59-12:00")):
        said = fleet.refused("replace", "--all-issued-between", *words, "--yes")
        assert said.startswith("all-issued-between: '")
        assert "is before the year 1 or after the year 9999 in UTC: give a time such as" in said
    assert fleet.refused("replace", "--revoke").startswith("revoke: say which: give --file, --ca or")
    said = fleet.refused("replace", "--ca", "letsencrypt", "--revoke", "--reason", "cACompromise")
    assert said.startswith("reason: 'cACompromise' is not one"), "before it asks whether to replace them"
    said = fleet.refused("replace", "--ca", "letsencrypt", "--reason", "keyCompromise", "--yes")
    assert said == "reason: 'keyCompromise' is the one of a revocation: give --revoke too"
    serials.write_text("a1\n")
    for yes in ([], ["--yes"]):
        nothing = fleet.run("replace", "--file", str(serials), *yes)
        assert (nothing.status, nothing.out) == (1, "")
        assert "no enabled app has such a certificate: nothing was changed" in nothing.err
    assert fleet.done("replace").out == "Nothing is being replaced: `certfleet replace --help`.\n"


def test_terms_are_agreed_to_with_an_option(fleet: Door) -> None:
    """For one app; it is a property like others."""
    words = ("--domain", "shop.example.com", "--host", "web1", "--email", "ops@example.com", "--agree-tos")
    fleet.done("app", "add", "shop", *words)
    assert "agree-tos" in fleet.done("app", "show", "shop").out
    assert "agree-tos" not in fleet.done("app", "show", "blog").out
    fleet.done("enable", "blog", "--agree-tos")
    assert "agree-tos" in fleet.done("app", "show", "blog").out
