"""dns-persist-01 as a CA offers and checks it, before a Pebble that does not know it.

It stands in Pebble's place of dns-01: the same challenge, shown as another one. When a client answers it, the TXT
records are asked for and read here, by the words of draft-ietf-acme-dns-persist (§4.1, §4.2) and with no code of
certfleet's. What passes is made to pass at Pebble: its own DNS server then has the record of dns-01. What does not
pass fails at Pebble by itself, and its error is replaced by ours.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver
from aiohttp import web

from tests.ca import jws

PREFIX = "_validation-persist."
ISSUE_VALUE = re.compile(  # RFC 8659 §4.2, and nothing after the last parameter
    r"[ \t]*([A-Za-z0-9](?:-*[A-Za-z0-9])*(?:\.[A-Za-z0-9](?:-*[A-Za-z0-9])*)*)[ \t]*"
    r"((?:;[ \t]*[A-Za-z0-9]+[ \t]*=[ \t]*[\x21-\x3a\x3c-\x7e]*[ \t]*)*)"
)


@dataclass(frozen=True)
class Offered:
    """One challenge that was shown as dns-persist-01."""

    identifier: str
    wildcard: bool
    token: str
    authorization: str


@dataclass
class Persist:
    """What is offered, to whom it was, and what came of it."""

    issuers: tuple[str, ...] = ()
    """What the CA is called in the records; empty: dns-persist-01 is not offered."""
    prefix: str = ""
    """Accounts are hashes below this, as in version 02 of the draft; empty: their URLs, as before it."""
    resolver: str = ""
    """`address:port` of the DNS server that is asked."""
    management: str = ""
    """Of the DNS server that Pebble asks."""
    _keys: dict[str, list[str]] = field(default_factory=dict)
    """Account's URL -> thumbprints of all keys that it ever had."""
    _challenges: dict[str, Offered] = field(default_factory=dict)
    _faults: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Authorization -> why it failed."""
    looks: list[tuple[str, bool]] = field(default_factory=list)
    """Each name that was looked at, and whether it passed."""

    def offer(self, *, issuers: Sequence[str], prefix: str, resolver: str, management: str) -> None:
        """From now on."""
        self.issuers, self.prefix = tuple(issuers), prefix
        self.resolver, self.management = resolver, management
        self.looks.clear()

    def described(self, meta: dict[str, Any]) -> None:
        """What the directory says (§3.2, §4.1); before version 02 there was nothing but caaIdentities."""
        if self.issuers and self.prefix:
            meta |= {"issuerDomainNames": list(self.issuers), "accountHashPrefix": self.prefix}

    def registered(self, url: str, key: str) -> None:
        """An account has this key (`jws.new_account` or `jws.key_change`) from now on."""
        self._keys.setdefault(url, []).insert(0, _thumbprint(json.loads(key)))

    def rolled_over(self, body: bytes) -> None:
        """A keyChange was accepted: records by the key before stay good (§4.2)."""
        if (change := jws.key_change(body)) is not None:
            self.registered(*change)

    def shown(self, kind: str, name: str, answer: web.Response) -> web.Response:
        """The same answer with dns-persist-01 instead of dns-01."""
        if not self.issuers or not isinstance(answer.body, bytes):
            return answer
        document: dict[str, Any] = json.loads(answer.body)
        if kind == "authorization":
            for challenge in document["challenges"]:
                if challenge["type"] == "dns-01":
                    self._note(name, document, challenge)
                    self._dress(challenge)
        else:
            self._dress(document)
        headers = [(key, value) for key, value in answer.headers.items() if key.lower() != "content-length"]
        return web.Response(status=answer.status, body=json.dumps(document).encode(), headers=headers)

    def _note(self, name: str, authorization: dict[str, Any], challenge: dict[str, Any]) -> None:
        wildcard = authorization.get("wildcard") is True
        identifier = authorization["identifier"]["value"].removeprefix("*.")
        self._challenges[_last(challenge["url"])] = Offered(identifier, wildcard, challenge["token"], name)

    def _dress(self, challenge: dict[str, Any]) -> None:
        """§3.1: no token; the list of names has another name since version 02."""
        offered = self._challenges.get(_last(challenge["url"]))
        if offered is None:
            return
        del challenge["token"]
        challenge["type"] = "dns-persist-01"
        challenge["issuerDomainNames" if self.prefix else "issuer-domain-names"] = list(self.issuers)
        if challenge["status"] == "invalid" and offered.authorization in self._faults:
            challenge["error"] = self._faults[offered.authorization]

    async def answered(self, name: str, body: bytes) -> None:
        """A client says that the CA may look: look, and let Pebble see the outcome."""
        offered, account = self._challenges.get(name), jws.answered(body)
        if offered is None or account is None:
            return
        fault = await self._look(offered, account)
        self.looks.append((f"*.{offered.identifier}" if offered.wildcard else offered.identifier, fault is None))
        if fault is not None:
            self._faults[offered.authorization] = fault
            return
        authorization = f"{offered.token}.{self._keys[account][0]}"
        value = urlsafe_b64encode(hashlib.sha256(authorization.encode()).digest()).rstrip(b"=").decode()
        words = {"host": f"_acme-challenge.{offered.identifier}.", "value": value}
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session:
            await session.post(self.management + "/set-txt", json=words)

    async def _look(self, offered: Offered, account: str) -> dict[str, Any] | None:
        """§4.3.2: any record that names us and fits will do. None: one does; else the problem."""
        address, _, port = self.resolver.rpartition(":")
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = [dns.nameserver.Do53Nameserver(address, int(port))]
        try:
            found = await resolver.resolve(PREFIX + offered.identifier, "TXT", search=False, lifetime=5)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return _problem("unauthorized", f"No TXT record found at {PREFIX}{offered.identifier}")
        except dns.exception.DNSException as error:
            return _problem("dns", f"{PREFIX}{offered.identifier}: {type(error).__name__}")
        faults = []
        for record in found:
            try:
                issuer, parameters = _read(b"".join(record.strings).decode("latin-1"))
            except ValueError as error:
                faults.append(_problem("malformed", str(error)))
                continue
            fault = self._judge(issuer, parameters, offered, account)
            if fault is None:
                return None
            faults.append(_problem("unauthorized", fault))
        return faults[0]

    def _judge(self, issuer: str, parameters: dict[str, str], offered: Offered, account: str) -> str | None:
        until = parameters.get("persistuntil")
        if issuer not in self.issuers:
            return f"for another CA: {issuer}"
        if parameters.get("accounturi", "") not in self._accounts(offered.identifier, account):
            return f"accounturi mismatch: {parameters.get('accounturi')}"
        if offered.wildcard and parameters.get("policy", "").lower() != "wildcard":
            return "policy mismatch: expected wildcard"
        if until is not None and time.time() > int(until):
            return f"after persistUntil {until}"
        return None

    def _accounts(self, identifier: str, account: str) -> Iterator[str]:
        if not self.prefix:
            yield account
            return
        for name in (identifier, "*"):
            for thumbprint in self._keys[account]:
                digest = hashlib.sha256(bytes([len(name)]) + (name + thumbprint + account).encode()).digest()
                yield f"{self.prefix}sha-256/{urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def _read(text: str) -> tuple[str, dict[str, str]]:
    """The issuer and the parameters by their tags in lower case. Raises ValueError."""
    value = ISSUE_VALUE.fullmatch(text)
    if value is None:
        raise ValueError(f"not an issue-value: {text}")
    parameters: dict[str, str] = {}
    for part in value[2].split(";")[1:]:
        tag, _, content = part.partition("=")
        if (known := tag.strip(" \t").lower()) in parameters:
            raise ValueError(f"duplicate parameter {known}")
        parameters[known] = content.strip(" \t")
    if not re.fullmatch("[0-9]+", parameters.get("persistuntil", "0")):
        raise ValueError(f"persistUntil {parameters['persistuntil']}")
    return value[1].lower(), parameters


def _problem(kind: str, detail: str) -> dict[str, Any]:
    return {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail, "status": 403}


def _last(url: str) -> str:
    return url.rpartition("/")[2]


def _thumbprint(key: dict[str, Any]) -> str:
    """RFC 7638 §3: the members that are there, in order, without blanks."""
    text = json.dumps({name: key[name] for name in sorted(key) if key[name] is not None}, separators=(",", ":"))
    return urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
