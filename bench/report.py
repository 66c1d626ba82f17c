"""The figures of `issue` for people."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from certfleet.cli.output import print_table

if TYPE_CHECKING:
    from bench.issue import Result

COMMANDS = 8  # Redis commands shown
PARTS = 14


def show(result: Result) -> None:
    """Tables and notes on standard output."""
    issued, served = result.issued, result.served
    rows: list[tuple[object, ...]] = [
        _row(
            "certfleet, issued",
            issued.certificates_per_second,
            issued.cpu_ms_per_certificate,
            issued.requests_per_certificate,
        ),
        _row(
            "certfleet, installed and served",
            served.served_per_second or 0,
            served.cpu_ms_per_certificate,
            served.requests_per_certificate,
        ),
    ]
    rows += [
        _row(p.name, p.certificates_per_second, p.cpu_ms_per_certificate, p.requests_per_certificate)
        for p in result.peers
    ]
    print_table(("", "CERTIFICATES/S", "CPU MS EACH", "REQUESTS EACH"), rows)
    print()
    alone = result.enable_to_served
    hops = f"{issued.celery_hops_per_certificate} issued, {served.celery_hops_per_certificate} served"
    commands = f"{issued.redis_commands_per_certificate} issued, {served.redis_commands_per_certificate} served"
    distribution = ", ".join(f"{name.removesuffix('_seconds')} {value}" for name, value in alone.items())
    for line in (
        *(f"{name.replace('_', ' ')}: {value}" for name, value in result.ratios.items()),
        f"Celery hops per certificate: {hops}",
        f"Redis commands per certificate, those inside scripts counted: {commands}",
        f"seconds from enable to served on an idle fleet: {distribution}",
        f"an idle fleet takes {result.idle_cpu_ms_per_second} ms of CPU per second",
        *result.notes,
    ):
        print(line)
    _processes(result)
    _inside(result)
    about, used = result.machine, result.versions
    print(
        f"\n{about['processor']}, {about['cores']} cores, {about['memory_gb']} GB, {about['system']}, "
        f"load before {about['load_before']}\n" + ", ".join(f"{name} {number}" for name, number in used.items())
    )


def _row(name: str, rate: float, cpu_ms: float, requests: float) -> tuple[object, ...]:
    return name, f"{rate:g}", f"{cpu_ms:.2f}", f"{requests:.2f}"


def _processes(result: Result) -> None:
    issued, served = result.issued, result.served
    print("\nWhere the time goes: CPU ms per certificate by process")
    names = dict.fromkeys([*issued.cpu_ms_by_process, *served.cpu_ms_by_process])
    rows = [(n, _ms(issued.cpu_ms_by_process.get(n)), _ms(served.cpu_ms_by_process.get(n))) for n in names]
    rows += [
        (f"not ours: {n}", _ms(issued.others_cpu_ms[n]), _ms(served.others_cpu_ms[n])) for n in issued.others_cpu_ms
    ]
    print_table(("PROCESS", "ISSUED", "SERVED"), rows)
    print("\nRequests to the CA per certificate (issued)")
    print_table(("KIND", "EACH"), list(issued.requests.items()))
    print("\nRedis commands per certificate, most frequent first (issued)")
    print_table(("COMMAND", "EACH"), list(issued.redis_commands.items())[:COMMANDS])


def _inside(result: Result) -> None:
    """A worker's work without Celery: by part, then by step."""
    told, whole = result.inside, result.served.cpu_ms_by_process.get("workers", 0.0)
    by_part: defaultdict[str, float] = defaultdict(float)
    by_step: defaultdict[str, float] = defaultdict(float)
    for part in told.parts:
        by_part[part.part] += part.cpu_ms_per_certificate
        by_step[part.step or "the loop does not tell"] += part.cpu_ms_per_certificate
    print(
        f"\nA worker's work without Celery, issued, installed and served: {told.cpu_ms_per_certificate} ms "
        f"each ({told.looks} looks); with Celery and its threads: {whole:.2f} ms"
    )
    for heading, by in (("PART", by_part), ("STEP", by_step)):
        rows = [
            (name, _ms(ms), f"{ms / told.cpu_ms_per_certificate:.0%}")
            for name, ms in sorted(by.items(), key=lambda entry: -entry[1])[:PARTS]
        ]
        print_table((heading, "CPU MS EACH", "SHARE"), rows)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
