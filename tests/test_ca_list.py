"""The property `ca` as one CA or a list: what is taken, what is refused, who is trusted by what, whose turn it is."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certfleet.acme_ca.presets import presets, resolve_ca
from certfleet.ca_list import MOST, asked_ca, ca_of, cas_of, first_ca, parse_cas
from certfleet.errors import UsageError
from certfleet.models import App, Cause, Passed
from certfleet.properties import check_property, effective, require_usable
from tests.cli.conftest import bundle

__all__ = ["bundle"]  # a fixture

OTHER = "https://ca.example.com/directory"
PRIVATE = "https://ca.example.internal/directory"
NAMES = st.sampled_from([*presets(), *(f"https://ca{number}.example/dir" for number in range(8))])
NOW = datetime(2026, 1, 1, tzinfo=UTC)
APP = App("blog", ("blog.example.com",), ("web1",))


@given(st.lists(NAMES, min_size=1, max_size=MOST, unique=True), st.sampled_from([",", ", ", " ,"]))
def test_a_list_is_kept_in_its_order(names: list[str], comma: str) -> None:
    """However it was spaced; kept without spaces."""
    assert parse_cas(comma.join(names)) == tuple(names)
    assert check_property("ca", comma.join(names)) == ",".join(names)


def test_one_ca_in_every_spelling() -> None:
    """Scheme and host in whatever case, the port that https has anyway: one directory, one account, its limits."""
    directory = presets()["letsencrypt"].directory
    shouted = directory.replace("https://acme-v02", "HTTPS://ACME-V02").replace(".org/", ".org:443/")
    assert resolve_ca(shouted) == resolve_ca("letsencrypt")
    assert check_property("ca", f"{OTHER},HTTPS://CA.example.net/Dir") == f"{OTHER},https://ca.example.net/Dir"
    with pytest.raises(UsageError, match="names the same CA twice"):
        parse_cas(f"letsencrypt,{shouted}")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("letsencrypt,", "comma too many"),
        (",letsencrypt", "comma too many"),
        ("letsencrypt,,letsencrypt-staging", "comma too many"),
        ("letsencrypt,letsencrypt", "names the same CA twice"),
        (f"letsencrypt,{presets()['letsencrypt'].directory}", "names the same CA twice"),
        ("letsencrypt,nosuch", "'nosuch' is not a CA"),
        ("letsencrypt,http://ca.example/dir", "is not a CA"),
        (",".join(f"https://ca{number}.example/dir" for number in range(MOST + 1)), f"name {MOST} at most"),
    ],
)
def test_what_is_no_list(value: str, said: str) -> None:
    """One sentence that names the property and what is wrong."""
    with pytest.raises(UsageError, match=said) as caught:
        check_property("ca", value)
    assert str(caught.value).startswith("ca: ")


def test_roots_are_for_those_that_are_no_presets(bundle: Path) -> None:
    """A preset in a list is trusted by the system's roots, whatever the app's bundle is."""
    roots = bundle.read_text()
    properties = effective({"ca": f"letsencrypt,{PRIVATE}"}, {"ca-bundle": roots, "email": "ops@example.com"})
    public, private = cas_of(properties)
    assert (public.name, public.bundle, public.public) == ("letsencrypt", None, True)
    assert (private.directory, private.bundle, private.public) == (PRIVATE, roots, False)
    assert first_ca(properties) == public
    assert ca_of(public.directory, properties) == public
    assert effective({"ca": "letsencrypt,letsencrypt-staging"}, {"ca-bundle": roots})["ca-bundle"] == ""
    require_usable(APP, properties)


def test_what_one_of_the_list_cannot_certify_is_refused(bundle: Path) -> None:
    """An app is to be good at each: names, ports, bundle, and what is documented of profiles."""
    mixed = {"ca": f"{PRIVATE},letsencrypt", "email": "ops@example.com", "ca-bundle": bundle.read_text()}
    with pytest.raises(UsageError, match="letsencrypt validates on port 80"):
        require_usable(APP, effective(mixed | {"http-port": "8080"}, {}))
    with pytest.raises(UsageError, match=r"db\.corp\.internal"):
        require_usable(App("db", ("db.corp.internal",), ("web1",)), effective(mixed, {}))
    with pytest.raises(UsageError, match="needs none"):
        require_usable(APP, effective(mixed | {"ca": "letsencrypt,letsencrypt-staging"}, {}))
    address = App("dns", ("9.9.9.9",), ("web1",))
    listed = {"ca": f"{OTHER},letsencrypt", "email": "ops@example.com"}
    with pytest.raises(UsageError, match="shortlived"):
        require_usable(address, effective(listed, {}))
    require_usable(address, effective(listed | {"profile": "shortlived"}, {}))
    many = App("many", tuple(f"a{number}.example.com" for number in range(50)), ("web1",))
    require_usable(many, effective(listed | {"profile": "of-the-first"}, {}))


def test_whose_turn_it_is() -> None:
    """The first that was not passed over, by whichever name it is listed."""
    cas = cas_of(effective({"ca": f"{presets()['letsencrypt'].directory},{OTHER}"}, {}))
    passed = Passed("letsencrypt", Cause.AWAY, "no answer", NOW)
    assert asked_ca(cas, ()) == cas[0]
    assert asked_ca(cas, [passed]) == cas[1]
    assert asked_ca(cas, [passed, Passed(OTHER, Cause.REFUSED, "never", NOW)]) is None
