"""Plan files: what they may look like, and one sentence for what they may not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from certfleet import plan
from certfleet.errors import UsageError
from certfleet.plan import Planned, read_plan

HEADER = "app,domains,email,ca,tenant,profile\n"
BLOG = Planned(
    "blog", ("blog.example.com", "www.example.com"), "ops@example.com", "letsencrypt-staging", "acme", "tlsserver"
)


def write(directory: Path, text: str, name: str = "plan.csv") -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path) -> str:
    """The sentence."""
    with pytest.raises(UsageError) as error:
        read_plan(path)
    assert str(error.value).startswith("plan: ")
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix("plan: ")


def test_csv(tmp_path: Path) -> None:
    """Columns in any order, what is optional left out or empty, empty lines, a byte order mark, normalised names."""
    names = "Blog.Example.com www.example.com blog.example.com"
    full = HEADER + f"blog,{names},ops@example.com,letsencrypt-staging,acme,tlsserver\n\n"
    assert read_plan(write(tmp_path, full + "shop,bücher.example,,,,\n")) == (
        BLOG,
        Planned("shop", ("xn--bcher-kva.example",)),
    )
    short = '\ufeffdomains,app\r\n"a.example.com  b.example.com",x\r\n'
    assert read_plan(write(tmp_path, short)) == (Planned("x", ("a.example.com", "b.example.com")),)


def test_json(tmp_path: Path) -> None:
    """A list of objects, or an object of apps; domains as a list or as words."""
    rows = [
        {
            "app": "blog",
            "domains": ["blog.example.com", "www.example.com"],
            "email": "ops@example.com",
            "ca": "letsencrypt-staging",
            "tenant": "acme",
            "profile": "tlsserver",
        },
        {"app": "shop", "domains": "shop.example.com", "email": None},
    ]
    wanted = (BLOG, Planned("shop", ("shop.example.com",)))
    assert read_plan(write(tmp_path, json.dumps(rows), "plan.json")) == wanted
    assert read_plan(write(tmp_path, json.dumps({"apps": rows}), "plan.json")) == wanted


def test_the_content_tells_where_the_name_does_not(tmp_path: Path) -> None:
    """JSON begins with a bracket; a name that ends in .csv or .json is believed."""
    assert read_plan(write(tmp_path, ' [{"app": "a", "domains": "a.example.com"}]', "plan"))[0].app == "a"
    assert read_plan(write(tmp_path, "app,domains\na,a.example.com\n", "plan.txt"))[0].app == "a"
    assert "is not JSON" in refused(write(tmp_path, "app,domains\n", "plan.JSON"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", f"'plan.csv' has no apps: give a CSV file with the header {HEADER.strip()}, or a list in JSON"),
        ("app,domains\n", "'plan.csv' has no apps"),
        ("app,domain\na,a.example.com\n", "line 1: column 'domain' is unknown or there twice: the columns are app,"),
        ("app,app\na,b\n", "line 1: column 'app' is unknown or there twice"),
        ("app\na\n", "line 2: domains: is missing: every entry has app and domains"),
        ("app,domains\na,a.example.com,b.example.com\n", "line 2: has 3 cells, not 2 as the header; separate domains"),
        ("app,domains\na,a.example.com\n\na,b.example.com\n", "line 4: app: 'a' is there twice"),
        ("app,domains\nA b,a.example.com\n", "line 2: app: 'A b' is not a name: use up to 63 of a-z"),
        ("app,domains\na,under_score.example.com\n", "line 2, app a: domain: 'under_score.example.com' is not a DNS"),
        ("app,domains\na,1.2.3.4/24\n", "line 2, app a: domain: '1.2.3.4/24' is not a DNS name"),
        ("app,domains\na,\n", "line 2, app a: domain: an app needs at least one"),
        ("app,domains,email\na,a.example.com,nobody\n", "line 2, app a: email: 'nobody' is not an e-mail address"),
        ("app,domains,ca\na,a.example.com,http://x\n", "line 2, app a: ca: 'http://x' is not a CA; write the https"),
        ("app,domains,tenant\na,a.example.com,A B\n", "line 2, app a: tenant: 'A B' is not a name"),
        ("app,domains,profile\na,a.example.com,short lived\n", "line 2, app a: profile: 'short lived' is not the name"),
        ('app,domains\n"a,a.example.com\n', "line 2: is not CSV"),
        ("app,domains\na," + "x" * 200_000, "line 2: is not CSV (field larger than field limit"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, said: str) -> None:
    """Line, app, field, and what would be right."""
    assert refused(write(tmp_path, text)).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: is not JSON"),
        ('[{"app": "a",\n7}]', "line 2: is not JSON"),
        ("[" * 100_000, "holds what no plan needs"),
        ("1" * 5000, "holds what no plan needs"),
        ('"blog"', 'is neither a list nor an object with "apps" alone'),
        ('{"apps": [], "more": 1}', "is neither a list"),
        ("[]", "'plan.json' has no apps"),
        ("[7]", "entry 1: is not an object: give one with app, domains, email, ca, tenant, profile"),
        ('[{"app": "a", "domains": ["a.example.com"], "host": "x"}]', "entry 1: 'host' is not known: the fields are"),
        ('[{"domains": ["a.example.com"]}]', "entry 1: app: is missing"),
        ('[{"app": 7, "domains": ["a.example.com"]}]', "entry 1: app: 7 is not text"),
        ('[{"app": "a", "domains": {"a": 1}}]', "entry 1: domains: {'a': 1} is not a list of names, or text with"),
        ('[{"app": "a", "domains": [7]}]', "entry 1: domains: 7 is not a list of names"),
        ('[{"app": "a", "domains": ["\\ud800.com"]}]', "entry 1, app a: domain: '\\ud800.com' is not a DNS name"),
    ],
)
def test_bad_json(tmp_path: Path, text: str, said: str) -> None:
    """Entry, field, and what would be right; nothing makes it fall over."""
    assert refused(write(tmp_path, text, "plan.json")).startswith(said)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not there, a directory, not text, too large, too many."""
    assert "cannot be read (No such file or directory)" in refused(tmp_path / "none.csv")
    assert "cannot be read (Is a directory)" in refused(tmp_path)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    assert "is not text in UTF-8" in refused(tmp_path / "binary.csv")
    path = write(tmp_path, "app,domains\na,a.example.com\nb,b.example.com\n")
    monkeypatch.setattr(plan, "MOST_APPS", 1)
    assert refused(path) == "line 3: app: 'b' is one app too many: at most 1 in one plan"
    monkeypatch.setattr(plan, "LARGEST", 10)
    assert "is larger than 10 bytes" in refused(path)
