"""Challenges that hosts answer: on real web servers, and what the receiver refuses to publish."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import stat
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from certfleet.demo.ports import free_port
from certfleet.errors import InstallError
from certfleet.install.answer import State, parse
from certfleet.install.challenge import PATH, Answerer, answerers, answers, tokens
from certfleet.install.drivers import local
from certfleet.install.snippet import snippet
from certfleet.models import Host
from tests.install.certificates import item, name_of
from tests.install.servers import Server, app_of, fetch, open_directory, running

pytestmark = pytest.mark.usefixtures("shell")

ONE, OTHER = "A-_z9" + "a" * 38, "b" * 43
TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"


def answerer(app: str, thumbprint: str) -> Answerer:
    return Answerer(app, thumbprint, (name_of(app),))


@pytest.fixture
def webroot() -> Iterator[Path]:
    """A directory for challenges; not there yet."""
    directory = open_directory()
    yield directory / "webroot"
    shutil.rmtree(directory)


@pytest.fixture(params=["nginx", "apache", "haproxy"])
async def server(request: pytest.FixtureRequest, tmp_path: Path, webroot: Path) -> AsyncIterator[Server]:
    """Each of the servers."""
    async with running(request.param, tmp_path, webroot=str(webroot)) as found:
        yield found


@pytest.fixture
def written(plain: Host, webroot: Path) -> Path:
    """Where the plain host's challenges are."""
    assert plain.webroot == str(webroot)
    return webroot / ".well-known" / "acme-challenge"


@pytest.fixture
def plain(root: Path, webroot: Path) -> Host:
    """A host whose web server takes everything."""
    return Host("plain", root=str(root), webroot=str(webroot), test_command=("true",), reload_command=("true",))


async def until(server: Server, app: str, path: str, status: int, text: str | None = None) -> None:
    """The site answers like this; a reload takes its time."""
    for _ in range(600):
        found, content, _ = await fetch(server, app, path)
        if found == status and text in (None, content):
            return
        await asyncio.sleep(0.05)
    assert (found, content) == (status, text)


async def test_stateless(server: Server) -> None:
    """Every token of every app is answered with its account's thumbprint, and with the new one when that changes."""
    await server.sites("blog", "shop", via="stateless")
    answer = await local.snippet(server.host, [answerer("blog", ONE), answerer("shop", OTHER)])
    assert answer.reloads == 1
    await until(server, "blog", PATH + TOKEN, 200, f"{TOKEN}.{ONE}")
    await until(server, "shop", PATH + "x", 200, f"x.{OTHER}")
    for nothing in (PATH, PATH + "a.b", PATH + "a/b", "/x/.well-known/acme-challenge"):
        assert (await fetch(server, "blog", nothing))[0] != 200
    assert (await local.snippet(server.host, [answerer("blog", ONE)])).reloads == 0
    assert (await local.snippet(server.host, [answerer("blog", OTHER)])).reloads == 1
    await until(server, "blog", PATH + TOKEN, 200, f"{TOKEN}.{OTHER}")
    await until(server, "shop", PATH + "x", 200, f"x.{OTHER}")


async def test_passed_on_and_redirected(server: Server) -> None:
    """By `responder`, the challenge's path goes to the responder, or the CA is sent there."""

    async def respond(request: web.Request) -> web.Response:
        return web.Response(text=f"responder: {request.path}")

    application = web.Application()
    application.router.add_get("/{anything:.*}", respond)
    runner, port = web.AppRunner(application), free_port()
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await server.sites("blog", target=f"127.0.0.1:{port}")
        await until(server, "blog", PATH + TOKEN, 200, f"responder: {PATH}{TOKEN}")
    finally:
        await runner.cleanup()
    await server.sites("blog", target="http://acme.example.com")
    await until(server, "blog", PATH + TOKEN, 302)
    _, _, headers = await fetch(server, "blog", PATH + TOKEN)
    assert headers["Location"] == f"http://acme.example.com{PATH}{TOKEN}"


@pytest.mark.parametrize("kind", ["nginx", "apache"])
async def test_webroot(kind: str, tmp_path: Path, webroot: Path) -> None:
    """What is published is served as it is, and gone after it was withdrawn; without a reload."""
    async with running(kind, tmp_path, webroot=str(webroot)) as server:
        await server.sites("blog", via="webroot")
        await local.publish(server.host, {TOKEN: f"{TOKEN}.{ONE}", "-x": f"-x.{OTHER}"})
        status, text, headers = await fetch(server, "blog", PATH + TOKEN)
        assert (status, text, headers["Content-Type"].split(";")[0]) == (200, f"{TOKEN}.{ONE}", "text/plain")
        assert (await fetch(server, "blog", PATH + "-x"))[1] == f"-x.{OTHER}"
        await local.withdraw(server.host, [TOKEN, "never-there"])
        assert (await fetch(server, "blog", PATH + TOKEN))[0] == 404
        assert (await fetch(server, "blog", PATH + "-x"))[0] == 200


def test_haproxy_serves_no_files() -> None:
    """Which is said where a person asks for the lines."""
    with pytest.raises(InstallError, match="haproxy serves no files"):
        snippet(app_of("blog"), Host("web", preset="haproxy"), "127.0.0.1", 8402, via="webroot")


@pytest.mark.parametrize("target", ["127.0.0.1:8402; return 200", "http://a b", "http://x/$uri", "a\nb", 'x"'])
def test_a_responder_stays_one_word(target: str) -> None:
    """What is no address and no URL does not get into a web server's file."""
    for preset in ("nginx", "apache", "haproxy"):
        with pytest.raises(InstallError, match="responder"):
            snippet(app_of("blog"), Host("web", preset=preset), "127.0.0.1", 8402, passed_to=target)


async def refused(host: Host, verb: str, content: bytes) -> str:
    with pytest.raises(InstallError) as caught:
        parse(await local._run(host, [verb, *local._options(host)], content), host=host.name)
    return str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        f"../evil.{ONE}",
        f"a/b.{ONE}",
        f".{ONE}",
        f"a.b.{ONE}",
        f"{'a' * 129}.{ONE}",
        "a." + "b" * 42,
        "a." + "b" * 44,
        "a.<script>" + "b" * 35,
        f"a.{ONE} more",
        f"$(touch evil).{ONE}",
        "a",
    ],
)
async def test_what_is_not_published(plain: Host, written: Path, line: str) -> None:
    """A token is a name of base64url and decides what is in it: nobody puts a page or a path there; all or nothing."""
    said = await refused(plain, "challenge", f"good.{ONE}\n{line}\n".encode())
    assert "TOKEN.THUMBPRINT" in said
    assert not written.exists() or list(written.iterdir()) == []


async def test_bounds(plain: Host, written: Path) -> None:
    """Nothing, too much, half a line and bytes that are no text are refused for each verb."""
    for verb in ("challenge", "withdraw", "snippet"):
        for content in (b"", b"token", f"a.{ONE}\nb.{ONE}".encode(), b"\x00\n", b"\xff\n", b"a\n" * 600_000):
            await refused(plain, verb, content)
    assert not written.exists() or list(written.iterdir()) == []


async def test_withdraw_takes_ours_only(plain: Host, written: Path) -> None:
    """The challenge of another ACME client in the same directory stays, whatever we are told."""
    await local.publish(plain, {"ours": f"ours.{ONE}"})
    (written / "theirs").write_text("theirs")
    await local.withdraw(plain, ["theirs", "ours"])
    assert [file.name for file in written.iterdir()] == ["theirs"]
    assert "token" in await refused(plain, "withdraw", b"../../theirs\n")


async def test_not_through_a_symlink(plain: Host, webroot: Path, tmp_path: Path) -> None:
    """Who may write to the webroot does not get our files anywhere else."""
    (webroot / ".well-known").mkdir(parents=True)
    (webroot / ".well-known" / "acme-challenge").symlink_to(tmp_path)
    assert "symlink" in await refused(plain, "challenge", f"a.{ONE}\n".encode())
    assert not (tmp_path / "a").exists()


async def test_no_file_is_written_or_taken_through_a_symlink(plain: Host, written: Path, tmp_path: Path) -> None:
    """Who may write to the webroot gets no file of somebody else's overwritten, opened to all, or removed by us."""
    secret = tmp_path / "TOKEN"
    secret.write_text("secret")
    secret.chmod(0o600)
    await local.publish(plain, {"TOKEN": f"TOKEN.{ONE}"})
    (written / ".certfleet").symlink_to(secret)
    await local.publish(plain, {"other": f"other.{ONE}"})
    assert (secret.read_text(), stat.S_IMODE(secret.stat().st_mode)) == ("secret", 0o600)
    assert (written / "other").read_text() == f"other.{ONE}"
    assert stat.S_IMODE((written / "other").stat().st_mode) == 0o644
    written.rename(tmp_path / "away")
    written.symlink_to(tmp_path)
    assert "symlink" in await refused(plain, "withdraw", b"TOKEN\n")
    assert secret.exists()


async def test_what_nobody_withdrew_goes_after_an_hour(plain: Host, root: Path, written: Path) -> None:
    """A fleet that lost its books leaves no challenge for ever: the next visit of any kind takes old ones away."""
    await local.publish(plain, {"old": f"old.{ONE}", "new": f"new.{ONE}"})
    past = time.time() - 2 * 3600
    os.utime(root / ".webroot" / "old", (past, past))
    await local.install(plain, [item("blog")])
    assert [file.name for file in written.iterdir()] == ["new"]


async def test_a_challenge_that_stays_keeps_no_certificate_away(plain: Host, root: Path, written: Path) -> None:
    """An old one cannot be taken away any more: the certificate is installed all the same."""
    await local.publish(plain, {"old": f"old.{ONE}"})
    past = time.time() - 2 * 3600
    os.utime(root / ".webroot" / "old", (past, past))
    (written / "old").unlink()
    (written / "old").mkdir()  # root too is refused to unlink this, as on a disk that is read-only
    assert (await local.install(plain, [item("blog")])).apps["blog"].state is State.INSTALLED
    (written / "old").rmdir()
    await local.install(plain, [item("blog", 2)])
    assert not (root / ".webroot" / "old").exists()


@pytest.mark.parametrize(
    "line",
    [
        f"Blog {ONE} blog.example.test",
        f"../blog {ONE} blog.example.test",
        f"blog {ONE}",
        f"blog {ONE[:-1]} blog.example.test",
        f"blog {ONE[:-1]}; blog.example.test",
        f'blog {ONE[:-1]}" blog.example.test',
        f"blog {ONE} a;b",
        f"blog {ONE} *",
        f"blog {ONE} $x",
    ],
)
async def test_what_is_not_written_for_the_web_server(plain: Host, root: Path, line: str) -> None:
    """A snippet is made of an app's name, a thumbprint and names, each of its own letters."""
    await refused(plain, "snippet", f"good {ONE} good.example.test\n{line}\n".encode())
    assert not (root / "challenges.d").exists() or list((root / "challenges.d").iterdir()) == []


async def test_a_snippet_that_is_refused(plain: Host, root: Path) -> None:
    """The web server does not take one app's: its old one is back, with the words why; the others' are written."""
    await local.snippet(plain, [answerer("blog", ONE)])
    old = (root / "challenges.d" / "blog.conf").read_text()
    picky = dataclasses.replace(
        plain, test_command=("sh", "-c", f"! grep -rq {OTHER} {root}/challenges.d || {{ echo not this; exit 1; }}")
    )
    answer = await local.snippet(picky, [answerer("blog", OTHER), answerer("shop", OTHER), answerer("wiki", ONE)])
    assert {app: said.state for app, said in answer.apps.items()} == {
        "blog": State.FAILED,
        "shop": State.FAILED,
        "wiki": State.INSTALLED,
    }
    assert (answer.apps["blog"].message, answer.reloads) == ("not this", 1)
    assert (root / "challenges.d" / "blog.conf").read_text() == old
    assert {file.name for file in (root / "challenges.d").iterdir()} == {"blog.conf", "wiki.conf"}
    assert not (root / ".owed").exists()
    broken = dataclasses.replace(plain, test_command=("sh", "-c", "echo it is broken; exit 1"))
    answer = await local.snippet(broken, [answerer("blog", OTHER)])
    assert (answer.apps["blog"].state, answer.apps["blog"].message) == (State.BROKEN_BEFORE, "it is broken")
    unwilling = dataclasses.replace(plain, reload_command=("sh", "-c", "echo no; exit 1"))
    answer = await local.snippet(unwilling, [answerer("blog", OTHER)])
    assert (answer.apps["blog"].state, answer.apps["blog"].message) == (State.FAILED, "no")
    assert (root / "challenges.d" / "blog.conf").read_text() == old


async def test_one_bad_snippet_among_hundreds_costs_few_tests(plain: Host, root: Path, tmp_path: Path) -> None:
    """A test of many sites takes its time, and a run has a minute and a half: the bad one is found by halves."""
    picky = dataclasses.replace(
        plain, test_command=("sh", "-c", f"echo test >>{tmp_path}/tests; [ ! -e {root}/challenges.d/app77.conf ]")
    )
    answer = await local.snippet(picky, [answerer(f"app{number}", ONE) for number in range(128)])
    assert [app for app, said in answer.apps.items() if said.state is not State.INSTALLED] == ["app77"]
    assert answer.reloads == 1
    assert len((tmp_path / "tests").read_text().split()) < 20


def test_what_is_not_even_sent() -> None:
    """The sender looks first, and its sentence does not hold the token."""
    for bad in ({"a.b": f"a.b.{ONE}"}, {"a": f"b.{ONE}"}, {"a": f"a.{ONE}x"}, {"a": "a"}, {"": f".{ONE}"}):
        with pytest.raises(InstallError):
            answers(bad)
    with pytest.raises(InstallError):
        tokens(["a\nb"])
    for one in (Answerer("Blog", ONE, ("a",)), Answerer("blog", "x", ("a",)), Answerer("blog", ONE, ())):
        with pytest.raises(InstallError):
            answerers([one])
