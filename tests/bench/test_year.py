"""The simulated year: nobody expires, the CA refuses nobody, and the JSON contract holds."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench.__main__ import main
from bench.simulated import Year


def test_a_small_fleet_lives_through_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Spread or not, no certificate ends and no order is refused; each figure is there, the drawing can be read."""
    drawing = tmp_path / "year.svg"
    assert main(["year", "--apps", "300", "--seed", "2", "--plot", str(drawing), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["version"] == 1
    assert (figures["apps"], figures["seed"]) == (300, 2)
    assert figures["began"] < figures["settled"] < figures["ended"]
    for name in ("spread", "unspread"):
        case = figures[name]
        assert (case["expired"], case["refused"]) == (0, 0)
        # 30 apps each 80 hours, 270 each 60 days and then more often: about 5,700 and 2,500.
        assert 7_500 < case["renewals"] < 9_500
        assert [peak["hours"] for peak in case["peaks"]] == [1, 6, 24]
        assert all(peak["of_need"] > 0 for peak in case["peaks"])
    spread, unspread = figures["spread"], figures["unspread"]
    assert unspread["early"] == 0
    assert unspread["exempt"] == unspread["renewals"], "each in its window"
    assert 0 < spread["early"] < spread["renewals"] / 10
    assert spread["exempt"] >= spread["renewals"] - spread["early"]
    assert spread["peaks"][2]["of_need"] < unspread["peaks"][2]["of_need"]
    assert "processor" in figures["machine"]
    paths = ET.fromstring(drawing.read_text()).findall("{http://www.w3.org/2000/svg}path")  # noqa: S314  our own
    assert [path.get("class") for path in paths] == ["need", "line1", "line0"]


def test_the_same_seed_the_same_year() -> None:
    """And another one another."""
    years = [Year(40, seed, spread=True).live().renewals for seed in (1, 1, 2)]
    assert years[0] == years[1] != years[2]


@pytest.mark.parametrize("words", [("--apps", "9"), ("--apps", "many"), ("--seed", "0")])
def test_wrong_usage_simulates_nothing(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, said on standard error."""
    with pytest.raises(SystemExit) as ended:
        main(["year", *words])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert words[-1] in said.err
    assert not said.out
