"""The preset `files`: certificates where some other server looks for them, with its owner and modes."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from certfleet.demo.nginx import Nginx
from certfleet.errors import InstallError
from certfleet.install.answer import State
from certfleet.install.drivers import local
from certfleet.install.probe import probe
from certfleet.install.snippet import snippet
from certfleet.models import Host, Places
from tests.install.certificates import item, name_of
from tests.install.servers import app_of, open_directory

pytestmark = pytest.mark.usefixtures("shell")


@pytest.fixture
def there() -> Iterator[Path]:
    """Where the server looks; its account can get there."""
    directory = open_directory()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def host(there: Path) -> Host:
    """A host with all four places."""
    return Host(
        "mail",
        preset="files",
        root=str(there / "installed"),
        test_command=("true",),
        reload_command=("true",),
        places=Places(
            fullchain=f"{there}/{{app}}.pem",
            chain=f"{there}/{{app}}-chain.pem",
            combined=f"{there}/{{app}}-all.pem",
            key=f"{there}/{{app}}.key",
        ),
    )


def shown(there: Path) -> dict[str, str]:
    """What stands in the places, by name."""
    return {path.name: path.read_text() for path in there.iterdir() if path.name != "installed"}


async def test_places(host: Host, there: Path) -> None:
    """Each place shows its file; a renewal changes them all by one rename, and their links stay as they are."""
    for generation in (1, 2):
        new = item("imap", generation)
        assert (await local.install(host, [new])).apps["imap"].state is State.INSTALLED
        found = shown(there)
        assert found["imap.pem"] == new.fullchain
        assert found["imap-chain.pem"]
        assert found["imap-chain.pem"] in new.fullchain
        assert found["imap.key"] == new.private_key.decode()
        assert found["imap-all.pem"] == f"{new.fullchain}\n{new.private_key.decode()}"
    links = {path.name: path.lstat().st_ino for path in there.iterdir()}
    await local.install(host, [item("imap", 3)])
    assert {path.name: path.lstat().st_ino for path in there.iterdir()} == links


async def test_owner_and_modes(host: Host, there: Path) -> None:
    """The server's account reads its key, other accounts do not; by default everything is 0600 and ours."""
    await local.install(host, [item("imap")])
    assert {stat.S_IMODE(path.stat().st_mode) for path in there.glob("imap*")} == {0o600}
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    places = dataclasses.replace(host.places, owner="nobody:nogroup", file_mode="0644", key_mode="0640")
    await local.install(dataclasses.replace(host, places=places), [item("imap", 2)])
    modes = {path.name: (stat.S_IMODE(path.stat().st_mode), path.stat().st_uid) for path in there.glob("imap*")}
    assert modes["imap.key"] == modes["imap-all.pem"] == (0o640, 65534)
    assert modes["imap.pem"] == modes["imap-chain.pem"] == (0o644, 65534)
    attempt = (
        "import os, sys; os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))\n"
        "try: print(len(open(sys.argv[1]).read()) > 0)\n"
        "except PermissionError: print('refused')"
    )
    for account, said in (("65534", "True\n"), ("65533", "refused\n")):
        run = subprocess.run(  # noqa: ASYNC221  a moment
            [sys.executable, "-c", attempt, str(there / "imap.key"), account],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        assert (run.stdout, run.stderr) == (said, "")
    nobody = dataclasses.replace(host, places=dataclasses.replace(places, owner="nobody-at-all"))
    with pytest.raises(InstallError, match="nobody-at-all"):
        await local.install(nobody, [item("imap", 3)])


async def test_a_run_that_waits_for_another_gives_the_key_to_nobody_else(host: Host, there: Path) -> None:
    """Without flock a lock names its holder; that is not who the files are for."""
    root = Path(host.root)
    root.mkdir()
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    (root / ".lock.owner").symlink_to(f"{os.getpid()}.{started}")
    account = f"{os.geteuid()}:{os.getegid()}"
    own = dataclasses.replace(host, places=dataclasses.replace(host.places, owner=account, key_mode="0640"))
    run = asyncio.create_task(local.install(own, [item("imap")]))
    await asyncio.sleep(1)
    (root / ".lock.owner").unlink()
    assert (await run).apps["imap"].state is State.INSTALLED
    assert {(path.stat().st_uid, path.stat().st_gid) for path in there.glob("imap*")} == {(os.geteuid(), os.getegid())}


async def test_foreign_places(host: Host, there: Path) -> None:
    """A file that is there already stays in use; adopted, it waits beside its place and comes back with a rollback."""
    (there / "imap.key").write_text("theirs")
    answer = await local.install(host, [item("imap"), item("smtp")])
    assert (answer.apps["imap"].state, answer.apps["smtp"].state) == (State.FOREIGN, State.INSTALLED)
    assert str(there / "imap.key") in (answer.apps["imap"].message or "")
    assert (there / "imap.key").read_text() == "theirs"
    assert not (there / "imap.pem").exists()

    new = item("imap", adopt=True)
    assert (await local.install(host, [new])).apps["imap"].state is State.INSTALLED
    assert (there / "imap.key").read_bytes() == new.private_key
    assert (there / ".imap.key.before-certfleet").read_text() == "theirs"
    await local.rollback(host, {"imap": 0})
    assert {name for name in shown(there) if name.startswith(("imap", ".imap"))} == {"imap.key"}
    assert (there / "imap.key").read_text() == "theirs"


async def test_a_refused_adoption_gives_the_place_back(host: Host, there: Path) -> None:
    """The server does not take the new certificate: what stood there stands there again."""
    (there / "imap.key").write_text("theirs")
    picky = dataclasses.replace(host, test_command=("sh", "-c", f"grep -q theirs {there}/imap.key"))
    assert (await local.install(picky, [item("imap", adopt=True)])).apps["imap"].state is State.FAILED
    assert (shown(there)["imap.key"], (there / "imap.pem").exists()) == ("theirs", False)


async def test_two_apps_in_one_place(host: Host, there: Path) -> None:
    """A path without {app} is for one app; the second is told whose it is not."""
    single = dataclasses.replace(host, places=Places(key=f"{there}/server.key", fullchain=f"{there}/server.pem"))
    one, two = item("one"), item("two")
    answer = await local.install(single, [one, two])
    assert {app.state for app in answer.apps.values()} == {State.INSTALLED, State.FAILED}
    first = next(i for i in (one, two) if answer.apps[i.app].state is State.INSTALLED)
    assert (there / "server.key").read_bytes() == first.private_key
    again = await local.install(single, [item("one", 2), item("two", 2)])
    assert {app.state for app in again.apps.values()} == {State.INSTALLED, State.FOREIGN}


async def test_a_place_that_cannot_be_made(host: Host, there: Path) -> None:
    """Its directory is not there: the app fails with the path, the others are installed."""
    lost = dataclasses.replace(host, places=Places(key=f"{there}/{{app}}/tls.key"))
    (there / "smtp").mkdir()
    answer = await local.install(lost, [item("imap"), item("smtp")])
    assert (answer.apps["imap"].state, answer.apps["smtp"].state) == (State.FAILED, State.INSTALLED)
    assert f"{there}/imap/tls.key" in (answer.apps["imap"].message or "")


async def test_a_deleted_place_is_made_again(host: Host, there: Path) -> None:
    """Somebody removed a link: the same certificate again puts it right."""
    same = item("imap")
    await local.install(host, [same])
    (there / "imap.key").unlink()
    assert (await local.install(host, [same])).apps["imap"].state is State.INSTALLED
    assert (there / "imap.key").read_bytes() == same.private_key


async def test_a_wrong_key_is_noticed(host: Host, there: Path) -> None:
    """Nobody knows what the server's own test looks at, so key and certificate are compared."""
    answer = await local.install(host, [item("imap", mismatched=True), item("smtp")])
    assert (answer.apps["imap"].state, answer.apps["smtp"].state) == (State.FAILED, State.INSTALLED)
    assert not (there / "imap.key").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"key": "relative.key"}, "key"),
        ({"key": "/etc/../shadow"}, "upwards"),
        ({"key": "/etc/a b"}, "letters"),
        ({"key": "/etc/{app}/{app}"}, "once"),
        ({"key": "/etc/{name}.key"}, "letters"),
        ({"key": "/etc/tls/"}, "file"),
        ({"owner": "-R"}, "owner"),
        ({"owner": "root; id"}, "owner"),
        ({"key_mode": "0644"}, "key-mode"),
        ({"key_mode": "4600"}, "key-mode"),
        ({"file_mode": "0666"}, "file-mode"),
    ],
)
async def test_what_is_no_place(host: Host, there: Path, changed: dict[str, str], said: str) -> None:
    """The receiver takes no path that leads elsewhere than it says, and no mode that shows the key."""
    bad = dataclasses.replace(host, places=dataclasses.replace(host.places, **changed))
    with pytest.raises(InstallError, match=said):
        await local.install(bad, [item("imap")])
    assert shown(there) == {}


async def test_commands_have_to_be_named(host: Host) -> None:
    """Nobody can guess how an unknown server is tested."""
    with pytest.raises(InstallError, match="--test-command"):
        await local.install(dataclasses.replace(host, test_command=()), [item("imap")])


async def test_a_real_server(nginx: Nginx, there: Path) -> None:
    """An nginx that knows nothing of certfleet reads its two files, before and after a renewal."""
    host = Host(
        "web",
        preset="files",
        root=str(there / "installed"),
        test_command=nginx.test_command,
        reload_command=nginx.reload_command,
        places=Places(fullchain=f"{there}/{{app}}.crt", key=f"{there}/{{app}}.key"),
    )
    first, second = item("blog"), item("blog", 2)
    await local.install(host, [first])
    lines = f"ssl_certificate {there}/blog.crt; ssl_certificate_key {there}/blog.key;"
    nginx.add_site("blog", [name_of("blog")], f"listen 127.0.0.1:{nginx.tls_port} ssl; {lines}")
    await nginx.reload()
    await probe("127.0.0.1", nginx.tls_port, name_of("blog"), first.serial, patience=30)
    before = nginx.reloads()
    await local.install(host, [second])
    await probe("127.0.0.1", nginx.tls_port, name_of("blog"), second.serial, patience=30)
    assert nginx.reloads() - before == 1


def test_the_snippet_names_the_places(host: Host, there: Path) -> None:
    """What a person has to write into the server's file, and where else it can be found."""
    text = snippet(app_of("imap"), host, "127.0.0.1", 8402)
    assert f"{there}/imap.key" in text
    assert all(line.startswith("#") for line in text.splitlines())
