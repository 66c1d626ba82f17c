"""Nothing in the documentation names what is not there, and nothing that can be set is left out of it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from certfleet.cli.commands import app as command_line
from certfleet.cli.session import Exit
from certfleet.overview import State
from certfleet.properties import PROPERTIES
from certfleet.settings import Settings
from tests.docs.pages import PAGES, ROOT, Page, page

COMMANDS: Any = typer.main.get_command(command_line)
"""A group; Any, because typer says only that it is a command."""
SETTING = re.compile(r"CERTFLEET_[A-Z_]+")
KEY = re.compile(r"""\bkey(?:_of)?\(["']([a-z]+)["'](?:, ["']([a-z]+)["'])?""")


def typed(text: Page) -> Iterator[list[str]]:
    """Every `certfleet …` that a page tells to type, as words after `certfleet`."""
    lines = [" ".join(code.split()) for code in text.inline]
    for language, block in text.blocks:
        if language in ("sh", "text", ""):
            lines += block.replace("\\\n", " ").splitlines()
    for line in lines:
        for part in re.split(r"\||&&|;", line.removeprefix("$ ")):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:  # a part of a quoted program, such as jq's
                continue
            while words and ("=" in words[0] or words[0] == "sudo"):
                words = words[1:]
            if words and words[0] in ("certfleet", ".venv/bin/certfleet"):
                yield words[1:]
            elif words and words[0] == "scripts/demo":
                yield ["demo", *words[1:]]


def fault(words: list[str]) -> str | None:
    """What is wrong with a command, as far as its words tell."""
    command = COMMANDS
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    options = {name for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
    for word in words:
        if word.startswith("-") and word not in options:
            return f"{command.name} has no option {word}"
    if hasattr(command, "commands") and words and not words[0].startswith("-") and words[0] not in ("…", "COMMAND"):
        return f"there is no command {words[0]}"
    return None


@pytest.mark.parametrize("text", PAGES, ids=str)
def test_every_command_exists(text: Page) -> None:
    """Commands and options that a page names are the program's."""
    found = [(words, wrong) for words in typed(text) if (wrong := fault(words))]
    assert found == []


def test_wrong_commands_would_be_found() -> None:
    """The test above is not blind."""
    assert fault(["enable", "blog", "--now"])
    assert fault(["install", "blog"])
    assert fault(["app", "delete", "blog"])
    assert fault(["app", "add", "blog", "--domain", "a.example.com"]) is None
    assert sum(1 for text in PAGES for _ in typed(text)) > 60


def test_every_command_is_documented() -> None:
    """Whatever can be typed is named in the README, the operations guide or the JSON contract."""
    told = {tuple(words[:2]) for text in PAGES for words in typed(text) if words} | {
        tuple(words[:1]) for text in PAGES for words in typed(text) if words
    }
    for name, command in COMMANDS.commands.items():
        for inner in getattr(command, "commands", None) or [None]:
            assert ((name, inner) if inner else (name,)) in told, f"{name} {inner or ''} is not in the documentation"


@pytest.mark.parametrize("text", PAGES, ids=str)
def test_every_relative_link_resolves(text: Page) -> None:
    """Files, and headings in them, are there."""
    for link in text.links:
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = link.partition("#")
        target = (text.path.parent / file).resolve() if file else text.path
        assert target.exists(), f"{text}: {link}"
        if anchor:
            assert anchor in Page(target).anchors, f"{text}: {link}"


@pytest.mark.parametrize("text", PAGES, ids=str)
def test_every_path_and_test_named_exists(text: Page) -> None:
    """Scripts can be run; files and tests that are given as evidence are there."""
    for code in text.inline:
        if re.fullmatch(r"(scripts|tests|certfleet|workers|tasks|beat|deploy)/[\w./-]+", code):
            assert (ROOT / code).exists(), f"{text}: {code}"
        if re.fullmatch(r"scripts/\w+", code):
            assert os.access(ROOT / code, os.X_OK), f"{text}: {code}"
        if re.fullmatch(r"test_\w+", code) and text.path.name == "architecture.md":
            sources = (path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
            assert any(f"def {code}(" in source for source in sources), f"{text}: {code}"


def test_settings_are_documented_with_their_defaults() -> None:
    """Every field of Settings has its row, and no row is without a field."""
    rows = {row[0]: row[1] for row in page("README.md").table("**Settings**")}
    fields = {f"CERTFLEET_{name.upper()}": field for name, field in Settings.model_fields.items()}
    assert list(rows) == list(fields)
    for name, field in fields.items():
        if field.default_factory is None:
            assert rows[name] == ("unset" if field.default in (None, []) else str(field.default)), name


@pytest.mark.parametrize("text", PAGES, ids=str)
def test_every_setting_named_exists(text: Page) -> None:
    """Also where a page mentions one in passing."""
    known = {f"CERTFLEET_{name.upper()}" for name in Settings.model_fields}
    assert set(SETTING.findall(text.text)) <= known


def test_properties_are_documented_as_the_program_shows_them() -> None:
    """Name, default and meaning are those of `certfleet properties`."""
    rows = [tuple(row) for row in page("README.md").table("**Properties**")]
    assert rows == [(p.name, p.default, p.meaning) for p in PROPERTIES.values()]


def test_every_state_says_what_to_do() -> None:
    """Whoever sees a state finds it in the operations guide."""
    assert {row[0] for row in page("docs/operations.md").table("## States")} == {str(state) for state in State}


def test_exit_statuses() -> None:
    """The numbers are those that commands end with."""
    rows = [row[0] for row in page("docs/json.md").table("## Exit statuses")]
    assert rows == [str(int(status)) for status in Exit]


def test_error_sentences_are_the_programs() -> None:
    """Words by which the guide finds an error are words that the code says."""
    files = [path for path in (ROOT / "certfleet").rglob("*") if path.suffix in (".py", ".sh")]
    code = "\n".join(path.read_text() for path in [*files, *(ROOT / "workers").rglob("*.py")])
    plain = re.sub(r'"\s*\n\s*f?"', "", code)
    for cell in re.findall(r"^\| (`.+?) \|", page("docs/operations.md").text.partition("## Errors")[2], re.MULTILINE):
        for words in re.findall(r"`([^`]+)`", cell):
            for part in re.split(r" *… *\(?| 429.*", words):
                assert part.strip(" )") in plain, f"nobody says {words!r}"


def test_redis_keys_are_documented() -> None:
    """The table of keys is the list of what the code asks the store for."""
    told = {re.split(r":[<…]", row[0])[0] for row in page("docs/architecture.md").table("## Redis keys")}
    asked = set()
    for path in [*(ROOT / "certfleet").rglob("*.py"), *(ROOT / "certfleet").rglob("*.lua")]:
        for first, second in KEY.findall(path.read_text()):
            asked.add(f"{first}:{second}" if first in ("agenda", "limits") and second else first)
    assert asked - told == set(), "not documented"
    assert told - asked - {"broker", "beat", "limit"} == set(), "documented, and not there"
