"""Dynamic updates (RFC 2136) signed with a shared key (TSIG, RFC 8945): BIND, Knot, PowerDNS, Windows, and others."""

from __future__ import annotations

import base64
import binascii
from typing import Literal

import dns.asyncquery
import dns.exception
import dns.name
import dns.rcode
import dns.rdata
import dns.tsig
import dns.update
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from certfleet.dns.authority import PORT, Zones
from certfleet.dns.provider import TTL, TXTRecord, host
from certfleet.errors import DNSProviderError

ANSWER = 10.0  # seconds for one update, over TCP


class Keys(BaseModel):
    """What has to be known: the primary server, and the key that it accepts."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    server: str = Field(min_length=1, max_length=254)
    """The zone's primary server, which takes updates: an address or a host name."""
    port: int = Field(default=PORT, ge=1, le=65535)
    key: str = Field(min_length=1, max_length=253)
    """The key's name."""
    secret: SecretStr
    """The key in base64, as `tsig-keygen` prints it."""
    algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha224"] = "hmac-sha256"
    ttl: int = Field(default=TTL, ge=0, le=86_400)

    @field_validator("server")
    @classmethod
    def _host(cls, value: str) -> str:
        if found := host(value):
            return found
        raise ValueError(
            f"cannot be {value!r}: give an IP address or a host name, and a port other than {PORT} as port=…"
        )

    @field_validator("key")
    @classmethod
    def _name(cls, value: str) -> str:
        try:
            if dns.name.from_text(value) != dns.name.root:
                return value
        except dns.exception.DNSException:
            pass
        raise ValueError(f"cannot be {value!r}: names of keys are DNS names, give the one that the server knows it by")

    @field_validator("secret")
    @classmethod
    def _base64(cls, value: SecretStr) -> SecretStr:
        try:
            if base64.b64decode(value.get_secret_value(), validate=True):
                return value
        except binascii.Error:
            pass
        raise ValueError("is not base64")


class RFC2136:
    """Sends updates to a zone's primary server."""

    def __init__(self, keys: Keys, zones: Zones) -> None:
        self._keys = keys
        self._zones = zones

    async def present(self, record: TXTRecord) -> None:
        """Add the value to the RRset (§2.5.1); one that is there already is no error."""
        update = self._update(record)
        update.add(_absolute(record.name), self._keys.ttl, _value(record))
        await self._send(record, update)

    async def cleanup(self, record: TXTRecord) -> None:
        """Delete this one RR from the RRset (§2.5.4)."""
        update = self._update(record)
        update.delete(_absolute(record.name), _value(record))
        await self._send(record, update)

    def _update(self, record: TXTRecord) -> dns.update.UpdateMessage:
        keys = self._keys
        key = dns.tsig.Key(keys.key, base64.b64decode(keys.secret.get_secret_value()), keys.algorithm)
        return dns.update.UpdateMessage(_absolute(record.zone), keyring=key)

    async def _send(self, record: TXTRecord, update: dns.update.UpdateMessage) -> None:
        where = f"the DNS server {self._keys.server} port {self._keys.port}"
        addresses = await self._zones.addresses(self._keys.server)
        if not addresses:
            raise DNSProviderError(f"{where} has no address: is `server` spelled right?")
        try:
            answer = await dns.asyncquery.tcp(update, addresses[0], timeout=ANSWER, port=self._keys.port)
        except (dns.tsig.PeerError, dns.tsig.BadSignature) as error:
            raise DNSProviderError(f"{where} does not take our key {self._keys.key}: {_why(error)}") from None
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise DNSProviderError(f"{where} did not answer the update of {record.name}: {_why(error)}") from None
        if answer.rcode() != dns.rcode.NOERROR:
            raise DNSProviderError(
                f"{where} refused the update of {record.name} in zone {record.zone} "
                f"({dns.rcode.to_text(answer.rcode())}): may the key {self._keys.key} change this name?"
            )


_WHY: dict[type[BaseException], str] = {
    dns.tsig.PeerBadKey: "it does not know a key of this name (BADKEY)",
    dns.tsig.PeerBadSignature: "the secret or algorithm is another one there (BADSIG)",
    dns.tsig.PeerBadTime: "the clocks of the two machines differ too much (BADTIME)",
}


def _why(error: BaseException) -> str:
    return _WHY.get(type(error), str(error) or type(error).__name__)


def _absolute(name: str) -> dns.name.Name:
    return dns.name.from_text(name)


def _value(record: TXTRecord) -> dns.rdata.Rdata:
    return dns.rdata.from_text("IN", "TXT", f'"{record.value}"')
