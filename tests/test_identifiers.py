"""Names at the door: what is accepted is a DNS name, whatever people type."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from certfleet import identifiers
from certfleet.errors import UsageError
from certfleet.identifiers import (
    BROADCAST,
    MAXIMUM_LENGTH,
    MAXIMUM_NAMES,
    address_of,
    authority,
    normalise,
    normalise_all,
    normalise_identifier,
    require_public,
)

LABEL = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?\Z").filter(lambda label: label[2:4] != "--")
NAME = st.lists(LABEL, min_size=1, max_size=5).map(lambda labels: ".".join([*labels, "example"]))
DNS_NAME = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@given(st.one_of(st.text(), st.text("aB1.-*:[]_ \u3002üß例\u200d\u0000", max_size=300)))
def test_any_text_is_a_dns_name_or_refused(text: str) -> None:
    """Nothing but UsageError comes out, and what is accepted is what a certificate may hold."""
    try:
        name = normalise(text)
    except UsageError as error:
        assert str(error).startswith("domain: ")  # noqa: PT017  both ways are the promise
    else:
        assert DNS_NAME.fullmatch(name)
        assert len(name) <= MAXIMUM_LENGTH
        assert normalise(name) == name, "normalising twice changes nothing"


@given(name=NAME, wildcard=st.booleans(), dot=st.booleans())
def test_writing_does_not_matter(name: str, *, wildcard: bool, dot: bool) -> None:
    """Case, blanks around it and the root's dot are the same name."""
    typed = f"{'*.' * wildcard}{name}{'.' * dot}"
    assert normalise(f" {typed.upper()}\n") == normalise(typed) == f"{'*.' * wildcard}{name}"


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER。example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("*.例え.jp", "*.xn--r8jz45g.jp"),
        ("1.2.3.example", "1.2.3.example"),
    ],
)
def test_idn_becomes_a_labels(typed: str, name: str) -> None:
    """IDNA 2008 with the mapping of UTS 46."""
    assert normalise(typed) == name


@pytest.mark.parametrize("typed", ["example.com..", "1.2.3.4.", "10.0.0.256", "[::1]", "*", "*.", "*.com", ".", "a.1"])
def test_what_looks_like_a_name(typed: str) -> None:
    """Addresses, bare top-level domains and stray dots are none."""
    with pytest.raises(UsageError):
        normalise(typed)


def is_of_a_host(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """An IPv4 address may be written as one of IPv6 (RFC 4291 §2.5.5.2)."""
    meant = (address.ipv4_mapped if address.version == 6 else None) or address
    return not (meant.is_multicast or meant.is_unspecified or meant == BROADCAST)


@given(st.ip_addresses().filter(is_of_a_host))
@example(ipaddress.ip_address("::ffff:192.0.2.1"))
def test_an_address_however_it_is_written(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Short or at length, in brackets, in capitals: one spelling comes out, which is itself."""
    written = {str(address), address.exploded.upper(), f" {address} "}
    written |= {f"[{address}]"} if address.version == 6 else set()
    [found] = {normalise_identifier(one) for one in written}
    assert normalise_identifier(found) == found
    assert address_of(found) is not None
    assert authority(found) == (f"[{found}]" if ":" in found else found)
    with pytest.raises(UsageError):
        normalise(found)  # what asks for a DNS name takes no address


@given(st.one_of(st.text(), st.text("1.:af[]%/ ", max_size=20)))
def test_any_text_is_a_name_or_an_address_or_refused(text: str) -> None:
    """Nothing but UsageError comes out; what is accepted is in its last form."""
    try:
        found = normalise_identifier(text)
    except UsageError as error:
        assert str(error).startswith("domain: ")  # noqa: PT017  both ways are the promise
    else:
        assert normalise_identifier(found) == found
        assert address_of(found) is not None or DNS_NAME.fullmatch(found)


def test_an_ipv4_address_in_ipv6_is_ipv4() -> None:
    """A certificate for the one is a certificate for the other."""
    assert list(normalise_all(["::ffff:192.0.2.1", "192.0.2.1"])) == ["192.0.2.1"]


@given(st.lists(NAME, min_size=1, max_size=5))
def test_each_name_once_in_the_order_given(names: list[str]) -> None:
    """The first writing of a name is the one that is shown."""
    found = normalise_all([*names, *(name.upper() for name in names)])
    assert list(found) == list(dict.fromkeys(names))
    assert list(found.values()) == list(dict.fromkeys(names))


def test_how_many_names() -> None:
    """None is too few, and more than a certificate holds too many."""
    names = [f"a{number}.example" for number in range(MAXIMUM_NAMES + 1)]
    assert len(normalise_all(names[1:])) == MAXIMUM_NAMES
    for wrong in ([], names):
        with pytest.raises(UsageError, match="domain"):
            normalise_all(wrong)


@pytest.mark.parametrize(
    ("name", "public"),
    [("example.com", True), ("*.example.co.uk", True), ("blog.github.io", True), ("co.uk", False), ("*.co.uk", False),
     ("github.io", False), ("db.internal", False), ("www.test", False), ("xn--bcher-kva.example", False)],
)  # fmt: skip
def test_public_names(name: str, *, public: bool) -> None:
    """A public CA certifies what lies below a public suffix, never the suffix."""
    if public:
        require_public(name, name)
    else:
        with pytest.raises(UsageError, match="public suffix"):
            require_public(name, "as typed")


@given(st.text(alphabet="ab09-.*A_xn[]: ", min_size=1, max_size=12))
def test_plain_names_take_a_shorter_way_to_the_same_end(name: str) -> None:
    """What needs no IDNA comes out as if IDNA had seen it, and is refused with the same words."""

    def outcome() -> str:
        try:
            return normalise(name)
        except UsageError as error:
            return str(error)

    short = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identifiers, "PLAIN", re.compile(r"(?!)"))
        assert outcome() == short
