"""Every DNS host that dns-lexicon knows (dns-lexicon.readthedocs.io), by its API.

dns-lexicon is imported when it is first used. It waits for answers without a limit, so each call runs in a thread of
its own, which is left behind when the time is over. Its client guesses a name's zone by a list that it fetches from
the internet; the zone is known here, so its providers are used directly.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from certfleet.dns.provider import TIME_LIMIT, TTL, TXTRecord, redacted
from certfleet.errors import DNSProviderError, UsageError

NO_PROVIDER = {"auto"}  # a guess which of the others it is
RECORD_TTL = "ttl"  # the one key that is not a provider's own


def known() -> dict[str, bool]:
    """Every provider by name; False: it needs a package that is not installed (`pip install dns-lexicon[NAME]`)."""
    from lexicon._private.discovery import find_providers  # noqa: PLC0415  150 ms that most commands do without

    return {name: there for name, there in find_providers().items() if name not in NO_PROVIDER}


def keys_of(provider: str) -> list[str]:
    """The keys that a provider takes, as its documentation names them."""
    parser = argparse.ArgumentParser(add_help=False)
    _module(provider).Provider.configure_parser(parser)
    return [*vars(parser.parse_args([])), RECORD_TTL]


def check(provider: str, values: Mapping[str, str]) -> dict[str, str]:
    """The keys as they are kept. Raises UsageError for one that the provider does not have."""
    if not known()[provider]:
        raise UsageError("provider", provider, f"needs more packages: `pip install 'dns-lexicon[{provider}]'` first")
    kept = {name.replace("-", "_").lower(): value for name, value in values.items()}
    takes = keys_of(provider)
    for name in kept:
        if name not in takes:
            raise UsageError("key", name, f"is not one of {provider}'s: {', '.join(takes)}")
    if not kept:
        raise UsageError("key", None, f"{provider} takes {', '.join(takes)}")
    if not kept.get(RECORD_TTL, "0").isdecimal():
        raise UsageError("key", RECORD_TTL, "has to be a number of seconds")
    return kept


class Lexicon:
    """One provider with its keys."""

    def __init__(self, provider: str, values: Mapping[str, str], *, limit: float = TIME_LIMIT) -> None:
        """`limit`: seconds for one record."""
        self._provider = provider
        self._values = dict(values)
        self._limit = limit

    async def present(self, record: TXTRecord) -> None:
        """Create the record; lexicon's providers take one that is there for done."""
        await self._call(record, lambda provider: provider.create_record("TXT", record.name, record.value))

    async def cleanup(self, record: TXTRecord) -> None:
        """Delete the record with this content."""
        await self._call(record, lambda provider: provider.delete_record(None, "TXT", record.name, record.value))

    async def _call(self, record: TXTRecord, request: Callable[[Any], Any]) -> None:
        try:
            done = await in_thread(lambda: self._ask(record, request), self._limit)
        except TimeoutError:
            raise DNSProviderError(f"{self._provider} did not answer for {record.name} in {self._limit:g} s") from None
        except Exception as error:  # noqa: BLE001  ninety providers, each with errors of its own
            raise DNSProviderError(f"{self._provider} did not take {record.name}: {self._why(error)}") from None
        if done is False:
            raise DNSProviderError(f"{self._provider} did not take {record.name}, and does not say why")

    def _ask(self, record: TXTRecord, request: Callable[[Any], Any]) -> Any:
        from lexicon.config import ConfigResolver  # noqa: PLC0415  as above

        for name in ("lexicon", "urllib3"):  # what they tell while debugging has requests in it
            logging.getLogger(name).setLevel(logging.WARNING)
        own = {name: value for name, value in self._values.items() if name != RECORD_TTL}
        words = {
            "provider_name": self._provider,
            "domain": record.zone,
            "type": "TXT",
            "name": record.name,
            "content": record.value,
            "ttl": int(self._values.get(RECORD_TTL, TTL)),
            self._provider: own,
        }
        config = ConfigResolver().with_dict(words)  # type: ignore[no-untyped-call]
        provider = _module(self._provider).Provider(config)
        provider.authenticate()
        try:
            return request(provider)
        finally:
            provider.cleanup()

    def _why(self, error: Exception) -> str:
        """What went wrong, without the request: its address or body may hold a secret in any spelling."""
        answer = getattr(error, "response", None)
        if answer is not None:
            return redacted(f"it answered {answer.status_code}: {answer.text[:1000]}", self._values.values())
        return redacted(f"{type(error).__name__}: {error}", self._values.values())


async def in_thread(call: Callable[[], Any], limit: float) -> Any:
    """Run the call in a thread of its own, for `limit` seconds at most. Raises TimeoutError, and leaves it behind.

    The thread does not keep the process from ending, as one of the loop's own pool would.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: Exception | None) -> None:
        if outcome.done():
            return
        if error is None:
            outcome.set_result(result)
        else:
            outcome.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = call()
        except Exception as raised:  # noqa: BLE001  it is raised where it is waited for
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="lexicon", daemon=True).start()
    return await asyncio.wait_for(outcome, limit)


def _module(provider: str) -> Any:
    from lexicon._private.discovery import load_provider_module  # noqa: PLC0415  as above

    return load_provider_module(provider)
