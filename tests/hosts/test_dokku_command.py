"""The stand-in for `dokku`: asked by OpenSSH's own client and Debian's tar, as Dokku's documentation shows it."""

from __future__ import annotations

import asyncio
import io
import shlex
import tarfile
from pathlib import Path

import pytest

from certfleet.install.bundle import Item
from certfleet.install.probe import probe
from tests.hosts.dokku import DokkuHost, as_dokku
from tests.hosts.fleet import Hosts, hosts
from tests.install.certificates import item, name_of

LIMIT = 60.0


@pytest.fixture
async def fleet(short_directory: Path):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """One host."""
    async with hosts(short_directory / "hosts", 1) as running:
        yield running


@pytest.fixture
async def dokku(fleet: Hosts) -> DokkuHost:
    """It has Dokku, and one app."""
    made = await as_dokku(fleet[0])
    await made.add_key(fleet.public_key)
    await made.create_app("blog", [name_of("blog")])
    return made


async def ask(fleet: Hosts, words: str, archive: bytes = b"") -> tuple[int | None, str, str]:
    """`ssh dokku@host WORDS < archive`: status, standard output, standard error."""
    command = [word.replace("root@", "dokku@") for word in fleet.ssh(fleet[0])]
    process = await asyncio.create_subprocess_exec(
        *command,
        *shlex.split(words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaints = await asyncio.wait_for(process.communicate(archive), LIMIT)
    return process.returncode, output.decode(), complaints.decode()


def archive_of(one: Item, *, names: tuple[str, str] = ("server.crt", "server.key")) -> bytes:
    """As `tar cf - server.crt server.key`."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in zip(names, (one.fullchain.encode(), one.private_key), strict=True):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


async def test_a_certificate_comes_and_goes(fleet: Hosts, dokku: DokkuHost) -> None:
    """certs:add, then certs:report and certs:show tell of it and nginx serves it, then certs:remove."""
    assert (await ask(fleet, "certs:report blog --ssl-enabled"))[:2] == (0, "false\n")
    one = item("blog")
    status, told, _ = await ask(fleet, "certs:add blog", archive_of(one))
    assert status == 0
    assert told.startswith("server.crt\nserver.key\n-----> Configuring")
    await probe(fleet[0].address, 443, name_of("blog"), one.serial)
    assert (await ask(fleet, "certs:report blog --ssl-enabled"))[:2] == (0, "true\n")
    assert (await ask(fleet, "certs:show blog crt"))[:2] == (0, one.fullchain)
    assert (await ask(fleet, "certs:show blog key"))[:2] == (0, one.private_key.decode())
    _, report, _ = await ask(fleet, "certs:report")
    assert "=====> blog ssl information\n       Ssl dir:                       /home/dokku/blog/tls" in report
    assert f"Ssl hostnames:                 {name_of('blog')}" in report
    assert (await ask(fleet, "certs:remove blog"))[0] == 0
    assert (await ask(fleet, "certs:report blog --ssl-enabled"))[:2] == (0, "false\n")
    assert dokku.violations() == ""


async def test_what_it_refuses(fleet: Hosts, dokku: DokkuHost) -> None:
    """Dokku's own words and exit statuses; whatever is refused changes nothing."""
    good = archive_of(item("blog"))
    for words, archive, status, complaint in (
        ("certs:add wiki", good, 20, "App wiki does not exist"),
        ("certs:add blog", archive_of(item("blog"), names=("server.pem", "server.key")), 1, "missing .crt file"),
        ("certs:add blog", archive_of(item("blog"), names=("a.crt", "b.crt")), 1, "more than one .crt file"),
        ("certs:add blog", good[:-1500], 2, "Unexpected EOF in archive"),
        ("certs:show blog crt", b"", 1, "doesn't have an SSL endpoint defined"),
        ("certs:show blog pem", b"", 1, "specify either 'key' or 'crt'"),
        ("certs:remove blog", b"", 1, "does not have an SSL endpoint"),
        ("certs:report blog --ssl-serial", b"", 1, "Invalid flag passed"),
        ("sh", b"id\n", 1, "`sh` is not a dokku command"),
    ):
        assert (await ask(fleet, words, archive))[0] == status, words
        assert complaint in (await ask(fleet, words, archive))[2]
    assert not dokku.path("blog", "tls").exists()


async def test_what_it_notes(fleet: Hosts, dokku: DokkuHost) -> None:
    """What a real Dokku lets pass is told to the test: names, a key that does not fit, a chain that is missing."""
    wrong = archive_of(item("blog", mismatched=True))
    status, _, complaints = await ask(fleet, "certs:add blog", wrong)
    assert status == 1
    assert "key values mismatch" in complaints
    assert dokku.path("blog", "tls", "server.crt").exists(), "Dokku leaves them there, and nginx as it was"
    assert "the key does not fit" in dokku.violations()
    await ask(fleet, "certs:add blog", archive_of(item("blog"), names=("my.crt", "my.key")))
    assert "the archive holds ['my.crt', 'my.key']" in dokku.violations()
