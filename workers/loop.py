"""The one event loop of a worker process, in one thread for its whole life, and the fleet opened in it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
import uvloop

from certfleet.errors import RedisUnavailable
from certfleet.lifecycle.workbench import Workbench, open_workbench
from certfleet.settings import Settings

log = structlog.get_logger(__name__)
Result = TypeVar("Result")
REDIS_RETRY = 1.0  # seconds
CLOSE_TIMEOUT = 30.0  # seconds for connections to end; the process ends without them after that


class FleetLoop:
    """Runs coroutines for Celery's threads; they share its connections."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop = uvloop.new_event_loop()
        self._opened: concurrent.futures.Future[Workbench] = concurrent.futures.Future()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="fleet-loop", daemon=True)
        self._thread.start()

    def run(self, step: Callable[[Workbench], Awaitable[Result]], timeout: float) -> Result:
        """Run a step and wait for it. Raises TimeoutError after `timeout` seconds, the step is cancelled then."""
        bench = self._opened.result(timeout)

        async def bounded() -> Result:
            async with asyncio.timeout(timeout):
                return await step(bench)

        return asyncio.run_coroutine_threadsafe(bounded(), self._loop).result()

    def close(self) -> None:
        """End the connections and the thread."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(CLOSE_TIMEOUT)

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._hold())

    async def _hold(self) -> None:
        try:
            while not self._closing.is_set():
                try:
                    async with open_workbench(self._settings) as bench:
                        self._opened.set_result(bench)
                        await self._closing.wait()
                except RedisUnavailable as error:  # as patient as Celery beside us
                    log.warning("waiting for Redis", error=str(error))
                    await asyncio.sleep(REDIS_RETRY)
        except Exception as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)  # every step that wants the workbench raises it
