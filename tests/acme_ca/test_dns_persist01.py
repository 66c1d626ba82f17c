"""Records of dns-persist-01: written, read and judged as draft-ietf-acme-dns-persist and Boulder do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certfleet.acme_ca.challenges.dns_persist01 import (
    Holder,
    Wanted,
    hashed_account,
    issuer_names,
    judge,
    parse,
    wanted,
    zone_line,
)
from certfleet.acme_ca.transport import Meta

NOW = datetime(2026, 9, 1, tzinfo=UTC)
URL = "https://acme-v02.api.letsencrypt.org/acme/acct/1234567890"
WANT = Wanted("example.com", ("letsencrypt.org",), (URL,), wildcard=False)
WILD = Wanted("example.com", ("letsencrypt.org",), (URL,), wildcard=True)
THUMBPRINT = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"

labels = st.text("abz059", min_size=1, max_size=8)
domains = st.lists(labels, min_size=1, max_size=4).map(".".join)
values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=";"), max_size=20)
accounts = values.filter(bool).map(lambda text: f"https://ca.example/{text}")
blanks = st.text(" \t", max_size=3)
ends = st.none() | st.integers(int(NOW.timestamp()), 253_000_000_000).map(lambda s: datetime.fromtimestamp(s, UTC))


@given(domain=domains, issuer=domains, account=accounts, wildcard=st.booleans(), until=ends)
def test_what_is_written_does(domain: str, issuer: str, account: str, wildcard: bool, until: datetime | None) -> None:  # noqa: FBT001
    """A record that we show is read as what it was to say, and is what we want."""
    want = Wanted(domain, (issuer,), (account,), wildcard)
    text = want.value(until)
    entry = parse(text)
    assert (entry.issuer, entry.account, entry.wildcard) == (issuer, account, wildcard)
    assert not text.endswith(";")
    verdict = judge([text], want, NOW)
    assert (verdict.stands, verdict.until, verdict.faults) == (True, until, ())


@given(st.data())
def test_case_order_blanks_and_unknown_parameters_do_not_matter(data: st.DataObject) -> None:
    """However somebody types it; only the account is compared letter by letter."""
    parts = [f"accounturi={URL}", "policy=WildCard", "persistUntil=4102444800"]
    unknown = [f"{tag}={value}" for tag, value in data.draw(st.lists(st.tuples(labels, values), max_size=3))]
    known = ("accounturi", "policy", "persistuntil")
    parts += [one for one in unknown if one.partition("=")[0] not in known]
    cased = []
    for part in data.draw(st.permutations(parts)):
        tag, _, value = part.partition("=")
        upper = data.draw(st.lists(st.booleans(), min_size=len(tag), max_size=len(tag)))
        tag = "".join(c.upper() if up else c.lower() for c, up in zip(tag, upper, strict=True))
        cased.append("".join((data.draw(blanks), tag, data.draw(blanks), "=", data.draw(blanks), value)))
    issuer = data.draw(st.sampled_from(["letsencrypt.org", "LetsEncrypt.ORG", "letsencrypt.org."]))
    text = ";".join([issuer, *cased]) + data.draw(blanks)
    assert judge([text], WILD, NOW).stands, text


@given(st.text(max_size=80))
def test_whatever_stands_there_is_judged(text: str) -> None:
    """No text makes it fail, or passes for ours without naming our account."""
    verdict = judge([text], WANT, NOW)
    assert not verdict.stands
    assert all("\n" not in fault and fault.isascii() for fault in verdict.faults)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"letsencrypt.org; accounturi={URL};", "ends with a semicolon"),
        (f"letsencrypt.org;; accounturi={URL}", "two behind each other"),
        (f"letsencrypt.org; accounturi={URL}; ACCOUNTURI=other", "says accounturi twice"),
        (f"letsencrypt.org; accounturi={URL}; policy=wildcard; policy=wildcard", "says policy twice"),
        (f"letsencrypt.org; accounturi={URL}; wildcard", "a part that is not tag=value"),
        (f"letsencrypt.org; accounturi={URL}; =x", "a part that is not tag=value"),
        (f"letsencrypt.org; accounturi={URL}; policy=wild card", "characters that may not be there"),
        (f"letsencrypt.org; accounturi={URL}; persistUntil=tomorrow", "no number of seconds"),
        (f"letsencrypt.org; accounturi={URL}; persistUntil=", "no number of seconds"),
        ("letsencrypt.org; accounturi=", "names no account"),
        ("letsencrypt.org; policy=wildcard", "names no account"),
        (f'"letsencrypt.org; accounturi={URL}"', "quotation marks"),
        (f"; accounturi={URL}", "does not begin with the domain name of a CA"),
        (f"letsencrypt.org; accounturi={URL.upper()}", "is for another account than ours"),
        (f"letsencrypt.org; accounturi={URL}0", "is for another account than ours"),
        (f"letsencrypt.org; accounturi={URL}; persistUntil=1700000000", "was good until 2023-11-14 22:13 UTC"),
        (f"letsencrypt.org; accounturi={URL}; persistUntil=-1", "a persistUntil in the past"),
    ],
)
def test_what_does_not_do_is_named(text: str, fault: str) -> None:
    """Each fault in words, with the record; a right one beside it is enough all the same."""
    verdict = judge([text], WANT, NOW)
    assert not verdict.stands
    assert len(verdict.faults) == 1
    assert fault in verdict.faults[0]
    assert judge([text, WANT.value()], WANT, NOW).stands


def test_records_that_are_not_for_us() -> None:
    """Another CA's, and a wildcard's SPF record, are nobody's mistake."""
    others = [
        f"ca.example; accounturi={URL}",
        "v=spf1 -all",
        "ca.example; accounturi=https://ca.example/1; policy=wildcard",
    ]
    verdict = judge(others, WANT, NOW)
    assert (verdict.stands, verdict.faults) == (False, ())
    unnamed = Wanted("example.com", (), (URL,), wildcard=False)
    assert judge(others, unnamed, NOW).stands, "a CA that has not said its name is known by the account"


def test_a_wildcard_needs_its_policy() -> None:
    """And what is for a wildcard is for its base too; any other policy is as none."""
    for policy in ("", "; policy=subdomains"):
        [fault] = judge([WANT.value() + policy], WILD, NOW).faults
        assert "has no policy=wildcard, which *.example.com needs" in fault
    assert judge([WILD.value()], WANT, NOW).stands


def test_the_longest_counts() -> None:
    """Of several that stand, the one that ends last; one without end does for ever."""
    soon, late = WANT.value(NOW + timedelta(days=1)), WANT.value(NOW + timedelta(days=9))
    assert judge([soon, late], WANT, NOW).until == NOW + timedelta(days=9)
    assert judge([soon, late, WANT.value()], WANT, NOW).until is None
    assert judge([f"{WANT.value()}; persistUntil=999999999999999999"], WANT, NOW).until is None


def test_one_record_for_a_wildcard_and_its_base() -> None:
    """In the order of the names."""
    holder = Holder(URL, (THUMBPRINT,))
    found = wanted(["*.b.example", "a.example", "b.example"], ("letsencrypt.org",), holder)
    assert [(one.name, one.wildcard) for one in found] == [
        ("_validation-persist.b.example", True),
        ("_validation-persist.a.example", False),
    ]
    assert found[0].value() == f"letsencrypt.org; accounturi={URL}; policy=wildcard"


def test_known_answers_of_hashed_accounts() -> None:
    """Draft version 02, §10.2."""
    prefix, url = "https://ca.example/account-hash/", "https://ca.example/acct/123"
    hashed = f"{prefix}sha-256/5SQm7n6tPh2-PlLbCKGnViTXX5z19SCN4cPGQHSk-kw"
    assert hashed_account(prefix, "example.com", THUMBPRINT, url) == hashed
    any_name = f"{prefix}sha-256/NpDnSwUthQK8zCgFdefYxAdAVPnygMLbs9US6oO-5ug"
    assert hashed_account(prefix, "*", THUMBPRINT, url) == any_name
    [want] = wanted(["example.com"], ("authority.example",), Holder(url, (THUMBPRINT, "f" * 43), prefix))
    assert want.value() == f"authority.example; accounturi={hashed}"
    before = hashed_account(prefix, "example.com", "f" * 43, url)
    for account in (hashed, any_name, before, url):
        assert judge([f"authority.example; accounturi={account}"], want, NOW).stands
    other = hashed_account(prefix, "example.org", THUMBPRINT, url)
    assert not judge([f"authority.example; accounturi={other}"], want, NOW).stands


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["a.example"] * 11,
        ["A.example"],
        ["a.example."],
        ["a example"],
        ["a.example; x=y"],
        [1],
        "a.example",
        None,
        {},
    ],
)
def test_lists_of_issuers_that_are_none(names: object) -> None:
    """Draft §3.1: one to ten, lower case, no final dot; in a directory they are as if they were not there."""
    assert issuer_names(names) == ()
    meta = Meta.model_validate(
        {"issuerDomainNames": names, "accountHashPrefix": names, "caaIdentities": ["CA.example"]}
    )
    assert (meta.issuers, meta.account_hash_prefix) == (("ca.example",), "")


def test_a_directory_of_version_02() -> None:
    """Its own list goes before what the CA is called in CAA records."""
    meta = Meta.model_validate(
        {
            "issuerDomainNames": ["a.example"],
            "accountHashPrefix": "https://a.example/h/",
            "caaIdentities": ["b.example"],
        }
    )
    assert (meta.issuers, meta.account_hash_prefix) == (("a.example",), "https://a.example/h/")


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=600))
def test_zone_lines(value: str) -> None:
    """Strings of 255 octets at most, that come together to the value again."""
    line = zone_line("_validation-persist.example.com", value)
    head, rest = line.split(" IN TXT ", 1)
    assert head == "_validation-persist.example.com."
    strings = [part.replace("\0", '"').replace("\1", "\\") for part in _unescaped(rest)[1:-1].split('" "')]
    assert "".join(strings) == value
    assert all(0 < len(part) <= 255 for part in strings)


def _unescaped(text: str) -> str:
    return text.replace("\\\\", "\1").replace('\\"', "\0")
