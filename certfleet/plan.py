"""Plan files: apps that are not added yet, for a forecast. CSV with a header, or JSON.

    app,domains,email,ca,tenant,profile
    blog,blog.example.com www.example.com,ops@example.com,letsencrypt,,shortlived

JSON is a list of objects with the same fields, or an object {"apps": [...]}; `domains` may be a list there. Only `app`
and `domains` have to be there. Everything is checked before the first app counts.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from certfleet.errors import UsageError
from certfleet.identifiers import normalise_all
from certfleet.inventory import check_name
from certfleet.properties import check_property

MOST_APPS = 1_000_000
LARGEST = 500_000_000  # bytes
FIELDS = ("app", "domains", "email", "ca", "tenant", "profile")
TERMS = FIELDS[2:]
"""Those that are properties."""


@dataclass(frozen=True, slots=True)
class Planned:
    """An app of a plan. What is None is as it is for all apps."""

    app: str
    identifiers: tuple[str, ...]
    """DNS names as A-labels, lower case."""
    email: str | None = None
    ca: str | None = None
    tenant: str | None = None
    profile: str | None = None

    @property
    def own(self) -> dict[str, str]:
        """The properties that it has of its own."""
        return {name: value for name in TERMS if (value := getattr(self, name))}


def _words(value: object) -> object:
    return value.split() if isinstance(value, str) else value


def _given(value: object) -> object:
    return None if value == "" else value


Text = Annotated[str | None, BeforeValidator(_given)]


class Row(BaseModel):
    """One entry as it is written."""

    model_config = ConfigDict(extra="forbid", strict=True)

    app: str
    domains: Annotated[list[str], BeforeValidator(_words)]
    email: Text = None
    ca: Text = None
    tenant: Text = None
    profile: Text = None


def read_plan(path: Path) -> tuple[Planned, ...]:
    """The apps of a plan file, in its order. Raises UsageError that names the place and what would be right."""
    text = _text(path)
    rows = _json_rows(text) if _is_json(path, text) else _csv_rows(text)
    found: dict[str, Planned] = {}
    for place, row in rows:
        planned = _planned(place, row)
        if planned.app in found:
            _refuse(f"{place}: app: {planned.app!r} is there twice: each app once, with all its domains")
        if len(found) == MOST_APPS:
            _refuse(f"{place}: app: {planned.app!r} is one app too many: at most {MOST_APPS:,} in one plan")
        found[planned.app] = planned
    if not found:
        _refuse(f"{path.name!r} has no apps: give a CSV file with the header {','.join(FIELDS)}, or a list in JSON")
    return tuple(found.values())


def _refuse(sentence: str) -> NoReturn:
    raise UsageError("plan", None, sentence)


def _text(path: Path) -> str:
    wanted = "give a CSV or JSON file of apps"
    try:
        if path.stat().st_size > LARGEST:
            _refuse(f"{str(path)!r} is larger than {LARGEST:,} bytes: {wanted}")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        _refuse(f"{str(path)!r} is not text in UTF-8: {wanted}")
    except OSError as error:
        _refuse(f"{str(path)!r} cannot be read ({error.strerror}): {wanted}")


def _is_json(path: Path, text: str) -> bool:
    if path.suffix.lower() in (".csv", ".json"):
        return path.suffix.lower() == ".json"
    return text.lstrip()[:1] in ("[", "{")


def _json_rows(text: str) -> Iterator[tuple[str, Any]]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        _refuse(f"line {error.lineno}: is not JSON ({error.msg}): give a list of objects with app and domains")
    except (RecursionError, ValueError):  # ValueError: a number of thousands of digits
        _refuse("holds what no plan needs: give a list of objects with app and domains")
    if isinstance(content, dict) and content.keys() == {"apps"}:
        content = content["apps"]
    if not isinstance(content, list):
        _refuse('is neither a list nor an object with "apps" alone: give a list of objects with app and domains')
    return ((f"entry {number}", row) for number, row in enumerate(content, 1))


def _csv_rows(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        for name in header:
            if name not in FIELDS or header.count(name) > 1:
                _refuse(f"line 1: column {name!r} is unknown or there twice: the columns are {', '.join(FIELDS)}")
        for line in lines:
            place = f"line {lines.line_num}"
            if not any(cell.strip() for cell in line):
                continue
            if len(line) != len(header):
                _refuse(f"{place}: has {len(line)} cells, not {len(header)} as the header; separate domains by spaces")
            yield place, dict(zip(header, (cell.strip() for cell in line), strict=True))
    except csv.Error as error:
        _refuse(f"line {lines.line_num}: is not CSV ({error}): give a header, and a line for each app")


def _planned(place: str, content: Any) -> Planned:
    try:
        row = Row.model_validate(content)
    except ValidationError as error:
        _refuse(f"{place}: {_sentence(error)}")
    try:
        return Planned(
            app=check_name("app", row.app),
            identifiers=tuple(normalise_all(row.domains)),
            **{name: _checked(name, getattr(row, name)) for name in TERMS},
        )
    except UsageError as error:
        where = place if error.field == "app" else f"{place}, app {row.app}"
        _refuse(f"{where}: {error}")


@cache  # a plan of many apps has few of these
def _checked(name: str, value: str | None) -> str | None:
    return None if value is None else check_property(name, value)


def _sentence(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_context=False)[0]
    name = str(fault["loc"][0]) if fault["loc"] else None
    if name is None:
        return f"is not an object: give one with {_listed(FIELDS)}"
    if fault["type"] == "missing":
        return f"{name}: is missing: every entry has app and domains"
    if fault["type"] == "extra_forbidden":
        return f"{name!r} is not known: the fields are {_listed(FIELDS)}"
    wanted = "a list of names, or text with names separated by spaces" if name == "domains" else "text"
    return f"{name}: {fault['input']!r:.60} is not {wanted}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
