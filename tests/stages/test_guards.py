"""Guards in real runs: what explodes is stopped before it spoils anything, what goes wrong is told at the end."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.cli import main
from amenable.errors import InputError
from amenable.models.heads import ScalarModel
from amenable.stages import ppo, sft
from amenable.train import checkpoint, loading
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.runtime import DeviceOptions, Runtime


@pytest.fixture
def small_ppo(assistant: Path, judge: Path, files: Any, tmp_path: Path) -> ppo.Config:
    return ppo.Config(
        model=assistant,
        reward=judge,
        data=files.prompts,
        out=tmp_path / "ppo",
        max_steps=3,
        prompts_per_step=8,
        num_mini_batches=2,
        max_new_tokens=20,
        adaptive_kl_target=0.0,
        optimizer=OptimizerConfig(learning_rate=1e-3),
        warmup_steps=1,
        save_steps=1,
        num_traced_prompts=0,
        device=DeviceOptions("cpu", "fp32", 1),
    )


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def warnings_of(out: Path) -> list[str]:
    return [warning["check"] for warning in read(out / "finished.json")["health"]["warnings"]]


def poison(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The gradient of the given step of the next optimizer is no number, once."""
    step, done = Optimizer.step, [0]

    def stepping(self: Optimizer, multiplier: float = 1.0) -> float:
        done[0] += 1
        if done[0] == at:
            next(p for p in self.parameters if p.grad is not None).grad.fill_(float("nan"))  # type: ignore[union-attr]
        return step(self, multiplier)

    monkeypatch.setattr(Optimizer, "step", stepping)


def test_a_run_that_explodes_is_stopped_and_its_checkpoint_stays_whole(sft_config: sft.Config, tmp_path: Path) -> None:
    wild = OptimizerConfig(learning_rate=1e20, max_grad_norm=0)
    config = replace(sft_config, out=tmp_path / "wild", optimizer=wild, warmup_steps=0, save_steps=1)
    with pytest.raises(InputError, match=r"stopped in step .*finite.*lower the learning rate"):
        sft.run(config)
    stopped = read(config.out / "stopped.json")
    assert len(stopped["rows"]) == config.batch_size and stopped["step"] >= 1
    assert not (config.out / "finished.json").exists() and not (config.out / "model.safetensors").exists()
    result = checkpoint.newest(config.out)
    assert result is None or all(value.isfinite().all() for value in result[1]["state"]["decoder"].values())


def test_after_a_stop_the_same_command_goes_on_as_if_nothing_had_been(
    sft_config: sft.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Callable
) -> None:
    config = replace(sft_config, out=tmp_path / "a", epochs=1, save_steps=2)
    with monkeypatch.context() as patch:
        poison(patch, at=4)
        with pytest.raises(InputError, match="stopped in step 4"):
            sft.run(config)
    assert read(config.out / "stopped.json")["step"] == 4
    assert checkpoint.newest(config.out)[0] == 2  # type: ignore[index]
    sft.run(config)
    assert not (config.out / "stopped.json").exists()
    assert outcome(config.out) == outcome(sft.run(replace(config, out=tmp_path / "b")))


def test_the_command_line_says_it_in_one_line(
    sft_config: sft.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    poison(monkeypatch, at=1)
    out, data = str(tmp_path / "run"), str(sft_config.data)
    report = ["sft", "--model", str(sft_config.model), "--data", data, "--out", out, "--device", "cpu"]
    assert main(report) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("amenable: ") and "stopped in step 1: the gradient is not finite" in last


def test_ppo_stops_above_its_limit_of_kl_and_goes_on_with_another(small_ppo: ppo.Config) -> None:
    config = replace(small_ppo, max_steps=5, max_kl=1e-9, kl_coef=0.0, optimizer=OptimizerConfig(learning_rate=3e-3))
    with pytest.raises(InputError, match=r"--max-kl .* 3 times in a row"):
        ppo.run(config)
    assert len(read(config.out / "stopped.json")["rows"]) == 8
    assert (ppo.run(replace(config, max_kl=0.0)) / "finished.json").exists()


def test_a_reward_model_that_likes_everything_alike_is_told(
    small_ppo: ppo.Config, judge: Path, tmp_path: Path, runtime: Runtime, rows_of: Callable
) -> None:
    tokenizer = loading.load_policy(small_ppo.model, runtime)[1]
    flat: ScalarModel = loading.load_reward_model(judge, runtime, tokenizer)
    torch.nn.init.zeros_(flat.score.weight)
    loading.save_model(tmp_path / "flat", flat, tokenizer)
    out = ppo.run(replace(small_ppo, reward=tmp_path / "flat", kl_coef=0.0, missing_eos_penalty=0.0))
    assert "scores differ" in warnings_of(out) and "advantages differ" in warnings_of(out)
    last = json.loads((out / "metrics.jsonl").read_text("utf-8").splitlines()[-1])
    assert last == {"step": 3, "health": read(out / "finished.json")["health"]}
    assert [row["step"] for row in rows_of(out)] == [1, 2, 3]


def test_answers_cut_by_the_limit_are_told_at_once_and_at_the_end(
    small_ppo: ppo.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ppo.run(replace(small_ppo, max_new_tokens=2))
    assert warnings_of(out) == ["EOS is produced"]
    report = capsys.readouterr().err
    assert report.count("step 1: no answer ends") == 1 and "3 of 3 steps" in report and "fine  scores differ" in report


def test_another_reward_model_looks_on_and_changes_nothing(
    small_ppo: ppo.Config, judge: Path, tmp_path: Path, outcome: Callable, rows_of: Callable
) -> None:
    alone = outcome(ppo.run(small_ppo))
    out = ppo.run(replace(small_ppo, eval_reward_model=judge, out=tmp_path / "watched"))
    assert outcome(out)["model.safetensors"] == alone["model.safetensors"]
    for row in rows_of(out):
        assert row["eval_rm/score"] == pytest.approx(row["objective/scores"], abs=1e-5)
        assert row["eval_rm/correlation"] == pytest.approx(1.0, abs=1e-4)


def test_the_summary_survives_a_stop(
    small_ppo: ppo.Config, tmp_path: Path, run_in_two: Callable, outcome: Callable
) -> None:
    config = replace(small_ppo, max_new_tokens=2)
    assert outcome(run_in_two(ppo, config, 2)) == outcome(ppo.run(replace(config, out=tmp_path / "whole")))
