"""A command line on the session's Redis, and what was in that Redis before and after."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from certfleet.cli.commands import app

PRIVATE_CA = "https://ca.example.internal/directory"


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Door:
    """`certfleet …` in this process, and everything that Redis holds."""

    redis: redis.Redis
    run: Callable[..., Said]

    def everything(self) -> dict[bytes, object]:
        """Every key with its value as Redis itself writes it down."""
        return {key: self.redis.dump(key) for key in sorted(self.redis.scan_iter(count=1000))}

    def done(self, *words: str) -> Said:
        """Run what has to succeed."""
        said = self.run(*words)
        assert said.status == 0, (words, said)
        return said

    def refused(self, *words: str) -> str:
        """Run what has to be refused as wrong usage: one sentence, nothing on standard output, nothing changed."""
        before = self.everything()
        said = self.run(*words)
        assert said.status == 2, (words, said)
        assert said.out == ""
        assert said.err.startswith("certfleet: ")
        assert said.err.count("\n") == 1, "one sentence"
        assert self.everything() == before, "nothing was changed"
        return said.err.removeprefix("certfleet: ").strip()


@pytest.fixture
def door(redis_socket: Path, short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """A command line with an empty Redis and a home of its own."""
    monkeypatch.setenv("CERTFLEET_HOME", str(short_directory))
    monkeypatch.setenv("CERTFLEET_REDIS_URL", f"unix://{redis_socket}")

    def run(*words: str) -> Said:
        result = CliRunner().invoke(app, list(words))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return Said(result.exit_code, result.stdout, result.stderr)

    with redis.Redis(unix_socket_path=str(redis_socket)) as client:
        client.flushall()
        yield Door(client, run)


@pytest.fixture
def bundle(short_directory: Path) -> Path:
    """A PEM file with the root of a private CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a private root")])
    now = dt.datetime.now(dt.UTC)
    root = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = short_directory / "roots.pem"
    path.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def fleet(door: Door) -> Door:
    """One host, and `blog`, ready to be enabled."""
    door.done("host", "add", "web1")
    door.done("app", "add", "blog", "--domain", "blog.example.com", "--host", "web1", "--email", "ops@example.com")
    return door
