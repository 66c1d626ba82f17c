"""Process settings: `CERTFLEET_*` variables and `certfleet.toml` in the state directory.

Built at start-up by whoever starts a process, never at import. Properties of apps are not settings:
they live in Redis (inventory.py).
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
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


class Settings(BaseSettings):
    """What one process needs to know before it can reach Redis."""

    model_config = SettingsConfigDict(env_prefix="CERTFLEET_", extra="forbid", validate_default=True)

    home: Path = Field(default_factory=default_home)
    redis_url: SecretStr | None = None
    """Any Redis 6.2+: redis://, rediss://, unix://; None is the embedded one in `home`."""
    prefix: str = Field(default="certfleet:", pattern=r"^[A-Za-z0-9._-]+:$")
    """Begins every key, the broker's included."""
    vault_key: SecretStr | None = None
    vault_key_file: Path | None = None
    nameservers: list[str] = []
    """DNS servers (`address` or `address:port`) for our own look-ups; empty: the system's resolver."""
    workers: int = Field(default=2, ge=1, le=64)
    """Worker processes that `certfleet up` starts."""
    threads: int = Field(default=4, ge=1, le=64)
    """Celery threads per worker process: messages worked on at once, each with up to `batch` members."""
    batch: int = Field(default=25, ge=1, le=1000)
    """Apps, orders or hosts that one message carries at most."""
    lease: float = Field(default=60, gt=0, le=3600)
    """Seconds that a claimed agenda member stays claimed; a lost message delays its member by this."""
    zones: list[str] = []
    """Zones whose hosts this process's worker installs to, besides those without a zone."""
    responder_address: str = "127.0.0.1"
    responder_port: int = Field(default=8402, ge=1, le=65535)
    flower_address: str = "127.0.0.1"
    flower_port: int = Field(default=8403, ge=1, le=65535)
    log_level: str = "INFO"

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

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
    """The settings of this process. Raises ConfigurationError with one sentence per bad value."""
    try:
        return Settings()
    except ValidationError as error:
        faults = [f"CERTFLEET_{str(e['loc'][0]).upper() if e['loc'] else '?'}: {e['msg']}" for e in error.errors()]
        raise ConfigurationError("; ".join(faults)) from None


def ensure_home(settings: Settings) -> Path:
    """The state directory, made 0700 when it is not there. Raises ConfigurationError when it cannot be."""
    try:
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        message = f"the state directory {settings.home} cannot be made: {error.strerror}; set CERTFLEET_HOME"
        raise ConfigurationError(message) from error
    return settings.home
