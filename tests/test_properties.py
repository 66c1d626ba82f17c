"""Properties: any text is a value or is refused with a sentence; where a value comes from."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certfleet.acme_ca.presets import is_preset
from certfleet.errors import UsageError
from certfleet.lifecycle.challenges.standing import ends
from certfleet.lifecycle.orders.parking import is_hopeless
from certfleet.lifecycle.orders.urgency import RENEWALS, Urgency, urgency
from certfleet.models import App, KeyType, Order, utcnow
from certfleet.properties import PROPERTIES, check_property, effective, parse_first_issue, parse_grace, parse_park_after
from tests.certificate_records import record

TEXT = st.one_of(st.text(), st.text("0123456789dhms@.-a:/", max_size=30))


@given(st.sampled_from(sorted(PROPERTIES)), TEXT)
def test_any_text_is_a_value_or_refused(name: str, text: str) -> None:
    """Nothing but UsageError, which names the property; what is kept is kept the same when it is set again."""
    try:
        kept = check_property(name, text)
    except UsageError as error:
        assert str(error).startswith(f"{name}: ")  # noqa: PT017  both ways are the promise
    else:
        assert check_property(name, kept) == kept


@given(st.text().filter(lambda name: name not in PROPERTIES), TEXT)
def test_an_unknown_property(name: str, text: str) -> None:
    """Refused with every name that would be right, also when it is to be taken away."""
    with pytest.raises(UsageError, match="is not one of email, ca, "):
        check_property(name, text)


LENGTHS = {
    "graceperiod": parse_grace,
    "dns-propagation": parse_grace,
    "persist-for": parse_grace,
    "park-after": parse_park_after,
    "first-issue": parse_first_issue,
}
TEN_YEARS = timedelta(days=3650)
BLOG = App("blog", ("blog.example.com",), ("web1",))
ORDER = Order("1", "blog", "letsencrypt", "a@example.com", BLOG.identifiers, KeyType.P256, "enabled", utcnow())


@given(st.sampled_from(sorted(LENGTHS)), st.integers(1, 9_999_999), st.sampled_from("smhd"))
def test_a_length_of_time(name: str, number: int, unit: str) -> None:
    """A number and its unit, up to ten years; what is longer is refused with the most, and counts as that."""
    word = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[unit]
    text, length = f"{number}{unit}", timedelta(**{word: number})
    assert LENGTHS[name](text) == min(length, TEN_YEARS)
    if length <= TEN_YEARS:
        assert check_property(name, text) == text
    else:
        with pytest.raises(UsageError) as caught:
            check_property(name, text)
        assert str(caught.value) == f"{name}: {text!r} is longer than ten years: give 3650d at most"


def test_a_length_that_an_older_version_kept() -> None:
    """Whoever counts with it has a time in the calendar, also from the last day that a certificate may have."""
    kept, now = {"park-after": "9999999d", "first-issue": "9999999d", "persist-for": "9999999d"}, utcnow()
    failing = replace(ORDER, failing_since=now)
    after = parse_park_after(kept["park-after"])
    endless = record(BLOG, now, not_after=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    assert not is_hopeless(failing, None, after, now + TEN_YEARS - timedelta(seconds=1))
    assert is_hopeless(failing, None, after, now + TEN_YEARS)
    assert not is_hopeless(failing, endless, after, now + TEN_YEARS)
    assert urgency(failing, None, kept) == Urgency(RENEWALS, (ORDER.created + TEN_YEARS).timestamp())
    until = ends(kept)
    assert until is not None
    assert timedelta(0) <= until - now - TEN_YEARS < timedelta(minutes=1)


@pytest.mark.parametrize("text", ["", "0d", "30", "d", "1.5d", "-1d", "1 d", "12345678d", "٣d", "30d\n", "1w"])
def test_no_length_of_time(text: str) -> None:
    """The sentence has one that would be right."""
    with pytest.raises(UsageError, match="30d, 12h, 90s, or auto"):
        parse_grace(text)


@given(st.integers())
def test_ports(number: int) -> None:
    """1 to 65535."""
    if 1 <= number <= 65535:
        assert check_property("port", str(number)) == str(number)
    else:
        with pytest.raises(UsageError):
            check_property("port", str(number))


@pytest.mark.parametrize("address", ["ops@example.com", "a.b+c@sub.example.co.uk", "o'hara@example.com",
                                     "x@xn--bcher-kva.de", "a" * 64 + "@example.com"])  # fmt: skip
def test_email_addresses(address: str) -> None:
    """Kept as they were typed."""
    assert check_property("email", address) == address


@pytest.mark.parametrize(
    "address",
    ["@example.com", "a@", "a@@example.com", "a@b..c", "a@.example.com", "a@example.com.", "a b@example.com",
     "a@exam ple.com", "a@example.com\n", "\na@example.com", "a\u0000@example.com", "a%0d@example.com",
     "a@*.example.com",
     "a..b@example.com", ".a@example.com", "a.@example.com", ".@example.com",
     "a@192.0.2.1", "mailto:a@example.com", "<a@example.com>", "a" * 65 + "@example.com"],
)  # fmt: skip
def test_no_email_address(address: str) -> None:
    """What would not be one address in a mailto: URL is refused."""
    with pytest.raises(UsageError, match=r"ops@example\.com"):
        check_property("email", address)


def test_an_email_address_whose_domain_is_not_ascii() -> None:
    """A mailto: URL is ASCII (RFC 6068 §2): refused with the same address as it has to be given."""
    with pytest.raises(UsageError) as caught:
        check_property("email", "a.b@BÜCHER.de")
    assert str(caught.value).endswith("is not ASCII, as CAs want it: give a.b@xn--bcher-kva.de")
    assert check_property("email", "a.b@xn--bcher-kva.de")


@pytest.mark.parametrize("port", [0, 1, 65535, 65536, 99999])
@pytest.mark.parametrize("where", ["127.0.0.1", "[::1]", "acme.example.com", "http://acme.example.com"])
def test_ports_of_responders(where: str, port: int) -> None:
    """1 to 65535, in addresses and URLs."""
    value = f"{where}:{port}"
    if port in (1, 65535):
        assert check_property("responder", value) == value
    else:
        with pytest.raises(UsageError, match=r"is neither address:port \(1 to 65535\) nor a URL such as http://acme"):
            check_property("responder", value)


def test_app_then_all_then_default() -> None:
    """A property is looked up on the app, then globally, then it has its default."""
    values = effective({"graceperiod": "1d"}, {"graceperiod": "2d", "email": "ops@example.com"})
    assert (values["graceperiod"], values["email"], values["key-type"]) == ("1d", "ops@example.com", "p256")
    assert values.keys() == PROPERTIES.keys()


def test_a_bundle_for_all_apps_is_for_private_cas() -> None:
    """An app at a publicly known CA does not inherit it, by name or by URL."""
    everywhere = {"ca": "https://ca.example.internal/directory", "ca-bundle": "PEM"}
    assert effective({}, everywhere)["ca-bundle"] == "PEM"
    assert effective({"ca": "letsencrypt"}, everywhere)["ca-bundle"] == ""
    url = "https://acme-v02.api.letsencrypt.org/directory"
    assert is_preset(url)
    assert effective({"ca": url}, everywhere)["ca-bundle"] == ""
