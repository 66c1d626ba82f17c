"""acme-dns (github.com/joohoi/acme-dns): a DNS server that can do nothing but answer for challenges.

Each registration there has a name of its own; `_acme-challenge` of a domain is a CNAME to it. It keeps the last two
values of a registration, enough for a domain with its wildcard, and forgets the older one: nothing is cleaned up.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, AnyHttpUrl, BaseModel, ConfigDict, Field, Json, SecretStr, model_validator

from certfleet.dns.provider import TXTRecord, host, redacted
from certfleet.errors import DNSProviderError

TIMEOUT = 30.0  # seconds
HELD = 2  # values of a registration


def _as_header(value: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise ValueError("has characters that a header of HTTP cannot have: give it as the registration has it")
    return value


def _secret_as_header(value: SecretStr) -> SecretStr:
    _as_header(value.get_secret_value())
    return value


def _reachable(value: AnyHttpUrl) -> AnyHttpUrl:
    name = (value.host or "").strip("[]")  # an IPv6 address has brackets there
    if host(name) is None:
        raise ValueError(f"cannot have the host {name!r}: give a URL such as https://auth.example.org")
    return value


Username = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_as_header)]
Password = Annotated[SecretStr, AfterValidator(_secret_as_header)]
Subdomain = Annotated[str, Field(min_length=1, max_length=63), AfterValidator(str.lower)]


class Account(BaseModel):
    """One registration, as POST /register answers it."""

    model_config = ConfigDict(hide_input_in_errors=True)

    username: Username
    password: Password
    subdomain: Subdomain


class Keys(BaseModel):
    """The server, and one registration or several."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: Annotated[AnyHttpUrl, AfterValidator(_reachable)]
    username: Username | None = None
    password: Password | None = None
    subdomain: Subdomain | None = None
    accounts: Json[dict[str, Account]] | None = None
    """JSON, domain -> registration: the file in which other clients keep theirs."""

    @model_validator(mode="after")
    def _some(self) -> Keys:
        if not self.registrations():
            raise ValueError("needs username, password and subdomain, or accounts")
        return self

    def registrations(self) -> dict[str, Account]:
        """Each by its subdomain."""
        found = list((self.accounts or {}).values())
        if self.username and self.password and self.subdomain:
            found.append(Account(username=self.username, password=self.password, subdomain=self.subdomain))
        return {account.subdomain: account for account in found}


class AcmeDNS:
    """Sends values to an acme-dns server."""

    def __init__(self, keys: Keys) -> None:
        self._url = str(keys.url).rstrip("/") + "/update"
        self._accounts = keys.registrations()

    async def present(self, record: TXTRecord) -> None:
        """POST /update; the registration is the one that the name's CNAME leads to."""
        import aiohttp  # noqa: PLC0415  200 ms that commands which only keep credentials do without

        account = self._accounts.get(record.name.partition(".")[0])
        if account is None:
            known = ", ".join(self._accounts)
            raise DNSProviderError(
                f"{record.owner} leads to no registration that we know at acme-dns: "
                f"let it be a CNAME to one of {known}, each below the server's domain"
            )
        headers = {"X-Api-User": account.username, "X-Api-Key": account.password.get_secret_value()}
        content = {"subdomain": account.subdomain, "txt": record.value}
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session,
                session.post(self._url, json=content, headers=headers, allow_redirects=False) as answer,
            ):
                status, text = answer.status, await answer.content.read(1000)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = str(error) or type(error).__name__
            raise DNSProviderError(f"acme-dns at {self._url} cannot be reached: {why}") from None
        if status != 200:  # noqa: PLR2004  its documentation: 200 for an update that is made
            words = redacted(text.decode(errors="replace"), [account.password.get_secret_value(), account.username])
            raise DNSProviderError(f"acme-dns at {self._url} answered {status} for {record.owner}: {words}")

    async def cleanup(self, record: TXTRecord) -> None:
        """Nothing: it keeps the last two values and has no request to remove one."""
