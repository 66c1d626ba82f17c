"""CAs by name (presets.toml) or by the URL of their directory."""

from __future__ import annotations

import ssl
import tomllib
from functools import cache, lru_cache
from importlib.resources import files
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, TypeAdapter

from certfleet.acme_ca.profiles import Known
from certfleet.errors import UsageError
from certfleet.identifiers import MAXIMUM_NAMES
from certfleet.models import CA


class Preset(BaseModel):
    """What presets.toml says about one CA; the fields are those of models.CA, and the profiles it documents."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: str
    hosts: tuple[str, ...] = ()
    public: bool = True
    requests_in_flight: int = 32
    profiles: dict[str, Known] = {}


@cache
def presets() -> dict[str, Preset]:
    """The presets by name."""
    text = (files("certfleet.acme_ca") / "presets.toml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Preset]).validate_python(tomllib.loads(text))


def known_profiles(ca: str) -> dict[str, Known]:
    """The profiles that a CA, by name or directory, is known to have; none: nothing is known."""
    return next((preset.profiles for name, preset in presets().items() if ca in (name, preset.directory)), {})


def is_preset(ca: str) -> bool:
    """Whether this is a CA that everybody's trust store knows: a preset by name or URL."""
    return any(normal(ca) in (name, preset.directory) for name, preset in presets().items())


def name_of(directory: str) -> str:
    """What the CA with this directory is called: a preset's name, else the URL itself."""
    return next((name for name, preset in presets().items() if preset.directory == directory), directory)


@lru_cache(maxsize=256)  # every order and every check asks; a bundle takes half a millisecond to verify
def resolve_ca(value: str, *, bundle: str | None = None, public: bool | None = None) -> CA:
    """The CA of a preset's name or of a directory's URL.

    `bundle` is PEM with the roots to trust instead of the system's. A URL that is no preset's is a private CA
    when there is a bundle, else a public one; `public` overrides that. Raises UsageError that names the field.
    """
    if bundle is not None:
        _check_bundle(bundle)
    value = normal(value)
    for name, preset in presets().items():
        if value in (name, preset.directory):
            return CA(
                name=name,
                directory=preset.directory,
                bundle=bundle,
                hosts=preset.hosts,
                public=preset.public if public is None else public,
                requests_in_flight=preset.requests_in_flight,
            )
    _check_url(value)
    return CA(name=value, directory=value, bundle=bundle, public=bundle is None if public is None else public)


def most_names(ca: CA, profile: str = "") -> int:
    """How many names a certificate of the CA may have, by a profile or without one; 100 where it is not known."""
    preset = presets().get(ca.name)
    known = preset.profiles if preset else {}
    found = known.get(profile) or next((one for one in known.values() if one.default), None)
    return found.names if found else MAXIMUM_NAMES


def normal(value: str) -> str:
    """A CA as it is kept: a URL like every other spelling of it (RFC 3986 §6.2.2.1, §6.2.3), for they are one CA."""
    scheme, separator, rest = value.partition("://")
    if not separator:
        return value
    host, slash, path = rest.partition("/")
    return f"{scheme.lower()}://{host.lower().removesuffix(':443')}{slash}{path}"


def _check_url(value: str) -> None:
    wanted = f"is not a CA; write the https URL of an ACME directory, or one of: {', '.join(presets())}"
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise UsageError("ca", value, wanted) from None
    clean = value.isascii() and value.isprintable() and not set(value) & set(' ",<>\\^`{|}')
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc or port == 0 or parts.fragment or not clean:
        raise UsageError("ca", value, wanted)


def _check_bundle(bundle: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=bundle)
    except (ssl.SSLError, ValueError):
        raise UsageError("ca-bundle", None, "has to be PEM with at least one certificate") from None
