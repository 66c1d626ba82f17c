"""Requests about an account itself (RFC 8555 §7.3): find it by its key, change its key or address, end it."""

from __future__ import annotations

import json
from http import HTTPStatus

from certfleet.acme_ca.jws import sign
from certfleet.acme_ca.keys import AccountKey
from certfleet.acme_ca.protocol import Signer
from certfleet.acme_ca.transport import Transport
from certfleet.errors import AcmeProblem, CAMisbehaved


async def find_account(transport: Transport, key: AccountKey) -> str | None:
    """The URL of the account that has this key; None: no account has it (§7.3.1, `onlyReturnExisting`)."""
    url = (await transport.directory()).new_account
    try:
        answer = await transport.post(url, {"onlyReturnExisting": True}, key, kind="newAccount")
    except AcmeProblem as problem:
        if problem.type == "accountDoesNotExist":
            return None
        raise
    if answer.location is None:
        raise CAMisbehaved("the CA answered newAccount without a Location")
    transport.check_url(answer.location)
    return answer.location


async def change_key(transport: Transport, signer: Signer, new: AccountKey) -> None:
    """Replace the account's key (§7.3.5). Raises AcmeProblem, 409 when an account has the new key already."""
    url = (await transport.directory()).key_change
    if url is None:
        raise CAMisbehaved(f"the CA {transport.ca.name} offers no keyChange: its accounts keep their key")
    wish = {"account": signer.kid, "oldKey": json.loads(signer.key.jwk)}
    inner = sign(new, url=url, nonce=None, payload=json.dumps(wish, separators=(",", ":")).encode(), kid=None)
    await transport.post(url, json.loads(inner), signer.key, kid=signer.kid, kind="keyChange")


async def change_contact(transport: Transport, signer: Signer, email: str) -> None:
    """Replace the account's contacts by one address (§7.3.2)."""
    await transport.post(signer.kid, {"contact": [f"mailto:{email}"]}, signer.key, kid=signer.kid, kind="account")


async def deactivate_account(transport: Transport, signer: Signer) -> None:
    """End the account for ever (§7.3.6). One that is ended already is no error."""
    try:
        await transport.post(signer.kid, {"status": "deactivated"}, signer.key, kid=signer.kid, kind="account")
    except AcmeProblem as problem:
        if not is_deactivated(problem):
            raise


def is_deactivated(problem: AcmeProblem) -> bool:
    """Whether the CA says that the account was ended (§7.3.6: 401 or 403 `unauthorized`; its words are the CA's)."""
    refused = problem.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) and problem.type == "unauthorized"
    return refused and "deactivated" in problem.detail.lower()
