"""The crowd before a CA with limits: what the benchmark promises holds, and it keeps its JSON contract."""

from __future__ import annotations

import json

import pytest

from tests.bench.test_issue import bench


@pytest.mark.parametrize("stolen", [0, 6])
def test_a_crowd_gets_through(stolen: int) -> None:
    """Everybody is issued once, in the order of urgency, with few looks; refused only where somebody else stole."""
    words = ("fleet", "--apps", "60", "--domains", "6", "--accounts", "2", "--workers", "2", "--json")
    answer = bench(*words, "--stolen-tokens", str(stolen))
    assert answer.returncode == 0, answer.stderr
    figures = json.loads(answer.stdout)
    assert figures["version"] == 1
    assert (figures["issued"], figures["issued_twice"]) == (60, 0)
    assert figures["waited"] > 30
    assert figures["rate_limited_answers"] <= 3 * figures["stolen_tokens"]
    assert figures["most_rate_limited_answers_per_bucket_and_refill"] <= (1 if stolen else 0)
    assert figures["admission_attempts_per_certificate"] <= 3
    assert figures["urgency_inversions"] == 0
    assert figures["longest_idle_token_seconds"] >= 0
    assert figures["slow_downs"] == 0


def test_wrong_usage_starts_nothing() -> None:
    """A number out of range: exit status 2, said on standard error."""
    answer = bench("fleet", "--apps", "0")
    assert answer.returncode == 2
    assert "'0'" in answer.stderr
