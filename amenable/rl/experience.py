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
from amenable.errors import InputError
from amenable.functional import kl
from amenable.functional.masked import masked_sum
from amenable.functional.statistics import explained_variance
from amenable.generation.rollout import Rollout

MAX_MISSING_PROBABILITY = 0.003
"""largest 1 - mean ratio that chance explains in batches of thousands of tokens"""
MIN_STANDARD_ERRORS = 5
"""standard errors from 1 at which a mean ratio is significant"""
MAX_CORRECTED_GAP = 0.1
"""nats a token between trainer and sampler, above which weights of samples correct no rounding but a mistake"""
MIN_TOKENS = 100
"""tokens needed for a standard error: a few may all be rounded to one side"""


Purpose = tuple[object, ...]
"""names and numbers that decide the random numbers of answers"""


class TokenizedPrompt(NamedTuple):
    """A prompt and its ids."""

    prompt: Prompt
    ids: list[int]


@dataclass
class Experience:
    """A rollout with its scores, and columns: numbers of every response token, [B, T] by name, 0 outside the mask."""

    rollout: Rollout
    raw_scores: Tensor
    """[B] from the reward, unclipped"""
    scores: Tensor
    """[B] after clipping and the penalty of a missing end"""
    columns: dict[str, Tensor] = field(default_factory=dict)
    """such as ref_logps, values, rewards, advantages, returns; `logps` are the trainer's before a step's updates, from
    the first of several on"""
    prompts: Sequence[Prompt] = ()
    """of the rollout, each once; the answers to a prompt are neighbours"""
    reward_scores: dict[str, Tensor] = field(default_factory=dict)
    """[B] unweighted scores of each part of the reward, by its name"""
    reward_metrics: dict[str, float] = field(default_factory=dict)
    """of each part of the reward"""
    staleness: Tensor | None = None
    """[B] steps of updates since an answer was sampled; None where all are answers of the policy as it is"""

    @property
    def is_stale(self) -> bool:
        """True if an answer is an older policy's."""
        return self.staleness is not None and bool(self.staleness.any())

    def flat(self, chosen: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """Return `sampler_logps` and all columns of the chosen answers' tokens, one answer after another, [M] each."""
        index = torch.tensor(chosen)
        mask = self.rollout.mask[index]
        columns = {"sampler_logps": self.rollout.logps, **self.columns}
        return {name: column[index][mask].to(device) for name, column in columns.items()}


MakeExperience = Callable[[Sequence[TokenizedPrompt], Purpose, int], Experience]
"""(prompts, purpose, answers to each) -> experience"""


def objective_metrics(experience: Experience, kl_coef: float) -> dict[str, float]:
    """Return the metrics of a step's samples. KL is summed over a response and averaged over the batch, by each
    estimator; advantages are those before standardisation."""
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
    metrics |= experience.reward_metrics
    if experience.staleness is not None:
        metrics["sampling/staleness"] = float(experience.staleness.float().mean())
    if "values" in columns and "returns" in columns:
        explained = explained_variance(columns["values"], columns["returns"], mask)
        metrics["value/explained_variance"] = float(explained)
    return metrics


def scores_by_source(scores: Tensor, sources: Sequence[str] | None) -> dict[str, float]:
    """Return the mean of the scores [B] of each source's answers, as `objective/scores/NAME`; {} without sources.

    sources: name of the source of each prompt; the answers to a prompt are neighbours.
    """
    if sources is None:
        return {}
    of_prompts = scores.view(len(sources), -1)
    return {
        f"objective/scores/{name}": float(of_prompts[[source == name for source in sources]].mean())
        for name in sorted(set(sources))
    }


def mean_of(history: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of every statistic over a step's updates, and their number `updates`. Statistics `sampling/` are
    the first update's, before which nothing has moved."""
    mean = {key: sum(stats[key] for stats in history) / len(history) for key in history[0]}
    mean |= {key: value for key, value in history[0].items() if key.startswith("sampling/")}
    return {**mean, "updates": len(history)}


def answer_rows(experience: Experience, decode: Callable[[list[int]], str]) -> list[dict[str, Any]]:
    """Return a row for each answer of a rollout: text, ended, score (unclipped), KL in nats; where the score is a sum,
    its parts by name."""
    rollout = experience.rollout
    kls = masked_sum(rollout.logps - experience.columns["ref_logps"], rollout.mask, dim=1)
    rows: list[dict[str, Any]] = [
        {"completion": decode(response), "ended": ended, "score": round(score, 4), "kl": round(kl, 4)}
        for response, ended, score, kl in zip(
            rollout.completions, rollout.ended.tolist(), experience.raw_scores.tolist(), kls.tolist()
        )
    ]
    if len(experience.reward_scores) > 1:
        for i, row in enumerate(rows):
            row["rewards"] = {name: round(float(part[i]), 4) for name, part in experience.reward_scores.items()}
    if experience.staleness is not None:
        rows = [{**row, "staleness": steps} for row, steps in zip(rows, experience.staleness.tolist())]
    return rows


def sample_rows(experience: Experience, decode: Callable[[list[int]], str], count: int = 8) -> list[dict[str, Any]]:
    """Return rows of samples.jsonl: the first `count` answers of a rollout with their prompts."""
    pairs = zip(experience.rollout.prompts, answer_rows(experience, decode))
    return [{"prompt": decode(prompt), **row} for prompt, row in islice(pairs, count)]


@dataclass(frozen=True)
class Ratios:
    """Ratios of the trainer's probabilities of sampled tokens to the sampler's, before any update: 1 up to rounding."""

    tokens: int
    gap: float
    """mean absolute logarithm, in nats a token"""
    mean: float
    """E_pi[pi' / pi] = the sum of pi' where pi > 0: 1 less the trainer's probability of what the sampler never draws"""
    variance: float

    @classmethod
    def of(cls, moved: Tensor) -> Ratios:
        """Compute the statistics of log-ratios [M]: the trainer's log-probabilities less the sampler's."""
        ratios = moved.exp()
        return cls(moved.numel(), float(moved.abs().mean()), float(ratios.mean()), float(ratios.var(unbiased=False)))

    @property
    def missing(self) -> float:
        """The trainer's probability of tokens that the sampler never draws; 0 where chance explains it."""
        off, error = 1 - self.mean, math.sqrt(self.variance / max(self.tokens, 1))
        return (
            off
            if self.tokens >= MIN_TOKENS and abs(off) > max(MAX_MISSING_PROBABILITY, MIN_STANDARD_ERRORS * error)
            else 0.0
        )


def require_same_distribution(
    ratios: Ratios, tolerance: float, training: bool = False, rounding: Callable[[], float] = lambda: 0.0
) -> None:
    """Require that trainer and sampler have the same log-probabilities at the first update, when no weight has moved.

    training: True if the policy is in training mode. rounding(): nats a token due to the precision of products; twice
    that is allowed, as both sides are rounded, except in training mode, where dropout would pass for rounding.
    Raises RuntimeError above the tolerance, and where the mean ratio shows that the sampler leaves tokens out, with the
    likely cause. A nan gap is left to the optimizer, which refuses such gradients.
    """
    gap = ratios.gap
    if gap >= tolerance and (training or gap >= 2 * rounding()):
        raise RuntimeError(
            f"the sampler's log-probabilities differ from the trainer's by {gap:.3g} nats a token before any update; "
            "likely causes: dropout left on, another temperature or filter, another precision, another template, "
            f"stale weights in the sampler; {likely_cause(gap, tolerance, training)}"
        )
    if ratios.missing:
        raise RuntimeError(
            f"before any update the trainer's probabilities are {ratios.mean:.4f} times the sampler's on average, "
            f"beyond chance: the sampler leaves out {ratios.missing:.1%} of what the trainer gives, as top-k, top-p "
            "and min-p do: sample without filters"
        )


def require_near(
    ratios: Ratios, tolerance: float, corrected: bool, rounding: Callable[[], float] = lambda: 0.0
) -> None:
    """Require that a sampler outside the trainer has its log-probabilities at the first update: up to the tolerance, or
    twice the rounding(), and up to MAX_CORRECTED_GAP where the sampler is corrected for.

    Raises InputError for a larger gap in nats a token, and for a sampler that leaves tokens out.
    """
    gap = ratios.gap
    if gap >= tolerance and gap >= (MAX_CORRECTED_GAP if corrected else 2 * rounding()):
        problem = f"the sampler's log-probabilities differ from the trainer's by {gap:.3g} nats a token"
        hint = (
            "is it another model, or another temperature?"
            if gap >= MAX_CORRECTED_GAP
            else "weigh by it: --sampler-correction truncate"
        )
        raise InputError(problem, how=hint)
    if ratios.missing:
        problem = f"the sampler never draws {ratios.missing:.1%} of what the trainer gives"
        raise InputError(problem, how="serve it without top-k, top-p and min-p")


def require_at_reference(experience: Experience, tolerance: float, rounding: Callable[[], float] = lambda: 0.0) -> None:
    """Require that policy and reference have the same log-probabilities of the answers before any update (KL 0).

    Raises RuntimeError if they differ by more than `tolerance` nats a token on average and more than twice rounding(),
    or if the sampler leaves out tokens to which the reference gives a probability.
    """
    mask = experience.rollout.mask
    ratios = Ratios.of((experience.columns["ref_logps"] - experience.rollout.logps)[mask])
    if ratios.missing or (ratios.gap >= tolerance and ratios.gap >= 2 * rounding()):
        raise RuntimeError(
            f"the policy differs from its reference by {ratios.gap:.3g} nats a token before any update, the mean ratio "
            f"is {ratios.mean:.4f}; likely causes: other weights, another temperature, a filter or another template on "
            "one side, dropout left on, another precision"
        )


def likely_cause(gap: float, tolerance: float, training: bool) -> str:
    """Return the likely cause, by the policy's mode and the size of the gap in nats a token."""
    if training:
        return "the policy is in training mode, so it is dropout: call eval() before the updates"
    if gap < 2 * tolerance:
        return "dropout is off and the gap is small, which points to precision: compute both sides with the same one"
    return "dropout is off and the gap is large, which points to temperature, template or stale weights"
