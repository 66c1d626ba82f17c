"""The CA's book: which event counts where. Knows nothing of HTTP; times come in as Unix nanoseconds.

An event is what Pebble's answers show. A certificate counts at the first answer that shows its order beyond
`ready`: that is the answer to finalize, after which Pebble signs at once and without a further check. A
validation counts when an answer shows its outcome first, be it of the authorization, the challenge or the order.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from tests.ca.buckets import Buckets, Charge, Denial
from tests.ca.gcra import SECOND
from tests.ca.limits import (
    CERTIFICATES_PER_DOMAIN,
    CERTIFICATES_PER_SET,
    CONSECUTIVE_FAILURES,
    FAILED_AUTHORIZATIONS,
    ORDERS_PER_ACCOUNT,
    REGISTRATIONS_PER_ADDRESS,
    REGISTRATIONS_PER_RANGE,
    REQUESTS,
    SAME_SET_WINDOW,
    bare,
    domain_key,
    pair_key,
    range_key,
    set_key,
)
from tests.ca.report import Accepted, Failure, Issuance, Overshoot, Refusal

KEPT = 200_000  # entries of each list, and objects of each kind that are remembered

Value = TypeVar("Value")


class Paused(NamedTuple):
    """A newOrder is refused until a person asks for these names again."""

    identifiers: tuple[str, ...]


class Admission(NamedTuple):
    """A newOrder that goes to Pebble."""

    account: str
    identifiers: tuple[str, ...]
    exempt: bool
    charges: tuple[Charge, ...]


@dataclass(slots=True)
class Order:
    """An order that has no certificate yet."""

    account: str
    identifiers: tuple[str, ...]
    authorizations: tuple[str, ...]
    proved: bool = False


@dataclass(slots=True)
class Authorization:
    """An authorization as it was seen last."""

    account: str
    identifier: str | None
    """None until an answer has shown it."""
    status: str = "pending"


def _log() -> deque[Any]:
    return deque(maxlen=KEPT)


@dataclass(slots=True)
class Book:
    """Everything that the CA knows."""

    buckets: Buckets = field(default_factory=Buckets)
    same_set_exempt: bool = True
    same_set_window: float = SAME_SET_WINDOW
    refusals: deque[Refusal] = field(default_factory=_log)
    accepted: deque[Accepted] = field(default_factory=_log)
    issuances: deque[Issuance] = field(default_factory=_log)
    failures: deque[Failure] = field(default_factory=_log)
    overshoots: deque[Overshoot] = field(default_factory=_log)
    paused: set[str] = field(default_factory=set)
    """Identifiers, for every account; and pairs."""
    _issued: OrderedDict[str, int] = field(default_factory=OrderedDict)
    _accounts: OrderedDict[str, bool] = field(default_factory=OrderedDict)
    _orders: OrderedDict[str, Order] = field(default_factory=OrderedDict)
    _authorizations: OrderedDict[str, Authorization] = field(default_factory=OrderedDict)
    _challenges: OrderedDict[str, str] = field(default_factory=OrderedDict)

    def forget(self) -> None:
        """Full buckets and empty lists; what there is at Pebble stays known."""
        self.buckets.forget()
        self.paused.clear()
        self._issued.clear()
        for log in (self.refusals, self.accepted, self.issuances, self.failures, self.overshoots):
            log.clear()

    def request(self, address: str, endpoint: str, now: int) -> Denial | None:
        """Any request, by its kind of endpoint."""
        return self.buckets.all_or_nothing((Charge(REQUESTS + endpoint, address),), now)

    def registration_wanted(self, address: str, key: str, now: int) -> Denial | tuple[Charge, ...]:
        """A newAccount that may create one; the charges have to go back when it does not."""
        if key in self._accounts:
            return ()
        network = range_key(address)
        charges = (
            Charge(REGISTRATIONS_PER_ADDRESS, address),
            *((Charge(REGISTRATIONS_PER_RANGE, network),) if network else ()),
        )
        return self.buckets.all_or_nothing(charges, now) or charges

    def registered(self, key: str) -> None:
        """The key has an account."""
        _remember(self._accounts, key, value=True)

    def order_wanted(
        self, account: str, identifiers: Sequence[str], now: int, *, replacement: bool = False
    ) -> Denial | Paused | Admission:
        """A newOrder; its token has to go back when Pebble refuses it. A `replacement` is asked for none."""
        if paused := tuple(name for name in identifiers if self._is_paused(account, name, now)):
            return Paused(paused)
        if replacement:
            return Admission(account, tuple(identifiers), exempt=True, charges=())
        exempt = self._is_renewal(identifiers, now)
        charges = [
            Charge(FAILED_AUTHORIZATIONS, pair, take=False)
            for pair in dict.fromkeys(pair_key(account, name) for name in identifiers)
        ]
        charges.append(Charge(CERTIFICATES_PER_SET, set_key(identifiers), take=False))
        if not exempt:
            charges.append(Charge(ORDERS_PER_ACCOUNT, account))
            charges += [Charge(CERTIFICATES_PER_DOMAIN, domain, take=False) for domain in _domains(identifiers)]
        denial = self.buckets.all_or_nothing(charges, now)
        return denial or Admission(account, tuple(identifiers), exempt, tuple(charges))

    def order_made(self, admission: Admission, order: str, authorizations: Sequence[str], now: int) -> None:
        """Pebble took it."""
        account, identifiers, exempt, _ = admission
        self.accepted.append(Accepted(now / SECOND, account, identifiers, exempt))
        _remember(self._orders, order, Order(account, identifiers, tuple(authorizations)))
        name = identifiers[0] if len(authorizations) == 1 else None
        for authorization in authorizations:
            if authorization not in self._authorizations:
                _remember(self._authorizations, authorization, Authorization(account, name))

    def order_seen(self, order: str, status: str, now: int) -> None:
        """An answer shows an order."""
        found = self._orders.get(order)
        if found is None:
            return
        if status == "invalid":
            del self._orders[order]
            known = [self._authorizations.get(authorization) for authorization in found.authorizations]
            pending = [each for each in known if each and each.status == "pending"]
            # Of several that may have failed, the one that did will be asked for.
            if len(pending) == 1 and all(each is None or each.status != "invalid" for each in known):
                self._outcome(pending[0], "invalid", now)
        elif status != "pending":
            if not found.proved:
                found.proved = True
                for authorization in found.authorizations:
                    if each := self._authorizations.get(authorization):
                        self._outcome(each, "valid", now)
            if status != "ready":
                del self._orders[order]
                self._issue(found, now)

    def authorization_seen(self, authorization: str, status: str, now: int, identifier: str | None = None) -> None:
        """An answer shows an authorization."""
        if found := self._authorizations.get(authorization):
            found.identifier = identifier or found.identifier
            self._outcome(found, status, now)

    def challenge_seen(self, challenge: str, status: str, now: int, authorization: str | None) -> None:
        """An answer shows a challenge; Pebble names the authorization only when it is told to look."""
        if authorization is not None:
            _remember(self._challenges, challenge, authorization)
        if status in {"valid", "invalid"} and (decided := self._challenges.get(challenge)):
            self.authorization_seen(decided, status, now)

    def steal(self, limit: str, key: str, count: int, now: int) -> int:
        """Somebody else spends up to `count` tokens; how many there were to spend."""
        state = self.buckets.look(limit, key, now)
        if state is None:
            raise ValueError(f"{limit} does not hold")
        taken = min(count, max(0, state.remaining))
        self.buckets.spend(limit, key, now, taken)
        return taken

    def pause(self, identifier: str) -> None:
        """Refuse orders for a name, whoever asks."""
        self.paused.add(bare(identifier))

    def unpause(self, identifier: str, now: int) -> None:
        """What a person does on the CA's page: the name may be ordered again, by every account."""
        ending = f" {bare(identifier)}"
        self.paused = {entry for entry in self.paused if not f" {entry}".endswith(ending)}
        for key in self.buckets.state(now).get(CONSECUTIVE_FAILURES, {}):
            if key.endswith(ending):
                self.buckets.fill(CONSECUTIVE_FAILURES, key)

    def _is_paused(self, account: str, name: str, now: int) -> bool:
        pair = pair_key(account, name)
        if not self.paused.isdisjoint((bare(name), pair)):
            return True
        state = self.buckets.look(CONSECUTIVE_FAILURES, pair, now)
        return state is not None and state.remaining < 1

    def _is_renewal(self, identifiers: Sequence[str], now: int) -> bool:
        issued = self._issued.get(set_key(identifiers))
        return self.same_set_exempt and issued is not None and now - issued < self.same_set_window * SECOND

    def _outcome(self, found: Authorization, status: str, now: int) -> None:
        if found.status != "pending" or status == "pending":
            return
        found.status = status
        if found.identifier is None:
            return
        pair = pair_key(found.account, found.identifier)
        if status == "valid":
            self.buckets.fill(CONSECUTIVE_FAILURES, pair)
        elif status in {"invalid", "deactivated"}:
            self.failures.append(Failure(now / SECOND, found.account, found.identifier))
            self._count(FAILED_AUTHORIZATIONS, pair, now)
            self._count(CONSECUTIVE_FAILURES, pair, now)
            state = self.buckets.look(CONSECUTIVE_FAILURES, pair, now)
            if state is not None and state.remaining < 1:
                self.paused.add(pair)  # until a person ends it, however many tokens come back

    def _issue(self, order: Order, now: int) -> None:
        exempt, domains = self._is_renewal(order.identifiers, now), _domains(order.identifiers)
        self.issuances.append(Issuance(now / SECOND, order.account, order.identifiers, domains, exempt))
        if not exempt:
            for domain in domains:
                self._count(CERTIFICATES_PER_DOMAIN, domain, now)
        exact = set_key(order.identifiers)
        self._count(CERTIFICATES_PER_SET, exact, now)
        _remember(self._issued, exact, now)

    def _count(self, limit: str, key: str, now: int) -> None:
        decision = self.buckets.spend(limit, key, now)
        if decision is not None and not decision.allowed:
            self.overshoots.append(Overshoot(now / SECOND, limit, key))


def _domains(identifiers: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted({domain_key(identifier) for identifier in identifiers}))


def _remember(kept: OrderedDict[str, Value], key: str, value: Value) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > KEPT:
        kept.popitem(last=False)
