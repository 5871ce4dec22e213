"""The loop of online algorithms, with an algorithm of a few lines; PPO's own tests take it through all its options."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from amenable.data.batches import Batch
from amenable.rl.algorithm import Columns, MeanOver, policy_logprobs
from amenable.rl.experience import Experience, TokenizedPrompt
from amenable.rl.improve import collect_experience, grad_norm, improve, mix_in, update
from amenable.rl.models import Models, load_models
from amenable.rl.options import OnlineOptions
from amenable.stages import rloo
from amenable.train.examples import fitting_prompts
from amenable.train.log import Bars
from amenable.train.objective import NextToken, Stats, accumulate
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.run import Run
from amenable.train.runtime import DeviceOptions, Runtime


class Plain:
    """REINFORCE without a baseline: no critic, no standardisation."""

    mean_over: MeanOver = "tokens"
    standardize_advantages = False
    group = 1

    def __init__(self, models: Models, options: OnlineOptions):
        self.policy, self.runtime, self.options = models.policy, models.runtime, options
        self.models = {"policy": models.policy}
        self.optimizers = {"policy": Optimizer([models.policy], options.optimizer)}
        self.losses = (self.loss,)

    def compute_values(self, experience: Experience, bars: Bars) -> None:
        """Nothing is asked but the reference."""

    def compute_advantages(self, experience: Experience, kl_coef: float) -> None:
        rollout = experience.rollout
        kl = (rollout.logps - experience.columns["ref_logps"]).sum(1)
        experience.columns["advantages"] = (experience.scores - kl_coef * kl)[:, None] * rollout.mask

    def loss(self, batch: Batch, old: Columns) -> tuple[Tensor, Stats]:
        logps, _, old, stats = policy_logprobs(self.policy, batch, old, self.runtime, self.options)
        loss = -(logps * old["advantages"]).mean()
        return loss, {**stats, "loss/policy_avg": loss.detach()}


@pytest.fixture
def options(assistant: Path, judge: Path, files: Any, tmp_path: Path) -> OnlineOptions:
    return OnlineOptions(
        model=assistant,
        reward=judge,
        data=files.prompts,
        max_steps=3,
        prompts_per_step=8,
        num_mini_batches=2,
        temperature=0.7,
        max_new_tokens=12,
        kl_coef=0.05,
        adaptive_kl_target=0.0,
        optimizer=OptimizerConfig(learning_rate=1e-3),
        save_steps=0,
        num_traced_prompts=2,
        sample_steps=1,
        device=DeviceOptions("cpu", "fp32", 1),
    )


def run_of(options: OnlineOptions, out: Path, runtime: Runtime) -> Path:
    run = Run(out, "plain", options, {"model": options.model})
    assert not run.skip_finished()
    models = load_models(options, runtime)
    return improve(Plain(models, options), models, options, run)


def test_an_algorithm_without_a_critic_runs_and_leaves_out_its_rows(
    options: OnlineOptions, runtime: Runtime, tmp_path: Path, rows_of: Callable[[Path], list[dict[str, Any]]]
) -> None:
    out = run_of(options, tmp_path / "run", runtime)
    rows = rows_of(out)
    assert [row["updates"] for row in rows] == [2, 2, 2]
    assert not [name for row in rows for name in row if name.startswith(("value/", "critic_"))]
    assert {"objective/kl", "objective/scores", "policy/grad_norm", "lr", "loss/policy_avg"} <= set(rows[0])
    traces = [json.loads(line) for line in (out / "traces.jsonl").read_text().splitlines()]
    assert len(traces) == 6 and "values" not in traces[0] and "advantages" in traces[0]
    assert (out / "finished.json").exists() and (out / "model.safetensors").exists()


def test_the_same_seed_is_the_same_run(options: OnlineOptions, runtime: Runtime, tmp_path: Path) -> None:
    first, second = (run_of(options, tmp_path / name, runtime) for name in ("a", "b"))
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    other = run_of(replace(options, seed=1), tmp_path / "c", runtime)
    assert (first / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


def test_mixed_in_text_adds_its_gradient_and_reports_both_norms(options: OnlineOptions, runtime: Runtime) -> None:
    models = load_models(options, runtime)
    rows = [([1, 40, 41, 42], [False] + [True] * 3), ([1, 50, 51], [False] + [True] * 2)]
    accumulate(NextToken(models.policy), rows[:1], runtime, 100)
    own = {name: p.grad.clone() for name, p in models.policy.named_parameters() if p.grad is not None}
    before = grad_norm(models.policy)
    stats = mix_in(models, rows, replace(options, ptx_coef=0.5, ptx_data=Path("text")))
    after = gradients(models)
    models.policy.zero_grad(set_to_none=True)
    accumulate(NextToken(models.policy), rows, runtime, 100, scale=0.5)
    text = gradients(models)
    for name, grad in after.items():
        assert torch.allclose(grad, own[name] + text[name], atol=1e-6), name
    assert stats["policy/grad_norm_ptx"] == pytest.approx(grad_norm(models.policy), rel=1e-5)
    assert before > 0 and set(stats) == {"loss/ptx", "policy/grad_norm_ptx"}


def gradients(models: Models) -> Mapping[str, Tensor]:
    return {name: p.grad.clone() for name, p in models.policy.named_parameters() if p.grad is not None}


def test_in_bf16_a_whole_answers_ratio_is_to_the_trainers_log_probabilities(
    options: OnlineOptions, runtime: Runtime
) -> None:
    """A sampler whose rounding takes every answer beyond the clip: nothing is clipped before the policy moves."""
    config = rloo.Config(**{**vars(options), "num_generations": 4, "cliprange": 0.02, "num_ppo_epochs": 2})
    models = load_models(config, replace(runtime, bf16=True))
    algorithm = rloo.RLOO(models, config)
    prompts = [TokenizedPrompt(*pair) for pair in zip(*fitting_prompts(options.data, models.tokenizer, 44))][:8]
    experience = collect_experience(algorithm, models, config, prompts, ("a",), 4)
    rollout, signs = experience.rollout, torch.tensor([1.0, -1.0]).repeat(16)[:, None]
    rounded = 0.008 * signs * rollout.mask
    assert (rounded.sum(1).abs() > 0.03).all()
    experience = replace(experience, rollout=replace(rollout, logps=rollout.logps + rounded))
    algorithm.compute_advantages(experience, 0.0)
    stats = update(algorithm, models, experience, [], 1, 0.0, config, lambda: 0.0)
    assert stats["updates"] == 4 and stats["policy/clipfrac_avg"] == 0 and stats["policy/approxkl_avg"] < 1e-5
    assert stats["sampling/logp_difference"] == pytest.approx(0.008, abs=1e-3)
    assert stats["sampling/kl"] == pytest.approx(0.008**2 / 2, rel=0.3)
    by_token = rloo.RLOO(models, replace(config, loss_on="token"))
    del experience.columns["logps"]
    update(by_token, models, experience, [], 1, 0.0, by_token.config, lambda: 0.0)
    assert torch.equal(experience.columns["logps"], experience.rollout.logps), "of tokens, rounding is far from a clip"


def test_answers_are_a_function_of_seed_and_purpose(options: OnlineOptions, runtime: Runtime) -> None:
    models = load_models(options, runtime)
    prompts = [TokenizedPrompt(*pair) for pair in zip(*fitting_prompts(options.data, models.tokenizer, 44))]
    algorithm = Plain(models, options)

    def answers(purpose: tuple[object, ...], count: int) -> list[list[int]]:
        experience = collect_experience(algorithm, models, options, prompts[:count], purpose, 1)
        return experience.rollout.completions

    assert answers(("a",), 4) == answers(("a",), 6)[:4] != answers(("b",), 4)
