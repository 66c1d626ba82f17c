"""The demonstration's CA: Pebble, a DNS server that sends every name to this machine, and the front before them.

Debian's `pebble` package brings both programs. Everything listens on 127.0.0.1 only, and dies with the process that
started it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certfleet.demo.ports import LOOPBACK, free_port
from certfleet.errors import ConfigurationError
from certfleet.models import utcnow

START_TIMEOUT = 30.0  # seconds until everything answers
STOP_TIMEOUT = 5.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True, slots=True)
class DemoCA:
    """A running CA, as its clients need to know it."""

    directory: str
    """The ACME directory, on the front."""
    bundle: str
    """PEM of the CA that signed the TLS certificate of front, Pebble and management: what clients trust."""
    dns: str
    """`address:port` of a DNS server by which every name is 127.0.0.1, but for those that `point` told it."""
    dns_management: str
    """The DNS server's management interface."""
    http_port: int
    """Where http-01 validation goes."""
    management: str
    """Pebble's management interface: /roots/0, /intermediates/0, …"""
    log: Path
    """What Pebble says, each request and each validation."""
    pids: Mapping[str, int]
    """`pebble`, `challtestsrv`, `front`: to measure or to disturb them."""

    async def counts(self) -> dict[str, int]:
        """Requests by kind since the start or the last reset, as the front saw them; and `bad_nonce` answers."""
        value: dict[str, int] = json.loads(await self._fetch("GET", self._front + "/rig/counts"))
        return value

    async def reset(self) -> None:
        """Zero the counters."""
        await self._fetch("POST", self._front + "/rig/reset")

    async def root(self, number: int = 0) -> str:
        """PEM of the root under which this run of Pebble issues; from 1 on, of its alternate ones."""
        return await self._fetch("GET", f"{self.management}/roots/{number}")

    async def status(self, serial: str) -> dict[str, Any]:
        """What Pebble says of a certificate: `Status` (Valid, Revoked), `Reason` (RFC 5280 §5.3.1) and others."""
        value: dict[str, Any] = json.loads(
            await self._fetch("GET", f"{self.management}/cert-status-by-serial/{serial}")
        )
        return value

    async def point(self, name: str, addresses: Sequence[str]) -> None:
        """From now on the name has these IPv4 addresses, for the CA as for everybody who asks its DNS server."""
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session:
            await session.post(self.dns_management + "/clear-a", json={"host": name})
            await session.post(self.dns_management + "/add-a", json={"host": name, "addresses": list(addresses)})

    @property
    def _front(self) -> str:
        return self.directory.removesuffix("/dir")

    async def _fetch(self, method: str, url: str) -> str:
        context = ssl.create_default_context(cadata=self.bundle)
        timeout = aiohttp.ClientTimeout(total=10)
        async with (
            aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session,
            session.request(method, url, ssl=context) as answer,
        ):
            return await answer.text()


@asynccontextmanager
async def pebble(
    directory: Path,
    *,
    http_port: int,
    validity_seconds: int = 90 * 86_400,
    bad_nonce_percent: int = 5,
    authz_reuse_percent: int = 0,
    sleep: bool = False,
    resolver: str | None = None,
    front_module: str = "certfleet.demo.front",
    settings: Mapping[str, Any] | None = None,
    alternate_roots: int = 0,
) -> AsyncIterator[DemoCA]:
    """A CA that runs as long as the block, its files in `directory` (made 0700 when it is not there).

    `resolver` (`address:port`) is asked instead of its own DNS server, which then knows nothing of validations.
    `sleep` lets Pebble wait up to 5 s before each validation; 0 % reuse of authorizations is in fact about 1 %.
    `front_module` is run as the proxy before Pebble; it takes the arguments of certfleet.demo.front. `settings` are
    further ones of Pebble's configuration file; it offers each chain under `alternate_roots` more roots.
    Raises ConfigurationError when a program is missing or does not come up.
    """
    dns, dns_management, acme, management, front, tls = (free_port() for _ in range(6))
    config = {
        "listenAddress": f"{LOOPBACK}:{acme}",
        "managementListenAddress": f"{LOOPBACK}:{management}",
        "certificate": str(directory / "tls.pem"),
        "privateKey": str(directory / "tls.key"),
        "httpPort": http_port,
        "tlsPort": tls,
        "certificateValidityPeriod": validity_seconds,
        "retryAfter": {"authz": 0, "order": 0},  # newer Pebbles send one otherwise; 2.4 never does
        **(settings or {}),
    }
    bundle = _prepare(directory, config)
    unused = ("-http01=", "-https01=", "-tlsalpn01=", "-defaultIPv6=")
    names = ("pebble-challtestsrv", f"-dns01={LOOPBACK}:{dns}", f"-management={LOOPBACK}:{dns_management}")
    server = ("pebble", f"-config={directory / 'pebble.json'}", f"-dnsserver={resolver or f'{LOOPBACK}:{dns}'}")
    proxy = (
        *(sys.executable, "-m", front_module),
        *("--listen", f"{LOOPBACK}:{front}", "--upstream", f"https://{LOOPBACK}:{acme}"),
        *("--certificate", str(directory / "tls.pem"), "--key", str(directory / "tls.key")),
        *("--bundle", str(directory / "bundle.pem")),
    )
    behaviour = {
        "PEBBLE_VA_NOSLEEP": "0" if sleep else "1",
        "PEBBLE_WFE_NONCEREJECT": str(bad_nonce_percent),
        "PEBBLE_AUTHZREUSE": str(authz_reuse_percent),
        "PEBBLE_ALTERNATE_ROOTS": str(alternate_roots),
    }
    importable = {"PYTHONPATH": str(Path(__file__).parents[2])}  # a checkout need not be installed
    async with AsyncExitStack() as stack:
        children = {
            "challtestsrv": await stack.enter_async_context(child((*names, *unused), directory / "challtestsrv.log")),
            "pebble": await stack.enter_async_context(child(server, directory / "pebble.log", behaviour)),
            "front": await stack.enter_async_context(child(proxy, directory / "front.log", importable)),
        }
        ca = DemoCA(
            directory=f"https://{LOOPBACK}:{front}/dir",
            bundle=bundle,
            dns=resolver or f"{LOOPBACK}:{dns}",
            dns_management=f"http://{LOOPBACK}:{dns_management}",
            http_port=http_port,
            management=f"https://{LOOPBACK}:{management}",
            log=directory / "pebble.log",
            pids={name: process.pid for name, process in children.items()},
        )
        await _answers(ca, children, directory)
        await ca.reset()
        yield ca


def _prepare(directory: Path, config: Mapping[str, Any]) -> str:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / "pebble.json").write_text(json.dumps({"pebble": config}))
    return make_tls(directory)


async def _answers(ca: DemoCA, children: Mapping[str, asyncio.subprocess.Process], logs: Path) -> None:
    context = ssl.create_default_context(cadata=ca.bundle)
    deadline = asyncio.get_running_loop().time() + START_TIMEOUT
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        while True:
            for name, process in children.items():
                if process.returncode is not None or asyncio.get_running_loop().time() > deadline:
                    tail = (logs / f"{name}.log").read_text(errors="replace")[-500:].strip()
                    raise ConfigurationError(f"{name} did not come up, see {logs}/{name}.log: {tail}")
            try:
                async with session.get(ca.directory, ssl=context) as answer:
                    if answer.ok:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass  # not yet
            await asyncio.sleep(0.05)


@asynccontextmanager
async def child(
    command: tuple[str, ...], log: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that dies with us, however we die, and is ended by its pid when the block ends."""
    with log.open("ab") as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL", "--", *command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
            )
        except FileNotFoundError:
            raise ConfigurationError("setpriv is missing: install util-linux") from None
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        process.send_signal(number)
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
        except TimeoutError:
            continue


def make_tls(directory: Path) -> str:
    """Make `bundle.pem` (a throw-away CA), `tls.pem` and `tls.key` for localhost; the CA's PEM is the answer."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "certfleet demo, TLS of the CA itself")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ip_address(LOOPBACK))]
    ca = (
        _certificate(issuer, issuer, ca_key.public_key(), ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    leaf = (
        _certificate(subject, issuer, key.public_key(), ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    bundle = ca.public_bytes(serialization.Encoding.PEM).decode()
    (directory / "bundle.pem").write_text(bundle)
    (directory / "tls.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "tls.key").unlink(missing_ok=True)
    with os.fdopen(os.open(directory / "tls.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(private)
    return bundle


def _certificate(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, authority: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    # Python 3.13 verifies strictly (RFC 5280): both key identifiers have to be there.
    now = utcnow()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False)
    )


def _usage(**allowed: bool) -> x509.KeyUsage:
    every: dict[str, Any] = dict.fromkeys(
        (
            *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        ),
        False,
    )
    return x509.KeyUsage(**every | allowed)
