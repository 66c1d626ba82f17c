"""`certfleet limits set` and `presets`: what is taken, what is refused, what is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from certfleet.acme_ca.account_records import account_id
from certfleet.acme_ca.presets import resolve_ca
from certfleet.limits.outages import id_of
from certfleet.models import Account, dump
from tests.cli.conftest import PRIVATE_CA, Door

SET = ("limits", "set")


def shown(door: Door, *words: str) -> dict[tuple[str, str | None], dict[str, Any]]:
    """Limit and account or domain -> the rule, as `presets` answers."""
    answer = json.loads(door.done("limits", "presets", *words, "--json").out)
    return {(rule["limit"], rule["account"] or rule["domain"]): rule for rule in answer["limits"]}


def version(door: Door) -> int:
    """How often limits were changed."""
    return int(door.redis.get("certfleet:limits:version") or 0)


def test_what_the_ca_publishes_is_shown_with_source_and_date(door: Door) -> None:
    """The CA is the one that is set for all apps, unless it is named."""
    answer = json.loads(door.done("limits", "presets", "--json").out)
    assert answer["publication"]["ca"] == "letsencrypt"
    assert answer["publication"]["source"] == "https://letsencrypt.org/docs/rate-limits/"
    assert answer["publication"]["as_of"].startswith("20")
    rules = shown(door)
    assert rules["orders-per-account", None]["value"] == "300/3h"
    assert rules["same-set-exempt", None]["value"] == "on"
    assert not any(rule["overridden"] for rule in rules.values())
    door.done("set", "ca=letsencrypt-staging")
    assert shown(door)["orders-per-account", None]["value"] == "1500/3h"
    assert shown(door, "--ca", "letsencrypt")["orders-per-account", None]["value"] == "300/3h"


def test_a_rate_is_set_and_taken_away_again(door: Door) -> None:
    """For the whole CA, one account, one domain: each beside what was published."""
    assert door.done(*SET, "orders-per-account=600/3h").out == "letsencrypt: set\n"
    door.done(*SET, "--account", "ops@example.com", "orders-per-account=900/3h", "certificates-per-domain=70/7d")
    door.done(*SET, "--domain", "Example.com", "certificates-per-domain=500/7d")
    rules = shown(door)
    assert rules["orders-per-account", None]["value"] == "600/3h"
    assert rules["orders-per-account", None]["published"] == "300/3h"
    assert rules["orders-per-account", "ops@example.com"]["value"] == "900/3h"
    assert rules["certificates-per-domain", "example.com"]["value"] == "500/7d"
    assert rules["certificates-per-domain", None]["value"] == "50/7d"
    said = door.done("limits", "presets").out
    assert "https://letsencrypt.org/docs/rate-limits/, as of" in said
    assert "ops@example.com" in said
    id_of = account_id(resolve_ca("letsencrypt"), "ops@example.com")
    assert door.redis.hexists("certfleet:limits", f"letsencrypt orders-per-account account {id_of}")
    door.done(*SET, "orders-per-account=")
    door.done(*SET, "--account", "ops@example.com", "orders-per-account=", "certificates-per-domain=")
    door.done(*SET, "--domain", "example.com", "certificates-per-domain=")
    assert not any(rule["overridden"] for rule in shown(door).values())
    assert door.redis.hlen("certfleet:limits") == 0


def test_setting_what_is_set_changes_nothing(door: Door) -> None:
    """No new version: nobody has to decide anew."""
    door.done(*SET, "orders-per-account=600/3h")
    before = door.everything()
    assert door.done(*SET, "orders-per-account=600/180m").out == "letsencrypt: it is like that already\n"
    assert door.done(*SET, "certificates-per-set=").out == "letsencrypt: it is like that already\n"
    assert door.everything() == before
    assert version(door) == 1


def test_a_private_ca_gets_all_that_a_preset_has(door: Door) -> None:
    """Rates in any notation and the exemptions, at once and in one version."""
    assert door.done("limits", "presets", "--ca", PRIVATE_CA).out.startswith(f"{PRIVATE_CA}: nothing is known but")
    door.done(
        *SET, "--ca", PRIVATE_CA, "requests-new-order=20/1s burst 10", "orders-per-account=100 in 1h",
        "same-set-exempt=on", "ari-exempt=on", "per-project=off"
    )  # fmt: skip
    rules = shown(door, "--ca", PRIVATE_CA)
    assert rules["requests-new-order", None]["value"] == "20/1s burst 10"
    assert rules["requests-new-order", None]["published"] is None
    assert rules["orders-per-account", None]["value"] == "51/1h burst 50"
    assert rules["ari-exempt", None] == {
        "limit": "ari-exempt", "account": None, "domain": None, "value": "on", "published": None, "overridden": True
    }  # fmt: skip
    assert version(door) == 1
    door.done(*SET, "--ca", PRIVATE_CA, "ari-exempt=")
    assert shown(door, "--ca", PRIVATE_CA)["ari-exempt", None]["value"] == "off"
    assert shown(door)["orders-per-account", None]["value"] == "300/3h", "another CA's are not touched"


def test_a_preset_is_the_same_ca_by_its_url(door: Door) -> None:
    """The directory's URL and the name are one CA."""
    door.done(*SET, "--ca", "https://acme-v02.api.letsencrypt.org/directory", "orders-per-account=600/3h")
    assert shown(door, "--ca", "letsencrypt")["orders-per-account", None]["value"] == "600/3h"


def test_addresses_are_counted_by_their_network(door: Door) -> None:
    """IPv6 by /64, which can be set; IDN by its A-labels."""
    for domain, kept in (
        ("2001:db8::/64", "2001:db8::/64"),
        ("192.0.2.1", "192.0.2.1"),
        ("bücher.de", "xn--bcher-kva.de"),
    ):
        door.done(*SET, "--domain", domain, "certificates-per-domain=7/7d")
        assert shown(door)["certificates-per-domain", kept]["value"] == "7/7d"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["orders=1/3h"], "limit: 'orders' is not one of registrations-per-address, "),
        (["=1/3h"], "limit: '' is not one of "),
        (["orders="], "limit: 'orders' is not one of "),
        (["slow-down=1/3h"], "limit: 'slow-down' is what a CA answers"),
        (["certificates-per-domain-and-account=1/3h"], "give certificates-per-domain an account"),
        (["orders-per-account"], "limit: 'orders-per-account' is not LIMIT=RATE, such as orders-per-account=600/3h"),
        (
            ["orders-per-account=100/3h", "orders-per-account=200/3h"],
            "limit: 'orders-per-account=200/3h' is the second one for the same limit: give one for each",
        ),
        (["ari-exempt=on", "ari-exempt="], "limit: 'ari-exempt=' is the second one for the same limit"),
        (["orders-per-account=many"], "rate: 'many' is not a rate; write for example 50/7d"),
        (["orders-per-account=0/3h"], "have to be at least 1"),
        (["orders-per-account=1/3h burst 0"], "have to be at least 1"),
        (["orders-per-account=1/9999d"], "within 4000 days"),
        (["ari-exempt=yes"], "ari-exempt: 'yes' is not one of on, off"),
        (["--account", "nobody", "orders-per-account=1/3h"], "account: 'nobody' is not an e-mail address"),
        (["--account", "", "orders-per-account=1/3h"], "account: '' is not an e-mail address"),
        (["--account", "a@example.com", "certificates-per-set=1/3h"], "is not set per account"),
        (["--account", "a@example.com", "certificates-per-set="], "is not set per account"),
        (["--account", "a@example.com", "ari-exempt=on"], "ari-exempt' is not set per account"),
        (["--domain", "example.com", "ari-exempt="], "ari-exempt' is not set per domain"),
        (["--domain", "example.com", "orders-per-account=1/3h"], "is not set per domain"),
        (["--domain", "www.example.com", "certificates-per-domain=1/3h"], "domain: 'www.example.com' is counted under"),
        (["--domain", "2001:db8::1", "certificates-per-domain=1/3h"], "is counted under 2001:db8::/64; set that"),
        (["--domain", "a b", "certificates-per-domain=1/3h"], "domain: 'a b' is not a DNS name"),
        (["--domain", "", "certificates-per-domain=1/3h"], "domain: '' is not a DNS name"),
        (["--account", "a@example.com", "--domain", "example.com", "certificates-per-domain=1/3h"], "not both"),
        (["--ca", "http://ca.example.com/", "orders-per-account=1/3h"], "ca: 'http://ca.example.com/' is not a CA"),
        (["--ca", "letsencript", "orders-per-account=1/3h"], "ca: 'letsencript' is not a CA"),
    ],
)
def test_bad_input_is_one_sentence_and_sets_nothing(door: Door, words: list[str], said: str) -> None:
    """What stands beside it is not set either."""
    assert said in door.refused(*SET, *words)
    options = words[:-1]
    door.refused(*SET, *options, "certificates-per-domain=9/1h", words[-1])


def test_a_bad_ca_is_not_shown(door: Door) -> None:
    """The same sentence as everywhere."""
    assert door.refused("limits", "presets", "--ca", "nonsense").startswith("ca: 'nonsense' is not a CA")


def test_the_journal_has_it(door: Door) -> None:
    """Who looks for why a limit is what it is finds when it was set."""
    door.done(*SET, "--domain", "example.com", "certificates-per-domain=500/7d")
    entries: Any = door.redis.xrange("certfleet:journal")
    [(_, entry)] = entries
    assert entry[b"event"] == b"limits set"
    assert entry[b"detail"] == b"letsencrypt: certificates-per-domain = 500/7d for example.com"


def test_an_account_is_shown_by_its_address(door: Door) -> None:
    """No command says whose an account's id is."""
    name = account_id(resolve_ca("letsencrypt"), "ops@example.com")
    door.redis.set(f"certfleet:limit:letsencrypt:orders-per-account:{name}", f"{10**17} 1")
    account = Account(name, "letsencrypt", "ops@example.com", "sealed", "https://ca.example/1")
    door.redis.set(f"certfleet:account:{name}", dump(account))
    said = door.done("limits").out
    assert "new orders of the account ops@example.com" in said
    assert name not in said


def test_a_limit_that_is_gone_is_not_shown(door: Door) -> None:
    """What it has counted is still there, and holds nobody; what the CA has answered does, without a rate."""
    door.redis.set("certfleet:limit:ca.example:certificates-per-domain:example.com", f"{10**17} 1")
    door.redis.set("certfleet:limit:ca.example:refused:a1b2", f"{10**17} 1")
    found = json.loads(door.done("limits", "--json").out)["buckets"]
    assert [one["limit"] for one in found] == ["refused"]


def test_a_ca_that_does_not_answer_is_told(door: Door) -> None:
    """Before the table: which, since when, when it is tried again, how many wait."""
    directory = "https://ca.example/directory"
    key = f"certfleet:outage:{id_of(directory)}"
    door.redis.hset("certfleet:outages", id_of(directory), directory)
    door.redis.hset(key, mapping={"open": "1", "since": "1700000000000000", "next": "99999999999000000"})
    door.redis.zadd(f"{key}:waiting", {"blog": 1, "shop": 2})
    said = door.done("limits").out.splitlines()
    assert said[0] == (
        f"{directory}: the CA does not answer since 2023-11-14 22:13 UTC, tried again at 09:46:39; 2 orders wait"
    )
    door.redis.hdel(key, "open")
    assert "does not answer" not in door.done("limits").out
