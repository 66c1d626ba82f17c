"""The benchmark works and keeps its JSON contract; how fast anything was is nobody's business here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *words],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )


def test_json_has_every_figure() -> None:
    """`issue --json` prints one JSON object with the documented fields, and nothing else on standard output."""
    answer = bench("issue", "--certificates", "10", "--without-certbot", "--json")
    assert answer.returncode == 0, answer.stderr
    figures = json.loads(answer.stdout)
    assert figures["version"] == 1
    assert figures["certificates"] == 10
    for name in (
        "certificates_per_second",
        "cpu_ms_per_certificate",
        "requests_per_certificate",
        "celery_hops_per_certificate",
        "redis_commands_per_certificate",
    ):
        assert figures[name] > 0
        assert figures["served"][name] > 0
    assert figures["requests_per_certificate"] >= 6, "newOrder, authorization, challenge, finalize, order, certificate"
    assert {"workers", "redis", "responder", "beat", "flower", "supervisor"} <= set(figures["cpu_ms_by_process"])
    assert figures["enable_to_served"]["runs"] == 20
    assert [peer["key"] for peer in figures["peers"]] == ["bare_8", "bare_32"]
    for peer in figures["peers"]:
        assert {"name", "certificates_per_second", "cpu_ms_per_certificate", "requests_per_certificate"} <= set(peer)
        assert {f"rate_to_{peer['key']}", f"cpu_to_{peer['key']}"} <= set(figures["ratios"])
    assert {part["step"] for part in figures["inside"]["parts"]} >= {"order"}
    assert {"processor", "cores", "load_before"} <= set(figures["machine"])
    assert {"python", "celery", "redis_server", "pebble"} <= set(figures["versions"])


@pytest.mark.parametrize("words", [("issue", "--certificates", "9"), ("issue", "--certificates", "many"), ("what",)])
def test_wrong_usage_measures_nothing(words: tuple[str, ...]) -> None:
    """A number out of range, no number, an unknown benchmark: exit status 2, said on standard error."""
    answer = bench(*words)
    assert answer.returncode == 2
    assert words[-1] in answer.stderr
    assert not answer.stdout
