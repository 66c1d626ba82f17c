"""`certfleet host check`: each thing that can be wrong with a host has its own point."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.hosts import namespaces
from tests.hosts.desk import Desk
from tests.hosts.machine import Machine

pytestmark = pytest.mark.skipif(not namespaces.allowed(), reason="set-up writes to /etc and /usr/local of a host")


def receiver_is_older(web1: Machine) -> None:
    file = web1.path("/usr/local/lib/certfleet/receiver.sh")
    file.write_text(file.read_text().replace("release=", "release=old", 1))


def configuration_is_broken(web1: Machine) -> None:
    web1.path("/etc/nginx/conf.d/broken.conf").write_text("no_such_directive;\n")


def root_is_open(web1: Machine) -> None:
    web1.root_path.mkdir(mode=0o755, parents=True, exist_ok=True)
    web1.root_path.chmod(0o755)


def root_is_a_file(web1: Machine) -> None:
    web1.root_path.parent.mkdir(parents=True, exist_ok=True)
    web1.root_path.write_text("")


def settings_are_open(web1: Machine) -> None:
    web1.path("/etc/certfleet/receiver.conf").chmod(0o666)


def another_root(web1: Machine) -> None:
    file = web1.path("/etc/certfleet/receiver.conf")
    file.write_text(file.read_text().replace("root=/var/lib/certfleet/installed", "root=/srv/elsewhere"))


def another_server(web1: Machine) -> None:
    file = web1.path("/etc/certfleet/receiver.conf")
    file.write_text(file.read_text().replace("test=nginx", "test=no-such-server"))


def a_receiver_that_is_gone(web1: Machine) -> None:
    web1.path("/usr/local/lib/certfleet/receiver.sh").unlink()


@pytest.mark.parametrize(
    ("harm", "point", "words"),
    [
        (receiver_is_older, "receiver", "certfleet host setup web1"),
        (configuration_is_broken, "configuration test", "no_such_directive"),
        (root_is_open, "root", "chmod 700"),
        (root_is_a_file, "root", "not a directory"),
        (settings_are_open, "configuration", "can be written by others"),
        (another_root, "same root", "/srv/elsewhere"),
        (another_server, "web server", "no-such-server"),
        (a_receiver_that_is_gone, "receiver", "certfleet host setup web1"),
    ],
)
async def test_check_names_what_is_wrong(desk: Desk, harm: Callable[[Machine], None], point: str, words: str) -> None:
    """Each thing that can be wrong has its own point, and its sentence says what to do."""
    await desk.add()
    await desk.done("host", "setup", "web1")
    harm(desk.hosts[0])
    failing = await desk.failing()
    assert words in failing[point]
    assert "reachable" not in failing


async def test_check_sees_a_server_that_is_not_there(desk: Desk) -> None:
    """Nginx does not run; then sshd does not either."""
    await desk.add()
    await desk.done("host", "setup", "web1")
    await desk.hosts[0].stop_nginx()
    assert "nginx does not run" in (await desk.failing())["web server"]
    assert "reload" in await desk.failing("--reload")
    await desk.hosts[0].stop_sshd()
    assert list(await desk.points()) == ["reachable"]


async def test_check_looks_for_what_makes_keys(desk: Desk) -> None:
    """Without openssl, where an app's keys are made on the host; elsewhere that is no point."""
    await desk.add()
    await desk.done("host", "setup", "web1")
    await desk.hosts[0].run("mount", "--bind", "/dev/null", "/usr/bin/openssl")
    assert "key on host" not in await desk.points()
    await desk.client.add_app("blog", ["blog.example.com"], ["web1"], {"email": "ops@example.com", "key-on-host": "on"})
    assert "openssl is not installed here" in (await desk.failing())["key on host"]
    await desk.hosts[0].run("umount", "/usr/bin/openssl")
    assert (await desk.points())["key on host"]["message"] == "/usr/bin/openssl"


async def test_check_asks_for_a_challenge(desk: Desk) -> None:
    """An app without its snippet fails that point; with an answer for the token it passes."""
    web1 = desk.hosts[0]
    await desk.add()
    await desk.done("host", "setup", "web1")
    await desk.client.add_app("blog", ["blog.example.com"], ["web1"], {"email": "ops@example.com"})
    assert "certfleet snippet blog" in (await desk.failing())["challenge snippet"]

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        token = (await reader.readline()).decode().split()[1].rpartition("/")[2]
        answer = await desk.store.redis.get(desk.store.key("challenge", token)) or "nothing"
        writer.write(f"HTTP/1.0 200 OK\r\n\r\n{answer}".encode())
        await writer.drain()
        writer.close()

    responder = await asyncio.start_server(respond, web1.gateway, 0)
    port = responder.sockets[0].getsockname()[1]
    lines = f"location /.well-known/acme-challenge/ {{ proxy_pass http://{web1.gateway}:{port}; }}"
    web1.add_site("blog", ["blog.example.com"], lines)
    await web1.reload_nginx()
    assert await desk.failing() == {}
    responder.close()
    await desk.client.set_property("challenge-via", "webroot")
    assert "502" in (await desk.failing())["challenge snippet"]
    web1.add_site("blog", ["blog.example.com"], "location /.well-known/acme-challenge/ { root /var/www/certfleet; }")
    await web1.reload_nginx()
    assert await desk.failing() == {}
    assert [path for path in web1.path("/var/www/certfleet").rglob("*") if path.is_file()] == []
    assert [key async for key in desk.store.redis.scan_iter(desk.store.key("challenge", "*"))] == []
