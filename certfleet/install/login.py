"""Where SSH goes: user@host[:port], as people write it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from certfleet.errors import UsageError

PORT = 22  # RFC 4253 §4.1
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?)*\.?"
)
_LOGIN = re.compile(r"(?P<user>[^@]+)@(\[(?P<v6>[^]]+)\]|(?P<host>[^:\[\]]+))(:(?P<port>[0-9]{1,5}))?")
_WANTED = "is not user@host[:port], such as root@192.0.2.1 or root@[2001:db8::1]:2222"


@dataclass(frozen=True, slots=True)
class Login:
    """A user on a machine."""

    user: str
    host: str
    port: int = PORT

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}" if self.port == PORT else f"{self.user}@{host}:{self.port}"


def parse_login(text: str, field: str = "ssh") -> Login:
    """What a person gave, or a record holds. Raises UsageError that names `field`."""
    parts = _LOGIN.fullmatch(text)
    if parts is None or not _USER.fullmatch(parts["user"]):
        raise UsageError(field, text, _WANTED)
    port = int(parts["port"] or PORT)
    host = parts["v6"] or parts["host"]
    if not 0 < port < 65536 or not _is_host(host, bracketed=parts["v6"] is not None):  # noqa: PLR2004  16 bits
        raise UsageError(field, text, _WANTED)
    return Login(parts["user"], host, port)


def _is_host(text: str, *, bracketed: bool) -> bool:
    try:
        return ipaddress.ip_address(text).version == (6 if bracketed else 4)
    except ValueError:
        return not bracketed and _NAME.fullmatch(text) is not None
