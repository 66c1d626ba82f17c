"""`certfleet dns …`: credentials go in, and nobody gets them out."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from certfleet.cli.commands import app
from tests.cli.conftest import Door

TOKEN = "t0ken-that-nobody-is-shown"


def test_credentials_are_sealed_and_not_shown(fleet: Door, tmp_path: Path) -> None:
    """By file, by word, listed with stars, in Redis sealed; the journal has the names of the keys alone."""
    file = tmp_path / "cloudflare"
    file.write_text(f"# a comment\n\nauth_token = {TOKEN}\n")
    file.chmod(stat.S_IRUSR)
    said = fleet.done("dns", "set", "cf", "cloudflare", "zone-id=abc", "--file", str(file))
    assert said.out == (
        "cf: the credentials for cloudflare are kept; `certfleet set --app APP challenge=dns-01 dns=cf` uses it\n"
    )
    listed = fleet.done("dns", "list").out
    assert "auth_token=**** zone_id=****" in listed
    [shown] = json.loads(fleet.done("dns", "list", "--json").out)["credentials"]
    assert shown == {"name": "cf", "provider": "cloudflare", "keys": ["auth_token", "zone_id"]}
    everything = str(fleet.everything())
    assert TOKEN not in everything
    assert TOKEN not in said.out + listed


def test_standard_input(fleet: Door) -> None:
    """`--file -`."""
    result = CliRunner().invoke(app, ["dns", "set", "cf", "cloudflare", "--file", "-"], input=f"auth_token={TOKEN}\n")
    assert result.exit_code == 0, result.stderr
    assert "auth_token=****" in fleet.done("dns", "list").out


def test_an_app_refers_to_them(fleet: Door) -> None:
    """dns-01 needs credentials that there are; a wildcard needs dns-01; what is used stays."""
    wanted = "dns: app blog has none, and dns-01 needs it: `certfleet dns set --help`"
    assert fleet.refused("set", "--app", "blog", "challenge=dns-01") == wanted
    assert "'cf' is not known" in fleet.refused("set", "--app", "blog", "challenge=dns-01", "dns=cf")
    assert "'cf' is not known" in fleet.refused("set", "dns=cf")
    assert "or set challenge=dns-01" in fleet.refused("app", "change", "blog", "--domain", "*.example.com")
    fleet.done("dns", "set", "cf", "cloudflare", f"auth_token={TOKEN}")
    fleet.done("set", "--app", "blog", "challenge=dns-01", "dns=cf")
    fleet.done("app", "change", "blog", "--domain", "*.example.com", "--domain", "example.com")
    properties = json.loads(fleet.done("info", "blog", "--json").out)["properties"]
    assert (properties["challenge"], properties["dns"]) == ("dns-01", "cf")
    assert "is used by blog" in fleet.refused("dns", "rm", "cf")
    assert "is for private CAs" in fleet.refused("set", "--app", "blog", "dns-port=5353")
    fleet.done("app", "rm", "blog")
    fleet.done("set", "dns=cf")
    assert "is set for all apps" in fleet.refused("dns", "rm", "cf")
    fleet.done("set", "dns=")
    fleet.done("dns", "rm", "cf")
    assert fleet.done("dns", "list").out == "No credentials yet: `certfleet dns set --help`.\n"
    assert "'cf' is not known" in fleet.refused("dns", "rm", "cf")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("cf", "nobody", f"a={TOKEN}"), "'nobody' is not known"),
        (("cf", "cloudflare", TOKEN), "one of them is not"),
        (("cf", "cloudflare", f"=x{TOKEN}"), "one of them is not"),
        (("cf", "cloudflare", f"api={TOKEN}"), "'api' is not one of cloudflare's: auth_username, auth_token"),
        (("cf", "rfc2136", "server=192.0.2.1", "key=k", f"secret={TOKEN}!"), "'secret' is not base64"),
        (("cf", "rfc2136", "server=192.0.2.1", "key=bad key..", f"secret={TOKEN}"), "'key' cannot be 'bad key..'"),
        (("cf", "rfc2136", "server=127.0.0.1:14720", "key=k", f"secret={TOKEN}"), "'server' cannot be '127.0.0.1:147"),
        (("cf", "route53", f"auth_access_key={TOKEN}"), "needs more packages"),
        (("Cf", "cloudflare", f"auth_token={TOKEN}"), "'Cf' is not a name"),
        (("cf", "cloudflare", "--file", "/nowhere/at/all"), "cannot be read"),
    ],
)
def test_what_is_refused(fleet: Door, words: tuple[str, ...], said: str) -> None:
    """One sentence, and not the value."""
    sentence = fleet.refused("dns", "set", *words)
    assert said in sentence
    assert TOKEN not in sentence


def test_providers_and_their_keys(door: Door) -> None:
    """Ours first, then dns-lexicon's whole list; the keys of one."""
    listed = door.done("dns", "providers").out.splitlines()
    assert listed[:3] == ["rfc2136", "exec", "acme-dns"]
    assert {"cloudflare", "hetzner", "route53 (needs dns-lexicon[route53])"} <= set(listed)
    assert len(listed) > 90
    assert door.done("dns", "providers", "rfc2136").out == "server port key secret algorithm ttl\n"
    assert door.done("dns", "providers", "cloudflare").out.split()[:2] == ["auth_username", "auth_token"]
    assert "'nobody' is not known" in door.refused("dns", "providers", "nobody")


def test_addresses_have_no_standing_records(fleet: Door) -> None:
    """Said in one sentence, also where there is no account and no key yet; the JSON is an empty list, as ever."""
    fleet.done("app", "add", "dns", "--domain", "1.1.1.1", "--domain", "2606:4700:4700::1111", "--host", "web1",
               "--email", "ops@example.com", "--profile", "shortlived")  # fmt: skip
    assert fleet.done("dns-persist", "show", "dns").out == (
        "There is nothing to write for dns: it has IP addresses only, which cannot be proven by DNS; "
        "http-01 proves them.\n"
    )
    assert json.loads(fleet.done("dns-persist", "show", "dns", "--json").out)["records"] == []
