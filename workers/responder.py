"""The HTTP responder (`python -m workers.responder`): challenge answers and health.

`GET /.well-known/acme-challenge/<token>` answers the key authorization (RFC 8555 §8.3) that the order
machine keeps in Redis, `GET /healthz` whether Redis answers. The web server in front passes the first on.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import structlog
import uvloop
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from redis.exceptions import RedisError

from certfleet.errors import CertfleetError, ConfigurationError, RedisUnavailable
from certfleet.settings import Settings, load_settings
from certfleet.store import Store, open_store
from workers.logs import configure_logs
from workers.supervisor import tell_ready

TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")  # base64url, RFC 8555 §8.1; nothing else reaches Redis
AT_ONCE = 100  # questions to Redis
WAITING = 1000  # requests in all; more are told to come again
ANSWER_TIME = 5.0  # seconds for Redis to answer
REDIS_PAUSE = 1.0  # seconds between two tries at start
IDLE_TIME = 15.0  # seconds that an unused connection is kept
STOP_TIME = 5.0  # seconds for open requests at the end

STORE = web.AppKey("store", Store)

log = structlog.get_logger("certfleet.responder")


def make_app(settings: Settings) -> web.Application:
    """The responder as an aiohttp application; its start waits for Redis."""

    async def store_of_app(app: web.Application) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            app[STORE] = await _open_at_last(settings, stack)
            yield

    app = web.Application(middlewares=[_bounded()])
    app.cleanup_ctx.append(store_of_app)
    app.router.add_get("/.well-known/acme-challenge/{token}", challenge)
    app.router.add_get("/healthz", healthz)
    return app


async def _open_at_last(settings: Settings, stack: AsyncExitStack) -> Store:
    while True:
        try:
            return await stack.enter_async_context(open_store(settings))
        except RedisUnavailable as error:
            log.warning("waiting for Redis", error=str(error))
        await asyncio.sleep(REDIS_PAUSE)


async def challenge(request: web.Request) -> web.Response:
    """The key authorization of a token; 404 for one that is unknown or none at all."""
    token = request.match_info["token"]
    if not TOKEN.fullmatch(token):
        raise web.HTTPNotFound
    store = request.app[STORE]
    async with asyncio.timeout(ANSWER_TIME):
        answer: str | None = await store.redis.get(store.key("challenge", token))
    if answer is None:
        raise web.HTTPNotFound
    return web.Response(text=answer, headers={"Cache-Control": "no-store"})


async def healthz(request: web.Request) -> web.Response:
    """200 when Redis answers."""
    async with asyncio.timeout(ANSWER_TIME):
        await request.app[STORE].redis.ping()
    return web.Response(text="ok\n")


def _bounded() -> Middleware:
    """Few requests ask Redis at once, some wait, the rest get 503; so does everyone while Redis is away."""
    turns = asyncio.Semaphore(AT_ONCE)
    inside = 0

    @web.middleware
    async def bounded(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal inside
        if inside >= WAITING:
            raise web.HTTPServiceUnavailable(headers={"Retry-After": "1"})
        inside += 1
        try:
            async with turns:
                return await handler(request)
        except (OSError, TimeoutError, RedisError) as error:
            log.warning("Redis does not answer", error=type(error).__name__)
            raise web.HTTPServiceUnavailable(headers={"Retry-After": "1"}) from error
        finally:
            inside -= 1

    return bounded


async def serve(settings: Settings) -> None:
    """Serve on the configured address until SIGTERM or SIGINT. Raises ConfigurationError when it is taken."""
    runner = web.AppRunner(make_app(settings), access_log=None, keepalive_timeout=IDLE_TIME, shutdown_timeout=STOP_TIME)
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  we are in one
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await runner.setup()
        await _listen(runner, settings)
        tell_ready()
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        log.info("ending")
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, settings: Settings) -> None:
    try:
        await web.TCPSite(runner, settings.responder_address, settings.responder_port).start()
    except OSError as error:
        raise ConfigurationError(
            f"the responder cannot listen on {settings.responder_address} port {settings.responder_port}: "
            f"{error.strerror}; see who does with `ss -ltnp`, or set CERTFLEET_RESPONDER_PORT"
        ) from error


def main() -> int:
    """Serve until SIGTERM; the exit status."""
    try:
        settings = load_settings()
        configure_logs(settings.log_level)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    except CertfleetError as error:
        sys.stderr.write(f"responder: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
