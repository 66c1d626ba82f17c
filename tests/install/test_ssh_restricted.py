"""Whoever steals the fleet's key can install certificates, and nothing else."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from certfleet.demo.ports import free_port
from certfleet.install.bundle import pack
from certfleet.install.installer import Installer
from certfleet.install.login import parse_login
from certfleet.models import Host
from tests.install.certificates import item
from tests.install.sshd import Sshd

Thief = asyncssh.SSHClientConnection


@pytest.fixture
async def thief(far: Host, installer: Installer) -> AsyncIterator[Thief]:
    """Somebody with the key and a client that asks for whatever it likes."""
    login = parse_login(far.login)
    async with asyncssh.connect(
        login.host,
        login.port,
        username=login.user,
        client_keys=[asyncssh.import_private_key(await installer.private_key())],
        known_hosts=None,
        agent_path=None,
        config=None,
    ) as connection:
        yield connection


async def ask(thief: Thief, command: str | None, data: bytes = b"") -> dict[str, object]:
    """What the host answers; it is always the receiver, and always a refusal."""
    done = await thief.run(command, input=data, encoding=None, timeout=30)
    assert done.exit_status == 1, done
    answer: dict[str, object] = json.loads(done.stdout or b"")
    assert answer["apps"] == {}
    assert answer["error"]
    return answer


async def test_no_shell(thief: Thief) -> None:
    """Without a command there is no shell but a refusal."""
    assert "opens no shell" in str((await ask(thief, None))["error"])


@pytest.mark.parametrize(
    "command",
    [
        "id",
        "sh -c id",
        "status; id",
        "status && id",
        "status $(touch evil)",
        "status `touch evil`",
        "status\ntouch evil",
        "status >evil",
        "status | tee evil",
        "install -m 755 evil",
        "scp -t evil",
        "rsync --server . evil",
        "serve",
        "serve evil.conf",
        "status --root /etc",
        "install --root /etc --test true --reload true",
        "install --test true",
        "check --reload evil",
        "check twice",
        "rollback ../evil:1",
        "rollback blog:-1",
        "rollback blog",
        "remove ..",
        "remove -rf",
        "remove",
        "cleanup --keep 0",
        "cleanup --keep -1",
        "cleanup blog",
        "install --adopt ../evil",
        "install --adopt",
        "install --made-here",
        "install --made-here ../evil",
        "request evil",
        "request --root /etc",
        "version version",
        "   ",
        "\\x00",
        "a" * 200_000,
    ],
)
async def test_no_other_words(thief: Thief, tmp_path: Path, root: Path, command: str) -> None:
    """A verb, apps and numbers; everything else is refused in JSON and runs nothing."""
    before = sorted(tmp_path.rglob("*"))
    if command == "remove":  # nothing is asked for, and nothing is done
        done = await thief.run(command, encoding=None)
        assert json.loads(done.stdout or b"")["apps"] == {}
    elif len(command) > 131_072:  # the kernel's own limit for one variable comes first
        done = await thief.run(command, encoding=None)
        assert done.exit_status
    else:
        await ask(thief, command)
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and not path.is_relative_to(root)] == []
    assert not list(Path.home().glob("evil*"))


async def test_no_forwarding(thief: Thief, sshd: Sshd) -> None:
    """Neither out of the host, nor into it, nor to a socket."""
    with pytest.raises(asyncssh.ChannelOpenError):
        await thief.open_connection("127.0.0.1", sshd.port)
    with pytest.raises((asyncssh.ChannelOpenError, asyncssh.ChannelListenError)):
        await thief.forward_remote_port("127.0.0.1", free_port(), "127.0.0.1", sshd.port)
    with pytest.raises(asyncssh.ChannelOpenError):
        await thief.open_unix_connection("/run/systemd/private")


async def test_no_sftp(thief: Thief) -> None:
    """The subsystem is the receiver too, which does not speak it."""
    with pytest.raises((asyncssh.SFTPError, asyncssh.Error)):
        async with asyncio.timeout(20):
            await thief.start_sftp_client()


async def test_no_terminal(thief: Thief) -> None:
    """A terminal is not given, so nothing waits at one."""
    with pytest.raises(asyncssh.ChannelOpenError):
        await thief.create_process("status", request_pty="force", term_type="xterm")


async def test_no_agent_and_no_environment(thief: Thief, sshd: Sshd) -> None:
    """What the client sends of its environment does not reach the receiver's commands."""
    done = await thief.run("status", env={"PATH": "/evil", "LD_PRELOAD": "/evil.so"}, encoding=None)
    assert json.loads(done.stdout or b"")["error"] is None
    assert sshd.commands() == 1


def tar(*members: tuple[tarfile.TarInfo, bytes], begin: bytes = b"") -> bytes:
    """An archive, with a good one before it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as made:
        if begin:
            with tarfile.open(fileobj=io.BytesIO(begin)) as good:
                for one in good:
                    made.addfile(one, good.extractfile(one))
        for info, content in members:
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("../evil"),
        member("blog/1/../../../evil"),
        member("/etc/evil"),
        member("blog/1/cert.pem", tarfile.SYMTYPE, "/etc/passwd"),
        member("blog/1/cert.pem", tarfile.LNKTYPE, "/etc/passwd"),
        member("shop/1/cert.pem", tarfile.CHRTYPE),
        member("shop/1/cert.pem", tarfile.BLKTYPE),
        member("shop/1/cert.pem", tarfile.FIFOTYPE),
        member("shop/1", tarfile.DIRTYPE),
    ],
    ids=lambda info: f"{info.name}-{info.type.decode()}",
)
async def test_no_file_elsewhere(thief: Thief, root: Path, tmp_path: Path, bad: tarfile.TarInfo) -> None:
    """A bundle with anything but certificates under its apps' names is refused whole."""
    outside = {path for path in tmp_path.rglob("*") if not path.is_relative_to(root)}
    answer = await ask(thief, "install", tar((bad, b""), begin=pack([item("blog")], str(root))))
    assert "archive" in str(answer["error"])
    assert {path.name for path in root.iterdir()} <= {".lock"}
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(root)} == outside


async def test_no_other_directives(thief: Thief, root: Path) -> None:
    """The lines for nginx are those that name the certificate, or the bundle is refused."""
    evil = tar((member("blog/1/nginx-ipv6.conf"), b"return 200 evil;\n"), begin=pack([item("blog")], str(root)))
    assert "nginx line" in str((await ask(thief, "install", evil))["error"])


async def test_no_oversized_bundle(thief: Thief, root: Path) -> None:
    """What does not end is not stored."""
    answer = await ask(thief, "install", b"x" * (65 * 1024 * 1024))
    assert "larger than" in str(answer["error"])
    assert {path.name for path in root.iterdir()} <= {".lock"}


@pytest.mark.parametrize(
    "line", ["root=/etc/../evil", "root=etc", "test", "shell=true", "server=iis", "owner=-rf", "key-mode=0777"]
)
async def test_a_configuration_that_is_not_understood(thief: Thief, sshd: Sshd, line: str) -> None:
    """A line of the host's configuration that means nothing stops everything, with its words."""
    settings = sshd.directory / "receiver.conf"
    settings.write_text(f"{settings.read_text()}{line}\n")
    said = str((await ask(thief, "status"))["error"])
    assert line.partition("=")[0] in said


async def test_the_configuration_is_read_and_not_run(thief: Thief, sshd: Sshd, tmp_path: Path) -> None:
    """Shell in a value stays a value until the web server is tested; a missing file is named."""
    settings = sshd.directory / "receiver.conf"
    evil = tmp_path / "ran"
    settings.write_text(f"# comment\n\nroot=/var/$(touch {evil})\n")
    await ask(thief, "status")
    assert not evil.exists()
    settings.unlink()
    assert str(settings) in str((await ask(thief, "status"))["error"])
