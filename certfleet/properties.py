"""Properties: what can be set on an app or globally. Looked up on the app, then globally, then the default."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509

from certfleet.acme_ca.presets import is_preset, known_profiles
from certfleet.acme_ca.profiles import NAME as PROFILE
from certfleet.ca_list import cas_of, parse_cas
from certfleet.errors import UsageError
from certfleet.fitting import require_fitting, require_provable
from certfleet.identifiers import normalise, require_public
from certfleet.install.snippet import RESPONDER_URL, is_responder
from certfleet.key_place import PROPERTY as KEY_ON_HOST
from certfleet.key_place import require_one_host
from certfleet.lifecycle.hosts.waves import parse_waves
from certfleet.models import CA, App, KeyType


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
    if not re.fullmatch(r"[0-9]{1,5}", value) or not 0 < int(value) < 65536:  # noqa: PLR2004  16 bits
        raise UsageError(name, value, "is not a port: give a number from 1 to 65535")
    return str(int(value))


def _address(name: str, value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise UsageError(name, value, "is not an IP address of the host") from None


OF_THE_HOST = "host"


def _listen(name: str, value: str) -> str:
    try:
        return value if value == OF_THE_HOST else _address(name, value)
    except UsageError:
        raise UsageError(name, value, f"is neither an IP address of the host nor {OF_THE_HOST!r}") from None


def _whereabouts(name: str, value: str) -> str:
    with suppress(UsageError):
        return _address(name, value)
    with suppress(UsageError):
        found = normalise(f"{value}.invalid").removesuffix(".invalid")  # a host name may be a single label here
        if not found.startswith("*"):
            return found
    raise UsageError(name, value, "is neither an IP address nor a host name")


def _waves(name: str, value: str) -> str:
    parse_waves(value, field=name)
    return value


def _responder(name: str, value: str) -> str:
    if not is_responder(value):
        raise UsageError(name, value, f"is neither address:port (1 to 65535) nor a URL such as {RESPONDER_URL}")
    return value


MOST_GENERATIONS = 100


def _generations(name: str, value: str) -> str:
    # Two: what is current, and what a rollback goes to.
    if not re.fullmatch(r"[0-9]{1,3}", value) or not 2 <= int(value) <= MOST_GENERATIONS:  # noqa: PLR2004  as said
        raise UsageError(name, value, f"is not a number of generations: give one from 2 to {MOST_GENERATIONS}")
    return str(int(value))


ATOM = r"[A-Za-z0-9!#$&'*+/=^_`{|}~-]+"
LOCAL = re.compile(rf"(?=.{{1,64}}\Z){ATOM}(\.{ATOM})*")  # RFC 5321 §4.1.2, without what is in quotation marks


def _email(name: str, value: str) -> str:
    # One address that stands in a mailto: URL as it is, without header fields (RFC 8555 §7.3, RFC 6068 §2).
    local, at, domain = value.rpartition("@")
    wanted = "is not an e-mail address: give one such as ops@example.com"
    if not at or not LOCAL.fullmatch(local) or domain.endswith("."):
        raise UsageError(name, value, wanted)
    try:
        spelled = normalise(domain)
    except UsageError:
        raise UsageError(name, value, wanted) from None
    if domain.startswith("*") or domain != domain.strip():
        raise UsageError(name, value, wanted)
    if not domain.isascii():  # accounts are found by the very words: it is for the person to know which these are
        raise UsageError(name, value, f"has a domain that is not ASCII, as CAs want it: give {local}@{spelled}")
    return value


def _ca(name: str, value: str) -> str:
    return ",".join(parse_cas(value, name))


def _pem(name: str, value: str) -> str:
    try:
        certificates = x509.load_pem_x509_certificates(value.encode())
    except ValueError:
        raise UsageError(name, value[:40], "is not a file of PEM certificates (-----BEGIN CERTIFICATE-----)") from None
    if not certificates:
        raise UsageError(name, value[:40], "holds no certificate")
    return value


def _profile(name: str, value: str) -> str:
    if not PROFILE.fullmatch(value):
        raise UsageError(name, value, "is not the name of a profile: `certfleet profiles` lists those of the CA")
    return value


def _common_name(name: str, value: str) -> str:
    if not value.isprintable() or value != value.strip() or len(value) > LONGEST_ISSUER:
        raise UsageError(name, value, "is not the common name of an issuer: give one such as ISRG Root X1")
    return value


UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST = timedelta(days=3650)
"""What is longer is refused; what an older version kept counts as this, so that a calendar has the time it leads to."""


def _length(value: str) -> timedelta | None:
    """A number and its unit; None: it is something else."""
    found = re.fullmatch(r"([0-9]{1,7})([smhd])", value)
    return timedelta(seconds=int(found[1]) * UNITS[found[2]]) if found else None


def _length_of_time(parse: Callable[[str, str], timedelta | None]) -> Callable[[str, str], str]:
    """The check of what `parse` reads."""

    def check(name: str, value: str) -> str:
        parse(value, name)
        length = _length(value)
        if length is not None and length > LONGEST:
            raise UsageError(name, value, f"is longer than ten years: give {LONGEST.days}d at most")
        return value

    return check


def parse_grace(value: str, field: str = "graceperiod") -> timedelta | None:
    """Time left at which a certificate is renewed; None for "auto". Raises UsageError."""
    if value == "auto":
        return None
    if not (length := _length(value)):
        raise UsageError(field, value, "is not a length of time: give one such as 30d, 12h, 90s, or auto")
    return min(length, LONGEST)


def _span(value: str, field: str) -> timedelta:
    if (found := parse_grace(value, field)) is None:
        raise UsageError(field, value, "is not a length of time: give one such as 10m or 2h")
    return found


def _tenant(name: str, value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", value):
        raise UsageError(name, value, "is not a name: use up to 63 of a-z, 0-9 and -, a letter or digit first")
    return value


LONGEST_ISSUER = 200  # characters; RFC 5280 says 64, and not every private root keeps to it
OFF = "off"


def parse_park_after(value: str, field: str = "park-after") -> timedelta | None:
    """How long an order may fail before it is left to a person; None: for ever. Raises UsageError."""
    if value == OFF:
        return None
    if not (length := _length(value)):
        raise UsageError(field, value, f"is neither a length of time such as 30d nor {OFF}")
    return min(length, LONGEST)


AFTER_RENEWALS = "after-renewals"


def parse_first_issue(value: str, field: str = "first-issue") -> timedelta | None:
    """As which time left a certificate that does not exist counts; None: after every renewal. Raises UsageError."""
    if value == AFTER_RENEWALS:
        return None
    if (length := _length(value)) is None:
        raise UsageError(field, value, f"is neither a length of time such as 7d nor {AFTER_RENEWALS}")
    return min(length, LONGEST)


LARGEST_SHARE = 90  # per cent: some of it has to be for new names


def _share(name: str, value: str) -> str:
    parse_share(value, field=name)
    return value


def parse_share(value: str, field: str = "reserved-for-renewals") -> float:
    """A share in per cent as a fraction. Raises UsageError."""
    found = re.fullmatch(r"([0-9]{1,3})%", value)
    if not found or int(found[1]) > LARGEST_SHARE:
        raise UsageError(field, value, f"is not a share: give one from 0% to {LARGEST_SHARE}%")
    return int(found[1]) / 100


PROPERTIES: dict[str, Property] = {
    p.name: p
    for p in (
        Property("email", "", "contact of the ACME account; an app is not enabled without one", _email),
        Property(
            "ca",
            "letsencrypt",
            "a preset (letsencrypt, letsencrypt-staging) or an https directory URL; several, A,B: the next is asked "
            "when one cannot issue",
            _ca,
        ),
        Property("ca-bundle", "", "PEM of the roots to trust for a private CA (the CLI reads a file)", _pem),
        Property(
            "agree-tos",
            "off",
            "you have read the terms of service of each CA and agree to them, so that an account may be made",
            _one_of("on", "off"),
        ),
        Property(
            "challenge",
            "http-01",
            "how control of the names is shown: http-01, dns-01 or dns-persist-01",
            _one_of("http-01", "dns-01", "dns-persist-01"),
        ),
        Property("dns", "", "name of the credentials that dns-01 writes TXT records with", _tenant),
        Property(
            "dns-propagation",
            "10m",
            "how long every DNS server of the zone may take to show a record, before the order fails",
            _length_of_time(_span),
        ),
        Property(
            "persist-for",
            "",
            "how long a standing record of dns-persist-01 is to be good for, from when it is made; unset: for ever",
            _length_of_time(_span),
        ),
        Property("dns-port", "53", "where DNS servers of zones are asked; other than 53 only at private CAs", _port),
        Property(
            "challenge-via",
            "responder",
            "who answers for it: certfleet's responder, or the hosts: stateless or webroot",
            _one_of("responder", "stateless", "webroot"),
        ),
        Property(
            "responder",
            "",
            "where hosts pass challenges on (address:port) or redirect them to (http://…); unset: the settings' own",
            _responder,
        ),
        Property("key-type", "p256", "kind of certificate key", _one_of(*KeyType)),
        Property("reuse-key", "off", "keep the key when a certificate is renewed", _one_of("on", "off")),
        Property(
            KEY_ON_HOST,
            "off",
            "the app's one host makes the keys, and no copy of them is anywhere else",
            _one_of("on", "off"),
        ),
        Property(
            "graceperiod",
            "auto",
            "renew with at least this much time left; auto: as the CA says, else a third, half under 10 days",
            _length_of_time(parse_grace),
        ),
        Property("self-check", "on", "fetch our own challenge before the CA is asked to", _one_of("on", "off")),
        Property(
            "preflight",
            "on",
            "order nothing for a name that does not exist or whose CAA forbids it",
            _one_of("on", "off"),
        ),
        Property(
            "park-after",
            "30d",
            "leave an order to a person after failing for so long; off: never",
            _length_of_time(parse_park_after),
        ),
        Property("http-port", "80", "where http-01 is validated; other than 80 only at private CAs", _port),
        Property("adopt", "off", "take over what stands in the app's place on a host", _one_of("on", "off")),
        Property(
            "listen",
            "",
            "the one address the app's TLS listens on (host: the host's own); unset: every address of the host",
            _listen,
        ),
        Property("tenant", "", "whose app it is: new names of several tenants get their turns one by one", _tenant),
        Property(
            "first-issue",
            AFTER_RENEWALS,
            "how urgent a first certificate is: like one with this time left (7d), or after-renewals",
            _length_of_time(parse_first_issue),
        ),
        Property("reserved-for-renewals", "25%", "share of an account's new orders that new names leave alone", _share),
        Property("port", "443", "where the app serves TLS, on each of its hosts", _port),
        Property("address", "", "where it is asked what it serves; unset: each host's address", _whereabouts),
        Property("wave", "1, 25%, 100%", "hosts that have a new certificate before the next ones get it", _waves),
        Property("keep-generations", "3", "certificates of the app that stay on a host", _generations),
        Property("profile", "", "the CA's kind of certificate, such as shortlived; unset: its default", _profile),
        Property(
            "preferred-chain",
            "",
            "common name of the topmost issuer of the chain to take, if the CA has it; unset: the CA's default",
            _common_name,
        ),
    )
}


def check_property(name: str, value: str) -> str:
    """The value as it is kept; empty takes it away. Raises UsageError for an unknown property or a bad value."""
    if name not in PROPERTIES:
        raise UsageError("property", name, f"is not one of {', '.join(PROPERTIES)}")
    return PROPERTIES[name].check(name, value) if value else ""


def effective(app: Mapping[str, str], everywhere: Mapping[str, str]) -> dict[str, str]:
    """Every property's value for one app. A bundle for all apps is not for those whose CAs are publicly known."""
    values = {name: app.get(name) or everywhere.get(name) or p.default for name, p in PROPERTIES.items()}
    if not app.get("ca-bundle") and all(is_preset(ca) for ca in values["ca"].split(",")):
        values["ca-bundle"] = ""
    return values


def _require_public_ports(ca: CA, values: Mapping[str, str]) -> None:
    if values["http-port"] != "80":
        raise UsageError("http-port", values["http-port"], f"is for private CAs: {ca.name} validates on port 80")
    if values["dns-port"] != "53":
        raise UsageError("dns-port", values["dns-port"], f"is for private CAs: {ca.name} asks DNS on port 53")


def require_usable(app: App, values: Mapping[str, str]) -> None:
    """Raise UsageError for an app that no CA could make good; `values` are its effective properties."""
    if not app.hosts:
        raise UsageError("host", None, f"app {app.name} needs at least one: --host web1")
    if not values["email"]:
        wanted = f"app {app.name} has none: give --email ops@example.com, or `certfleet set email=ops@example.com`"
        raise UsageError("email", None, wanted)
    cas = cas_of(values)
    if values["ca-bundle"] and not any(ca.bundle for ca in cas):
        raise UsageError("ca-bundle", None, f"{values['ca']} needs none: give the URL of the private CA with --ca too")
    public = next((ca for ca in cas if ca.public), None)
    if public:
        _require_public_ports(public, values)
    if values["challenge"] == "dns-01" and not values["dns"]:
        raise UsageError("dns", None, f"app {app.name} has none, and dns-01 needs it: `certfleet dns set --help`")
    require_one_host(app, values)
    names = list(zip(app.identifiers, app.shown or app.identifiers, strict=True))
    for name, shown in names:
        if name.startswith("*.") and values["challenge"] == "http-01":
            raise UsageError(
                "domain", shown, "is a wildcard, which http-01 cannot prove: name each host, or set challenge=dns-01"
            )
        if public:
            require_public(name, shown)
    require_provable(names, values["challenge"])
    require_fitting(app.name, names, cas[0].name, values["profile"])
    for ca in cas[1:]:  # which is asked by its default where it has no such profile
        profile = values["profile"] if values["profile"] in known_profiles(ca.name) else ""
        require_fitting(app.name, names, ca.name, profile)
