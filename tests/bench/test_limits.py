"""The benchmark works and keeps its JSON contract; how fast anything was is nobody's business here."""

from __future__ import annotations

import json
from itertools import product

import pytest

from tests.bench.test_issue import bench


def test_json_has_every_figure() -> None:
    """`limits --json` prints one JSON object with every client in every case, and nothing else on standard output."""
    answer = bench("limits", "--seconds", "0.1", "--apps", "200", "--json")
    assert answer.returncode == 0, answer.stderr
    figures = json.loads(answer.stdout)
    assert figures["version"] == 1
    cases = set(product(("memory", "disk"), (1, 5), (1, 4)))
    clients = ("certfleet", "incr_expire", "limits")
    decisions = {(d["client"], d["server"], d["buckets"], d["clients"]): d for d in figures["decisions"]}
    assert set(decisions) == {(client, *case) for client in clients for case in cases}
    for one in decisions.values():
        assert one["all_or_none"] is (one["client"] == "certfleet" or one["buckets"] == 1)
        for name in ("per_second", "cpu_ms_per_1000", "server_cpu_ms_per_1000"):
            assert 0 <= one[name]["min"] <= one[name]["median"] <= one[name]["max"]
        assert one["per_second"]["min"] > 0
    ratios = {(r["peer"], r["server"], r["buckets"], r["clients"]): r for r in figures["ratios"]}
    assert set(ratios) == {(peer, *case) for peer in clients[1:] for case in cases}
    for ratio in ratios.values():
        assert ratio["rate"]["median"] > 0
        assert ratio["cpu"]["median"] > 0
    assert [f["shape"] for f in figures["forecast"]] == ["domains_2000", "one_domain", "own_domains"]
    for forecast in figures["forecast"]:
        assert forecast["apps"] == forecast["done"] == 200
        assert forecast["command_seconds"] > forecast["simulation_seconds"] >= 0
        assert forecast["command_peak_mb"] > 0
    assert {"processor", "cores", "load_before"} <= set(figures["machine"])
    assert {"python", "redis", "limits", "redis_server"} <= set(figures["versions"])


@pytest.mark.parametrize("words", [("--seconds", "0"), ("--seconds", "nan"), ("--seconds", "many"), ("--apps", "9")])
def test_wrong_usage_measures_nothing(words: tuple[str, ...]) -> None:
    """A number out of range or no number: exit status 2, said on standard error."""
    answer = bench("limits", *words)
    assert answer.returncode == 2
    assert words[-1] in answer.stderr
    assert not answer.stdout
