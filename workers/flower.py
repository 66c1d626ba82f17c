"""Flower, the web page that shows workers and tasks: its password and how it is started.

The password reaches Flower in the environment of its own process, which only the same user can read;
its argument list, which everybody can, names neither the password nor the broker. Flower only shows
(`read_only`): what it could do beyond that, the command line does with checks.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from certfleet.errors import ConfigurationError
from certfleet.settings import Settings, ensure_home

USER = "certfleet"
TASKS_KEPT = 10_000  # in Flower's memory


def password_file(settings: Settings) -> Path:
    """Where the password stands, 0600."""
    return settings.home / "flower.password"


def ensure_password(settings: Settings) -> str:
    """The password, made at first start. Raises ConfigurationError when its file cannot be read or is unusable."""
    path = password_file(settings)
    if not path.exists():
        ensure_home(settings)
        _write_first(path, secrets.token_urlsafe(24))
    try:
        password = path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"Flower's password {path} cannot be read: {error.strerror}") from error
    if not password or "," in password:  # Flower takes a comma for the end of a password
        raise ConfigurationError(
            f"Flower's password in {path} is empty or has a comma: put another, or remove the file"
        )
    return password


def command(settings: Settings) -> tuple[str, ...]:
    """What runs Flower."""
    return (
        *(sys.executable, "-m", "celery", "-A", "workers.schedule:app", "--quiet", "flower"),
        f"--address={settings.flower_address}",
        f"--port={settings.flower_port}",
        f"--max_tasks={TASKS_KEPT}",
        "--read_only=True",
        "--logging=warning",
    )


def environment(settings: Settings, inherited: Mapping[str, str]) -> dict[str, str]:
    """Flower's environment: no setting of another Flower, and our password."""
    own = {name: value for name, value in inherited.items() if not name.startswith("FLOWER_")}
    return own | {"FLOWER_BASIC_AUTH": f"{USER}:{ensure_password(settings)}"}


def _write_first(path: Path, password: str) -> None:
    # Complete and 0600 from the moment it has its name; whoever is first makes the password.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(password + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
    finally:
        Path(temporary).unlink(missing_ok=True)
