"""Whether a certificate gets a new key or the one of the certificate before (property `reuse-key`)."""

from __future__ import annotations

from collections.abc import Mapping

from cryptography import x509

from certfleet.acme_ca.keys import CertificateKey, PublicHalf, load_key, spki_digest
from certfleet.models import Certificate, Order
from certfleet.vault import Vault


def reused_key(
    vault: Vault, order: Order, served: Certificate | None, properties: Mapping[str, str]
) -> CertificateKey | None:
    """The key of the present certificate; None: a new one is made. Raises VaultError."""
    if properties["reuse-key"] != "on" or served is None or served.leaked or served.key_type != order.key_type:
        return None
    if served.key_on:  # it is not here, and stays where it is
        return None
    return load_key(vault.open(served.sealed_key))


def has_leaked(key: PublicHalf, served: Certificate | None) -> bool:
    """Whether this key is the one of a certificate whose key is in other hands."""
    if served is None or not served.leaked:
        return False
    return spki_digest(key) == spki_digest(x509.load_pem_x509_certificate(served.leaf.encode()))
