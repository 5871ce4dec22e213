"""The crash test at its smallest: it kills, it compares, and it notices a difference."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from amenable.errors import InputError
from amenable.train import checkpoint
from amenable.train.run import Run
from benchmarks import crash


@dataclass(frozen=True)
class Config:
    out: Path
    seconds: float = 0.02
    """of a step"""
    honest: bool = True


class Sum:
    """A state; without it a run that goes on is another run."""

    def __init__(self, honest: bool):
        self.value, self.honest = 0, honest

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value if self.honest else 0}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


class Stage:
    """Adds up ten steps, with a checkpoint after each."""

    def run(self, config: Config) -> Path:
        run, total = Run(config.out, "stage", config), Sum(config.honest)
        if run.skip_finished():
            return run.out
        run.begin()
        for step in run.steps(10, {"sum": total}, save_steps=1):
            time.sleep(config.seconds)
            total.value += step
            run.record(step, loss=total.value)
        return run.finish()


@pytest.mark.slow
@pytest.mark.parametrize("honest", [True, False])
def test_kills_are_counted_and_a_lost_state_is_noticed(tmp_path: Path, honest: bool) -> None:
    config = Config(tmp_path / "whole", honest=honest)
    begun = time.monotonic()
    assert crash.wait(crash.start(lambda: Stage().run(config))) == 0
    tally = crash.torture(Stage(), config, tmp_path / "again", 6, time.monotonic() - begun, random.Random(1))
    assert tally.kills == 6 and tally.runs >= 1 and tally.resumes >= 1
    assert tally.differing == (set() if honest else {"metrics.jsonl"})
    assert ("exact" if honest else "DIFFERS in metrics.jsonl") in tally.line("stage", 1.0)


def test_a_process_is_killed_at_its_moment_and_its_exit_code_is_told() -> None:
    assert crash.wait(crash.start(lambda: time.sleep(60)), 0.05) == -signal.SIGKILL
    assert crash.wait(crash.start(lambda: None), 60.0) == 0
    assert crash.wait(crash.start(lambda: os._exit(3))) == 3


def test_slow_checkpoints_can_be_hit(tmp_path: Path) -> None:
    def work() -> None:
        crash.write_slowly()
        checkpoint.save(tmp_path, 1, {"x": 1})

    crash.wait(crash.start(work), 3 * crash.SLOWLY)
    assert [path.name for path in tmp_path.iterdir()] == [".checkpoint-1.writing"]


def test_what_fails_without_a_kill_is_told(tmp_path: Path) -> None:
    config = Config(tmp_path / "run")
    Stage().run(config)
    with pytest.raises(InputError, match="ended with exit code 1 after a kill"):
        crash.attempt(Stage(), replace(config, seconds=1.0), None, False, crash.Tally())


def test_every_stage_is_in_the_plan(tmp_path: Path) -> None:
    calls = crash.plan(tmp_path)
    stages = {path.stem for path in Path(crash.pretrain.__file__).parent.glob("[a-z]*.py")}
    assert {Path(stage.__file__).stem for stage, _ in calls.values()} == {
        *stages,
        "compare_peft",
        "quality",
        "crash_people",
    }
    assert all(config.out == tmp_path / name for name, (_, config) in calls.items())
    with pytest.raises(InputError, match="unknown stage: nap"):
        crash.main(crash.Options(stage="nap"), tmp_path)
    with pytest.raises(InputError, match="kills is 0"):
        crash.Options(kills=0)


def test_seconds_of_steps_and_checkpoints_are_measured(tmp_path: Path) -> None:
    file = tmp_path / "told.json"
    assert crash.wait(crash.start(lambda: crash.timed(Stage(), Config(tmp_path / "run", 0.1), file))) == 0
    report = json.loads(file.read_text())
    assert report["step"] >= 0.1 and report["save"] > 0 and report["bytes"] > 100


def test_a_recipe_is_compared_without_the_options_and_seconds_of_its_stages(tmp_path: Path) -> None:
    for name in ("peft.json", "plan/sft.yaml", "seed-0/sft/timings.jsonl", "seed-0/sft/model.safetensors", "more.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [*crash.compared_files(crash.compare_peft, tmp_path)] == ["more.json", "seed-0/sft/model.safetensors"]
    assert "seed-0/sft/timings.jsonl" in crash.compared_files(crash.sft, tmp_path)


@pytest.mark.slow
def test_what_checkpoints_cost_is_told_of_every_stage_that_has_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole part at the sizes of the kills; that it runs to its end at the usual ones hangs on the same options."""
    monkeypatch.setitem(crash.presets.PRESETS, "two-layers", crash.TINY)
    report = list(crash.costs(tmp_path, crash.plan(tmp_path / "cost")))
    assert [line.split()[0] for line in report] == ["pretrain", "sft", "reward", "ppo"]
    assert all("a checkpoint of" in line and "of the time" in line for line in report)


def test_the_usual_sizes_are_those_that_the_stages_have_by_default(tmp_path: Path) -> None:
    calls, small = crash.usual(tmp_path), crash.plan(tmp_path)
    assert calls.keys() == small.keys()
    assert calls["pretrain"][1].model == crash.pretrain.Config().model != small["pretrain"][1].model
    assert calls["ppo"][1].prompts_per_step == crash.ppo.Config().prompts_per_step
    assert calls["ppo"][1].max_kl == 0, "a model of random weights goes beyond any limit"
