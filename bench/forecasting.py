"""How long a forecast takes: so many apps want their first certificate of Let's Encrypt at one moment.

`python -m bench.forecasting SOCKET SHAPE APPS` is the process that measures, beside an empty Redis; one JSON line out.
First the command as a person runs it, from a plan file to JSON. Then, without Redis and files, its two largest parts.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench import ROOT, BenchFailed
from certfleet.limits.buckets import Charge
from certfleet.limits.forecast import forecast
from certfleet.limits.keys import order_buckets
from certfleet.limits.presets import limits_of, presets
from certfleet.limits.simulation import Wish

CA = "letsencrypt"
NOW = 1_800_000_000_000_000  # microseconds
DAY = 86_400  # seconds
LIMIT = 240.0  # seconds for one command
# It dies with us: its input is nothing that could end.
COMMAND = ("setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-c", "import certfleet.cli; certfleet.cli.main()")


@dataclass(frozen=True, slots=True)
class Shape:
    """How the apps spread over registered domains and accounts; no number of domains: each has its own."""

    name: str
    accounts: int
    domains: int | None


SHAPES = {
    "domains_2000": Shape("2,000 domains, 3 accounts", 3, 2000),
    "one_domain": Shape("one domain, 1 account", 1, 1),
    "own_domains": Shape("each its own domain, 1 account", 1, None),
}


@dataclass(frozen=True, slots=True)
class Forecasted:
    """What one shape took."""

    shape: str
    name: str
    apps: int
    command_seconds: float
    """`certfleet forecast --plan FILE --json`, from its start to its end."""
    command_peak_mb: int
    """Of memory."""
    buckets_seconds: float
    """Which buckets each order asks, from its names."""
    simulation_seconds: float
    """When each order is admitted, and what it waits for."""
    done: int
    """Apps that get their certificate, as far as is looked ahead."""
    days: float | None
    """From now until the last one does; None: not all do."""
    binding: str | None
    """The limit that the last one waits for."""


async def measure(socket: Path, shape: str, apps: int) -> Forecasted:
    """Forecast one shape in a process of its own. Raises BenchFailed."""
    what = f"the forecast of {apps} apps, {SHAPES[shape].name},"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.forecasting", str(socket), shape, str(apps)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 2 * LIMIT)
    except TimeoutError:
        raise BenchFailed(f"{what} took more than {2 * LIMIT:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise BenchFailed(f"{what} failed; its message is above")
    fields: dict[str, Any] = json.loads(output)
    return Forecasted(**fields)


def _names(shape: Shape, number: int) -> tuple[str, str]:
    """The account's address and the domain of an app."""
    domain = number if shape.domains is None else number % shape.domains
    return f"ops{number % shape.accounts}@site.example.org", f"app{number}.site{domain}.org"


def _command(socket: Path, shape: Shape, apps: int) -> tuple[float, dict[str, Any]]:
    """Seconds, and the summary that it prints."""
    plan = socket.with_name("plan.csv")
    with plan.open("w") as file:
        file.write("app,domains,email\n")
        for number in range(apps):
            account, name = _names(shape, number)
            file.write(f"app{number},{name},{account}\n")
    began = time.perf_counter()
    answer = subprocess.run(
        [*COMMAND, "forecast", "--plan", str(plan), "--ca", CA, "--json"],
        env=os.environ | {"CERTFLEET_HOME": str(socket.parent), "CERTFLEET_REDIS_URL": f"unix://{socket}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
        timeout=LIMIT,
    )
    seconds = time.perf_counter() - began
    summary: dict[str, Any] = json.loads(answer.stdout)["summary"]
    return seconds, summary


def _wishes(shape: Shape, apps: int) -> list[Wish]:
    limits = limits_of(CA, presets()[CA].directory)
    wishes = []
    for number in range(apps):
        account, name = _names(shape, number)
        buckets = order_buckets(limits, account=account, identifiers=[name])
        charges = tuple(Charge(bucket) for bucket in buckets.ordered + buckets.issued)
        wishes.append(Wish(f"app{number}", "t:", number, charges, NOW))
    return wishes


def _measured(socket: Path, key: str, apps: int) -> Forecasted:
    shape = SHAPES[key]
    seconds, summary = _command(socket, shape, apps)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    gc.disable()  # as the command does
    began = time.perf_counter()
    wishes = _wishes(shape, apps)
    ready = time.perf_counter()
    forecast(wishes, {}, NOW)
    done = time.perf_counter()
    return Forecasted(
        shape=key,
        name=shape.name,
        apps=apps,
        command_seconds=round(seconds, 2),
        command_peak_mb=round(peak),
        buckets_seconds=round(ready - began, 2),
        simulation_seconds=round(done - ready, 2),
        done=summary["done"],
        days=_days(summary["asked_at"], summary["done_at"]),
        binding=summary["binding_limit"],
    )


def _days(start: str, end: str | None) -> float | None:
    if end is None:
        return None
    return round((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() / DAY, 1)


def _main(words: Sequence[str]) -> None:
    socket, shape, apps = words
    print(json.dumps(asdict(_measured(Path(socket), shape, int(apps)))), flush=True)


if __name__ == "__main__":
    _main(sys.argv[1:])
