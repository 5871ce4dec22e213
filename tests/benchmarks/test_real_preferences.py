"""The learning curve of reward models on pairs, and a policy judged by the other half, over a tiny model."""

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
    assert lines[-2].startswith("policy, sampled: reward of the other half")


def test_halves_share_no_pair(config: real_preferences.Config) -> None:
    real_preferences.write_halves(config)
    halves = [(config.out / f"{half}.jsonl").read_text().splitlines() for half in real_preferences.HALVES]
    everything = [json.loads(line) for line in config.data.read_text().splitlines()]
    assert sorted(map(len, halves)) == sorted((len(everything) // 2, len(everything) - len(everything) // 2))
    assert sorted(json.dumps(json.loads(line), sort_keys=True) for half in halves for line in half) == sorted(
        json.dumps(row, sort_keys=True) for row in everything
    )


def test_the_difference_is_paired() -> None:
    answers = [
        {"base": {"sampled": {"reward": float(i)}}, "policy": {"sampled": {"reward": i + 0.5}}} for i in range(3)
    ]
    rows = [{"answers": each} for each in answers]
    assert real_preferences.difference(rows, "sampled", "reward") == "+0.500 (0.500 to 0.500)"
