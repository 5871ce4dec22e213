"""Token rewards from a completion's score. Letters: B completions, T tokens."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from amenable.functional import kl
from amenable.functional.masked import zero_outside


def token_rewards(
    logp: Tensor, ref_logp: Tensor, score: Tensor, mask: Tensor, kl_coef: float, estimator: kl.Estimator = "k1"
) -> Tensor:
    """r_t = -kl_coef (log pi(y_t) - log ref(y_t)), plus the score on the last token (Ziegler et al., 2019, eq. 2).

    logp, ref_logp, mask [B, T], score [B] -> [B, T], 0 outside the mask. The last token is the last True of the row's
    mask: EOS where the completion has one. A row with an empty mask has no token to reward and is 0 throughout.
    estimator: another estimate of KL in place of k1, log pi - log ref.
    """
    penalty = kl_coef * zero_outside(kl.estimate(estimator, logp, ref_logp), mask)
    remaining = mask.flip(1).cumsum(1).flip(1)  # tokens of the completion from here on, this one included
    last = mask & (remaining == 1)
    return torch.where(last, score[:, None] - penalty, -penalty)


def penalize_missing_eos(score: Tensor, ended: Tensor, penalty: float) -> Tensor:
    """Return the score [B], less the penalty where the completion has no EOS (ended [B] is False)."""
    return torch.where(ended, score, score - penalty)


def overlong_penalty(lengths: Tensor, limit: int, buffer: int) -> Tensor:
    """Soft penalty of long completions (DAPO; Yu et al., 2025, eq. 13), from 0 to -1. lengths [B], in tokens -> [B].

    0 up to limit - buffer tokens, then falling on a line to -1 at `limit` tokens and beyond; buffer >= 1
    """
    return ((limit - buffer - lengths) / buffer).clamp(-1, 0)


Combination = Literal["mean", "min", "std", "var"]


def combine_scores(scores: Tensor, combination: Combination, coefficient: float = 1.0) -> Tensor:
    """One score of those of M reward models (Coste et al., 2024, section 3). scores [M, B] -> [B].

        mean  m      min  the least      std  m - k s      var  m - k s^2      s^2 = 1/M sum_i (r_i - m)^2

    min is their worst-case optimization, var their uncertainty-weighted one. coefficient k >= 0.
    """
    if combination == "min":
        return scores.amin(0)
    mean = scores.mean(0)
    variance = (scores - mean).square().mean(0)
    penalty = {"mean": torch.zeros_like(mean), "std": variance.sqrt(), "var": variance}[combination]
    return mean - coefficient * penalty
