"""Process settings: `CERTFLEET_*` variables and `certfleet.toml` in the state directory.

Built at start-up by whoever starts a process, never at import. Properties of apps are not settings:
they live in Redis (inventory.py).
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from certfleet.errors import ConfigurationError


def default_home() -> Path:
    """`CERTFLEET_HOME`, else /var/lib/certfleet as root, else the XDG state directory."""
    if named := os.environ.get("CERTFLEET_HOME"):
        return Path(named).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/certfleet")
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "certfleet"


LEVELS = tuple(logging.getLevelName(level) for level in range(logging.DEBUG, logging.CRITICAL + 1, 10))


class Settings(BaseSettings):
    """What one process needs to know before it can reach Redis."""

    model_config = SettingsConfigDict(
        env_prefix="CERTFLEET_", extra="forbid", validate_default=True, hide_input_in_errors=True
    )

    home: Path = Field(default_factory=default_home)
    redis_url: SecretStr | None = None
    """Any Redis 6.2+: redis://, rediss://, unix://; None is the embedded one in `home`."""
    prefix: str = Field(default="certfleet:", pattern=r"^[A-Za-z0-9._-]+:$")
    """Begins every key, the broker's included."""
    vault_key: SecretStr | None = None
    vault_key_file: Path | None = None
    nameservers: Annotated[list[str], NoDecode] = []
    """DNS servers (`address` or `address:port`) for our own look-ups; empty: the system's resolver."""
    workers: int = Field(default=2, ge=1, le=64)
    """Worker processes that `certfleet up` starts."""
    threads: int = Field(default=4, ge=1, le=64)
    """Celery threads per worker process: messages worked on at once, each with up to `batch` members."""
    batch: int = Field(default=25, ge=1, le=1000)
    """Apps, orders or hosts that one message carries at most."""
    lease: float = Field(default=60, gt=0, le=3600)
    """Seconds that a claimed agenda member stays claimed; a lost message delays its member by this."""
    zones: Annotated[list[str], NoDecode] = []
    """Zones whose hosts this process's worker installs to, besides those without a zone."""
    egress_address: str | None = None
    """The public address from which the CA sees this machine's requests; unset: all machines count as one."""
    responder_address: str = "127.0.0.1"
    responder_port: int = Field(default=8402, ge=1, le=65535)
    flower_address: str = "127.0.0.1"
    flower_port: int = Field(default=8403, ge=0, le=65535)
    """0: no Flower."""
    log_level: str = "INFO"

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _is_redis_url(value.get_secret_value()):
            raise ValueError(
                "has to be redis://user:password@host:port/0 (signs in the password as %XX), rediss://… or unix:///path"
            )
        return value

    @field_validator("nameservers", "zones", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        """A JSON list, or words with commas or blanks between them."""
        if not isinstance(value, str):
            return value
        if re.fullmatch(r'\s*\[(\s*|\s*".*)\]\s*', value):
            return json.loads(value)
        return value.replace(",", " ").split()

    @field_validator("nameservers")
    @classmethod
    def _addresses(cls, value: list[str]) -> list[str]:
        for server in value:
            if not _is_server(server):
                raise ValueError(f"{server!r} is not an address such as 192.0.2.53 or 192.0.2.53:5353")
        return value

    @field_validator("egress_address")
    @classmethod
    def _egress(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not _is_address(value) or "%" in value:
            raise ValueError(f"{value!r} is not an IP address such as 192.0.2.1")
        address = ipaddress.ip_address(value)  # one spelling: all that share it count together
        return str((isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address)

    @field_validator("zones")
    @classmethod
    def _zones(cls, value: list[str]) -> list[str]:
        for zone in value:
            if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", zone):
                raise ValueError(f"{zone!r} is not a name: use up to 63 of a-z, 0-9 and -")
        return value

    @field_validator("log_level")
    @classmethod
    def _level(cls, value: str) -> str:
        if value.upper() not in LEVELS:
            raise ValueError(f"{value!r} is not one of {', '.join(LEVELS)}")
        return value.upper()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then `certfleet.toml`."""
        del dotenv_settings, file_secret_settings
        toml = TomlConfigSettingsSource(settings_cls, default_home() / "certfleet.toml")
        return init_settings, env_settings, toml

    @property
    def redis_directory(self) -> Path:
        """Where the embedded Redis keeps its socket, lock and append-only file."""
        return self.home / "redis"

    @property
    def redis_socket(self) -> Path:
        """The embedded Redis's unix socket."""
        return self.redis_directory / "redis.sock"


def load_settings() -> Settings:
    """The settings of this process. Raises ConfigurationError that names each bad one, never its value's secret."""
    file = default_home() / "certfleet.toml"
    try:
        return Settings()
    except ValidationError as error:
        faults = [f"{_source(e['loc'], file)}: {_told(e['msg'])}" for e in error.errors()]
        raise ConfigurationError("; ".join(faults)) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file} is not TOML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigurationError(f"{file} cannot be read: {reason}") from None


def _source(location: tuple[int | str, ...], file: Path) -> str:
    """Where a bad value came from: the environment wins over the file."""
    name = str(location[0]) if location else "?"
    variable = f"CERTFLEET_{name.upper()}"
    return variable if variable in os.environ or not file.exists() else f"{name} in {file} ({variable})"


def _told(message: str) -> str:
    known = {"Extra inputs are not permitted": "is not a setting", "Value error, ": ""}
    for theirs, ours in known.items():
        message = message.replace(theirs, ours)
    return message


def _is_redis_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        if parts.scheme == "unix":
            return parts.path.startswith("/")
        return parts.scheme in ("redis", "rediss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_server(text: str) -> bool:
    host, colon, port = (text, "", "") if _is_address(text) else text.rpartition(":")
    return _is_address(host.strip("[]")) and (not colon or (port.isdecimal() and 0 < int(port[:6]) < 65536))  # noqa: PLR2004  16 bits


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def ensure_home(settings: Settings) -> Path:
    """The state directory, made 0700 when it is not there. Raises ConfigurationError when it cannot be."""
    try:
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        message = f"the state directory {settings.home} cannot be made: {error.strerror}; set CERTFLEET_HOME"
        raise ConfigurationError(message) from error
    return settings.home
