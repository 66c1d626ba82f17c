"""No secret leaves its place: everything that went through Redis, the logs and Flower is read for them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from certfleet.overview import State
from tests.rig import Rig, running_rig


@pytest.fixture
async def rig(short_directory: Path) -> AsyncIterator[Rig]:
    """A fleet with Flower."""
    async with running_rig(short_directory, flower=True) as running:
        yield running


class Overheard:
    """Every command that any client sends to this Redis, queues and pub/sub included."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.commands: list[str] = []

    async def listen(self) -> None:
        async with self.rig.client._fleet.store.redis.monitor() as monitor:
            async for command in monitor.listen():
                self.commands.append(str(command["command"]))


async def flower(rig: Rig, password: str) -> str:
    """What Flower's pages and API tell somebody who may ask."""
    texts = []
    address = f"http://127.0.0.1:{rig.settings.flower_port}"
    allowed = {"Authorization": aiohttp.encode_basic_auth("certfleet", password)}
    async with aiohttp.ClientSession(headers=allowed) as session:
        for path in (
            "/workers?json=1&refresh=1",
            "/api/workers?refresh=1",
            "/api/tasks",
            "/tasks",
            "/broker",
            "/metrics",
        ):
            async with session.get(address + path, timeout=aiohttp.ClientTimeout(total=20)) as answer:
                texts.append(await answer.text())
    assert any("certfleet.orders.advance" in text for text in texts), "Flower did see the tasks"
    return "\n".join(texts)


def decoded(commands: list[str]) -> str:
    """The commands, and the bodies of Celery's messages, which are base64."""
    bodies = []
    for command in commands:
        for word in command.split('"'):
            with suppress(ValueError, UnicodeDecodeError):
                bodies.append(base64.b64decode(word.strip("\\"), validate=True).decode())
    return "\n".join([*commands, *bodies])


async def test_no_secret_is_seen_outside_its_place(rig: Rig) -> None:
    """Orders that succeed and fail, an install that fails, a renewal: no key, no vault key, no password anywhere."""
    overheard = Overheard(rig)
    listening = asyncio.create_task(overheard.listen())
    await asyncio.sleep(0.2)
    for number in range(3):
        await rig.add(f"shop{number}", **({"key-type": "rsa2048"} if number else {}))
    await rig.client.add_app("lost", ["lost.demo.test"], ["web1"], {})
    await rig.nginx.reload()
    for name in ("shop0", "shop1", "shop2", "lost"):
        await rig.client.enable(name)
    await rig.until(
        "settled", lambda views: sum(v.state is State.SERVED for v in views) == 3 and any(v.error for v in views)
    )
    (rig.nginx.directory / "sites" / "broken.conf").write_text("nonsense;\n")
    await rig.client.renew(["shop0"], force=True)
    await rig.until("install failed", lambda views: sum(v.state is State.FAILING for v in views) == 2)

    password = (rig.settings.home / "flower.password").read_text().strip()
    vault_key = (rig.settings.home / "vault.key").read_text().strip()
    places = {
        "Redis": decoded(overheard.commands),
        "Flower": await flower(rig, password),
        "logs": rig.logs() + (rig.directory / "fleet.log").read_text(),
        "command lines": "\n".join(rig.run_ps()),
        "commands": "".join(
            rig.run(*words).stdout
            for words in (("ls",), ("info", "shop0"), ("info", "lost", "--json"), ("properties",), ("app", "list"))
        ),
    }
    listening.cancel()
    assert len(overheard.commands) > 100
    assert "certfleet.orders.advance" in places["Redis"], "messages were overheard"
    assert json.dumps("gAAAA")[1:-1] in places["Redis"], "sealed keys were overheard"
    for place, text in places.items():
        for secret in ("PRIVATE KEY", vault_key, password):
            assert secret not in text, f"a secret is in {place}"
