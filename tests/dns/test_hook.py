"""The provider `exec`: what the program is given, what it may say, and how it is ended."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from certfleet.dns.hook import Hook, Keys
from certfleet.dns.provider import TXTRecord
from certfleet.errors import DNSProviderError
from tests.processes import ended

RECORD = TXTRecord(name="shop.delegated.test", value="v" * 43, zone="delegated.test", owner="_acme-challenge.shop.test")
SECRET = "s3cr3t/with+signs"


def program(directory: Path, text: str) -> Path:
    """A program of these lines."""
    path = directory / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def hook(path: Path, **more: str) -> Hook:
    """As `certfleet dns set NAME exec …` would have it."""
    return Hook(Keys.model_validate({"command": str(path)} | more))


async def test_what_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three words, an environment of what it needs, nothing on standard input, and no secret in the words."""
    monkeypatch.setenv("CERTFLEET_VAULT_KEY", "not for programs")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nor this")
    seen = tmp_path / "seen"
    path = program(tmp_path, f'{{ echo "$@"; /usr/bin/env; echo "stdin: $(cat)"; pwd; }} >> {seen}')
    one = hook(path, API_TOKEN=SECRET)
    await one.present(RECORD)
    lines = seen.read_text().splitlines()
    assert lines[0] == f"present shop.delegated.test {'v' * 43}"
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    set_by_the_shell = {"PWD", "OLDPWD", "SHLVL", "_"}
    allowed = {"PATH", "HOME", "LANG", "ACME_ZONE", "ACME_OWNER", "API_TOKEN"}
    assert found.keys() - set_by_the_shell <= allowed
    assert found["API_TOKEN"] == SECRET
    assert (found["ACME_ZONE"], found["ACME_OWNER"]) == ("delegated.test", "_acme-challenge.shop.test")
    assert lines[-2:] == ["stdin: ", "/"]
    await one.cleanup(RECORD)
    assert f"cleanup shop.delegated.test {'v' * 43}" in seen.read_text().splitlines()


async def test_its_own_word_for_a_failure(tmp_path: Path) -> None:
    """Status and last line of standard error, without the secret that it repeats."""
    path = program(tmp_path, f'echo first >&2; echo "403 for token {SECRET}" >&2; exit 3')
    with pytest.raises(DNSProviderError) as caught:
        await hook(path, API_TOKEN=SECRET).present(RECORD)
    assert str(caught.value) == f"{path} present shop.delegated.test ended with status 3: 403 for token ****"


async def test_time_is_limited_for_it_and_all_that_it_started(tmp_path: Path) -> None:
    """Killed when the time is over, its children too."""
    child = tmp_path / "child"
    path = program(tmp_path, f"sleep 60 & echo $! > {child}\nwait")
    with pytest.raises(DNSProviderError, match=r"was not done after 0\.5 s: it was killed"):
        await hook(path, timeout="0.5").present(RECORD)
    pid = int(child.read_text())
    assert await ended(pid), "its child runs on"


async def test_what_it_leaves_behind_does_not_hold_us(tmp_path: Path) -> None:
    """A child with its standard error open, after its own end, is ended with it."""
    path = program(tmp_path, "sleep 60 &\nexit 0")
    async with asyncio.timeout(20):
        await hook(path, timeout="15").present(RECORD)


async def test_much_to_say(tmp_path: Path) -> None:
    """Megabytes on standard error neither fill our memory nor hold the program."""
    path = program(tmp_path, "head -c 5000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo the end >&2; exit 1")
    with pytest.raises(DNSProviderError, match="status 1: the end"):
        await hook(path).present(RECORD)


async def test_no_program(tmp_path: Path) -> None:
    """Not there, and not executable."""
    with pytest.raises(DNSProviderError, match="cannot be run here: No such file"):
        await hook(tmp_path / "nothing").present(RECORD)
    plain = tmp_path / "plain"
    plain.write_text("")
    plain.chmod(0o600)
    if os.access(plain, os.X_OK):
        pytest.fail("a file without x cannot be run")
    with pytest.raises(DNSProviderError, match="cannot be run here: Permission denied"):
        await hook(plain).present(RECORD)
