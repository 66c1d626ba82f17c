"""The keys that a host is still to make: its list, as far as people's requests touch it (host_key.py does the rest).

unmade:<host>  hash  app -> the request that is wanted for the app's order, and what came of it (host_key.Wish)
"""

from __future__ import annotations

from certfleet.models import Order
from certfleet.store import Store


def list_of(store: Store, host: str) -> str:
    """The key of a host's list."""
    return store.key("unmade", host)


async def ask_again(store: Store, order: Order) -> None:
    """A person has mended something: the order's host is asked with its next visit, whatever it said before."""
    if order.key_on:
        await store.redis.hdel(list_of(store, order.key_on), order.app)


async def forget_host(store: Store, host: str) -> None:
    """A host was removed: so is what waits for it."""
    await store.redis.delete(list_of(store, host))
