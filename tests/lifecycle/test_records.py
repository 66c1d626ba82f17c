"""Writes are fenced, all or none, and none takes back what is newer."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import redis

from certfleet.agenda import Agenda, Claim
from certfleet.errors import LeaseLost
from certfleet.inventory import Inventory
from certfleet.lifecycle import records as records_module
from certfleet.lifecycle.records import Records, check_member, host_member, newly_wanted, order_member
from certfleet.models import App, Certificate, Installation, KeyType, Order, Renewal, dump, load, utcnow
from certfleet.store import Store
from tests.certificate_records import record

BLOG = App("blog", ("blog.example.com",), ("web1",), enabled=True)


class Books:
    """Agenda and records on the test's Redis, with one app."""

    def __init__(self, store: Store) -> None:
        self.agenda = Agenda(store, 60)
        self.records = Records(store, self.agenda)
        self.inventory = Inventory(store)

    async def claim(self, member: str) -> Claim:
        await self.agenda.schedule(member, utcnow())
        claim = await self.agenda.claim(member)
        assert claim is not None
        return claim

    async def issue(self, generation: int) -> None:
        """As the order machine ends: a certificate of this generation, wanted on every host."""
        claim = await self.claim(order_member("blog"))
        known = (await self.records.installations("blog")).values() or [Installation("blog", "web1")]
        await self.records.complete(claim, an_order(), a_certificate(generation), "chain", known)
        await self.agenda.finish(claim, None)


@pytest.fixture
async def books(store: Store) -> Books:
    opened = Books(store)
    await opened.inventory.add_app(BLOG)
    return opened


def an_order() -> Order:
    return Order("1", "blog", "letsencrypt", "ops@example.com", BLOG.identifiers, KeyType.P256, "first issue", utcnow())


def a_certificate(generation: int) -> Certificate:
    return record(
        BLOG, utcnow(), generation=generation, serial=f"{generation:x}", leaf="leaf", chain="name", sealed_key="sealed"
    )


def write_now(redis_socket: Path, installation: Installation) -> None:
    """As another process, in the middle of something of ours."""
    with redis.Redis(unix_socket_path=str(redis_socket)) as other:
        other.hset(Store(other, "certfleet:").key("installations", "blog"), installation.host, dump(installation))


def outcome(generation: int, error: str | None = None) -> Installation:
    return Installation("blog", "web1", wanted=generation, installed=generation, served=generation, error=error)


@pytest.mark.parametrize("error", [None, "the host was down"])
async def test_an_older_visit_never_takes_a_newer_certificate_off_the_list(books: Books, error: str | None) -> None:
    """A visit that ends after a renewal, well or badly, leaves the newer generation wanted and waiting."""
    await books.issue(1)
    visit = await books.claim(host_member("web1"))
    await books.issue(2)
    await books.records.write(visit, books.records.outcome_saved(outcome(1, error)))
    assert (await books.records.installations("blog"))["web1"].wanted == 2
    assert await books.records.pending("web1") == ["blog"]
    await books.records.write(visit, books.records.outcome_saved(outcome(2)))
    assert (await books.records.installations("blog"))["web1"] == outcome(2)
    assert await books.records.pending("web1") == []


async def test_a_check_that_knows_the_certificate_before_wants_nothing_older(books: Books) -> None:
    """It waited for the CA's renewal information while an order ended: what is wanted, and failed, stays as it is."""
    await books.issue(1)
    await books.issue(2)
    failed = dataclasses.replace(outcome(2, "refused"), attempts=3, retry_at=utcnow() + timedelta(hours=1))
    await books.records.amend("blog", "web1", lambda _: failed)
    change = partial(newly_wanted, generation=1)
    assert await books.records.amend("blog", "web1", change, pending=True) == failed
    assert (await books.records.installations("blog"))["web1"] == failed


async def test_a_visit_leaves_nothing_of_an_app_that_was_removed(books: Books) -> None:
    """Not an installation, not a place on the host's list: only the number is kept."""
    await books.issue(1)
    visit = await books.claim(host_member("web1"))
    await books.inventory.remove_app(BLOG, *await books.records.app_forgotten(BLOG))
    await books.records.write(visit, books.records.outcome_saved(outcome(1, "the host was down")))
    assert await books.records.installations("blog") == {}
    assert await books.records.pending("web1") == []
    assert await books.records.last_generation("blog", []) == 1


async def test_one_app_of_a_visit_that_is_gone_does_not_hinder_another(books: Books) -> None:
    """Each app's part of a write stands alone."""
    await books.inventory.add_app(App("wiki", ("wiki.example.com",), ("web1",)))
    await books.issue(1)
    visit = await books.claim(host_member("web1"))
    gone = Installation("gone", "web1", wanted=1, served=1)
    commands = [*books.records.outcome_saved(gone), *books.records.outcome_saved(outcome(1))]
    await books.records.write(visit, commands)
    assert (await books.records.installations("blog"))["web1"].served == 1
    assert await books.records.installations("gone") == {}


async def test_what_a_look_found_never_hides_what_a_visit_wrote(books: Books) -> None:
    """The endpoint was asked with a record that is not the present one any more: what was seen is left out."""
    await books.issue(1)
    before = outcome(1)
    await books.records.amend("blog", "web1", lambda _: before)
    look = await books.claim(check_member("blog"))
    failed = outcome(1, "its files are gone")
    await books.records.amend("blog", "web1", lambda _: failed)
    await books.records.write(look, books.records.change_saved(before, dataclasses.replace(before, asked=utcnow())))
    assert (await books.records.installations("blog"))["web1"] == failed
    asked = dataclasses.replace(failed, asked=utcnow())
    await books.records.write(look, books.records.change_saved(failed, asked))
    assert (await books.records.installations("blog"))["web1"] == asked
    assert await books.records.pending("web1") == ["blog"], "it failed: its host has work with it"


async def test_what_a_person_asks_for_never_hides_what_a_visit_wrote(books: Books, redis_socket: Path) -> None:
    """A visit ends between reading and writing: what it wrote stays, and the wish comes on top."""
    await books.issue(1)
    reads: list[Installation] = []

    def not_asked(known: Installation) -> Installation:
        reads.append(known)
        if len(reads) == 1:
            write_now(redis_socket, dataclasses.replace(outcome(1), asked=utcnow()))
        return dataclasses.replace(known, asked=None, attempts=known.attempts + 1)

    after = await books.records.amend("blog", "web1", not_asked)
    assert [one.served for one in reads] == [0, 1]
    assert after == dataclasses.replace(outcome(1), attempts=1)
    assert await books.records.installations("blog") == {"web1": after}


async def test_a_removed_app_is_not_amended(books: Books, redis_socket: Path) -> None:
    """Neither when it was gone before, nor when it went meanwhile: nothing of it is left behind."""
    await books.issue(1)

    def wanted(known: Installation) -> Installation:
        with redis.Redis(unix_socket_path=str(redis_socket)) as other:
            other.delete(Store(other, "certfleet:").key("app", "blog"))
        return dataclasses.replace(known, wanted=9)

    await books.records.amend("blog", "web1", wanted, pending=True)
    await books.records.amend("gone", "web1", wanted, pending=True)
    assert (await books.records.installations("blog"))["web1"].wanted == 1
    assert await books.records.installations("gone") == {}
    assert await books.records.pending("web1") == ["blog"], "as it was"


async def test_a_person_who_asks_never_brings_back_an_older_window(
    books: Books, redis_socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of a newer certificate keeps its window while a person's wish is on its way: it stays, asked anew."""
    await books.issue(1)
    check = await books.claim(check_member("blog"))
    said = Renewal(1, next_look=utcnow() + timedelta(hours=6), start=utcnow(), end=utcnow(), at=utcnow())
    await books.records.save_renewal(check, "blog", said)
    newer = dataclasses.replace(said, generation=2, end=utcnow() + timedelta(days=1))

    def load_and_be_late(kind: type[Renewal], text: str) -> Renewal:
        monkeypatch.setattr(records_module, "load", load)
        with redis.Redis(unix_socket_path=str(redis_socket)) as other:
            other.set("certfleet:renewal:blog", dump(newer))
        return load(kind, text)

    monkeypatch.setattr(records_module, "load", load_and_be_late)
    now = utcnow()
    await books.records.ask_for_renewal(["blog"], now)
    assert await books.records.renewals(["blog"]) == {"blog": dataclasses.replace(newer, next_look=now)}


async def test_a_stale_holder_writes_nothing(books: Books) -> None:
    """After somebody else has begun, the old holder's save is refused as a whole."""
    await books.agenda.schedule(order_member("blog"), utcnow())
    [message] = await books.agenda.due(1)
    assert await books.agenda.begin(message) is not None
    with pytest.raises(LeaseLost):
        await books.records.save_order(message, an_order())
    assert await books.records.order("blog") is None


async def test_what_a_ca_said_of_an_older_certificate_is_not_kept(books: Books) -> None:
    """The answer comes after the renewal, or after the app was removed: it counts for nobody."""
    await books.issue(1)
    check = await books.claim(check_member("blog"))
    said = Renewal(
        1, next_look=utcnow(), start=utcnow(), end=utcnow(), at=utcnow(), explanation="https://ca.example/why"
    )
    await books.records.save_renewal(check, "blog", said)
    assert await books.records.renewals(["blog", "other"]) == {"blog": said}
    await books.issue(2)
    newer = dataclasses.replace(said, generation=2)
    await books.records.save_renewal(check, "blog", newer)
    await books.records.save_renewal(check, "blog", said)
    assert await books.records.renewals(["blog"]) == {"blog": newer}
    await books.inventory.remove_app(BLOG, *await books.records.app_forgotten(BLOG))
    await books.records.save_renewal(check, "blog", newer)
    await books.records.ask_for_renewal(["blog"], utcnow())
    assert await books.records.renewals(["blog"]) == {}


async def test_a_person_asks_again(books: Books) -> None:
    """The CA is asked with the next check; the instant that was chosen stays."""
    await books.issue(1)
    check = await books.claim(check_member("blog"))
    said = Renewal(1, next_look=utcnow() + timedelta(hours=6), start=utcnow(), end=utcnow(), at=utcnow())
    await books.records.save_renewal(check, "blog", said)
    now = utcnow()
    await books.records.ask_for_renewal(["blog"], now)
    assert await books.records.renewals(["blog"]) == {"blog": dataclasses.replace(said, next_look=now)}
