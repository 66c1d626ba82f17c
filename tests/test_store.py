"""Redis: refused or silent is one sentence; one of your own, with TLS and few rights, is enough for everything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from certfleet.client import open_client
from certfleet.demo.ports import free_port
from certfleet.demo.story import running_fleet
from certfleet.errors import RedisUnavailable
from certfleet.models import Host, utcnow
from certfleet.overview import State
from certfleet.settings import Settings
from certfleet.store import open_store
from tests.private_redis import private_redis

LIMIT = 60.0  # seconds that anything here may take


async def refused(url: str) -> str:
    """The sentence that comes instead of a store."""
    with pytest.raises(RedisUnavailable) as error:
        async with open_store(Settings(redis_url=url), patience=0.5):
            raise AssertionError("it was opened")
    assert "geheim" not in str(error.value)
    assert "p%40ss" not in str(error.value)
    return str(error.value)


async def test_what_does_not_let_us_in(short_directory: Path) -> None:
    """Nobody there, a wrong password, no TLS, a certificate that nobody vouches for: each says which."""
    async with private_redis(short_directory / "redis") as own:
        assert "CERTFLEET_REDIS_URL" in await refused(f"redis://u:geheim@127.0.0.1:{free_port()}/0")
        assert "refuses us: " in await refused(own.url.replace("p%40ss%2Fword", "geheim"))
        assert "refuses us: " in await refused(own.url.replace("certfleet:", "default:", 1))
        assert "CERTFLEET_REDIS_URL" in await refused(plain := own.url.partition("?")[0].replace("rediss:", "redis:"))
        assert "'ssl_ca_certs'" in await refused(plain + "?ssl_ca_certs=/ca.pem")
        assert "socket_timeout" in await refused(plain + "?socket_timeout=soon")
        assert "certificate verify failed" in await refused(own.url.partition("?")[0])
        assert "verify failed" in await refused(own.url.replace("127.0.0.1", "localhost"))


async def test_the_whole_stack_on_a_redis_of_ones_own(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With TLS and the ACL that we hand out: ticks, checks and orders happen, and every key carries the prefix."""
    async with private_redis(short_directory / "redis") as own:
        monkeypatch.setenv("CERTFLEET_REDIS_URL", own.url)
        monkeypatch.setenv("CERTFLEET_WORKERS", "1")
        settings = Settings(home=short_directory / "home", responder_port=free_port(), flower_port=free_port())
        async with running_fleet(settings, short_directory / "fleet.log"), open_client(settings) as client:
            await client.add_host(Host("web1"))
            properties = {"email": "ops@example.com", "ca": f"https://127.0.0.1:{free_port()}/directory"}
            app = await client.add_app("blog", ["blog.example.com"], ["web1"], properties)
            # Enabled without a word to the workers: a tick has to find it, a check to order, an order to try.
            fleet = client._fleet
            await fleet.inventory.save_app(replace(app, enabled=True), app)
            await fleet.agenda.schedule("check:blog", utcnow())
            [view] = await client.wait(["blog"], LIMIT)
            assert view.state is State.FAILING, "an order was tried"
            await client.renew(["blog"])
            keys = [key async for key in own.boss.scan_iter(count=1000)]
            assert await own.denied() == []
            assert keys
            assert [key for key in keys if not key.startswith("certfleet:")] == []
        logs = "".join(file.read_text() for file in (settings.home / "log").iterdir())
        for word in ("No permissions", "NOPERM", "insecure", "p@ss", "p%40ss"):
            assert word not in logs
