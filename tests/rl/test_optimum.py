"""A task of two tokens with every answer enumerable: each online algorithm, and DPO, comes to its known optimum.

With scores r and price beta the optimum is pi* ~ ref exp(r / beta); the distance is total variation over all answers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from amenable.data.types import Prompt
from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder
from amenable.models.heads import critic_from_policy
from amenable.rl.algorithm import Adaptive
from amenable.rl.experience import Experience, TokenizedPrompt
from amenable.rl.improve import MinibatchLoss, collect_experience, update
from amenable.rl.models import Models
from amenable.stages import a2c, dpo, expert_iteration, grpo, ppo, reinforce, rloo, trpo
from amenable.train import forward
from amenable.train.objective import accumulate
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.rankings import Pair
from amenable.train.runtime import Runtime

EOS, PROMPT, BETA = 0, 6, 0.5
TINY = DecoderConfig(7, 8, num_layers=1, hidden_size=16, num_heads=2, positions="rope", norm="rms", activation="swiglu",
                     bias=False)  # fmt: skip
SCORES = torch.randn(6, 6, generator=torch.Generator().manual_seed(3)) * 0.7
"""[first token, second token]; an answer of EOS alone has that of EOS twice"""
COMMON: dict[str, Any] = {
    "prompts_per_step": 1,
    "num_generations": 256,
    "num_mini_batches": 1,
    "temperature": 1.0,
    "max_new_tokens": 2,
    "kl_coef": BETA,
    "adaptive_kl_target": 0.0,
    "missing_eos_penalty": 0.0,
    "optimizer": OptimizerConfig(learning_rate=0.02, eps=1e-5),
}


@dataclass
class Table:
    """The reward: scores of answers by their ids."""

    models: tuple[Any, ...] = field(default=())

    def reads_texts(self, tokenizer: Any) -> bool:
        return False

    def scores(self, messages: Any, texts: Any, columns: Any, rows: Sequence[Any], *rest: Any) -> dict[str, Tensor]:
        return {"table": torch.stack([score(ids[1:]) for ids, _ in rows])}

    def total(self, parts: dict[str, Tensor]) -> Tensor:
        return parts["table"]

    def metrics(self, parts: dict[str, Tensor]) -> dict[str, float]:
        return {}


def score(answer: list[int]) -> Tensor:
    return SCORES[answer[0], answer[-1]]


def answers(length: int) -> list[list[int]]:
    if length == 1:
        return [[token] for token in range(6)]
    return [[EOS], *([first, second] for first in range(1, 6) for second in range(6))]


@pytest.fixture
def models(runtime: Runtime) -> Models:
    policy = Decoder(TINY)
    policy.init_weights(torch.Generator().manual_seed(1))
    policy.num_tokens = PROMPT  # the prompt's token is never drawn
    policy.eval()
    reference = copy.deepcopy(policy).requires_grad_(False)
    tokenizer = SimpleNamespace(stop_ids=(EOS,))
    return Models(policy, reference, tokenizer, Table(), runtime, (reference,))  # type: ignore[arg-type]


def probabilities(decoder: Decoder, runtime: Runtime, length: int) -> Tensor:
    rows = [([PROMPT, *ids], [False] + [True] * len(ids)) for ids in answers(length)]
    return torch.stack([logps.sum() for logps in forward.compute_logprobs(decoder, rows, runtime, 4096)]).exp()


def optimum(models: Models, length: int, price: float = BETA) -> Tensor:
    scores = torch.stack([score(ids) for ids in answers(length)])
    weights = probabilities(models.reference, models.runtime, length) * (scores / price).exp()
    return weights / weights.sum()


def sample(algorithm: Any, models: Models, config: Any, step: int = 1) -> Experience:
    prompt = TokenizedPrompt(Prompt((), "p"), [PROMPT])
    purpose = ("rollout", step)
    experience = collect_experience(algorithm, models, config, [prompt], purpose, config.num_generations)
    algorithm.compute_advantages(experience, config.kl_coef)
    return experience


def train(algorithm: Any, models: Models, config: Any, steps: int) -> None:
    for step in range(steps):
        experience = sample(algorithm, models, config, step)
        rate = 1 - step / steps
        update(algorithm, models, experience, [], step, rate, config, lambda: 0.0)
        if isinstance(algorithm, Adaptive):
            algorithm.adapt(experience)


def distance(models: Models, best: Tensor, length: int) -> float:
    return float((probabilities(models.policy, models.runtime, length) - best).abs().sum() / 2)


def build(stage: Any, models: Models, **options: Any) -> tuple[Any, Any]:
    """An algorithm of a stage, and its options."""
    config = stage.Config(**COMMON | options)
    if stage in (ppo, a2c, trpo):
        clipped = ppo.PenaltyPPO if options.get("objective") == "kl-penalty" else ppo.PPO
        kind = {a2c: a2c.A2C, trpo: trpo.TRPO}.get(stage, clipped)
        return kind(models, critic_from_policy(models.policy), config), config
    kinds = {grpo: grpo.GRPO, rloo: rloo.RLOO, reinforce: reinforce.Reinforce}
    return (kinds | {expert_iteration: expert_iteration.ExpertIteration})[stage](models, config), config


CRITIC: dict[str, Any] = {"lam": 1.0, "critic_learning_rate": 0.02, "vf_coef": 1.0}
GROUPS = {"scale_rewards": "none", "mean_over": "constant", "kl_in": "reward", "kl_estimator": None}
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("stage", "options"),
    [
        pytest.param(rloo, {}, marks=SLOW),
        pytest.param(reinforce, {"baseline": "batch"}, marks=SLOW),
        pytest.param(reinforce, {"baseline": "running"}, marks=SLOW),
        pytest.param(reinforce, {"normalize_advantages": True}, marks=SLOW),
        pytest.param(grpo, GROUPS, marks=SLOW),
        pytest.param(a2c, CRITIC, marks=SLOW),
        pytest.param(ppo, {**CRITIC, "num_mini_batches": 2}, marks=SLOW),
        pytest.param(ppo, {**CRITIC, "num_mini_batches": 2, "objective": "kl-penalty"}, marks=SLOW),
        pytest.param(ppo, {**CRITIC, "objective": "none"}, marks=SLOW),
        pytest.param(trpo, {**CRITIC, "trust_region": 0.02, "cg_damping": 1e-3}, marks=SLOW),
    ],
    ids=str,
)  # fmt: skip
def test_with_kl_in_the_reward_it_comes_to_the_closed_form(models: Models, stage: Any, options: dict[str, Any]) -> None:
    algorithm, config = build(stage, models, **options)
    best = optimum(models, 2)
    assert distance(models, best, 2) > 0.25
    train(algorithm, models, config, 200)
    assert distance(models, best, 2) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["k2", pytest.param("full", marks=SLOW)])
def test_grpo_comes_to_the_optimum_that_its_deviation_makes(models: Models, estimator: str) -> None:
    """Scores are divided by their deviation under the policy, so the price is beta times it at the fixed point."""
    price = 1.5
    algorithm, config = build(grpo, models, max_new_tokens=1, kl_estimator=estimator, kl_coef=price)
    scores, best = torch.stack([score(ids) for ids in answers(1)]), optimum(models, 1, price)
    for _ in range(100):
        deviation = ((best * scores.square()).sum() - (best * scores).sum().square()).sqrt()
        best = optimum(models, 1, price * float(deviation)) / 2 + best / 2
    train(algorithm, models, config, 200)
    assert distance(models, best, 1) < 0.02


@SLOW
def test_grpo_without_a_price_on_kl_comes_to_the_best_answer_alone(models: Models) -> None:
    algorithm, config = build(grpo, models, max_new_tokens=1, kl_coef=0.0, num_generations=64)
    scores = torch.stack([score(ids) for ids in answers(1)])
    best = torch.nn.functional.one_hot(scores.argmax(), len(scores)).float()
    assert distance(models, best, 1) > 0.25
    train(algorithm, models, config, 150)
    assert distance(models, best, 1) < 0.02


@SLOW
def test_dpo_on_enumerated_preferences_comes_to_the_closed_form(models: Models) -> None:
    """Of each two answers i is preferred in w_i of w_i + w_j pairs, so that r = log w in Bradley and Terry's model."""
    worth = (1, 3, 3, 1, 1, 3)
    own = probabilities(models.reference, models.runtime, 1).log().tolist()
    rows = [([PROMPT, *ids], [False, True]) for ids in answers(1)]
    pairs = [
        Pair(rows[i], rows[j], ref_chosen=own[i], ref_rejected=own[j])
        for i, j in permutations(range(len(rows)), 2)
        for _ in range(12 * worth[i] // (worth[i] + worth[j]))
    ]
    weights = torch.tensor(own).exp() * torch.tensor(worth) ** (1 / BETA)
    best = weights / weights.sum()
    assert len(pairs) == 15 * 12 and distance(models, best, 1) > 0.25
    config = dpo.Config(beta=BETA, optimizer=OptimizerConfig(learning_rate=0.02))
    objective, optimizer = dpo.DPO(models.policy, config), Optimizer([models.policy], config.optimizer)
    for step in range(200):
        accumulate(objective, pairs, models.runtime, 4096)
        optimizer.step(1 - step / 200)
    assert distance(models, best, 1) < 0.02


@SLOW
def test_an_expert_iteration_comes_to_the_distribution_of_the_best_of_n(models: Models) -> None:
    """P(best of n is y) = F(y)^n - F(below y)^n, F the reference's probability of answers that score at most r(y)."""
    options: dict[str, Any] = {"kl_coef": 0.0, "max_new_tokens": 1, "num_generations": 4, "prompts_per_step": 4096}
    algorithm, config = build(expert_iteration, models, **options, num_ppo_epochs=60)
    own, order = probabilities(models.reference, models.runtime, 1), SCORES.diagonal().argsort()
    at_most = own[order].cumsum(0)
    best = torch.empty_like(own)
    best[order] = at_most**4 - (at_most - own[order]) ** 4
    assert distance(models, best, 1) > 0.25
    prompts = [TokenizedPrompt(Prompt((), str(i)), [PROMPT]) for i in range(config.prompts_per_step)]
    experience = collect_experience(algorithm, models, config, prompts, ("rollout", 1), 4)
    algorithm.compute_advantages(experience, 0.0)
    update(algorithm, models, experience, [], 1, 1.0, config, lambda: 0.0)
    assert distance(models, best, 1) < 0.02


def gradient(algorithm: Any, models: Models, config: Any, experience: Experience) -> Tensor:
    """The policy's gradient of the first update on an experience."""
    models.policy.zero_grad(set_to_none=True)
    if algorithm.standardize_advantages:
        raise AssertionError("a standardised gradient is another")
    loss = MinibatchLoss(experience, algorithm.losses[0], models.runtime.device, algorithm.mean_over)
    accumulate(loss, range(len(experience.scores)), models.runtime, 4096)
    return torch.cat([p.grad.flatten() for p in models.policy.parameters() if p.grad is not None])


def test_reinforce_rloo_and_dr_grpo_have_one_gradient_where_theory_says_so(models: Models) -> None:
    """Without a price on KL: leave-one-out is RLOO's baseline, and Dr. GRPO's mean is (K - 1) / K of it, / length."""
    options = {"kl_coef": 0.0, "num_generations": 32}
    gradients = {}
    for stage, more in (
        (rloo, {}),
        (reinforce, {"baseline": "leave-one-out"}),
        (reinforce, {"baseline": "batch"}),
        (grpo, GROUPS),
    ):
        algorithm, config = build(stage, models, **options | more)
        gradients[f"{stage.__name__}{more}"] = gradient(algorithm, models, config, sample(algorithm, models, config))
    first, *same, dr_grpo = gradients.values()
    assert all(torch.allclose(first, other, atol=1e-6) for other in same) and first.abs().max() > 1e-2
    assert torch.allclose(first, dr_grpo * 2 * 32 / 31, atol=1e-6)


def test_ppo_at_ratio_one_and_a2c_at_lambda_one_are_reinforce_with_the_critic_as_baseline(models: Models) -> None:
    options = {**CRITIC, "num_generations": 32}
    a2c_algorithm, config = build(a2c, models, **options)
    torch.nn.init.normal_(a2c_algorithm.critic.score.weight, generator=torch.Generator().manual_seed(2))
    experience = sample(a2c_algorithm, models, config)
    result = gradient(a2c_algorithm, models, config, experience)
    for objective in ("clip", "none", "kl-penalty"):
        algorithm, config = build(ppo, models, **options | {"objective": objective})
        algorithm.standardize_advantages = False
        assert torch.allclose(result, gradient(algorithm, models, config, experience), atol=1e-6)
    algorithm, config = build(reinforce, models, num_generations=32, baseline="none")
    own = sample(algorithm, models, config)
    own.columns["advantages"] = (own.columns["returns"] - experience.columns["values"]) * own.rollout.mask
    tokens = float(own.rollout.lengths.sum()) / 32
    assert torch.allclose(result, gradient(algorithm, models, config, own) / tokens, atol=1e-6)
    assert result.abs().max() > 1e-2
