"""Orders, certificates and installations in Redis, and the fenced writes that change them.

order:<app>          string  the app's one live Order
asked:<app>          string  what a person wants of it, each word behind a space, while a worker has it (ordering.py)
certificate:<app>    string  the newest Certificate (key sealed)
renewal:<app>        string  what the CA said of when to renew it: a Renewal
standing:<app>       string  what is wrong with its standing records, in words; it goes when all are well
chain:<sha256>       string  PEM of intermediates, shared by every certificate below them
challenge:<token>    string  key authorization for the responder, until its time to live ends
installations:<app>  hash    host -> Installation
pending:<host>       set     apps with something to install on this host
audit:<host>         string  when it was last asked what is current there, in Unix microseconds
generation:<app>     string  the newest Certificate's number; kept when the app is removed, its hosts still have it
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from certfleet.agenda import Agenda, Claim
from certfleet.errors import LeaseLost
from certfleet.models import (
    App,
    Certificate,
    Installation,
    Order,
    Record,
    Renewal,
    dump,
    from_microseconds,
    load,
    microseconds,
)
from certfleet.store import Store

CHALLENGE_LIFE = 3600  # seconds; longer than any validation takes, renewed when an order is resumed
ASKED_LIFE = 3600  # seconds; longer than a worker has an order in hand

Command = tuple[str, str, *tuple[str, ...]]
"""A write: verb, full key, further words."""


def order_member(app: str) -> str:
    """The agenda member of an app's order."""
    return f"order:{app}"


def check_member(app: str) -> str:
    """The agenda member of an app's expiry check."""
    return f"check:{app}"


def dns_member(app: str) -> str:
    """The agenda member of the TXT records that were written for an app."""
    return f"dns:{app}"


def host_member(host: str) -> str:
    """The agenda member of a host's installations."""
    return f"host:{host}"


class Records:
    """Reads are plain; writes of an order or installation need the claim that guards it, or that nobody else wrote."""

    def __init__(self, store: Store, agenda: Agenda) -> None:
        self._store = store
        self._redis = store.redis
        self._leases = agenda.leases_key
        self._script = store.script(Path(__file__).with_name("save.lua"))
        self._amend = store.script(Path(__file__).with_name("amend.lua"))

    async def write(self, claim: Claim, commands: Iterable[Command]) -> None:
        """Do all commands, or none. Raises LeaseLost when the claim is not ours any more."""
        keys, words = [self._leases], [claim.member, str(claim.fence)]
        for verb, key, *rest in commands:
            if key not in keys:
                keys.append(key)
            words += [str(2 + len(rest)), verb, str(keys.index(key) + 1), *rest]
        if not await self._script(keys, list(words)):
            raise LeaseLost(f"{claim.member} is held by somebody else now")

    async def order(self, app: str) -> Order | None:
        """The app's live order."""
        text = await self._redis.get(self._store.key("order", app))
        return load(Order, text) if text else None

    async def orders(self, apps: Iterable[str]) -> dict[str, Order]:
        """The live orders of several apps."""
        return {order.app: order for order in await self._many(Order, "order", apps)}

    async def order_asked(self, app: str) -> tuple[Order | None, frozenset[str]]:
        """The app's live order, and what was asked of it while somebody else had it."""
        text, asked = await self._redis.mget([self._store.key("order", app), self._store.key("asked", app)])
        return (load(Order, text) if text else None), frozenset((asked or "").split())

    async def ask(self, app: str, words: Iterable[str]) -> None:
        """Let whoever works on the app's order next know what is wanted of it; it is forgotten with the order."""
        key = self._store.key("asked", app)
        pipe = self._redis.pipeline()
        pipe.append(key, "".join(f" {word}" for word in words))
        pipe.expire(key, ASKED_LIFE)
        await pipe.execute()

    def heard(self, app: str) -> Command:
        """A command that ends what was asked of an order."""
        return ("DEL", self._store.key("asked", app))

    async def create_order(self, order: Order) -> bool:
        """Keep a new order; False when the app has a live one."""
        return bool(await self._redis.set(self._store.key("order", order.app), dump(order), nx=True))

    async def save_order(self, claim: Claim, order: Order, *more: Command) -> None:
        """Persist an order together with what goes with it. Raises LeaseLost."""
        await self.write(claim, [("SET", self._store.key("order", order.app), dump(order)), *more])

    def answers(self, authorizations: Mapping[str, str]) -> list[Command]:
        """Commands that let the responder answer: token -> key authorization (RFC 8555 §8.1)."""
        return [
            ("SET", self._store.key("challenge", token), text, "EX", str(CHALLENGE_LIFE))
            for token, text in authorizations.items()
        ]

    async def remove_order(self, claim: Claim, order: Order) -> None:
        """Forget an order that is not wanted any more. Raises LeaseLost."""
        await self.write(claim, self._removal(order))

    def _removal(self, order: Order) -> list[Command]:
        tokens: list[Command] = [("DEL", self._store.key("challenge", token)) for token in order.tokens]
        return [("DEL", self._store.key("order", order.app)), self.heard(order.app), *tokens]

    async def certificate(self, app: str) -> Certificate | None:
        """The newest certificate."""
        text = await self._redis.get(self._store.key("certificate", app))
        return load(Certificate, text) if text else None

    async def certificates(self, apps: Iterable[str]) -> dict[str, Certificate]:
        """The newest certificates of several apps."""
        return {certificate.app: certificate for certificate in await self._many(Certificate, "certificate", apps)}

    async def certificate_texts(self, apps: Sequence[str]) -> list[str | None]:
        """The newest certificates of several apps as Redis has them, for `certificate_changed`."""
        found: list[str | None] = await self._redis.mget([self._store.key("certificate", app) for app in apps])
        return found

    def certificate_changed(self, app: str, before: str, after: str) -> list[Command]:
        """Commands that change a certificate, and begin a part: left out when somebody else wrote meanwhile."""
        key = self._store.key("certificate", app)
        return [("NEEDS", key), ("SAME", key, before), ("SET", key, after)]

    async def renewals(self, apps: Iterable[str]) -> dict[str, Renewal]:
        """What CAs said of when to renew the apps' certificates."""
        names = list(apps)
        texts = await self._redis.mget([self._store.key("renewal", app) for app in names]) if names else []
        return {app: load(Renewal, text) for app, text in zip(names, texts, strict=True) if text}

    async def save_renewal(self, claim: Claim, app: str, renewal: Renewal, *more: Command) -> None:
        """Keep what the CA said, unless the app has another certificate by now. Raises LeaseLost."""
        still = ("SAME", self._store.key("generation", app), str(renewal.generation))
        exists = ("NEEDS", self._store.key("certificate", app))
        await self.write(claim, [exists, still, ("SET", self._store.key("renewal", app), dump(renewal)), *more])

    async def ask_for_renewal(self, apps: Iterable[str], now: datetime) -> None:
        """Let the CA be asked with the next check, for a person who wants to know now; what is known stays."""

        async def change(pipe: Any) -> None:
            text = await pipe.get(key)  # watched: what a check keeps meanwhile is read again
            pipe.multi()
            if text:
                pipe.set(key, dump(replace(load(Renewal, text), next_look=now)))

        for app in apps:
            key = self._store.key("renewal", app)
            await self._redis.transaction(change, key)

    async def forget_renewal(self, claim: Claim, app: str) -> None:
        """The CA has no renewal information any more. Raises LeaseLost."""
        await self.write(claim, [("DEL", self._store.key("renewal", app))])

    async def warnings(self, apps: Iterable[str]) -> dict[str, str]:
        """What is wrong with the standing records of these apps, where something is (watching.py)."""
        names = list(apps)
        texts = await self._redis.mget([self._store.key("standing", app) for app in names]) if names else []
        return {app: text for app, text in zip(names, texts, strict=True) if text}

    async def save_warning(self, claim: Claim, app: str, warning: str, *more: Command) -> None:
        """Keep what is wrong with an app's standing records; empty: nothing is. Raises LeaseLost."""
        key = self._store.key("standing", app)
        change: Command = ("SET", key, warning) if warning else ("DEL", key)
        await self.write(claim, [("NEEDS", self._store.key("app", app)), change, *more])

    async def chains(self, certificates: Iterable[Certificate]) -> dict[str, str]:
        """PEM of the intermediates by their key."""
        names = sorted({certificate.chain for certificate in certificates})
        texts = await self._redis.mget([self._store.key("chain", name) for name in names]) if names else []
        return {name: text or "" for name, text in zip(names, texts, strict=True)}

    async def complete(
        self,
        claim: Claim,
        order: Order,
        certificate: Certificate,
        chain: str,
        hosts: Iterable[Installation],
        *more: Command,
    ) -> None:
        """Store what was issued, want it on its hosts, and end the order: one write. Raises LeaseLost.

        `hosts`: the installations as they are now.
        """
        generation = certificate.generation
        commands: list[Command] = [
            ("SET", self._store.key("certificate", order.app), dump(certificate)),
            ("SET", self._store.key("generation", order.app), str(generation)),
            ("SETNX", self._store.key("chain", certificate.chain), chain),
            *self._removal(order),
            *more,
        ]
        for known in hosts:
            wanted = newly_wanted(known, generation)
            commands += self.installation_saved(wanted, pending=True)
        await self.write(claim, commands)

    def installation_saved(self, installation: Installation, *, pending: bool) -> list[Command]:
        """Commands that keep an installation, and whether its host still has work with it.

        An app that was removed meanwhile leaves nothing behind.
        """
        return [
            ("NEEDS", self._store.key("app", installation.app)),
            ("HSET", self._store.key("installations", installation.app), installation.host, dump(installation)),
            ("SADD" if pending else "SREM", self._store.key("pending", installation.host), installation.app),
        ]

    def outcome_saved(self, outcome: Installation) -> list[Command]:
        """Commands that keep what came of an installation, unless a newer certificate is wanted by now."""
        exists, *writes = self.installation_saved(outcome, pending=outcome.error is not None)
        return [exists, ("SAME", self._store.key("generation", outcome.app), str(outcome.wanted)), *writes]

    def change_saved(self, before: Installation, after: Installation) -> list[Command]:
        """Commands that keep what was found out about an installation, unless somebody else wrote meanwhile."""
        exists, *writes = self.outcome_saved(after)
        key = self._store.key("installations", after.app)
        return [exists, ("STILL", key, before.host, dump(before)), *writes]

    def failure_saved(self, before: Installation, failure: Installation) -> list[Command]:
        """Commands that keep a failure; without its back-off when somebody wrote meanwhile, who may have mended it."""
        exists, *writes = self.outcome_saved(replace(failure, retry_at=None))
        key = self._store.key("installations", failure.app)
        unsaved: Command = ("OTHER", key, failure.host, dump(failure))
        return [*self.change_saved(before, failure), exists, unsaved, *writes]

    def uninstalled(self, app: str, host: str) -> list[Command]:
        """Commands that keep that nothing of an app is on a host any more."""
        return [
            ("HDEL", self._store.key("installations", app), host),
            ("SREM", self._store.key("pending", host), app),
        ]

    async def installations(self, app: str) -> dict[str, Installation]:
        """An app's installations by host."""
        texts = await self._redis.hgetall(self._store.key("installations", app))
        return {host: load(Installation, text) for host, text in texts.items()}

    async def installations_of(self, apps: list[str]) -> dict[str, dict[str, Installation]]:
        """The installations of several apps."""
        pipe = self._redis.pipeline(transaction=False)
        for app in apps:
            pipe.hgetall(self._store.key("installations", app))
        answers = await pipe.execute()
        return {
            app: {host: load(Installation, text) for host, text in texts.items()}
            for app, texts in zip(apps, answers, strict=True)
        }

    async def amend(
        self, app: str, host: str, change: Callable[[Installation], Installation], *, pending: bool = False
    ) -> Installation:
        """Change an installation as it is now, without losing what a visit writes meanwhile; what it is then.

        `pending`: a change is work for its host. Where nothing was known, `change` is given an empty one.
        """
        kinds = (("app", app), ("installations", app), ("pending", host))
        keys = [self._store.key(kind, name) for kind, name in kinds]
        while True:
            read = await self._redis.hget(keys[1], host) or ""
            before = load(Installation, read) if read else Installation(app, host)
            after = change(before)
            if after == before or await self._amend(keys, [host, app, read, dump(after), str(int(pending))]):
                return after

    async def pend(self, host: str, app: str) -> None:
        """Put an app on a host's list again, as it is."""
        await self._redis.sadd(self._store.key("pending", host), app)

    async def gathered(self, host: str) -> int:
        """How many apps are on a host's list."""
        return int(await self._redis.scard(self._store.key("pending", host)))

    async def pending(self, host: str) -> list[str]:
        """Apps with something to install on a host, by name."""
        return sorted(await self._redis.smembers(self._store.key("pending", host)))

    async def forget_pending(self, claim: Claim, app: str, known: Installation | None) -> None:
        """Nothing to install any more, by what is known of it; unless somebody wrote meanwhile. Raises LeaseLost.

        `claim` is the host's.
        """
        still: list[Command] = []
        if known is not None:
            still = [("STILL", self._store.key("installations", app), known.host, dump(known))]
        await self.write(claim, [*still, ("SREM", self._store.key("pending", claim.name), app)])

    async def audit_time(self, host: str) -> datetime | None:
        """When a host was last asked what is current there; None: never."""
        value = await self._redis.get(self._store.key("audit", host))
        return from_microseconds(int(value)) if value else None

    async def note_audit(self, host: str, at: datetime) -> None:
        """It was asked now."""
        await self._redis.set(self._store.key("audit", host), microseconds(at))

    async def audit_now(self, hosts: Iterable[str]) -> None:
        """Let hosts be asked with the next look at each."""
        for host in hosts:
            await self._redis.set(self._store.key("audit", host), 1)

    async def last_generation(self, app: str, known: Iterable[Installation]) -> int:
        """The highest generation that any host may have of this app, also from before it was removed or restored."""
        kept = int(await self._redis.get(self._store.key("generation", app)) or 0)
        return max([kept, *(installation.installed for installation in known)])

    async def app_forgotten(self, app: App) -> list[Command]:
        """Commands that end everything kept about an app but its last generation; its files on hosts stay."""
        order = await self.order(app.name)
        generation = await self.last_generation(app.name, (await self.installations(app.name)).values())
        kinds = ("order", "asked", "certificate", "renewal", "installations", "standing")
        return [
            *([("SET", self._store.key("generation", app.name), str(generation))] if generation else []),
            *[("DEL", self._store.key(kind, app.name)) for kind in kinds],
            *[("DEL", self._store.key("challenge", token)) for token in (order.tokens if order else ())],
            *[("SREM", self._store.key("pending", host), app.name) for host in app.hosts],
        ]

    async def _many(self, kind: type[Record], name: str, apps: Iterable[str]) -> list[Record]:
        keys = [self._store.key(name, app) for app in apps]
        return [load(kind, text) for text in (await self._redis.mget(keys) if keys else []) if text]


def newly_wanted(installation: Installation, generation: int) -> Installation:
    """A newer certificate is wanted: what failed with the one before does not count any more.

    Whoever has read an older one just before an order ended changes nothing.
    """
    if installation.wanted >= generation:
        return installation
    return replace(installation, wanted=generation, attempts=0, retry_at=None, error=None, fault=None)


def chain_name(chain: str) -> str:
    """The key under which a chain of intermediates is shared."""
    return hashlib.sha256(chain.encode()).hexdigest()[:32]
