"""Properties: what can be set on an app or globally. Looked up on the app, then globally, then the default."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509

from certfleet.errors import UsageError
from certfleet.models import KeyType


@dataclass(frozen=True, slots=True)
class Property:
    """One thing that can be set: `check` returns the value as it is kept, or raises UsageError."""

    name: str
    default: str
    meaning: str
    check: Callable[[str, str], str]


def _one_of(*values: str) -> Callable[[str, str], str]:
    def check(name: str, value: str) -> str:
        if value not in values:
            raise UsageError(name, value, f"is not one of {', '.join(values)}")
        return value

    return check


def _port(name: str, value: str) -> str:
    if not value.isdecimal() or not 0 < int(value) < 65536:  # noqa: PLR2004  16 bits
        raise UsageError(name, value, "is not a port: give a number from 1 to 65535")
    return str(int(value))


def _address(name: str, value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise UsageError(name, value, "is not an IP address of the host") from None


def _email(name: str, value: str) -> str:
    # What a CA can check by itself: one @, no blanks, a dotted domain (RFC 8555 §7.3 leaves the rest to it).
    if not re.fullmatch(r"[^@\s,;<>\"]+@[^@\s,;<>\"]+\.[^@\s,;<>\".]+", value):
        raise UsageError(name, value, "is not an e-mail address: give one such as ops@example.com")
    return value


def _ca(name: str, value: str) -> str:
    from certfleet.acme_ca.presets import resolve_ca  # noqa: PLC0415  a quick `ls` does not need it

    resolve_ca(value)
    del name
    return value


def _pem(name: str, value: str) -> str:
    if not value:
        return value
    try:
        certificates = x509.load_pem_x509_certificates(value.encode())
    except ValueError:
        raise UsageError(name, value[:40], "is not a file of PEM certificates (-----BEGIN CERTIFICATE-----)") from None
    if not certificates:
        raise UsageError(name, value[:40], "holds no certificate")
    return value


def _grace(name: str, value: str) -> str:
    parse_grace(value, field=name)
    return value


UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_grace(value: str, field: str = "graceperiod") -> timedelta | None:
    """Time left at which a certificate is renewed; None for "auto". Raises UsageError."""
    if value == "auto":
        return None
    found = re.fullmatch(r"(\d{1,7})([smhd])", value)
    if not found or int(found[1]) == 0:
        raise UsageError(field, value, "is not a length of time: give one such as 30d, 12h, 90s, or auto")
    return timedelta(seconds=int(found[1]) * UNITS[found[2]])


PROPERTIES: dict[str, Property] = {
    p.name: p
    for p in (
        Property("email", "", "contact of the ACME account; an app is not enabled without one", _email),
        Property("ca", "letsencrypt", "a preset (letsencrypt, letsencrypt-staging) or an https directory URL", _ca),
        Property("ca-bundle", "", "PEM of the roots to trust for a private CA (the CLI reads a file)", _pem),
        Property("challenge", "http-01", "how control of the names is shown", _one_of("http-01")),
        Property("key-type", "p256", "kind of certificate key", _one_of(*KeyType)),
        Property("graceperiod", "auto", "renew with this much time left; auto: a third, half under 10 days", _grace),
        Property("self-check", "on", "fetch our own challenge before the CA is asked to", _one_of("on", "off")),
        Property("http-port", "80", "where http-01 is validated; other than 80 only at private CAs", _port),
        Property("adopt", "off", "take over what stands in the app's place on a host", _one_of("on", "off")),
        Property("listen", "", "the one address the app's TLS listens on; unset: every address of the host", _address),
        Property("port", "443", "where the app serves TLS, on each of its hosts", _port),
    )
}


def check_property(name: str, value: str) -> str:
    """The value as it is kept. Raises UsageError for an unknown property or a value it cannot take."""
    if name not in PROPERTIES:
        raise UsageError("property", name, f"is not one of {', '.join(PROPERTIES)}")
    return PROPERTIES[name].check(name, value)


def effective(app: Mapping[str, str], everywhere: Mapping[str, str]) -> dict[str, str]:
    """Every property's value for one app."""
    return {name: app.get(name) or everywhere.get(name) or p.default for name, p in PROPERTIES.items()}
