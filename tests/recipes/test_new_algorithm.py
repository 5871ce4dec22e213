"""An algorithm dropped into stages/ shows up in every command that looks at runs, without an edit anywhere."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import amenable.stages
from amenable.claims.stage_folders import read_stages
from amenable.files import MANIFEST
from amenable.recipes import compare, inspect, lineage, report, verify
from amenable.recipes.reports.curves import panels
from amenable.recipes.reports.report_data import collect
from amenable.recipes.reports.stage_cards import card

MODULE = '''"""Ranked: advantages are standardized within the answers to one prompt."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    seed: int = 0
    num_generations: int = 4
'''


@pytest.fixture
def ranked(demo_run: Path, tmp_path: Path, a_row: Callable, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A demo with a run of an algorithm that declares no REPORT and traces no values."""
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "ranked.py").write_text(MODULE)
    monkeypatch.setattr(amenable.stages, "__path__", [*amenable.stages.__path__, str(tmp_path / "plugin")])
    for name in ("ranked", "ranked-large"):
        run = demo_run / name
        run.mkdir()
        options = {"command": "ranked", "out": str(run), "seed": 3, "num_traced_prompts": 2, "num_generations": 8}
        (run / "config.yaml").write_text(yaml.safe_dump(options))
        (run / "finished.json").write_text(json.dumps({"stage": "ranked", "seconds": 2.0, "objective/scores": 1.5}))
        (run / "lineage.json").write_text(json.dumps({"stage": "ranked", "inputs": {}, "versions": {}}))
        metrics = [{"step": i, "objective/scores": i / 4, "policy/group_std": 1 / (i + 1)} for i in range(5)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
        traces = [{key: value for key, value in a_row(i, 0).items() if key != "values"} for i in (1, 4)]
        (run / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in traces))
        (run / MANIFEST).write_text("{}")
    yield demo_run / "ranked"
    sys.modules.pop("amenable.stages.ranked", None)
    vars(amenable.stages).pop("ranked", None)


def test_report_shows_its_card_and_its_charts(ranked: Path) -> None:
    stages = read_stages(ranked.parent)
    assert [stage.name for stage in stages][-3:] == ["ranked", "ranked-large", "evaluate"]
    shown = card(stages[-3])
    assert (shown["title"], shown["facts"]) == ("ranked", [("objective/scores", "1.50")])
    assert shown["spark_name"] == "objective/scores" and shown["spark"] is not None
    assert shown["what"] == "Ranked: advantages are standardized within the answers to one prompt."
    panel = next(panel for panel in panels(stages, collect(stages)) if panel.title == "ranked")
    assert [name for name, _ in panel.keys] == ["ranked", "ranked-large"] and len(panel.charts) == 2
    html = (report.run(report.Config(run=ranked.parent)) / "report.html").read_text("utf-8")
    assert "Ranked: advantages" in html and "policy/group_std" in html


def test_inspect_shows_the_columns_that_are_there(ranked: Path) -> None:
    html = inspect.run(inspect.Config(run=ranked)).read_text("utf-8")
    assert "advantages" in html and "what the critic expects" not in html


def test_compare_lineage_and_verify_take_it(ranked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = compare.run(compare.Config((ranked, ranked.with_name("ranked-large")), out=tmp_path / "compare"))
    names = [row["name"] for row in json.loads((out / "compare.json").read_text("utf-8"))["metrics"]]
    assert names == ["objective/scores", "policy/group_std"]
    lineage.run(lineage.Config(run=ranked))
    assert "num_generations=8" in capsys.readouterr().out
    assert verify.run(verify.Config(run=ranked)) == ranked
