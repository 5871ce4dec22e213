"""The learning curve of reward models on pairs, and a policy judged by other pairs, over a tiny model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.errors import InputError
from amenable.recipes.pipeline import StageRun
from benchmarks import real_preferences


@pytest.fixture
def config(assistant: Path, files: Any, tmp_path: Path) -> real_preferences.Config:
    return real_preferences.Config(
        model=assistant,
        data=files.pairs,
        test=files.pairs,
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

    def run_all(runs: list[StageRun], parallel: int) -> None:
        for run in runs:
            for key, value in smaller.get(run.stage, {}).items():
                object.__setattr__(run.config, key, value)
            run.run()

    monkeypatch.setattr(real_preferences, "run_all", run_all)
    real_preferences.main(config)
    lines = capsys.readouterr().out.splitlines()
    starts = [("all", "4"), ("all", "8"), ("LoRA", "4"), ("LoRA", "8")]
    assert [tuple(line.split()[:2]) for line in lines[1:5]] == starts
    finished = json.loads((config.out / "all-8" / "finished.json").read_text())
    assert f"{finished['heldout']['accuracy']:.3f}" in lines[2]
    assert lines[-2].startswith("policy, sampled: reward by the other pairs")


def test_each_part_begins_where_the_one_before_ends(config: real_preferences.Config) -> None:
    real_preferences.write_parts(config)
    four, eight, last, first = (
        [json.loads(line) for line in real_preferences.pairs_file(config, *key).read_text().splitlines()]
        for key in ((4, True), (8, True), (4, False), (8, False))
    )
    rows = [json.loads(line) for line in config.data.read_text().splitlines()]
    assert config.half == 4 and len(four) == 4 and not any(row in last for row in four)
    for parts in (four + eight, last + first):
        assert len(parts) == 8 and all(row in rows and parts.count(row) == 1 for row in parts)
    demonstrations = (config.out / "demonstrations.jsonl").read_text().splitlines()
    assert [json.loads(line)["messages"][-1]["content"] for line in demonstrations] == [row["chosen"] for row in four]


@pytest.mark.parametrize("options", [{"adapters": (True,)}, {"pairs": (6, 8)}])
def test_a_policy_needs_a_judge_of_other_pairs(config: real_preferences.Config, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="reward model of other pairs"):
        replace(config, **options)


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
