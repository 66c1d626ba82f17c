"""The demonstration's CA: what its front counts and passes on, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import stat
import sys
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

from certfleet.acme_ca.presets import resolve_ca
from certfleet.acme_ca.transport import Transport
from certfleet.demo.front import kind_of
from certfleet.demo.pebble import child, pebble
from certfleet.demo.ports import free_port
from certfleet.errors import ConfigurationError
from tests.processes import ended, runs

from .flow import issue, responder, signer_at


async def test_the_ca_is_what_it_was_asked_to_be(tmp_path: Path) -> None:
    """Validity, files only the owner reads, URLs on the front, everything ended with the block."""
    async with responder() as served, pebble(tmp_path / "ca", http_port=served.port, validity_seconds=3600) as ca:
        async with Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport:
            found = await transport.directory()
            assert found.new_order.startswith(ca.directory.removesuffix("dir"))
            issued = await issue(transport, await signer_at(transport), ["a.example.com"], served)
        assert 3590 <= (issued.not_after - issued.not_before).total_seconds() <= 3610
        assert x509.load_pem_x509_certificate((await ca.root()).encode()).subject.rfc4514_string().startswith("CN=Peb")
        assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "ca" / "tls.key").stat().st_mode) == 0o600
        assert all(runs(pid) for pid in ca.pids.values())
        address, port = ca.dns.split(":")
        assert address == "127.0.0.1"
        assert all(int(p) < 32_768 for p in (port, ca.directory.split(":")[2].split("/")[0]))
    assert await ended(*ca.pids.values())


async def test_many_orders_at_once_do_not_lock_the_ca_up(tmp_path: Path) -> None:
    """The mixture that stops a bare Pebble for good: forty orders, sixteen at a time, reuse on."""
    async with (
        responder() as served,
        pebble(tmp_path, http_port=served.port, bad_nonce_percent=0, authz_reuse_percent=50) as ca,
        Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport,
    ):
        signer = await signer_at(transport)
        at_once = asyncio.Semaphore(16)

        async def one(number: int) -> None:
            async with at_once:
                await issue(transport, signer, [f"x{number % 8}.example.com"], served)

        await asyncio.wait_for(asyncio.gather(*(one(number) for number in range(40))), 60)
        assert (await ca.counts())["certificate"] == 40


async def test_a_ca_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the programs: their name, the log, its end."""
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "setpriv").symlink_to("/usr/bin/setpriv")
    with pytest.raises(ConfigurationError, match=r"did not come up.*(pebble|challtestsrv): No such file"):
        async with pebble(tmp_path / "ca", http_port=free_port()):
            pass


async def test_children_die_with_their_owner(tmp_path: Path) -> None:
    """Even when the owner is killed and ends nothing itself."""
    program = (
        "import asyncio, sys, pathlib\n"
        "from certfleet.demo.pebble import pebble\n"
        "async def main():\n"
        f"    async with pebble(pathlib.Path({str(tmp_path / 'ca')!r}), http_port=1) as ca:\n"
        "        print(*ca.pids.values(), flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    async with child((sys.executable, "-c", program), tmp_path / "owner.log", environment) as owner:
        for _ in range(400):
            pids = [int(word) for word in (tmp_path / "owner.log").read_text().split() if word.isdigit()]
            if pids:
                break
            await asyncio.sleep(0.05)
        assert len(pids) == 3
        os.kill(owner.pid, signal.SIGKILL)
        assert await ended(*pids)


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/dir", "directory"), ("/authZ/abc", "authorization"), ("/my-order/1", "order"), ("/", "other"), ("*", "other")],
)
def test_requests_are_sorted_by_path(path: str, kind: str) -> None:
    """Pebble's paths, and anything else."""
    assert kind_of(path) == kind


async def test_the_rigs_own_addresses(tmp_path: Path) -> None:
    """Counters as JSON; reset; nothing else there; a dead Pebble is 502, at once."""
    async with pebble(tmp_path, http_port=free_port()) as ca, aiohttp.ClientSession() as session:
        front, context = ca.directory.removesuffix("/dir"), ssl.create_default_context(cadata=ca.bundle)
        async with session.get(ca.directory, ssl=context) as answer:
            assert answer.status == 200
        assert (await ca.counts())["directory"] == 1
        await ca.reset()
        assert not any((await ca.counts()).values())
        async with session.get(f"{front}/rig/other", ssl=context) as answer:
            assert answer.status == 404
        os.kill(ca.pids["pebble"], signal.SIGKILL)
        assert await ended(ca.pids["pebble"])
        async with session.get(ca.directory, ssl=context) as answer:
            assert answer.status == 502
