"""What the loop gives to every online algorithm: the score rises, resume to the bit, guards, adapters, first batch."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from amenable.errors import InputError
from amenable.models.lora import LoraOptions
from amenable.stages import a2c, expert_iteration, grpo, online_dpo, ppo, reinforce, rloo, trpo
from amenable.train import checkpoint

RowsOf = Callable[[Path], list[dict[str, Any]]]
Options = dict[str, Any]
CRITIC: Options = {"critic_learning_rate": 5e-3, "num_generations": 1, "prompts_per_step": 8}
STAGES: list[tuple[ModuleType, Options]] = [
    (rloo, {}),
    (rloo, {"loss_on": "token", "kl_in": "loss", "num_mini_batches": 2, "sampler_correction": "mask"}),
    (rloo, {"max_staleness": 1, "sampler_correction": "truncate", "max_steps": 3}),
    (grpo, {"mean_over": "tokens", "cliprange_high": 0.28, "num_mini_batches": 2, "dynamic_sampling": 2}),
    (grpo, {"importance_sampling_level": "sequence", "baseline": "greedy", "scale_rewards": "none"}),
    (grpo, {"pass_at_k": 2, "surrogate": "cispo", "mean_over": "constant", "kl_estimator": "full"}),
    (reinforce, {"baseline": "running", "num_mini_batches": 2}),
    (reinforce, {"baseline": "leave-one-out", "normalize_advantages": True, "kl_in": "loss"}),
    (a2c, CRITIC | {"n_steps": 4}),
    (a2c, CRITIC | {"kl_in": "loss", "entropy_coef": 0.01}),
    (expert_iteration, {"num_ppo_epochs": 2, "num_best": 2, "num_mini_batches": 2}),
    (trpo, CRITIC | {"cg_iterations": 2}),
    (trpo, CRITIC | {"cg_iterations": 2, "critic": "shared"}),
    (a2c, CRITIC | {"critic": "shared"}),
    (online_dpo, {"num_mini_batches": 2, "num_ppo_epochs": 2}),
    (ppo, CRITIC | {"critic": "shared", "vf_coef": 0.5, "num_mini_batches": 2}),
]
"""every online algorithm with options that have state or columns of their own; more of ppo's are in test_ppo.py"""
EACH = pytest.mark.parametrize(
    ("stage", "options"), [next(row for row in STAGES if row[0] is s) for s in dict(STAGES)], ids=lambda x: name(x)
)


def name(value: Any) -> str:
    return value.__name__.rpartition(".")[2] if isinstance(value, ModuleType) else " ".join(value)


@pytest.mark.parametrize(("stage", "options"), STAGES, ids=name)
def test_a_stopped_run_goes_on_to_the_bit(
    stage: Any, options: Options, online: Callable[..., Any], tmp_path: Path, run_in_two: Any, outcome: Any
) -> None:
    options = {"max_steps": 2, "max_new_tokens": 8} | options
    whole = stage.run(online(stage, **options, out=tmp_path / "whole"))
    parted = run_in_two(stage, online(stage, **options, out=tmp_path / "parted"), 1)
    assert outcome(whole) == outcome(parted)


@pytest.mark.parametrize(
    ("stage", "options"),
    [
        (rloo, {"cliprange": 0.3, "num_mini_batches": 2}),
        (grpo, {"num_mini_batches": 2, "dynamic_sampling": 1, "overlong_buffer": 4, "max_new_tokens": 20}),
        (reinforce, {"num_generations": 1, "prompts_per_step": 24}),
        (a2c, CRITIC | {"prompts_per_step": 24, "normalize_advantages": True}),
        (ppo, CRITIC | {"prompts_per_step": 24, "critic": "shared", "vf_coef": 0.5}),
        (expert_iteration, {"num_mini_batches": 2}),
        (online_dpo, {"num_mini_batches": 2}),
        (trpo, CRITIC | {"prompts_per_step": 24, "trust_region": 0.05, "cg_iterations": 4, "fisher_answers": 8}),
    ],
    ids=name,
)
def test_the_score_rises(stage: Any, options: Options, online: Callable[..., Any], rows_of: RowsOf) -> None:
    rows = rows_of(stage.run(online(stage, **{"max_steps": 10, "prompts_per_step": 8} | options)))
    scores = [row["objective/scores"] for row in rows]
    assert sum(scores[-3:]) / 3 > sum(scores[:2]) / 2 + 0.05
    assert rows[0]["objective/kl"] == pytest.approx(0, abs=1e-3) and rows[-1]["objective/kl"] > 0.01
    assert rows[0]["sampling/logp_difference"] < 1e-3
    assert stage is online_dpo or rows[0]["policy/ratio"] == pytest.approx(1, abs=0.2)
    assert all(math.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))
    assert bool([key for row in rows for key in row if key.startswith("value/")]) == (stage in (a2c, trpo, ppo))


@EACH
def test_a_policy_that_leaves_its_reference_is_stopped(
    stage: Any, options: Options, online: Callable[..., Any]
) -> None:
    config = online(stage, **options | {"max_kl": 1e-9, "max_steps": 6})
    with pytest.raises(InputError, match="objective/kl"):
        stage.run(config)
    assert json.loads((config.out / "stopped.json").read_text())["step"] < 6


@EACH
def test_adapters_are_trained_alone_and_the_first_batch_is_shown(
    stage: Any, options: Options, online: Callable[..., Any]
) -> None:
    config = online(stage, **options | {"lora": LoraOptions(rank=2), "max_steps": 1, "save_steps": 1})
    out = stage.run(config)
    assert (out / "adapter" / "adapter_model.safetensors").exists()
    assert (out / "first_batch.html").exists() and (out / "traces.jsonl").exists()
    assert checkpoint.newest(out) is None, "a finished run keeps none"
    stage.run(online(stage, **options, out=out.parent / "shown", inspect_batch=True))
    assert not (out.parent / "shown" / "metrics.jsonl").exists()


def test_a_trained_policy_goes_on_at_its_kl_from_the_first_reference(
    online: Callable[..., Any], files: Any, rows_of: RowsOf, tmp_path: Path, outcome: Any
) -> None:
    first = online(rloo, max_steps=4, validation=files.prompts, eval_prompts=12, eval_steps=4, kl_coef=0.0)
    reached = rows_of(rloo.run(first))[-1]["eval/kl"]
    further = replace(
        first, model=first.out, reference_model=first.model, out=tmp_path / "further", max_steps=1, eval_steps=1
    )
    again = replace(further, optimizer=replace(first.optimizer, learning_rate=1e-9))
    (row,) = rows_of(rloo.run(again))
    assert row["eval/kl"] == pytest.approx(reached, rel=1e-3) and row["objective/kl"] > reached / 2 > 0.01
    plain, named = (replace(first, out=tmp_path / name, max_steps=1) for name in ("plain", "named"))
    named = replace(named, reference_model=first.model)
    same = [outcome(rloo.run(config))["metrics.jsonl"] for config in (plain, named)]
    assert same[0] == same[1]


def test_a_run_ends_at_its_kl_budget_and_goes_on_to_the_same_bit(
    online: Callable[..., Any], files: Any, rows_of: RowsOf, tmp_path: Path, run_in_two: Any, outcome: Any
) -> None:
    config = online(rloo, max_steps=12, validation=files.prompts, eval_prompts=12, eval_steps=1, kl_coef=0.0)
    free = rows_of(rloo.run(replace(config, out=tmp_path / "free")))
    budget = max(row["eval/kl"] for row in free[:5])
    last = next(row["step"] for row in free if row["eval/kl"] > budget)
    limited = replace(config, kl_budget=budget)
    out = rloo.run(replace(limited, out=tmp_path / "limited"))
    rows = rows_of(out)
    assert last < 12 and [row["eval/kl"] for row in rows] == [row["eval/kl"] for row in free[:last]]
    best = max(rows[:-1], key=lambda row: row["eval/score"])
    assert json.loads((out / "finished.json").read_text())["selected_step"] == best["step"]
    assert outcome(out) == outcome(run_in_two(rloo, replace(limited, out=tmp_path / "parted"), 3))
