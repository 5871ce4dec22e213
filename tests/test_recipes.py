"""The whole method at its smallest: every stage runs, a report comes out, and running it again does nothing anew."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from amenable.recipes import demo, pipeline


def run_in_turn(runs: Sequence[pipeline.StageRun]) -> None:
    """Run stages in this process, one after another."""
    for run in runs:
        run.run()


@pytest.mark.parametrize(
    "run_all", [run_in_turn, pytest.param(pipeline.run_all, marks=pytest.mark.slow)], ids=["in turn", "as processes"]
)
def test_the_demo_from_end_to_end_and_again(
    run_all: Callable[[Sequence[pipeline.StageRun]], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "run_all", run_all)
    config = demo.Config(out=tmp_path / "demo", size="smoke", claims=("b",))
    demo.run(config)
    report = json.loads((config.out / "report.json").read_text())
    assert report["schema"] == 1
    assert set(report["models"]) == {"base", "prompted", "sft", "sharpened", "ppo"}
    verdicts = {row["id"]: row["verdict"] for row in report["claims"]}
    assert verdicts["b"] != "not measured" and verdicts["a"] == "not measured" and len(verdicts) == 15
    for model in report["models"].values():
        assert -5 < model["gold"] < 2.5 and model["bpb"] > 0 and 0 <= model["ended"] <= 1
        assert "gold" in model["greedy"]
    assert {(row["a"], row["b"]) for row in report["preference"]} >= {("sft", "ppo"), ("base", "sft")}
    assert 0 <= report["reward_model"]["accuracy_heldout_annotators"] <= 1
    page = (config.out / "report.html").read_text()
    assert "<html" in page and "http://" not in page.replace("http://www.w3.org", "")
    times = {path: path.stat().st_mtime_ns for path in config.out.rglob("*.safetensors")}
    demo.run(config)
    assert times == {path: path.stat().st_mtime_ns for path in config.out.rglob("*.safetensors")}
