"""What two run directories differ in."""

from pathlib import Path
from typing import Any

from amenable.claims.stage_folders import Stage
from amenable.recipes.reports import diff_runs


def stage(name: str, **facts: Any) -> Stage:
    report: dict[str, Any] = {"command": "ppo", "config": {}, "lineage": {}, "finished": None, "metrics": [], **facts}
    return Stage(name, folder=Path("runs") / name, **report)


def test_options_are_compared_one_by_one() -> None:
    a = stage("a", config={"out": "runs/a", "seed": 0, "optimizer": {"beta1": 0.9, "eps": 1e-8}, "old": None})
    b = stage("b", config={"out": "runs/b", "seed": 0, "optimizer": {"beta1": 0.9, "eps": 1e-5}, "new": [1, 2]})
    assert diff_runs.options(a, b) == [
        {"name": "optimizer.eps", "a": 1e-8, "b": 1e-5},
        {"name": "old", "a": None},
        {"name": "new", "b": [1, 2]},
    ]


def test_of_different_stages_only_what_both_have_is_compared() -> None:
    a = stage("a", command="sft", config={"epochs": 2, "seed": 0}, finished={"stage": "sft", "loss": 1.0, "seconds": 2})
    b = stage("b", config={"kl_coef": 0.1, "seed": 1}, finished={"stage": "ppo", "seconds": 3, "objective/kl": 1.0})
    assert diff_runs.options(a, b) == [{"name": "seed", "a": 0, "b": 1}]
    assert diff_runs.figures(a, b) == [{"name": "seconds", "a": 2, "b": 3}]


def test_inputs_are_compared_by_content() -> None:
    """The same file elsewhere is no difference, another file in the same place is one; paths are no options."""
    a = stage("a", config={"model": "one/sft", "data": "x"})
    b = stage("b", config={"model": "two/sft", "data": "x"})
    one = {"model": {"path": "one/sft", "sha256": "1"}, "data": {"path": "x", "sha256": "2"}}
    other = {"model": {"path": "two/sft", "sha256": "1"}, "data": {"path": "x", "sha256": "3"}}
    a = stage("a", config=a.config, lineage={"inputs": one, "versions": {"torch": "2.12", "python": "3.11"}})
    b = stage("b", config=b.config, lineage={"inputs": other, "versions": {"torch": "2.13", "python": "3.11"}})
    assert diff_runs.options(a, b) == []
    assert diff_runs.inputs(a, b) == [{"name": "data", "a": one["data"], "b": other["data"]}]
    assert diff_runs.versions(a, b) == [{"name": "torch", "a": "2.12", "b": "2.13"}]


def test_closing_figures_are_numbers_by_dotted_name() -> None:
    nan = float("nan")
    a = stage("a", finished={"stage": "ppo", "validation": {"loss": 0.5, "bins": [1]}, "done": True, "rate": nan})
    b = stage("b", finished={"stage": "ppo", "validation": {"loss": 0.25, "pairs": 3}})
    assert diff_runs.figures(a, b) == [
        {"name": "validation.loss", "a": 0.5, "b": 0.25},
        {"name": "validation.pairs", "b": 3},
    ]
    assert diff_runs.figures(a, stage("unfinished")) == [{"name": "validation.loss", "a": 0.5}]


def test_metrics_that_both_kept() -> None:
    a = stage("a", metrics=[{"step": 1, "loss": 3.0, "lr": 1.0}, {"step": 2, "loss": 1.0}, {"step": 3, "loss": 2.0}])
    b = stage("b", metrics=[{"step": 1, "loss": 0.5, "only": 1.0, "lr": None}])
    loss = {"last": 2.0, "low": 1.0, "high": 3.0, "steps": 3}
    assert diff_runs.metrics(a, b) == [
        {"name": "loss", "a": loss, "b": {"last": 0.5, "low": 0.5, "high": 0.5, "steps": 1}}
    ]


def test_a_chart_holds_both_curves_and_what_never_moves_has_none() -> None:
    rows = [{"step": i, "loss": i / 10, "updates": 4} for i in range(20)]
    charts = diff_runs.charts(stage("a", metrics=rows), stage("b", metrics=rows[:5]), ("one", "two"))
    assert len(charts) == 1 and charts[0].count('<path class="line') == 2
    assert "one" in charts[0] and "two" in charts[0] and "loss" in charts[0]
