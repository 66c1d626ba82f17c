"""The benchmark of installing works and keeps its JSON contract; how fast anything was is nobody's business here."""

from __future__ import annotations

import json

import pytest

from tests.bench.test_issue import bench

CASES = [("hosts", "new"), ("hosts", "kept"), ("certificates", "new"), ("certificates", "kept")]
PEERS = ("scp_ssh", "scp_ssh_kept")


def test_json_has_every_figure() -> None:
    """`install --json` prints one JSON object with the documented fields, and nothing else on standard output."""
    answer = bench("install", "--hosts", "3", "--certificates", "4", "--json")
    assert answer.returncode == 0, answer.stderr
    figures = json.loads(answer.stdout)
    assert figures["version"] == 1
    for name in ("hosts_per_second", "certificates_per_second", "cpu_ms_per_host"):
        assert figures[name] > 0
    assert (figures["sessions"], figures["reloads"]) == (3, 3), "one of each for each host"
    assert [(one["case"], one["way"]) for one in figures["cases"]] == CASES
    assert {(one["case"], one["way"]) for one in figures["peers"]} == {
        (case, peer) for case in ("hosts", "certificates") for peer in PEERS
    }
    for one in (*figures["cases"], *figures["peers"]):
        for name in ("hosts_per_second", "certificates_per_second", "cpu_ms_per_host"):
            assert one[name] > 0
    [many] = [one for one in figures["cases"] if (one["case"], one["way"]) == ("certificates", "kept")]
    assert (many["certificates"], many["sessions"], many["reloads"]) == (4, 1, 1), "all in one session and one reload"
    for peer in PEERS:
        assert {f"rate_hosts_to_{peer}", f"cpu_certificates_to_{peer}"} <= set(figures["ratios"])
    assert {"processor", "cores", "load_before"} <= set(figures["machine"])
    assert {"python", "asyncssh", "openssh", "nginx"} <= set(figures["versions"])


@pytest.mark.parametrize("words", [("--hosts", "1"), ("--hosts", "many"), ("--certificates", "1001")])
def test_wrong_usage_measures_nothing(words: tuple[str, ...]) -> None:
    """A number out of range or no number: exit status 2, said on standard error."""
    answer = bench("install", *words)
    assert answer.returncode == 2
    assert words[-1] in answer.stderr
    assert not answer.stdout
