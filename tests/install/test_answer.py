"""What the receiver says is outside input; what its commands say is outside input to the receiver."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from certfleet.errors import InstallError
from certfleet.install.answer import LARGEST, Answer, AppAnswer, State, parse
from certfleet.install.bundle import pack
from certfleet.install.receiver import descriptor
from tests.install.certificates import item

answers = st.builds(
    Answer,
    version=st.just(1),
    reloads=st.integers(0, 5),
    apps=st.dictionaries(
        st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True),
        st.builds(
            AppAnswer,
            state=st.sampled_from(State),
            generation=st.integers(0, 999_999_999),
            previous=st.integers(0, 999_999_999),
            serial=st.from_regex(r"[0-9a-f]{0,64}", fullmatch=True),
            message=st.none() | st.text(max_size=500),
        ),
        max_size=5,
    ),
    pending=st.booleans(),
    error=st.none(),
)


@given(answers)
def test_round_trip(answer: Answer) -> None:
    """Every answer that there can be is read as it was meant."""
    assert parse(TypeAdapter(Answer).dump_json(answer), host="web1", expected=answer.apps) == answer


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_anything_else(output: bytes) -> None:
    """Whatever else a host says is one InstallError of one line that names the host."""
    with pytest.raises(InstallError) as caught:
        parse(output, host="web1")
    assert str(caught.value).startswith("host web1: ")
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_refused() -> None:
    """An app without a word, an error, a name that is a path, a version to come, and too much of it."""
    good = {"version": 1, "reloads": 0, "apps": {}, "error": None}
    for change, expected, said in (
        ({}, ["blog"], "nothing about blog"),
        ({"error": "the disk is full"}, [], "the disk is full"),
        ({"apps": {"../blog": {"state": "installed", "generation": 1}}}, [], "apps"),
        ({"version": 2}, [], "version"),
    ):
        with pytest.raises(InstallError, match=said):
            parse(json.dumps(good | change).encode(), host="web1", expected=expected)
    with pytest.raises(InstallError, match="longer"):
        parse(b" " * (LARGEST + 1), host="web1")


def shown(output: bytes) -> str:
    """What the receiver promises to make of a command's output: 500 bytes, ASCII, no newlines at the end."""
    kept = "".join(chr(byte) if byte in b"\n\t" or 32 <= byte < 127 else "?" for byte in output[:500])
    return kept.rstrip("\n") or "it failed without a word"


@pytest.mark.usefixtures("shell")
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.binary(max_size=700) | st.text(alphabet="\\\"'\n\t\r$`%sn/ü\x00\x01\x02", max_size=200).map(str.encode))
def test_escaping(output: bytes) -> None:
    """Whatever the configuration test prints, the answer is JSON and has it, bounded."""
    with tempfile.TemporaryDirectory() as directory:
        note = Path(directory) / "output"
        note.write_bytes(output)
        root = f"{directory}/root"
        options = ["--root", root, "--test", f"cat {note}; false", "--reload", "true"]
        run = subprocess.run(
            ["sh", f"/proc/self/fd/{descriptor()}", "install", *options],
            input=pack([item("blog")], root),
            pass_fds=[descriptor()],
            capture_output=True,
            check=True,
            timeout=30,
        )
    answer = parse(run.stdout, host="web1", expected=["blog"])
    assert answer.apps["blog"].state is State.BROKEN_BEFORE
    assert answer.apps["blog"].message == shown(output)


def test_answers_do_not_change() -> None:
    """An answer is frozen: what a host said stays what it said."""
    answer = parse(b'{"version":1,"reloads":0,"apps":{},"error":null}', host="web1")
    with pytest.raises(dataclasses.FrozenInstanceError):
        answer.reloads = 1  # type: ignore[misc]  # that is what is tried
