"""A fleet before a CA that enforces its limits: the CA, the limits on both sides, and a crowd that has to wait.

The CA's limits are those of the tests (tests/ca): its own book-keeping, nothing of certfleet's.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from bench.ground import ASIDE
from certfleet.client import Client, open_client
from certfleet.demo.nginx import Nginx, private_nginx
from certfleet.demo.ports import free_port
from certfleet.demo.story import furnish, running_fleet
from certfleet.lifecycle.fleet import Fleet, open_fleet
from certfleet.lifecycle.records import check_member
from certfleet.models import App, Certificate, Host, KeyType, dump, utcnow
from certfleet.settings import Settings
from tests.ca.limits import LETS_ENCRYPT, Limit
from tests.ca.strict import StrictCA, strict_ca
from tests.rig import written

LOCATION = "location ^~ /.well-known/acme-challenge/ {{ proxy_pass http://127.0.0.1:{port}; }}"
VALIDITY = timedelta(days=90)
URGENCIES = timedelta(days=20)  # between the most and the least urgent renewal
TENANTS = ("red", "blue")
NEW_NAMES = 5  # each fifth app is a new name, the others are renewals
AT_ONCE = 200  # records written at once


@dataclass(frozen=True, slots=True)
class Limited:
    """What takes part."""

    directory: Path
    ca: StrictCA
    nginx: Nginx
    settings: Settings
    client: Client
    books: Fleet
    stack: int
    """Process id of the supervisor."""


@dataclass(frozen=True, slots=True)
class Member:
    """One app of the crowd, and how urgent it is by what was arranged."""

    app: str
    email: str
    domain: str
    tenant: str
    """Of a new name; renewals have none."""
    expires: datetime | None
    """When what a renewal has so far ends; None for a new name."""

    @property
    def new_name(self) -> bool:
        """It has no certificate yet."""
        return self.expires is None

    @property
    def compared_with(self) -> tuple[str, str]:
        """Those who need the same tokens."""
        return self.email, self.domain


def limits_for(apps: int, domains: int, accounts: int, seconds: float) -> dict[str, Limit]:
    """Every limit of Let's Encrypt, scaled so that most of the apps have to wait, and all are done in about `seconds`.

    Certificates per domain bind; orders per account allow a fifth more. Requests per second are the real ones.
    """
    each = apps / domains
    domain_burst = max(1, round(each / 10))
    domain_interval = seconds / max(1.0, each - domain_burst)
    account_burst = max(1, round(apps / accounts / 12))
    account_interval = seconds / max(1.0, apps / accounts - account_burst) / 1.2
    week, hour = 604_800.0, 3_600.0
    scale = domain_interval / (week / 50)
    return dict(LETS_ENCRYPT) | {
        "orders-per-account": Limit(1, account_interval, account_burst),
        "certificates-per-domain": Limit(1, domain_interval, domain_burst),
        "certificates-per-set": Limit(5, week * scale, 5),
        "failed-authorizations": Limit(5, hour * scale, 5),
        "consecutive-failures": Limit(1, 86_400 * scale, 1_152),
    }


@asynccontextmanager
async def limited(limits: Mapping[str, Limit], *, workers: int) -> AsyncIterator[Limited]:
    """Start everything; files are gone afterwards unless something failed."""
    # A unix socket's path is short: /tmp, whatever TMPDIR says.
    directory = Path(tempfile.mkdtemp(prefix="certfleet-bench-", dir="/tmp"))
    http_port, tls_port = free_port(), free_port()
    async with (
        private_nginx(directory / "nginx", http_port=http_port, tls_port=tls_port) as nginx,
        strict_ca(
            directory / "ca", http_port=http_port, limits=limits, same_set_exempt=False, bad_nonce_percent=0
        ) as ca,
    ):
        settings = Settings(
            home=directory / "fleet",
            responder_port=free_port(),
            flower_port=free_port(),
            nameservers=[ca.dns],
            workers=workers,
        )
        async with (
            running_fleet(settings, directory / "fleet.log") as stack,
            open_client(settings) as client,
            open_fleet(settings) as books,
        ):
            await furnish(client, settings, ca, nginx, 0)
            await client.add_host(Host(ASIDE, zone=ASIDE))
            await mirror(client, ca, limits)
            yield Limited(directory, ca, nginx, settings, client, books, stack)
    shutil.rmtree(directory)


async def mirror(client: Client, ca: StrictCA, limits: Mapping[str, Limit]) -> None:
    """Tell the fleet what the CA enforces."""
    await client.set_limits(written(limits), ca=ca.directory)


async def crowd(ground: Limited, *, apps: int, domains: int, accounts: int, seed: int) -> list[Member]:
    """The apps in the books, enabled, nothing due yet: renewals of all urgencies, and new names of two tenants."""
    chance = random.Random(seed)  # noqa: S311  the same crowd for the same seed
    # All of them due: less than a third of the validity is left.
    ends = [utcnow() + timedelta(hours=2) + URGENCIES * number / apps for number in range(apps)]
    chance.shuffle(ends)
    members, kept = [], []
    for number in range(apps):
        name, domain, email = f"app{number:05}", f"d{number % domains:03}.test", f"ops{number % accounts}@example.com"
        tenant = TENANTS[number // NEW_NAMES % 2] if number % NEW_NAMES == 0 else None
        kept.append(
            App(
                name,
                (f"{name}.{domain}",),
                (ASIDE,),
                enabled=True,
                properties={"email": email} | ({"tenant": tenant} if tenant else {}),
            )
        )
        members.append(Member(name, email, domain, tenant or "", None if tenant else ends[number]))
    for start in range(0, apps, AT_ONCE):
        pipe = ground.books.store.redis.pipeline()
        for number in range(start, min(start + AT_ONCE, apps)):
            app = kept[number]
            pipe.set(ground.books.store.key("app", app.name), dump(app))
            pipe.zadd(ground.books.store.key("apps"), {app.name: 0})
            if not members[number].new_name:
                served = _certificate(app, ground.ca.directory, ends[number])
                pipe.set(ground.books.store.key("certificate", app.name), dump(served))
        await pipe.execute()
    for number in range(domains):
        ground.nginx.add_site(
            f"d{number:03}", [f"*.d{number:03}.test"], LOCATION.format(port=ground.settings.responder_port)
        )
    await ground.nginx.reload()
    return members


def _certificate(app: App, ca: str, end: datetime) -> Certificate:
    """What such an app has had so far; it is only looked at, never installed."""
    return Certificate(
        app=app.name,
        generation=1,
        ca=ca,
        identifiers=app.identifiers,
        key_type=KeyType.P256,
        serial="1",
        not_before=end - VALIDITY,
        not_after=end,
        issued=end - VALIDITY,
        leaf="",
        chain="none",
        sealed_key="",
    )


async def come_due(ground: Limited, members: Sequence[Member]) -> None:
    """Let every app be looked at now."""
    now = utcnow()
    for start in range(0, len(members), AT_ONCE):
        for member in members[start : start + AT_ONCE]:
            await ground.books.agenda.schedule(check_member(member.app), now)
