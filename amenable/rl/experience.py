"""Experience: a rollout with its scores and columns of numbers, the metrics of both, and the checks before an update.

B answers, the longest of T tokens; everything outside a rollout's mask is 0 and counts for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from amenable.data.types import Prompt
from amenable.functional import kl
from amenable.functional.masked import masked_sum
from amenable.functional.statistics import explained_variance
from amenable.generation.rollout import Rollout

MISSING = 0.003
"""probability that a sampler may leave out: chance alone stays below it where answers are thousands of tokens"""
ERRORS = 5
"""standard errors by which a mean ratio must be off to be no chance"""
ENOUGH = 100
"""tokens that make a standard error: a few may all be off to one side, by rounding"""


class TokenizedPrompt(NamedTuple):
    """A prompt and its ids."""

    prompt: Prompt
    ids: list[int]


@dataclass
class Experience:
    """A rollout with its scores, and columns: numbers of every response token, [B, T] by name, 0 outside the mask."""

    rollout: Rollout
    raw_scores: Tensor
    """[B] as the reward gave them"""
    scores: Tensor
    """[B] after clipping and the penalty of a missing end"""
    columns: dict[str, Tensor] = field(default_factory=dict)
    """such as ref_logps, values, rewards, advantages, returns"""
    prompts: Sequence[Prompt] = ()
    """of the rollout, each once; the answers to a prompt are neighbours"""
    reward_scores: dict[str, Tensor] = field(default_factory=dict)
    """[B] unweighted scores of each part of the reward, by its name"""

    def flat(self, chosen: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """Return `logps` and every column of the chosen answers' tokens, one answer after another, [M] each."""
        index = torch.tensor(chosen)
        mask = self.rollout.mask[index]
        columns = {"logps": self.rollout.logps, **self.columns}
        return {name: column[index][mask].to(device) for name, column in columns.items()}


def objective_metrics(experience: Experience, kl_coef: float) -> dict[str, float]:
    """Return the metrics of a step's samples. KL is summed over a response and averaged over the batch, by every
    estimator; `advantages` are those before they are standardised."""
    rollout, mask, columns = experience.rollout, experience.rollout.mask, experience.columns
    ref_logps = columns["ref_logps"]
    estimates = {name: f(rollout.logps, ref_logps) for name, f in (("k1", kl.k1), ("k2", kl.k2), ("k3", kl.k3))}
    sums = {name: masked_sum(value, mask, dim=1) for name, value in estimates.items()}
    paid = (
        masked_sum(columns["rewards"], mask, dim=1)
        if "rewards" in columns
        else experience.scores - kl_coef * sums["k1"]
    )
    metrics = {
        "objective/kl": float(sums["k1"].mean()),
        "objective/kl_k2": float(sums["k2"].mean()),
        "objective/kl_k3": float(sums["k3"].mean()),
        "objective/kl_coef": kl_coef,
        "objective/entropy": float(masked_sum(-rollout.logps, mask, dim=1).mean()),
        "objective/non_score_reward": float(-kl_coef * sums["k1"].mean()),
        "objective/scores": float(experience.raw_scores.mean()),
        "objective/scores_std": float(experience.raw_scores.std(unbiased=False)),
        "objective/advantages_std": float(columns["advantages"][mask].std(unbiased=False)),
        "objective/rlhf_reward": float(paid.mean()),
        "completions/mean_length": float(rollout.lengths.float().mean()),
        "completions/clipped_ratio": float((~rollout.ended).float().mean()),
    }
    if len(experience.reward_scores) > 1:
        metrics |= {f"rewards/{name}/mean": float(part.mean()) for name, part in experience.reward_scores.items()}
    if "values" in columns and "returns" in columns:
        explained = explained_variance(columns["values"], columns["returns"], mask)
        metrics["value/explained_variance"] = float(explained)
    return metrics


def mean_of(history: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of every statistic over a step's updates, and their number `updates`. Of
    sampling/logp_difference it is the first update's, before which nothing has moved."""
    mean = {key: sum(stats[key] for stats in history) / len(history) for key in history[0]}
    return {**mean, "sampling/logp_difference": history[0]["sampling/logp_difference"], "updates": len(history)}


def answer_rows(experience: Experience, decode: Callable[[list[int]], str]) -> list[dict[str, Any]]:
    """Every answer of a rollout as files keep it: the text, whether it ended, the scorer's word, nats of KL."""
    rollout = experience.rollout
    kls = masked_sum(rollout.logps - experience.columns["ref_logps"], rollout.mask, dim=1)
    return [
        {"completion": decode(response), "ended": ended, "score": round(score, 4), "kl": round(kl, 4)}
        for response, ended, score, kl in zip(
            rollout.completions, rollout.ended.tolist(), experience.raw_scores.tolist(), kls.tolist()
        )
    ]


def sample_rows(experience: Experience, decode: Callable[[list[int]], str], count: int = 8) -> list[dict[str, Any]]:
    """The first answers of a rollout with their prompts, as samples.jsonl keeps them."""
    told = zip(experience.rollout.prompts, answer_rows(experience, decode))
    return [{"prompt": decode(prompt), **row} for prompt, row in islice(told, count)]


@dataclass(frozen=True)
class Ratios:
    """The trainer's probabilities of sampled tokens over the sampler's, before any update: all 1 but for rounding."""

    tokens: int
    gap: float
    """mean absolute logarithm, in nats a token"""
    mean: float
    """1 less the probability of all tokens that the sampler never draws, wherever the trainer's own is whole:
    E_pi[pi' / pi] = the sum of pi' where pi > 0"""
    variance: float

    @classmethod
    def of(cls, moved: Tensor) -> Ratios:
        """From the trainer's log-probabilities less the sampler's, [M]."""
        ratios = moved.exp()
        return cls(moved.numel(), float(moved.abs().mean()), float(ratios.mean()), float(ratios.var(unbiased=False)))

    @property
    def missing(self) -> float:
        """The probability that the sampler never draws; 0 where that may be chance."""
        off, error = 1 - self.mean, math.sqrt(self.variance / max(self.tokens, 1))
        return off if self.tokens >= ENOUGH and abs(off) > max(MISSING, ERRORS * error) else 0.0


def require_same_distribution(
    ratios: Ratios, tolerance: float, training: bool = False, rounding: Callable[[], float] = lambda: 0.0
) -> None:
    """At the first update nothing has moved yet: the trainer's log-probabilities must be the sampler's (ratio 1).

    `training`: the policy is in training mode. rounding(): nats a token that the precision of products makes; twice as
    much is borne, as both sides are rounded, but for a policy in training mode, whose dropout would pass for rounding.
    Raises RuntimeError above the tolerance, and where the mean ratio says that the sampler leaves tokens out, with the
    usual causes, and the one that shows where one does. A gap that is no number is left to the optimizer, which refuses
    such gradients.
    """
    gap = ratios.gap
    if gap >= tolerance and (training or gap >= 2 * rounding()):
        raise RuntimeError(
            f"the sampler's log-probabilities differ from the trainer's by {gap:.3g} nats a token before any update; "
            "likely causes: dropout left on, another temperature or filter, another precision, another template, "
            f"stale weights in the sampler; {telling_cause(gap, tolerance, training)}"
        )
    if ratios.missing:
        raise RuntimeError(
            f"before any update the trainer's probabilities are {ratios.mean:.4f} times the sampler's on average, "
            f"beyond chance: the sampler leaves out {ratios.missing:.1%} of what the trainer gives, as top-k, top-p "
            "and min-p do: sample without filters"
        )


def require_at_reference(experience: Experience, tolerance: float, rounding: Callable[[], float] = lambda: 0.0) -> None:
    """Before any update the policy is its reference: their log-probabilities of the answers must agree (KL 0).

    Raises RuntimeError where they differ by more than `tolerance` nats a token on average, or than twice rounding(), or
    where the sampler leaves tokens out that the reference gives a probability.
    """
    mask = experience.rollout.mask
    ratios = Ratios.of((experience.columns["ref_logps"] - experience.rollout.logps)[mask])
    if ratios.missing or (ratios.gap >= tolerance and ratios.gap >= 2 * rounding()):
        raise RuntimeError(
            f"the policy differs from its reference by {ratios.gap:.3g} nats a token before any update, the mean ratio "
            f"is {ratios.mean:.4f}; likely causes: other weights, another temperature, a filter or another template on "
            "one side, dropout left on, another precision"
        )


def telling_cause(gap: float, tolerance: float, training: bool) -> str:
    """Which of the causes a look at the policy and at the size of the gap points to."""
    if training:
        return "the policy is in training mode, so it is dropout: call eval() before the updates"
    if gap < 2 * tolerance:
        return "dropout is off and the gap is small, which points to precision: compute both sides with the same one"
    return "dropout is off and the gap is large, which points to temperature, template or stale weights"
