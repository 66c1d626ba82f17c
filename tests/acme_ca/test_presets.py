"""CAs by name and by URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from certfleet.acme_ca.presets import presets, resolve_ca
from certfleet.demo.pebble import make_tls
from certfleet.errors import UsageError
from certfleet.properties import PROPERTIES


def test_lets_encrypt_is_what_nobody_has_to_name() -> None:
    """The default is the production directory, public, with the system's roots."""
    ca = resolve_ca(PROPERTIES["ca"].default)
    assert (ca.name, ca.directory) == ("letsencrypt", "https://acme-v02.api.letsencrypt.org/directory")
    assert ca.public
    assert ca.bundle is None


def test_a_presets_url_is_the_preset() -> None:
    """By its name or by its URL, it is the same CA (and so the same account)."""
    for name, preset in presets().items():
        assert resolve_ca(preset.directory) == resolve_ca(name)


def test_a_url_with_a_bundle_is_a_private_ca(tmp_path: Path) -> None:
    """A bundle makes it private, unless told otherwise; without one it is public."""
    bundle = make_tls(tmp_path)
    assert not resolve_ca("https://ca.internal/dir", bundle=bundle).public
    assert resolve_ca("https://ca.internal/dir", bundle=bundle, public=True).public
    assert resolve_ca("https://ca.example/dir").public
    assert not resolve_ca("letsencrypt", public=False).public


@pytest.mark.parametrize(
    "value",
    ["", "letsencrpyt", "http://ca.test/dir", "ftp://ca.test/", "https://", "https:///dir", "https://ca.test:x/",
     "https://user@ca.test/dir", "https://ca.test/a b", "https://cä.test/", "https://ca.test/#x", "https://[::1/",
     "https://ca.test/\n", "https://ca.test:0/"],
)  # fmt: skip
def test_a_bad_ca_is_named_with_what_would_be_right(value: str) -> None:
    """One sentence: field, value, https URL or the presets."""
    with pytest.raises(UsageError) as caught:
        resolve_ca(value)
    assert caught.value.field == "ca"
    assert repr(value) in str(caught.value)
    assert "letsencrypt, letsencrypt-staging" in str(caught.value)


@pytest.mark.parametrize("bundle", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_bad_bundle_is_refused(bundle: str) -> None:
    """Before anything uses it."""
    with pytest.raises(UsageError, match="ca-bundle: has to be PEM"):
        resolve_ca("https://ca.test/dir", bundle=bundle)
