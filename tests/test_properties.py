"""Properties: any text is a value or is refused with a sentence; where a value comes from."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certfleet.acme_ca.presets import is_preset
from certfleet.errors import UsageError
from certfleet.properties import PROPERTIES, check_property, effective, parse_grace

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


@given(st.integers(1, 9_999_999), st.sampled_from("smhd"))
def test_a_length_of_time(number: int, unit: str) -> None:
    """A number and its unit."""
    word = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[unit]
    assert parse_grace(f"{number}{unit}") == timedelta(**{word: number})


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


@pytest.mark.parametrize("address", ["ops@example.com", "a.b+c@sub.example.co.uk", "o'hara@example.com", "x@bücher.de"])
def test_email_addresses(address: str) -> None:
    """Kept as they were typed."""
    assert check_property("email", address) == address


@pytest.mark.parametrize(
    "address",
    ["@example.com", "a@", "a@@example.com", "a@b..c", "a@.example.com", "a@example.com.", "a b@example.com",
     "a@exam ple.com", "a@example.com\n", "\na@example.com", "a\u0000@example.com", "a%0d@example.com",
     "a@*.example.com",
     "a@192.0.2.1", "mailto:a@example.com", "<a@example.com>", "a" * 65 + "@example.com"],
)  # fmt: skip
def test_no_email_address(address: str) -> None:
    """What would not be one address in a mailto: URL is refused."""
    with pytest.raises(UsageError, match=r"ops@example\.com"):
        check_property("email", address)


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
