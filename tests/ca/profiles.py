"""The CA's profiles (draft-ietf-acme-profiles): listed in the directory, asked for in newOrder, shown in the order."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

KEPT = 10_000  # orders whose profile is remembered


@dataclass
class Profiles:
    """What is offered, and which order has what."""

    offered: dict[str, str] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    _orders: OrderedDict[str, str] = field(default_factory=OrderedDict)
    _asked: list[str | None] = field(default_factory=list)

    def offer(self, *, profiles: dict[str, str], hidden: Sequence[str] = ()) -> None:
        """From now on these; the first is what an order gets that asks for none."""
        self.offered, self.hidden = dict(profiles), set(hidden)
        self._asked.clear()

    def asked(self) -> list[str | None]:
        """What each newOrder asked for that was accepted, in order."""
        return list(self._asked)

    def of(self, order: str) -> str:
        """The profile of an order; empty: none."""
        return self._orders.get(order, "")

    def refuses(self, profile: str) -> bool:
        """Whether a newOrder with this profile is `invalidProfile`; a CA without profiles ignores the field."""
        return bool(self.offered) and (profile not in self.offered or profile in self.hidden)

    def made(self, order: str, profile: str | None, answer: web.Response) -> web.Response:
        """The answer to a newOrder: remember what it asked for, and show it."""
        self._asked.append(profile)
        if self.offered:
            self._orders[order] = profile or next(iter(self.offered))
            while len(self._orders) > KEPT:
                self._orders.popitem(last=False)
        return self.shown("order", order, answer)

    def shown(self, kind: str, name: str, answer: web.Response) -> web.Response:
        """The same answer with `meta.profiles` in the directory, and `profile` in an order."""
        if not isinstance(answer.body, bytes):
            return answer
        document: dict[str, Any] = json.loads(answer.body)
        if kind == "directory":
            document.setdefault("meta", {}).pop("profiles", None)  # newer Pebbles have some of their own
            document["meta"] |= {"profiles": self.offered} if self.offered else {}
        elif name in self._orders:
            document["profile"] = self._orders[name]
        headers = [(key, value) for key, value in answer.headers.items() if key.lower() != "content-length"]
        return web.Response(status=answer.status, body=json.dumps(document).encode(), headers=headers)
