"""The learning curve of reward models on pairs, and a policy judged by other pairs, over a tiny model."""

import json
from pathlib import Path
from typing import Any

import pytest

from amenable.recipes.pipeline import StageRun
from benchmarks import real_preferences


@pytest.fixture
def config(assistant: Path, files: Any, tmp_path: Path) -> real_preferences.Config:
    return real_preferences.Config(
        model=assistant,
        data=files.pairs,
        test=files.pairs,
        other=files.rankings,
        pairs=(4, 8),
        policy=True,
        out=tmp_path / "out",
    )


@pytest.mark.slow
def test_the_curve_and_the_policy(
    config: real_preferences.Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    smaller = {"rloo": {"max_steps": 1, "prompts_per_step": 2, "num_generations": 2, "max_new_tokens": 6}}
    smaller["evaluate"] = {"max_prompts": 4, "max_new_tokens": 6}

    def run_all(runs: list[StageRun]) -> None:
        for run in runs:
            for key, value in smaller.get(run.stage, {}).items():
                object.__setattr__(run.config, key, value)
            run.run()

    monkeypatch.setattr(real_preferences, "run_all", run_all)
    real_preferences.main(config)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:9:2]] == [["all", "4"], ["all", "8"], ["LoRA", "4"], ["LoRA", "8"]]
    finished = json.loads((config.out / "all-8" / "finished.json").read_text())
    assert f"{finished['validation']['accuracy']:.3f}" in lines[3] and "rankings" in lines[4]
    assert lines[-2].startswith("policy, sampled: reward by the other pairs")


def test_each_part_begins_where_the_one_before_ends(config: real_preferences.Config) -> None:
    real_preferences.write_parts(config)
    four, eight, rest = (
        [json.loads(line) for line in (config.out / f"{file}.jsonl").read_text().splitlines()]
        for file in ("pairs-4", "pairs-8", real_preferences.REST)
    )
    rows = [json.loads(line) for line in config.data.read_text().splitlines()]
    assert config.half == 4 and len(four) == 4 and rest == eight
    assert len(four + eight) == min(8, len(rows)) and all(row in rows and row not in four for row in eight)


def test_a_model_goes_on_from_the_one_before(config: real_preferences.Config) -> None:
    models = {run.out.name: run.config.model for run in real_preferences.curve(config)}
    assert models == {
        **{"all-4": config.model, "all-8": config.out / "all-4"},
        **{"lora-4": config.model, "lora-8": config.out / "lora-4"},
    }


def test_the_difference_is_paired() -> None:
    answers = [
        {"base": {"sampled": {"reward": float(i)}}, "policy": {"sampled": {"reward": i + 0.5}}} for i in range(3)
    ]
    rows = [{"answers": each} for each in answers]
    assert real_preferences.difference(rows, "sampled", "reward") == "+0.500 (0.500 to 0.500)"
