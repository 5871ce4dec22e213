"""Experience: a rollout with what reference, critic and scorer say of it, and the numbers that users watch.

B answers, the longest of T tokens; everything outside a rollout's mask is 0 and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
        "objective/rlhf_reward": float(masked_sum(targets.rewards, mask, dim=1).mean()),
        "val/explained_variance": float(explained_variance(experience.values, targets.returns, mask)),
        "val/num_eos_tokens": int(rollout.ended.sum()),
        "completions/mean_length": float(rollout.lengths.float().mean()),
        "completions/ended": float(rollout.ended.float().mean()),
    }


def sample_rows(experience: Experience, decode: Callable[[list[int]], str], count: int = 8) -> list[dict[str, Any]]:
    """The first answers of a rollout, as samples.jsonl keeps them."""
    rollout = experience.rollout
    kls = masked_sum(rollout.logps - experience.ref_logps, rollout.mask, dim=1)
    return [
        {
            "prompt": decode(rollout.prompts[i]),
            "completion": decode(rollout.responses[i]),
            "ended": bool(rollout.ended[i]),
            "score": round(float(experience.raw_scores[i]), 4),
            "kl": round(float(kls[i]), 4),
        }
        for i in range(min(count, len(rollout.prompts)))
    ]


def require_same_distribution(gap: float, tolerance: float) -> None:
    """At the first update nothing has moved yet: the trainer's log-probabilities must be the sampler's (ratio 1).

    `gap` is the mean absolute difference in nats a token. Raises RuntimeError above the tolerance.
    """
    if not gap < tolerance:
        raise RuntimeError(
            f"the sampler's log-probabilities differ from the trainer's by {gap:.3g} nats a token before any update; "
            "likely causes: dropout left on, another temperature or filter, another precision, another template"
        )
