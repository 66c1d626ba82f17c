"""Where SSH goes, as people write it."""

from __future__ import annotations

import pytest

from certfleet.errors import UsageError
from certfleet.install.login import Login, parse_login


@pytest.mark.parametrize(
    ("text", "login"),
    [
        ("root@192.0.2.1", Login("root", "192.0.2.1", 22)),
        ("root@192.0.2.1:2222", Login("root", "192.0.2.1", 2222)),
        ("certfleet@web1.example.com", Login("certfleet", "web1.example.com", 22)),
        ("a.b-c_d@web1:1", Login("a.b-c_d", "web1", 1)),
        ("root@[2001:db8::1]", Login("root", "2001:db8::1", 22)),
        ("root@[2001:db8::1]:65535", Login("root", "2001:db8::1", 65535)),
    ],
)
def test_read_and_written(text: str, login: Login) -> None:
    """What is read is written the same way again; the usual port is left out."""
    assert parse_login(text) == login
    assert str(login) == text
    assert parse_login(str(login)) == login


@pytest.mark.parametrize(
    "text",
    [
        "",
        "root",
        "192.0.2.1",
        "root@",
        "@web1",
        "root@web1:0",
        "root@web1:65536",
        "root@web1:ssh",
        "root@2001:db8::1",
        "root@[web1]",
        "root@[192.0.2.1]",
        "root@web 1",
        "-oProxyCommand=evil@web1",
        "root@-oProxyCommand=evil",
        "root@web1;id",
        "root;id@web1",
        "root@web1\n",
        "a@b@c",
        "root@" + "a" * 254,
        "r" * 33 + "@web1",
    ],
)
def test_refused(text: str) -> None:
    """Anything else is refused with an example, and can be neither an option nor a command for anybody."""
    with pytest.raises(UsageError, match=r"jump: .*such as root@192"):
        parse_login(text, "jump")
