"""Why a certificate is revoked, as a subscriber may say it."""

from __future__ import annotations

from enum import StrEnum

from certfleet.errors import UsageError


class Reason(StrEnum):
    """Why: those of RFC 5280 §5.3.1 that a subscriber may give.

    The CA/Browser Forum's Baseline Requirements §7.2.2 and letsencrypt.org/docs/revoking know no others; `unspecified`
    is sent as no reason at all, as they ask.
    """

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION = "cessationOfOperation"


def parse_reason(value: str, field: str = "reason") -> Reason:
    """The reason of this name. Raises UsageError."""
    try:
        return Reason(value)
    except ValueError:
        raise UsageError(field, value, f"is not one of {', '.join(Reason)}") from None


CODES = {Reason.KEY_COMPROMISE: 1, Reason.AFFILIATION_CHANGED: 3, Reason.SUPERSEDED: 4, Reason.CESSATION: 5}
"""CRLReason of RFC 5280 §5.3.1."""
