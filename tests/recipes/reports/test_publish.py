"""Publication of a report: two files, and a table with its headline."""

import json
import math
from pathlib import Path

import pytest

from amenable.recipes.reports.publish import publish
from amenable.recipes.reports.terminal import Grid


def test_a_report_is_written_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"headline": ["rloo wins."], "gain": 0.5, "low": -math.inf}
    grid = Grid("Title", ("", "gain"), [("rloo", "+0.50")])
    assert publish(tmp_path, "race", figures, "<!doctype html>", grid) == tmp_path
    assert json.loads((tmp_path / "race.json").read_text()) == {"headline": ["rloo wins."], "gain": 0.5, "low": None}
    assert (tmp_path / "race.html").read_text() == "<!doctype html>"
    lines = capsys.readouterr().err
    assert "+0.50" in lines and lines.index("rloo wins.") < lines.index("report: ") and "race.html" in lines
