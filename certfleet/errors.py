"""Everything that certfleet raises on purpose.

CertfleetError
├── UsageError              the person's input: field, value, what would be right  (exit status 2)
│   └── UnknownName         no such app, host, order
├── ConfigurationError      this machine's set-up: settings, state directory, Redis
│   └── RedisUnavailable    Redis cannot be reached: nothing is ordered without it
├── LeaseLost               somebody else holds this member now: stop, write nothing
├── VaultError              a sealed secret cannot be opened with the keys at hand
├── CAError                 the CA's fault or word
│   ├── CAUnreachable       no answer: connection, time-out
│   │   └── CAUntrusted     its TLS certificate is not one that we trust
│   ├── CAMisbehaved        an answer that is not what RFC 8555 says
│   │   └── OrderUnreadable a new order is there, where is known, and its answer is garbled
│   ├── SlowedDown          too many requests for now: wait until `retry_at`
│   ├── RateLimited         a limit of the CA's has no token for this before `retry_at`
│   └── AcmeProblem         a problem document (RFC 8555 §6.7), with Retry-After kept
├── OwnerError              only the owner can mend it: a name points elsewhere, the CA refused a name
│   ├── CARefuses           this CA will not certify the names, or not for the account; another CA may
│   └── DNSProviderError    a TXT record could not be written or removed where the zone is kept
└── InstallError            a host did not take the certificate; the old one is still served
    └── HostUnreachable     the driver could not talk to the host
        ├── HostKeyChanged  the host is not the one that was pinned: nothing is sent to it
        └── LoginRefused    the host does not take our key

Errors carry `retry_at` (UTC) when something other than our own back-off decides when to try again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


class CertfleetError(Exception):
    """Something that certfleet can explain; `str()` is one sentence for a person."""

    retry_at: datetime | None = None


class UsageError(CertfleetError):
    """A value from outside that cannot be used."""

    def __init__(self, field: str, value: object, wanted: str) -> None:
        """Name the field, show the value, say what would be right."""
        super().__init__(f"{field}: {value!r} {wanted}" if value is not None else f"{field}: {wanted}")
        self.field = field


class UnknownName(UsageError):
    """No app, host or order of this name."""


class ConfigurationError(CertfleetError):
    """This machine's set-up does not work."""


class RedisUnavailable(ConfigurationError):
    """Redis does not answer."""


class LeaseLost(CertfleetError):
    """The member was claimed by somebody else after our lease ran out."""


class VaultError(CertfleetError):
    """A sealed secret that no key at hand opens."""


class CAError(CertfleetError):
    """The CA could not or would not."""


class CAUnreachable(CAError):
    """No answer came: connection refused, TLS failure, time-out."""


class CAUntrusted(CAUnreachable):
    """Something answers that is not known to be the CA: a bundle is missing, or somebody is in between."""


class CAMisbehaved(CAError):
    """An answer came that RFC 8555 does not allow."""


class OrderUnreadable(CAMisbehaved):
    """The CA made an order at `url`, and what it says of it cannot be read."""

    def __init__(self, sentence: str, url: str) -> None:
        super().__init__(sentence)
        self.url = url


class SlowedDown(CAError):
    """No further request before `retry_at`: the CA said so, or would say so."""

    def __init__(self, waits_for: str, retry_at: datetime) -> None:
        """`waits_for`: what the wait is for, in words."""
        super().__init__(f"waiting for {waits_for}, until {retry_at:%Y-%m-%d %H:%M:%S} UTC")
        self.waits_for = waits_for
        self.retry_at = retry_at


class RateLimited(SlowedDown):
    """A limit of the CA's has no token before `retry_at`."""


@dataclass(frozen=True, slots=True)
class Subproblem:
    """One identifier's part of a problem document (RFC 8555 §6.7.1)."""

    type: str
    detail: str
    identifier: str | None = None


class AcmeProblem(CAError):
    """A problem document, as the CA sent it.

    `type` is without the `urn:ietf:params:acme:error:` prefix where it has one.
    """

    def __init__(
        self,
        *,
        status: int,
        type: str,  # noqa: A002  RFC 7807's name for it
        detail: str,
        retry_at: datetime | None = None,
        subproblems: tuple[Subproblem, ...] = (),
        location: str | None = None,
    ) -> None:
        """Keep every part: a caller sorts by `type` and `status`, a person reads `detail`."""
        parts = [f"the CA answered {status} {type}: {detail}"]
        parts += [f"{s.identifier or 'one name'}: {s.detail}" for s in subproblems]
        super().__init__("; ".join(parts))
        self.status = status
        self.type = type
        self.detail = detail
        self.retry_at = retry_at
        self.subproblems = subproblems
        self.location = location


class OwnerError(CertfleetError):
    """Only the owner of the name or the operator can mend this."""


class CARefuses(OwnerError):
    """What this CA asks for is not there (its CAA record, an account, a profile); another CA may do without."""


class DNSProviderError(OwnerError):
    """Whoever keeps the zone did not take a TXT record, or did not answer."""


class InstallError(CertfleetError):
    """A host did not take a certificate."""

    def at(self, host: str) -> str:
        """The sentence for where the host's name stands before it already."""
        return str(self).removeprefix(f"host {host}: ")


class HostUnreachable(InstallError):
    """The driver could not talk to the host."""


class HostKeyChanged(HostUnreachable):
    """The host shows another key than the one that was pinned."""


class LoginRefused(HostUnreachable):
    """The host does not let us in."""
