import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from amenable.cli import from_yaml
from amenable.errors import InputError
from amenable.recipes import report
from amenable.recipes.figures import figures_of
from amenable.recipes.folders import read_stages


def test_the_report_is_written_and_told(demo_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.run(report.Config(run=demo_run)) == demo_run
    figures = json.loads((demo_run / "report.json").read_text("utf-8"))
    assert figures == figures_of(read_stages(demo_run))
    html = (demo_run / "report.html").read_text("utf-8")
    assert html.lstrip().startswith("<!doctype html>") and html.rstrip().endswith("</html>")
    told = capsys.readouterr().out
    assert "PPO preferred to SFT, sampled: 62% (58–66%, 24 prompts, judges: heldout)" in told
    assert f"report: {demo_run / 'report.html'}" in told


def test_the_same_run_gives_the_same_report(demo_run: Path) -> None:
    report.run(report.Config(run=demo_run))
    first = [(demo_run / name).read_bytes() for name in ("report.json", "report.html")]
    report.run(report.Config(run=demo_run))
    assert first == [(demo_run / name).read_bytes() for name in ("report.json", "report.html")]


def test_the_table_has_both_decodings(demo_run: Path) -> None:
    said = io.StringIO()
    report.tell(figures_of(read_stages(demo_run)), demo_run / "report.html", Console(file=said))
    rows = [line.split() for line in said.getvalue().splitlines()]
    ppo = [row for row in rows if row[:1] == ["PPO"] and row[2:3] == ["±0.12"]]
    assert ppo == [
        ["PPO", "0.57", "±0.12", "66%", "36%", "0%", "2%", "71%", "18.0", "0.420", "0.90", "0.28"],
        ["PPO", "1.18", "±0.12", "66%", "36%", "0%", "2%", "71%", "18.0", "0.420", "0.90", "0.59"],
    ]


def test_an_unfinished_run_says_so(demo_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (demo_run / "evaluate").rename(demo_run.parent / "evaluate")
    report.run(report.Config(run=demo_run))
    assert "Not done yet: evaluate." in capsys.readouterr().out
    assert json.loads((demo_run / "report.json").read_text("utf-8"))["models"] == {}


def test_a_folder_that_is_no_demo_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no stage"):
        report.run(report.Config(run=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_options_come_from_yaml(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("run: runs/mine\n")
    assert from_yaml(report.Config, tmp_path / "config.yaml") == report.Config(run=Path("runs/mine"))
