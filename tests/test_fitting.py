"""What is said of an app's names before an order is wasted: how many a profile takes, and IP addresses."""

from __future__ import annotations

import pytest

from certfleet.errors import UsageError
from certfleet.fitting import require_fitting, require_provable

NAME, ADDRESS = ("a.example.com", "a.example.com"), ("2606:4700:4700::1111", "[2606:4700:4700::1111]")
LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"


@pytest.mark.parametrize("challenge", ["dns-01", "dns-persist-01"])
def test_dns_proves_no_address(challenge: str) -> None:
    """RFC 8738 §7; http-01 does, and names are proven by either."""
    with pytest.raises(UsageError, match="set challenge=http-01") as caught:
        require_provable([NAME, ADDRESS], challenge)
    assert ADDRESS[1] in str(caught.value), "as it was typed"
    require_provable([NAME, ADDRESS], "http-01")
    require_provable([NAME], challenge)


@pytest.mark.parametrize("ca", ["letsencrypt", "letsencrypt-staging", LETS_ENCRYPT])
@pytest.mark.parametrize("profile", ["", "classic", "tlsserver"])
def test_an_address_by_a_profile_without_them(ca: str, profile: str) -> None:
    """Also by the CA's default, and whether the CA was named by its name or its directory."""
    with pytest.raises(UsageError, match=r"by the profile shortlived only.*set profile=shortlived for app dns"):
        require_fitting("dns", [NAME, ADDRESS], ca, profile)
    require_fitting("dns", [NAME, ADDRESS], ca, "shortlived")
    require_fitting("dns", [NAME], ca, profile)


def test_how_many_names() -> None:
    """Each profile has its number; where none takes so many, none is named."""
    names = [(f"a{n}.example.com",) * 2 for n in range(101)]
    require_fitting("blog", names[:100], "letsencrypt", "")
    require_fitting("blog", names[:25], "letsencrypt", "shortlived")
    with pytest.raises(UsageError, match=r"at most 25 \(classic takes more\)$"):
        require_fitting("blog", names[:26], "letsencrypt", "shortlived")
    with pytest.raises(UsageError, match=r"the profile classic of letsencrypt: at most 100$"):
        require_fitting("blog", names, "letsencrypt", "")


def test_what_nobody_knows_is_left_to_the_ca() -> None:
    """Another CA; a profile that is newer than what is known."""
    require_fitting("dns", [ADDRESS] * 1_000, "https://ca.example/directory", "")
    require_fitting("dns", [ADDRESS] * 1_000, "letsencrypt", "newer")
