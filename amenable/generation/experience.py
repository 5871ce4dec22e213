"""Experience: a rollout with what reference, critic and scorer say of it, and the numbers that users watch.

B answers, the longest of T tokens; everything outside a rollout's mask is 0 and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from amenable.functional import kl
from amenable.functional.masked import masked_sum
from amenable.functional.statistics import explained_variance
from amenable.generation.rollout import Rollout


@dataclass(frozen=True)
class Experience:
    """A rollout with what the frozen models and the critic say of it. [B, T] but scores [B]."""

    rollout: Rollout
    ref_logps: Tensor
    values: Tensor
    raw_scores: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Targets:
    """What a rollout teaches: [B, T] each, 0 outside the mask."""

    advantages: Tensor
    returns: Tensor
    rewards: Tensor


def objective_metrics(experience: Experience, targets: Targets, kl_coef: float) -> dict[str, float]:
    """The metrics PPO users know. KL is summed over a response and averaged over the batch, by every estimator."""
    rollout, mask = experience.rollout, experience.rollout.mask
    estimates = {
        name: f(rollout.logps, experience.ref_logps) for name, f in (("k1", kl.k1), ("k2", kl.k2), ("k3", kl.k3))
    }
    sums = {name: masked_sum(value, mask, dim=1) for name, value in estimates.items()}
    return {
        "objective/kl": float(sums["k1"].mean()),
        "objective/kl_k2": float(sums["k2"].mean()),
        "objective/kl_k3": float(sums["k3"].mean()),
        "objective/kl_coef": kl_coef,
        "objective/entropy": float(masked_sum(-rollout.logps, mask, dim=1).mean()),
        "objective/non_score_reward": float(-kl_coef * sums["k1"].mean()),
        "objective/scores": float(experience.raw_scores.mean()),
        "objective/scores_std": float(experience.raw_scores.std(unbiased=False)),
        "objective/advantages_std": float((targets.returns - experience.values)[mask].std(unbiased=False)),
        "objective/rlhf_reward": float(masked_sum(targets.rewards, mask, dim=1).mean()),
        "val/explained_variance": float(explained_variance(experience.values, targets.returns, mask)),
        "val/num_eos_tokens": int(rollout.ended.sum()),
        "completions/mean_length": float(rollout.lengths.float().mean()),
        "completions/ended": float(rollout.ended.float().mean()),
    }


def flat(
    experience: Experience, targets: Targets, chosen: list[int], device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities and values at the time of sampling, advantages and returns, of the chosen answers' tokens: one
    answer after another, [M] each."""
    places = torch.tensor(chosen)
    mask = experience.rollout.mask[places]
    known = (experience.rollout.logps, experience.values, targets.advantages, targets.returns)
    old_logps, old_values, advantages, returns = (values[places][mask].to(device) for values in known)
    return old_logps, old_values, advantages, returns


def update_metrics(
    policy_loss: Tensor,
    policy_stats: dict[str, Tensor],
    value_loss: Tensor,
    value_stats: dict[str, Tensor],
    entropy: Tensor,
    moved: Tensor,
) -> dict[str, float]:
    """The metrics of one update: both losses with what they say of themselves, the mean entropy, and how far the
    trained tokens' log-probabilities `moved` [M] from the sampler's."""
    values = {
        "loss/policy_avg": policy_loss,
        "loss/value_avg": value_loss,
        "policy/entropy_avg": entropy,
        "policy/approxkl_avg": policy_stats["approx_kl"],
        "policy/clipfrac_avg": policy_stats["clip_fraction"],
        "val/clipfrac_avg": value_stats["clip_fraction"],
        "val/ratio": policy_stats["ratio"],
        "val/ratio_gap": moved.abs().mean(),
    }
    return {name: float(value.detach()) for name, value in values.items()}


def answer_rows(experience: Experience, decode: Callable[[list[int]], str]) -> list[dict[str, Any]]:
    """Every answer of a rollout as files keep it: the text, whether it ended, the scorer's word, nats of KL."""
    rollout = experience.rollout
    kls = masked_sum(rollout.logps - experience.ref_logps, rollout.mask, dim=1)
    return [
        {"completion": decode(response), "ended": ended, "score": round(score, 4), "kl": round(kl, 4)}
        for response, ended, score, kl in zip(
            rollout.responses, rollout.ended.tolist(), experience.raw_scores.tolist(), kls.tolist()
        )
    ]


def sample_rows(experience: Experience, decode: Callable[[list[int]], str], count: int = 8) -> list[dict[str, Any]]:
    """The first answers of a rollout with their prompts, as samples.jsonl keeps them."""
    told = zip(experience.rollout.prompts, answer_rows(experience, decode))
    return [{"prompt": decode(prompt), **row} for prompt, row in islice(told, count)]


def require_same_distribution(gap: float, tolerance: float, training: bool = False) -> None:
    """At the first update nothing has moved yet: the trainer's log-probabilities must be the sampler's (ratio 1).

    `gap` is the mean absolute difference in nats a token; `training`: the policy is in training mode. Raises
    RuntimeError above the tolerance, with the usual causes, and the one that shows where one does. A gap that is no
    number is left to the optimizer, which refuses such gradients.
    """
    if gap >= tolerance:
        raise RuntimeError(
            f"the sampler's log-probabilities differ from the trainer's by {gap:.3g} nats a token before any update; "
            "likely causes: dropout left on, another temperature or filter, another precision, another template, "
            f"stale weights in the sampler; {telling_cause(gap, tolerance, training)}"
        )


def require_at_reference(experience: Experience, tolerance: float) -> None:
    """Before any update the policy is its reference: their log-probabilities of the answers must agree (KL 0).

    Raises RuntimeError where they differ by more than `tolerance` nats a token on average.
    """
    mask = experience.rollout.mask
    gap = float((experience.rollout.logps - experience.ref_logps)[mask].abs().mean())
    if gap >= tolerance:
        raise RuntimeError(
            f"the policy differs from its reference by {gap:.3g} nats a token before any update; likely causes: "
            "other weights, another temperature or another template on one side, dropout left on, another precision"
        )


def telling_cause(gap: float, tolerance: float, training: bool) -> str:
    """Which of the causes a look at the policy and at the size of the gap points to."""
    if training:
        return "the policy is in training mode, so it is dropout: call eval() before the updates"
    if gap < 5 * tolerance:
        return "dropout is off and the gap is small, which points to precision: compute both sides with the same one"
    return "dropout is off and the gap is large, which points to temperature, template or stale weights"
