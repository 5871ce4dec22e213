import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from amenable.claims.stage_folders import read_stages
from amenable.recipes.reports.report_data import (
    MEASURES,
    collect,
    headline_judges,
    headline_pair,
    parameter_count,
    preference_of,
)


def test_seconds_are_wall_time(demo_run: Path, tmp_path: Path) -> None:
    """PPO and DPO ran side by side for 40 of their 100 and 60 seconds; PPO was stopped for a minute in between."""
    run = Path(shutil.copytree(demo_run, tmp_path / "run"))
    for name, rows in (("ppo", ((1000, 1030), (1000, 1050), (1110, 1160))), ("dpo", ((1120, 1180),))):
        lines = [json.dumps({"step": 1, "began": began, "ended": ended}) + "\n" for began, ended in rows]
        (run / name / "timings.jsonl").write_text("".join(lines))
    others = sum(stage.seconds or 0 for stage in read_stages(run) if stage.name not in ("ppo", "dpo"))
    assert collect(read_stages(run))["seconds"] == pytest.approx(others + 50 + 70)


def test_everything_measured_is_told(demo_run: Path) -> None:
    figures = collect(read_stages(demo_run))
    assert (figures["schema"], figures["seed"], figures["missing"]) == (1, 3, [])
    assert figures["seconds"] == pytest.approx(1.4 + 0.9 + 84 + 16.5 + 11 + 3.2 + 41 + 95 + 52 + 14)
    assert figures["versions"] == {"amenable": "0.1.0", "torch": "2.13.0"}
    assert figures["stages"][2] == {
        "name": "pretrain",
        "command": "pretrain",
        "seconds": 84.0,
        "run": str(demo_run / "pretrain"),
    }
    ppo = figures["models"]["ppo"]
    assert (ppo["gold"], ppo["greedy"]["gold"], ppo["rude"]) == (0.57, 1.18, 0.0)
    assert set(MEASURES) <= set(ppo) and set(MEASURES) <= set(ppo["greedy"])
    judge = figures["reward_model"]
    assert (judge["accuracy_train_annotators"], judge["accuracy_heldout_annotators"]) == (0.722, 0.701)
    assert (judge["agreement"], judge["agreement_train"], judge["agreement_heldout"]) == (0.73, 0.735, 0.728)
    assert (judge["pairs"], judge["longer_wins_heldout_annotators"]) == (910 + 880, 0.41)
    assert figures["suites"]["respect"]["ppo"]["rude"] == 0.2 and figures["suites"]["respect"]["ppo"]["entropy"] is None
    assert figures["tasks"]["facts"]["sft"]["accuracy"] == 0.5 and len(figures["best_of"]["sft"]) == 5
    assert (figures["claims"], figures["over_optimisation"], figures["seeds"]) == ([], [], [])
    json.dumps(figures, allow_nan=False)


def test_what_was_not_measured_is_null(demo_run: Path) -> None:
    for name in ("evaluate", "reward", "annotate"):
        shutil.rmtree(demo_run / name)
    figures = collect(read_stages(demo_run))
    assert figures["models"] == {} and figures["preference"] == []
    assert figures["missing"] == ["annotate", "reward", "evaluate"]
    assert set(figures["reward_model"].values()) == {None}


def test_what_was_worked_out_elsewhere_is_kept(demo_run: Path, claims: list[dict]) -> None:
    row = {"a": "base", "b": "mine"}
    figures = collect(read_stages(demo_run), claims, [{"run": "over"}], [row])
    assert figures["claims"] == claims and figures["over_optimisation"] == [{"run": "over"}]
    assert figures["preference"][-1] == row and len(figures["preference"]) > 1


def test_a_model_without_a_world_has_no_gold(demo_run: Path) -> None:
    path = demo_run / "evaluate" / "evaluation.json"
    path.write_text(json.dumps({"models": {"sft": {"reward": 0.5, "greedy": {"reward": 0.7}}}, "preference": []}))
    sft = collect(read_stages(demo_run))["models"]["sft"]
    assert (sft["gold"], sft["reward"], sft["greedy"]["reward"], sft["gold_by_kind"]) == (None, 0.5, 0.7, None)


def test_seeds_and_versions_that_differ_are_not_made_one(demo_run: Path) -> None:
    (demo_run / "dpo" / "config.yaml").write_text("command: dpo\nseed: 4\n")
    (demo_run / "dpo" / "lineage.json").write_text('{"versions": {"torch": "2.12.0"}}')
    figures = collect(read_stages(demo_run))
    assert figures["seed"] is None
    assert figures["versions"]["torch"] == "2.12.0, 2.13.0"


def test_preference_can_be_read_from_either_side(demo_run: Path) -> None:
    figures = collect(read_stages(demo_run))
    stored = preference_of(figures, "sft", "ppo", "sampled", "heldout")
    turned = preference_of(figures, "ppo", "sft", "sampled", "heldout")
    assert stored is not None and turned is not None
    assert (stored["wins"], stored["low"], stored["high"]) == pytest.approx((0.38, 0.34, 0.42))
    assert (turned["wins"], turned["low"], turned["high"]) == pytest.approx((0.62, 0.58, 0.66))
    assert (turned["a"], turned["b"]) == ("ppo", "sft")
    assert preference_of(figures, "ppo", "sft", "sampled", "nobody") is None


def test_the_headline_pair_is_the_aligned_model_and_the_one_before_it() -> None:
    def of(*names: str) -> tuple[str, str] | None:
        return headline_pair({"models": dict.fromkeys(names)})

    assert of("base", "sft", "ppo", "dpo") == ("ppo", "sft")
    assert of("base", "sft", "dpo") == ("dpo", "sft")
    assert of("base", "sft") == ("sft", "base")
    assert of("mine", "yours") == ("yours", "mine")
    assert of("sft") is None


def test_held_out_annotators_judge_where_there_are_any() -> None:
    def of(*judges: str) -> str | None:
        return headline_judges({"preference": [{"judges": name} for name in judges]})

    assert (of("training", "heldout"), of("reward"), of()) == ("heldout", "reward", None)


def test_parameters_are_counted_from_the_file(tmp_path: Path) -> None:
    assert parameter_count(tmp_path) is None
    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(7)}, tmp_path / "model.safetensors", {"format": "pt"})
    assert parameter_count(tmp_path) == 3 * 5 + 7
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    assert parameter_count(tmp_path) is None
