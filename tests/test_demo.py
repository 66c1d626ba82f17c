"""The demo does the main job, and its JSON is a contract."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = str(Path(sys.executable).with_name("certfleet"))


@pytest.mark.timeout(240)
def test_the_demo_orders_installs_serves_and_renews() -> None:
    """Exit 0, and every count is that of the apps; standard output is the JSON alone."""
    done = subprocess.run(
        [PROGRAM, "demo", "--apps", "4", "--json"], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads(done.stdout)
    assert summary["version"] == 1
    for field in ("apps", "enabled", "issued", "installed", "served", "renewed"):
        assert summary[field] == 4, (field, summary)
    assert summary["failed"] == 0
    assert summary["ca_requests_per_certificate"] >= 4
    assert summary["seconds"] > 0


@pytest.mark.timeout(240)
def test_a_kept_demo_tells_where_it_is_and_ends_with_sigterm() -> None:
    """Addresses and Flower's password are printed; nothing that it started outlives it."""
    demo = subprocess.Popen(
        [PROGRAM, "demo", "--apps", "1", "--keep"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        told = []
        assert demo.stderr is not None
        for line in demo.stderr:
            told.append(line)
            if "commands" in line:
                break
        text = "".join(told)
        assert "Flower" in text, text
        assert "password" in text
        home = text.split("CERTFLEET_HOME=")[1].split()[0]
        listed = subprocess.run(
            [PROGRAM, "ls", "--json"],
            env=os.environ | {"CERTFLEET_HOME": home},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert json.loads(listed.stdout)["apps"][0]["state"] == "served"
    finally:
        demo.send_signal(signal.SIGTERM)
        out, err = demo.communicate(timeout=120)
    assert demo.returncode == 0, out + err
    directory = str(Path(home).parent)
    running = subprocess.run(
        ["ps", "-ww", "-eo", "args="], capture_output=True, text=True, check=True, timeout=10
    ).stdout
    assert directory not in running, "it left something running"
    assert not Path(directory).exists(), "it left its files behind"
