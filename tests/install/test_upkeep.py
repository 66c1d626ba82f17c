"""What the receiver takes away, and what it says of its host, in both shells."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from certfleet.demo.nginx import Nginx
from certfleet.install.answer import State
from certfleet.install.bundle import Item
from certfleet.install.drivers import local
from certfleet.install.probe import served
from certfleet.install.receiver import release
from certfleet.models import Host
from tests.install.certificates import item, name_of
from tests.install.conftest import add_sites, reloaded

pytestmark = pytest.mark.usefixtures("shell")


def generations(root: Path, app: str) -> list[str]:
    """Those that are there."""
    return sorted(path.name for path in (root / app).glob("[1-9]*"))


def keeping(count: int, one: Item) -> Item:
    """The item, of whose app so many generations stay."""
    return dataclasses.replace(one, keep=count)


async def test_remove(nginx: Nginx, web: Host, root: Path) -> None:
    """An app's files go, with one reload; its site serves no TLS any more, the other's is untouched."""
    await add_sites(nginx, web, "blog", "shop")
    await local.install(web, [item(app, port=nginx.tls_port) for app in ("blog", "shop")])
    answer = await local.remove(web, ["blog", "wiki"])
    assert {name: app.state for name, app in answer.apps.items()} == {"blog": State.REMOVED, "wiki": State.REMOVED}
    assert (answer.reloads, sorted(path.name for path in root.glob("[a-z]*"))) == (1, ["shop"])
    await nginx.reload()  # the operator's own test and reload still pass
    assert await served("127.0.0.1", nginx.tls_port, name_of("shop"))
    again = await local.remove(web, ["blog"])
    assert (again.apps["blog"].state, again.reloads) == (State.REMOVED, 0)


async def test_what_the_web_server_needs_is_not_removed(nginx: Nginx, web: Host, root: Path) -> None:
    """A site names the files themselves: taking them away would break nginx, so they stay, and the answer says why."""
    await add_sites(nginx, web, "shop")
    await local.install(web, [item(app, port=nginx.tls_port) for app in ("blog", "shop")])
    current = f"{root}/blog/current"
    nginx.add_site(
        "blog",
        [name_of("blog")],
        f"listen 127.0.0.1:{nginx.tls_port} ssl;"
        f"ssl_certificate {current}/fullchain.pem; ssl_certificate_key {current}/privkey.pem;",
    )
    await nginx.reload()
    answer = await local.remove(web, ["blog", "shop"])
    assert (answer.apps["blog"].state, answer.apps["shop"].state) == (State.FAILED, State.REMOVED)
    assert "blog/current/fullchain.pem" in (answer.apps["blog"].message or "")
    await nginx.reload()
    assert await served("127.0.0.1", nginx.tls_port, name_of("blog"))


async def test_nothing_foreign_is_removed(plain: Host, root: Path) -> None:
    """What certfleet did not put there stays."""
    (root / "blog").mkdir(parents=True)
    (root / "blog" / "theirs").touch()
    answer = await local.remove(plain, ["blog"])
    assert answer.apps["blog"].state is State.FOREIGN
    assert (root / "blog" / "theirs").exists()


async def test_nothing_is_removed_from_a_broken_server(plain: Host, root: Path) -> None:
    """The test failed before we came: everything stays as it is."""
    await local.install(plain, [item("blog")])
    answer = await local.remove(dataclasses.replace(plain, test_command=("false",)), ["blog"])
    assert (answer.apps["blog"].state, answer.reloads) == (State.BROKEN_BEFORE, 0)
    assert (root / "blog" / "current" / "privkey.pem").exists()


async def test_a_removal_whose_reload_fails(plain: Host, root: Path) -> None:
    """The files are back, and the next run removes them."""
    await local.install(plain, [item("blog")])
    answer = await local.remove(dataclasses.replace(plain, reload_command=("false",)), ["blog"])
    assert answer.apps["blog"].state is State.FAILED
    assert (root / "blog" / "current" / "privkey.pem").exists()
    assert (await local.remove(plain, ["blog"])).apps["blog"].state is State.REMOVED
    assert [path.name for path in root.iterdir() if path.name != ".lock"] == []


async def test_cleanup(plain: Host, root: Path) -> None:
    """The newest stay, and what is in use however old it is; foreign and empty places are passed over."""
    for generation in (1, 2, 3, 4, 5):
        await local.install(plain, [keeping(9, item("blog", generation)), keeping(9, item("shop", generation))])
    assert generations(root, "blog") == ["1", "2", "3", "4", "5"]
    await local.rollback(plain, {"shop": 2})
    (root / "wiki").mkdir()
    answer = await local.cleanup(plain, 2)
    assert {name: app.state for name, app in answer.apps.items()} == dict.fromkeys(("blog", "shop"), State.CLEANED)
    assert answer.apps["blog"].message == "3 generations deleted"
    assert (generations(root, "blog"), generations(root, "shop")) == (["4", "5"], ["2", "4", "5"])
    assert answer.reloads == 0


async def test_each_app_keeps_as_many_as_it_wants(plain: Host, root: Path) -> None:
    """In one batch one app keeps two generations and another five."""
    for generation in range(1, 7):
        await local.install(plain, [keeping(2, item("blog", generation)), keeping(5, item("shop", generation))])
    assert generations(root, "blog") == ["5", "6"]
    assert generations(root, "shop") == ["2", "3", "4", "5", "6"]


async def test_check_touches_nothing(nginx: Nginx, web: Host, root: Path) -> None:
    """Every point is looked at, without a reload and without making the root."""
    report = await local.check(web)
    assert {point.name: point.ok for point in report.points} == dict.fromkeys(
        ("web server", "configuration test", "reload", "root", "key on host"), True
    )
    assert (report.release, report.root, root.exists(), nginx.reloads()) == (release(), str(root), False, 0)
    await local.check(web, reload=True)
    assert await reloaded(nginx, 1)


async def test_check_says_what_fails(plain: Host, root: Path) -> None:
    """In the words of the command that failed; they are JSON whatever they are."""
    words = 'it\'s "broken" \\ \n\ttwice'
    failing = dataclasses.replace(
        plain, test_command=("sh", "-c", 'printf "%s" "$1"; exit 1', "sh", words), reload_command=("no-such-command",)
    )
    root.mkdir(mode=0o755)
    points = {point.name: point for point in (await local.check(failing)).points}
    failed = [name for name, point in points.items() if not point.ok and name != "web server"]
    assert failed == ["configuration test", "reload", "root"]
    assert points["configuration test"].message.endswith(words)
    assert "no-such-command" in points["reload"].message
    assert f"chmod 700 {root}" in points["root"].message


async def test_version() -> None:
    """The program names itself, with no root or command."""
    host = Host("here")
    answer = json.loads(await local._run(host, ["version"]))
    assert (answer["release"], answer["error"]) == (release(), None)
