"""What went wrong with an order, whose fault it is, and when it is tried again. Decisions only: no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus

from certfleet.errors import (
    AcmeProblem,
    CAError,
    CAMisbehaved,
    CAUnreachable,
    CAUntrusted,
    OwnerError,
    SlowedDown,
    VaultError,
)
from certfleet.lifecycle.renewals.renewal import BACK_OFF, retry_after
from certfleet.limits.outages import Outage

RATE_LIMITED = timedelta(hours=1)  # when the CA says `rateLimited` and not until when
SOON = timedelta(seconds=5)  # for what a new request mends: a cut connection, an order or account the CA has forgotten
GARBLED = 4  # failures of an order in a row until answers that nobody can read cost it its place at the CA


class OrderUseless(CAError):
    """Nothing comes of the CA's order any more: it takes a new one."""


class OrderInvalid(OrderUseless):
    """The CA gave the order up (RFC 8555 §7.1.6)."""

    def __init__(self, sentence: str, types: Iterable[str] = ()) -> None:
        """`types`: of the problems that the CA named."""
        super().__init__(sentence)
        self.types = frozenset(types)


class Unanswered(CAError):
    """The CA did not answer; with an `outage` nothing was sent, or nobody else sends anything before it answers."""

    def __init__(
        self, sentence: str, outage: Outage | None, failures: int = 0, retry_at: datetime | None = None
    ) -> None:
        """`failures`: requests in a row, of whichever orders, to which it gave no answer."""
        super().__init__(sentence)
        self.outage = outage
        self.failures = failures
        self.retry_at = retry_at


class InVain(CAError):
    """No CA of the app's list issues now."""

    def __init__(self, sentence: str, *, owners: bool) -> None:
        """`owners`: at every one of them only the owner of the names can mend it."""
        super().__init__(sentence)
        self.owners = owners


class Parked(OwnerError):
    """Only a person can make it go on: it is not tried again by itself."""


OF_NAMES = frozenset(
    {
        *("caa", "connection", "dns", "incorrectResponse", "rejectedIdentifier", "tls", "unauthorized"),
        "unsupportedIdentifier",
    }
)
"""Problems that are about the names (RFC 8555 §6.7): neither the CA nor another try mends them."""


def is_owners(error: Exception) -> bool:
    """Whether only the owner of the names can mend it; after long enough it is left to a person."""
    if isinstance(error, AcmeProblem):
        return error.retry_at is None and error.type in OF_NAMES
    if isinstance(error, InVain):
        return error.owners
    return isinstance(error, OwnerError | OrderInvalid)


def is_silence(error: Exception) -> bool:
    """Whether the CA itself could not answer (connection, time-out, 5xx), so that no other order fares better.

    A 503 with Retry-After is its limit on requests, for which all wait as it says (limits/requests.py). One that
    refuses a dozen fresh nonces in a row deals with nobody.
    """
    if isinstance(error, AcmeProblem):
        busy = error.status == HTTPStatus.SERVICE_UNAVAILABLE and error.retry_at is not None
        return error.type == "badNonce" or (error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not busy)
    return isinstance(error, CAUnreachable) and not isinstance(error, CAUntrusted)


def not_to_be_had(error: CAError) -> CAError:
    """The failure of a download: where the CA does not find what it has issued, another order is not what helps."""
    if isinstance(error, AcmeProblem) and error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return CAMisbehaved(f"the certificate is issued, but cannot be fetched: {error}")
    return error


def may_have_issued(error: Exception) -> bool:
    """Whether a failure after finalize leaves open what the CA made of it: then its tokens count as spent."""
    gone = isinstance(error, AcmeProblem) and error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
    return gone or isinstance(error, CAMisbehaved)


EXPECTED = (CAError, OwnerError, VaultError)


@dataclass(frozen=True, slots=True)
class Trouble:
    """A failure, sorted."""

    sentence: str
    at: datetime
    """When it is tried again."""
    new_order: bool
    """The CA's order is of no more use."""
    held: bool = False
    """A limit of the CA's, and no failure: it goes on at `at`."""


def sort(error: Exception, attempts: int, now: datetime, longest: timedelta = BACK_OFF[-1]) -> Trouble:  # noqa: C901, PLR0911  one line per fault reads best
    """Sort a failure; `attempts` counts failures in a row, this one included; `longest` is our own longest wait."""
    back_off = now + retry_after(attempts, longest)
    match error:
        case AcmeProblem(type="accountDoesNotExist"):
            return Trouble(f"{error} (the account is registered anew)", now + SOON * attempts, new_order=True)
        case SlowedDown():
            return Trouble(error.waits_for, max(error.retry_at or back_off, now), new_order=False, held=True)
        case AcmeProblem(type="rateLimited") | AcmeProblem(status=HTTPStatus.SERVICE_UNAVAILABLE) if error.retry_at:
            return Trouble(f"the CA ({error})", max(error.retry_at, now + SOON), new_order=False, held=True)
        case AcmeProblem(type="rateLimited"):
            return Trouble(f"the CA ({error})", max(back_off, now + RATE_LIMITED), new_order=False, held=True)
        case AcmeProblem(status=HTTPStatus.NOT_FOUND | HTTPStatus.GONE):
            return Trouble(f"{error} (a new order is made)", back_off if attempts > 1 else now + SOON, new_order=True)
        case AcmeProblem(retry_at=None) if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return Trouble(str(error), back_off, new_order=True)
        case CAUnreachable() if attempts == 1:  # mostly a kept connection that the CA closed just then
            return Trouble(str(error), now + SOON, new_order=False)
        case AcmeProblem() | CAUnreachable():
            asked = max(error.retry_at, now + SOON) if error.retry_at else back_off
            return Trouble(str(error), asked, new_order=False)
        case OrderInvalid():
            return Trouble(str(error), back_off, new_order=True)
        case OrderUseless():
            return Trouble(str(error), back_off if attempts > 1 else now + SOON, new_order=True)
        case CAMisbehaved():  # what was garbled once may come whole: only in the end it takes another order
            again = SOON if attempts == 1 else retry_after(attempts - 1, longest)
            return Trouble(str(error), now + again, new_order=attempts > GARBLED)
        case _:
            return Trouble(str(error), back_off, new_order=False)
