"""Revoking a certificate (RFC 8555 §7.6)."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certfleet.acme_ca.jws import b64
from certfleet.acme_ca.keys import AccountKey
from certfleet.acme_ca.protocol import Signer
from certfleet.acme_ca.reasons import CODES, Reason
from certfleet.acme_ca.transport import Transport
from certfleet.errors import AcmeProblem, CAMisbehaved


async def revoke_certificate(transport: Transport, by: Signer | AccountKey, leaf: str, reason: Reason) -> None:
    """Revoke a certificate (PEM). One that is revoked already is no error.

    `by`: the account that ordered it, or the certificate's own key. Raises CAError.
    """
    url = (await transport.directory()).revoke_cert
    if url is None:
        raise CAMisbehaved(f"the CA {transport.ca.name} offers no revokeCert: it revokes nothing by ACME")
    der = x509.load_pem_x509_certificate(leaf.encode()).public_bytes(serialization.Encoding.DER)
    payload: dict[str, object] = {"certificate": b64(der).decode()}
    if reason in CODES:
        payload["reason"] = CODES[reason]
    key, kid = (by.key, by.kid) if isinstance(by, Signer) else (by, None)
    try:
        await transport.post(url, payload, key, kid=kid, kind="revokeCert")
    except AcmeProblem as problem:
        if problem.type != "alreadyRevoked":
            raise
