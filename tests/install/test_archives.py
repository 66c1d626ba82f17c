"""Archives that somebody tampered with: refused as a whole, and nothing lands anywhere."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from certfleet.errors import InstallError
from certfleet.install.answer import parse
from certfleet.install.bundle import pack
from certfleet.install.drivers import local
from certfleet.models import Host
from tests.install.certificates import item

pytestmark = pytest.mark.usefixtures("shell")

Change = Callable[[tarfile.TarInfo, bytes], tuple[tarfile.TarInfo, bytes]]


async def send(host: Host, archive: bytes) -> str:
    """The receiver's refusal of this archive."""
    with pytest.raises(InstallError) as caught:
        parse(await local._run(host, ["install", *local._options(host)], archive), host=host.name)
    return str(caught.value)


def tampered(root: Path, *extra: tuple[tarfile.TarInfo, bytes], without: str = "", server: str = "nginx") -> bytes:
    """A good archive with members added after, or one left out."""
    packed = io.BytesIO(pack([item("blog")], str(root), server))
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=packed) as good,
        tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for member in good:
            if not without or not member.name.endswith(without):
                tar.addfile(member, good.extractfile(member))
        for member, content in extra:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o600) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    return info


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "blog/1/../../../evil",
        "blog/../evil",
        "{outside}/evil",
        "/blog/1/../../evil",
        "evil",
        "blog/evil",
        "blog/1/evil.conf",
        "blog/1/.certfleet",
        "blog/1/deep/cert.pem",
        "blog//cert.pem",
        "blog/0/cert.pem",
        "blog/01/cert.pem",
        "blog/-1/cert.pem",
        "Blog/1/cert.pem",
        "-rf/1/cert.pem",
        "bl og/1/cert.pem",
        "blog/1/cert.pem\nblog/1/chain.pem",
        ".pending/1/cert.pem",
        "$(touch evil)/1/cert.pem",
        "a" * 64 + "/1/cert.pem",
    ],
)
async def test_names(plain: Host, root: Path, tmp_path: Path, name: str) -> None:
    """A member with any name but APP/GENERATION/FILE: nothing is written, inside the root or outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    said = await send(plain, tampered(root, (member(name.format(outside=outside)), b"evil")))
    assert "archive" in said
    assert [path for path in root.iterdir() if path.name != ".lock"] == []
    assert list(outside.iterdir()) == []
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "blog/1/privkey.pem"),
        (tarfile.DIRTYPE, ""),
        (tarfile.FIFOTYPE, ""),
        (tarfile.CHRTYPE, ""),
    ],
)
async def test_kinds(plain: Host, root: Path, kind: bytes, target: str) -> None:
    """A symlink, hard link, directory, pipe or device under a good name is refused."""
    info = member("shop/1/cert.pem", kind, target)
    said = await send(plain, tampered(root, (info, b"")))
    assert "regular file" in said or "unexpected name" in said
    assert [path for path in root.iterdir() if path.name != ".lock"] == []


async def test_a_hard_link_to_a_file_outside(plain: Host, root: Path, tmp_path: Path) -> None:
    """A hard link that points out of the root is not made: nobody's modes change."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    victim.chmod(0o644)
    await send(plain, tampered(root, (member("blog/1/cert.pem", tarfile.LNKTYPE, str(victim)), b"")))
    assert (victim.stat().st_nlink, victim.stat().st_mode & 0o777) == (1, 0o644)


async def test_write_through_a_symlink(plain: Host, root: Path, tmp_path: Path) -> None:
    """A symlink followed by a file of the same name does not write where the symlink points."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    link = member("blog/1/cert.pem", tarfile.SYMTYPE, str(victim))
    await send(plain, tampered(root, (link, b""), (member("blog/1/cert.pem"), b"evil")))
    assert victim.read_text() == "untouched"


@pytest.mark.parametrize("name", ["fullchain.pem", "privkey.pem", "cert.pem", "chain.pem", "serial", "nginx.conf"])
async def test_lacking(plain: Host, root: Path, name: str) -> None:
    """Half a bundle is refused, naming what is not there."""
    assert name in await send(plain, tampered(root, without="/" + name))


async def test_too_large(plain: Host, root: Path) -> None:
    """A file that is too large is refused, and so is an archive that does not end."""
    assert "too large" in await send(plain, tampered(root, (member("blog/1/chain.pem"), b"x" * 200_000)))
    assert "larger than" in await send(plain, b"x" * (65 * 1024 * 1024))
    assert [path for path in root.iterdir() if path.name != ".lock"] == []


async def test_truncated(plain: Host, root: Path) -> None:
    """An archive that was cut anywhere is refused, also between two members."""
    whole = pack([item("blog"), item("shop")], str(root))
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    for length in [0, 1, 511, *range(512, end, 512), end - 100, end]:
        assert "archive" in await send(plain, whole[:length])
    assert [path for path in root.iterdir() if path.name != ".lock"] == []


async def test_garbage(plain: Host) -> None:
    """Random bytes and an empty tar are refused."""
    assert "archive" in await send(plain, os.urandom(4096))
    assert "archive" in await send(plain, os.urandom(4096) + bytes(2048))
    assert "empty" in await send(plain, bytes(10240))


@pytest.mark.parametrize(
    "line",
    [
        "return 200 evil;",
        "listen 443 ssl; root /;",
        "listen 127.0.0.1:443 ssl; autoindex on; listen 1 ssl;",
        "ssl_certificate /etc/ssl/other.pem;",
        "include /etc/passwd;",
        "listen unix:/tmp/x ssl;",
        "",
    ],
)
async def test_the_fragment_says_nothing_else(plain: Host, root: Path, line: str) -> None:
    """Who can send certificates cannot send nginx directives."""
    info = member("blog/1/nginx-ipv6.conf")
    assert "nginx line" in await send(plain, tampered(root, (info, line.encode() + b"\n")))


async def test_an_unfinished_last_line_counts(plain: Host, root: Path) -> None:
    """A directive without a newline after it is looked at as well."""
    assert "nginx line" in await send(plain, tampered(root, (member("blog/1/nginx-ipv6.conf"), b"return 200 evil;")))


async def test_modes_of_the_archive_do_not_count(plain: Host, root: Path) -> None:
    """Set-uid and world-readable members end as 0600."""
    mode = member("blog/1/cert.pem", mode=0o4777)
    archive = tampered(root, (mode, b"-----BEGIN CERTIFICATE-----\n"))
    parse(await local._run(plain, ["install", *local._options(plain)], archive), host="plain")
    assert (root / "blog/1/cert.pem").stat().st_mode & 0o7777 == 0o600
