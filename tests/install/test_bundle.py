"""What is packed for a host, and the lines that an operator gets."""

from __future__ import annotations

import dataclasses
import io
import tarfile
from typing import Any, cast

import pytest

from certfleet.errors import InstallError
from certfleet.install import presets
from certfleet.install.bundle import pack
from certfleet.install.drivers import Drivers
from certfleet.install.installer import Installer
from certfleet.install.probe import server_name
from certfleet.install.snippet import snippet
from certfleet.models import App, Host
from tests.install.certificates import item

HOST = Host(name="web1", root="/srv/certs")
APP = App(name="blog", identifiers=("blog.example.com", "www.blog.example.com"), hosts=("web1",))


def test_pack() -> None:
    """Seven files, all 0600; the chain is the full chain without its leaf; the fragment has the host's root."""
    one = item("blog", 3, listen="", port=8443)
    with tarfile.open(fileobj=io.BytesIO(pack([one], HOST.root)), mode="r:") as tar:
        members = tar.getmembers()
        content = {member.name: tar.extractfile(member).read().decode() for member in members}  # type: ignore[union-attr]  # files only
    assert {(member.mode, member.uid, member.type) for member in members} == {(0o600, 0, tarfile.REGTYPE)}
    assert content["blog/3/cert.pem"] + content["blog/3/chain.pem"] == content["blog/3/fullchain.pem"] == one.fullchain
    assert content["blog/3/cert.pem"].count("BEGIN") == 1
    assert content["blog/3/privkey.pem"].encode() == one.private_key
    assert content["blog/3/serial"] == one.serial + "\n"
    assert content["blog/3/nginx.conf"] == (
        "listen 8443 ssl;\n"
        "ssl_certificate /srv/certs/blog/current/fullchain.pem;\n"
        "ssl_certificate_key /srv/certs/blog/current/privkey.pem;\n"
    )
    assert content["blog/3/nginx-ipv6.conf"] == "listen [::]:8443 ssl;\n"


def test_the_key_is_not_shown() -> None:
    """An item's repr, which may end in a log or a traceback, is without the key."""
    assert "PRIVATE" not in repr(item("blog"))


@pytest.mark.parametrize(
    "change",
    [
        {"app": "../blog"},
        {"app": "Blog"},
        {"app": ""},
        {"app": "blog\n"},
        {"app": "-blog"},
        {"app": "b" * 64},
        {"generation": 0},
        {"generation": 10**9},
        {"serial": "0x1f"},
        {"port": 0},
        {"port": 70000},
        {"listen": "localhost; return 200"},
        {"private_key": b"nothing"},
        {"fullchain": "nothing"},
    ],
)
def test_what_is_not_packed(change: dict[str, Any]) -> None:
    """What the receiver would refuse, or nginx misread, is not even sent."""
    with pytest.raises(InstallError):
        pack([dataclasses.replace(item("blog"), **change)], HOST.root)


def test_an_app_twice() -> None:
    """One app has one certificate per host and batch."""
    with pytest.raises(InstallError, match="twice"):
        pack([item("blog", 1), item("blog", 2)], HOST.root)


@pytest.mark.parametrize("root", ["relative", "/with space", "/semi;colon", "/a/../b", "/quote'", "/", "", "/a\n"])
def test_roots(root: str) -> None:
    """A root that nginx's files or a shell would read otherwise is refused."""
    with pytest.raises(InstallError, match="root"):
        presets.checked_root(root)


def test_commands() -> None:
    """The preset's commands, each replaced by the host's own; an unknown preset is named with the choices."""
    assert presets.commands(HOST) == presets.Preset(test=("nginx", "-t", "-q"), reload=("nginx", "-s", "reload"))
    own = dataclasses.replace(HOST, reload_command=("systemctl", "reload", "nginx"))
    assert presets.commands(own) == presets.Preset(test=("nginx", "-t", "-q"), reload=("systemctl", "reload", "nginx"))
    with pytest.raises(InstallError, match=r"'iis'.*nginx"):
        presets.commands(dataclasses.replace(HOST, preset="iis"))


def test_an_unknown_driver() -> None:
    """It is named, with the choices."""
    with pytest.raises(InstallError, match=r"'pigeon'.*local"):
        Drivers(cast("Installer", None)).of(dataclasses.replace(HOST, driver="pigeon"))


def test_snippet() -> None:
    """The challenge location and the include stand as directives, the explicit lines as a comment."""
    text = snippet(APP, HOST, "::1", 8402)
    directives = [line.strip() for line in text.splitlines() if not line.lstrip().startswith("#")]
    assert directives == [
        "location ^~ /.well-known/acme-challenge/ {",
        "proxy_pass http://[::1]:8402;",
        "}",
        "include /srv/certs/blog/current/nginx*.conf;",
    ]
    assert "#     ssl_certificate_key /srv/certs/blog/current/privkey.pem;" in text


def test_server_names() -> None:
    """SNI carries names only; a wildcard is asked for by a name below it."""
    assert [server_name(name) for name in ("a.example", "*.example.com", "192.0.2.1", "2001:db8::1")] == [
        "a.example",
        "certfleet.example.com",
        "",
        "",
    ]
