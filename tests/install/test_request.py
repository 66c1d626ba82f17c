"""Keys that the receiver makes on its host: the request that leaves, and the certificate that comes without a key."""

from __future__ import annotations

import dataclasses
import os
import stat
import time
from pathlib import Path

import pytest
from cryptography import x509

from certfleet.acme_ca.keys import load_key, spki_digest
from certfleet.demo.nginx import Nginx
from certfleet.errors import InstallError
from certfleet.install.answer import State, parse
from certfleet.install.bundle import pack
from certfleet.install.csr import Wanted, checked_csr
from certfleet.install.drivers import local
from certfleet.install.probe import probe
from certfleet.models import Host, KeyType
from tests.install.certificates import item, item_for, name_of
from tests.install.conftest import add_sites

pytestmark = pytest.mark.usefixtures("shell")

BLOG = Wanted("blog", "0b1c", KeyType.P256, (name_of("blog"),))
LONG = f"{'a' * 60}.{'b' * 60}.example.test"


def order(number: int, app: str = "blog") -> Wanted:
    return Wanted(app, f"{number:x}", KeyType.P256, (name_of(app),))


async def requested(host: Host, wanted: Wanted) -> bytes:
    """The request for one app, checked."""
    answer = await local.request(host, [wanted])
    assert answer.reloads == 0
    said = answer.apps[wanted.app]
    assert said.state is State.REQUESTED, said.message
    return checked_csr(said.csr, wanted)


def public(csr: bytes) -> bytes:
    return spki_digest(x509.load_der_x509_csr(csr))


def of_file(path: Path) -> bytes:
    return spki_digest(load_key(path.read_bytes()))


def waiting(root: Path, app: str = "blog") -> list[str]:
    """The keys that wait."""
    return sorted(path.name for path in (root / ".keys" / app).glob("*"))


@pytest.mark.parametrize("kind", list(KeyType))
async def test_every_kind_of_key(plain: Host, root: Path, kind: KeyType) -> None:
    """Wildcards and addresses as names; the key is readable for its owner only, and is the one of the request."""
    names = ("*.example.test", "example.test", "192.0.2.7", "2001:db8::7", LONG)
    csr = await requested(plain, Wanted("blog", "0b1c", kind, names))
    key = root / ".keys" / "blog" / f"0b1c.{kind}"
    assert of_file(key) == public(csr)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (key, key.parent, key.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]
    subject = x509.load_der_x509_csr(csr).subject.rfc4514_string()
    assert subject == "CN=*.example.test"


@pytest.mark.parametrize("names", [(LONG,), ("192.0.2.7", "2001:db8::7")])
async def test_names_that_are_no_common_name(plain: Host, names: tuple[str, ...]) -> None:
    """Without one that fits there is no subject at all, as with keys that are made by workers."""
    csr = await requested(plain, Wanted("blog", "1", KeyType.P256, names))
    assert not list(x509.load_der_x509_csr(csr).subject)


async def test_a_hundred_long_names(plain: Host) -> None:
    """As many as a certificate may have, as long as names may be."""
    label = ".".join(["x" * 60] * 4)[:238]
    await requested(plain, Wanted("blog", "1", KeyType.P256, tuple(f"n{n}.{label}.test" for n in range(100))))


async def test_one_key_for_each_order(plain: Host, root: Path) -> None:
    """Asked for again, also for other names, it is of the same key; another order and another type have their own."""
    first = public(await requested(plain, BLOG))
    assert public(await requested(plain, BLOG)) == first
    assert public(await requested(plain, dataclasses.replace(BLOG, names=("other.example.test",)))) == first
    others = [order(2), dataclasses.replace(BLOG, key_type=KeyType.P384), dataclasses.replace(BLOG, app="shop")]
    keys = {public(await requested(plain, one)) for one in others}
    assert len(keys | {first}) == 4
    assert waiting(root) == ["0b1c.p256", "0b1c.p384", "2.p256"]


async def test_one_that_fails_among_others(plain: Host, root: Path) -> None:
    """What is in its way is told, and the others have their keys."""
    (root / ".keys").mkdir(parents=True)
    (root / ".keys" / "shop").touch()
    (root / ".keys" / "wiki").mkdir()
    (root / ".keys" / "wiki" / "1.p256").write_text("no key")
    answer = await local.request(plain, [order(1, app) for app in ("shop", "blog", "wiki")])
    assert {app: said.state for app, said in answer.apps.items()} == {
        "shop": State.FAILED,
        "blog": State.REQUESTED,
        "wiki": State.FAILED,
    }
    assert "the key could not be made" in (answer.apps["shop"].message or "")
    assert f"openssl does not take the key {root}/.keys/wiki/1.p256" in (answer.apps["wiki"].message or "")
    assert (root / ".keys" / "wiki" / "1.p256").read_text() == "no key", "nothing is made in its place by itself"


async def test_without_openssl(plain: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said what is missing."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for directory in reversed(os.environ["PATH"].split(":")):
        for tool in Path(directory).iterdir():
            if tool.name not in ("openssl", "c_rehash"):
                (tools / tool.name).unlink(missing_ok=True)
                (tools / tool.name).symlink_to(tool)
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(InstallError, match="openssl is not installed here: it makes the keys"):
        await local.request(plain, [BLOG])


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted("blog", "../1", KeyType.P256, ("a.test",)), "not APP ORDER TYPE NAME"),
        (Wanted("blog", "", KeyType.P256, ("a.test",)), "not APP ORDER TYPE NAME"),
        (Wanted("blog", "1", KeyType.P256, ()), "not APP ORDER TYPE NAME"),
        (Wanted("blog", "1", "dsa", ("a.test",)), "not APP ORDER TYPE NAME"),  # type: ignore[arg-type]
        (Wanted("blog", "1", KeyType.P256, ("a.test,email:copy",)), "not a name of blog"),
        (Wanted("blog", "1", KeyType.P256, ("*",)), "not a name of blog"),
        (Wanted("blog", "1", KeyType.P256, ("*.*.test",)), "not a name of blog"),
        (Wanted("blog", "1", KeyType.P256, ("a.test\nIP.9=::1",)), "not APP ORDER TYPE NAME"),
        (Wanted("blog", "1", KeyType.P256, ("$ENV::HOME",)), "not a name of blog"),
        (Wanted("../up", "1", KeyType.P256, ("a.test",)), "cannot be a directory"),
    ],
)
async def test_what_is_no_request(plain: Host, root: Path, wanted: Wanted, said: str) -> None:
    """Refused as a whole, and nothing is made."""
    with pytest.raises(InstallError, match=said):
        await local.request(plain, [order(7, "shop"), wanted])
    assert not (root / ".keys").exists()


# ------------------------------------------------------------------------------------- the certificate comes


async def test_the_certificate_finds_its_key(nginx: Nginx, web: Host, root: Path) -> None:
    """It is served; the key that waited is with it and nowhere else, and none has been sent."""
    await add_sites(nginx, web, "blog")
    for number in (1, 2):
        csr = await requested(web, order(number))
        new = item_for(csr, "blog", number, port=nginx.tls_port)
        answer = await local.install(web, [new])
        assert answer.apps["blog"].state is State.INSTALLED
        await probe("127.0.0.1", nginx.tls_port, name_of("blog"), new.serial, patience=30)
        assert of_file(root / "blog" / str(number) / "privkey.pem") == public(csr)
        assert not (root / ".keys" / "blog").exists()
    assert of_file(root / "blog" / "1" / "privkey.pem") != of_file(root / "blog" / "2" / "privkey.pem")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (root / "blog").rglob("privkey.pem")}
    assert modes == {0o600}


async def test_only_older_keys_go(plain: Host, root: Path) -> None:
    """A certificate that comes late takes its own key and those from before; the next order's goes on waiting."""
    csrs = {number: await requested(plain, order(number)) for number in (1, 2, 3)}
    for number in csrs:  # busybox compares whole seconds
        at = time.time() - 10 + number
        os.utime(root / ".keys" / "blog" / f"{number}.p256", (at, at))
    await local.install(plain, [item_for(csrs[2], "blog", 2)])
    assert waiting(root) == ["3.p256"]
    answer = await local.install(plain, [item_for(csrs[3], "blog", 3)])
    assert answer.apps["blog"].state is State.INSTALLED
    assert not (root / ".keys" / "blog").exists()


async def test_what_is_refused_can_be_tried_again(plain: Host, root: Path) -> None:
    """The web server does not take it: its key waits on, and so it does when it was put back afterwards."""
    csr = await requested(plain, order(1))
    refusing = dataclasses.replace(plain, reload_command=("false",))
    assert (await local.install(refusing, [item_for(csr, "blog")])).apps["blog"].state is State.FAILED
    assert waiting(root) == ["1.p256"]
    new = item_for(csr, "blog")
    assert (await local.install(plain, [new])).apps["blog"].state is State.INSTALLED
    await local.rollback(plain, {"blog": 0})
    assert (await local.install(plain, [new])).apps["blog"].state is State.INSTALLED
    assert of_file(root / "blog" / "current" / "privkey.pem") == public(csr)


async def test_files_are_put_right_without_the_key(plain: Host, root: Path) -> None:
    """Somebody changed the chain: it is as it was, beside the key that is there; unchanged needs nothing."""
    new = item_for(await requested(plain, order(1)), "blog")
    await local.install(plain, [new])
    key = (root / "blog" / "1" / "privkey.pem").read_bytes()
    assert (await local.install(plain, [new])).apps["blog"].state is State.UNCHANGED
    (root / "blog" / "1" / "chain.pem").write_text("changed")
    assert (await local.install(plain, [new])).apps["blog"].state is State.INSTALLED
    assert (root / "blog" / "1" / "chain.pem").read_text() != "changed"
    assert (root / "blog" / "1" / "privkey.pem").read_bytes() == key


@pytest.mark.parametrize("why", ["never made", "taken away", "another one in its place", "half"])
async def test_a_key_that_is_lost(plain: Host, root: Path, why: str) -> None:
    """The answer says so; what is current stays, and another app of the same run is installed."""
    old = item_for(await requested(plain, order(1)), "blog", 1)
    await local.install(plain, [old])
    csr = await requested(plain, order(2))
    key = root / ".keys" / "blog" / "2.p256"
    match why:
        case "taken away":
            key.unlink()
        case "another one in its place":
            key.write_bytes(item("blog").private_key)
        case "half":
            key.write_bytes(key.read_bytes()[:100])
        case _:
            other = Host("other", root=f"{root}-other", test_command=("true",), reload_command=("true",))
            csr = await requested(other, order(2))
    answer = await local.install(plain, [item_for(csr, "blog", 2), item("shop")])
    assert (answer.apps["blog"].state, answer.apps["blog"].generation) == (State.KEY_LOST, 1)
    assert answer.apps["blog"].serial == old.serial
    assert answer.apps["shop"].state is State.INSTALLED
    assert (root / "blog" / "current").readlink() == Path("1")
    assert not (root / "blog" / "2").exists()


async def test_the_key_of_the_generation_in_use_is_lost(plain: Host, root: Path) -> None:
    """Its file is gone: `status` says that there is nothing in use, and putting it right cannot be done."""
    new = item_for(await requested(plain, order(1)), "blog")
    await local.install(plain, [new])
    (root / "blog" / "1" / "privkey.pem").unlink()
    assert (await local.status(plain)).apps["blog"].state is State.EMPTY
    assert (await local.install(plain, [new])).apps["blog"].state is State.KEY_LOST


async def test_no_key_is_taken_from_outside(plain: Host, root: Path) -> None:
    """Whoever sends one for such an app is refused, and so is a certificate without any for another."""
    csr = await requested(plain, order(1))
    sent = dataclasses.replace(item_for(csr, "blog"), private_key=item("blog").private_key)
    with pytest.raises(InstallError, match="its key is made on the host, and none is sent there"):
        await local.install(plain, [sent])
    smuggled, words = item("blog"), ["install", *local._options(plain), "--made-here", "blog"]
    output = await local._run(plain, words, pack([smuggled], plain.root))
    with pytest.raises(InstallError, match="the archive holds a key for blog, whose key is made here"):
        parse(output, host="plain")
    output = await local._run(plain, words[:-2], pack([item_for(csr, "blog")], plain.root))
    with pytest.raises(InstallError, match=r"the archive lacks privkey\.pem for blog"):
        parse(output, host="plain")
    assert waiting(root) == ["1.p256"]


async def test_a_purge_takes_waiting_keys(plain: Host, root: Path) -> None:
    """With the app's files, and also when there are none yet."""
    await local.install(plain, [item_for(await requested(plain, order(1)), "blog")])
    await requested(plain, order(2))
    await requested(plain, order(1, "shop"))
    await requested(plain, order(1, "wiki"))
    assert {one.state for one in (await local.remove(plain, ["blog", "shop"])).apps.values()} == {State.REMOVED}
    assert [path.name for path in (root / ".keys").iterdir()] == ["wiki"]
    assert not list(root.glob("[a-z]*"))


async def test_a_key_that_nobody_asks_for_any_more(plain: Host, root: Path) -> None:
    """It goes after a year; a younger one stays."""
    for number in (1, 2):
        await requested(plain, order(number))
    long_ago = (root / ".keys" / "blog" / "2.p256").stat().st_mtime - 402 * 86_400
    os.utime(root / ".keys" / "blog" / "1.p256", (long_ago, long_ago))
    await local.cleanup(plain, 3)
    assert waiting(root) == ["2.p256"]
