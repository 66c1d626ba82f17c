"""CAA records: the examples of RFC 8659 and RFC 8657, and whatever else somebody may have written."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certfleet.acme_ca.caa import Applicant, CAARecord, Issuer, judge, parse_issuer, relevant

OURS = "https://example.net/account/1234"
APPLICANT = Applicant(("ca1.example.net",), OURS, "http-01")


def records(*lines: str) -> list[CAARecord]:
    """Records as zone files have them."""
    found = []
    for line in lines:
        flags, tag, value = line.split(" ", 2)
        found.append(CAARecord(int(flags), tag, value.strip('"')))
    return found


ANSWERS = [
    # RFC 8659 §4.2
    pytest.param(['0 issue "ca1.example.net"'], True, id="ours may"),
    pytest.param(['0 issue "ca2.example.org"'], False, id="another may"),
    pytest.param(['0 issue "ca2.example.org"', '0 issue "ca1.example.net"'], True, id="both may"),
    pytest.param(['0 issue "ca1.example.net; account=230123"'], True, id="a parameter that is the CA's own affair"),
    pytest.param(['0 issue ";"'], False, id="nobody may"),
    pytest.param(['0 issue ""'], False, id="nobody may, empty"),
    pytest.param(['0 issue ";"', '0 issue "ca1.example.net"'], True, id="nobody, and ours: ours"),
    pytest.param(['0 issue "%%%%%"'], False, id="malformed counts as nobody"),
    pytest.param(['0 issue "CA1.Example.NET"'], True, id="case does not count"),
    pytest.param(['0 issue "  ca1.example.net \t"'], True, id="blanks around"),
    pytest.param(['0 issue "ca1.example.net;"'], True, id="a lone semicolon"),
    pytest.param(['0 issue "ca1.example.net; a=1;"'], False, id="a parameter that is none"),
    pytest.param(['0 issue "ca1.example.net.evil.example"'], False, id="a longer name"),
    # §4.4, §4.5: neither restricts
    pytest.param(['0 iodef "mailto:security@example.com"'], True, id="only where to complain"),
    pytest.param(['0 issuewild "ca2.example.org"'], True, id="issuewild is not for this name"),
    pytest.param(['0 tbs "Unknown"'], True, id="an unknown tag"),
    pytest.param([], True, id="no record"),
    # §4.1
    pytest.param(['128 tbs "Unknown"'], None, id="an unknown tag that has to be understood"),
    pytest.param(['128 issue "ca1.example.net"'], True, id="a known one that has to be understood"),
    pytest.param(['128 tbs "Unknown"', '0 issue "ca2.example.org"'], False, id="forbidden in any case"),
    # RFC 8657 §5
    pytest.param([f'0 issue "ca1.example.net; accounturi={OURS}"'], True, id="our account"),
    pytest.param(['0 issue "ca1.example.net; accounturi=https://example.net/account/9"'], False, id="another account"),
    pytest.param([f'0 issue "ca1.example.net; AccountURI={OURS}"'], True, id="its tag in any case"),
    pytest.param([f'0 issue "ca1.example.net; accounturi={OURS}; accounturi={OURS}"'], False, id="two accounts"),
    pytest.param(['0 issue "ca1.example.net; validationmethods=dns-01"'], False, id="another way of proof"),
    pytest.param(['0 issue "ca1.example.net; validationmethods=dns-01,http-01"'], True, id="two ways of proof"),
    pytest.param(['0 issue "ca1.example.net; validationmethods=HTTP-01"'], False, id="methods are compared exactly"),
    pytest.param(['0 issue "ca1.example.net; validationmethods="'], False, id="no way of proof"),
    pytest.param(
        ['0 issue "ca1.example.net; validationmethods=dns-01"', f'0 issue "ca1.example.net; accounturi={OURS}"'],
        True,
        id="one of two records fits",
    ),
]


@pytest.mark.parametrize(("lines", "allowed"), ANSWERS)
def test_known_answers(lines: list[str], *, allowed: bool | None) -> None:
    """Allowed, forbidden, or only the CA can tell; whatever is not allowed has its record and its place named."""
    judgement = judge("www.example.com", "example.com", records(*lines), APPLICANT)
    assert judgement.allowed is allowed
    if allowed is not True:
        assert judgement.reason.startswith("example.com: CAA ")


@pytest.mark.parametrize(
    ("lines", "allowed"),
    [
        (['0 issue "ca1.example.net"'], True),
        (['0 issue "ca1.example.net"', '0 issuewild ";"'], False),
        (['0 issue ";"', '0 issuewild "ca1.example.net"'], True),
        (['0 issue ";"'], False),
    ],
)
def test_wildcards(lines: list[str], *, allowed: bool) -> None:
    """RFC 8659 §4.3: issuewild counts for a wildcard where there is one, else issue does."""
    assert judge("*.example.com", "example.com", records(*lines), APPLICANT).allowed is allowed


def test_what_nobody_here_can_know_is_left_to_the_ca() -> None:
    """A CA that does not say its name, an account that is not registered yet; what forbids everybody still does."""
    nameless = Applicant((), None, "http-01")
    assert judge("a.test", "test", records('0 issue "ca1.example.net"'), nameless).allowed is None
    assert judge("a.test", "test", records('0 issue ";"'), nameless).allowed is False
    assert judge("a.test", "test", records('0 issue "x.test; validationmethods=dns-01"'), nameless).allowed is False
    new = Applicant(("ca1.example.net",), None, "http-01")
    judgement = judge("a.test", "test", records(f'0 issue "ca1.example.net; accounturi={OURS}"'), new)
    assert judgement.allowed is None
    assert "not registered yet" in judgement.reason


LABEL = st.from_regex(r"[A-Za-z0-9](-{0,2}[A-Za-z0-9]){0,3}", fullmatch=True)
BLANKS = st.text(" \t", max_size=2)
PARAMETER = st.tuples(LABEL, st.text([chr(c) for c in range(0x21, 0x7F) if chr(c) != ";"], max_size=8))


@given(st.lists(LABEL, max_size=3), st.lists(PARAMETER, max_size=3), BLANKS, BLANKS)
def test_whatever_the_grammar_allows_is_read(
    labels: list[str], parameters: list[tuple[str, str]], before: str, after: str
) -> None:
    """RFC 8659 §4.2, written and read back."""
    parts = [".".join(labels), *(f"{tag}{after}={before}{value}" for tag, value in parameters)]
    read = parse_issuer(";".join(f"{before}{part}{after}" for part in parts))
    assert read == Issuer(".".join(labels).lower(), tuple((tag.lower(), value) for tag, value in parameters))


@given(st.one_of(st.text(), st.text("ca.;= -\t")), st.integers(0, 255), st.text(max_size=20))
def test_any_text_is_judged(value: str, flags: int, tag: str) -> None:
    """No record breaks anything, and what is said about it is printable."""
    for name in ("a.test", "*.a.test"):
        judgement = judge(name, "test", [CAARecord(flags, "issue", value), CAARecord(flags, tag, value)], APPLICANT)
        assert judgement.reason.isprintable() or not tag.isprintable()


NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=5).map(".".join)


def by_the_book(name: str, tree: Mapping[str, Sequence[CAARecord]]) -> Sequence[CAARecord]:
    """RFC 8659 §3 as it is written there: CAA(X), else that of Parent(X), down to the root."""
    if name == "":
        return ()
    return tree.get(name) or by_the_book(name.partition(".")[2], tree)


TREES = st.dictionaries(NAMES, st.just(records('0 issue "ca1.example.net"')) | st.just([]))


@given(name=NAMES, tree=TREES, wild=st.booleans())
def test_the_tree_is_climbed(name: str, tree: dict[str, list[CAARecord]], *, wild: bool) -> None:
    """The nearest records count, and nothing beyond them is asked."""
    asked: list[str] = []

    async def look(domain: str) -> list[CAARecord]:
        asked.append(domain)
        return tree.get(domain, [])

    where, found = asyncio.run(relevant(f"*.{name}" if wild else name, look))
    assert list(found) == list(by_the_book(name, tree))
    assert where == (asked[-1] if found else "")
    assert asked == [name.split(".", n)[-1] for n in range(len(asked))]
