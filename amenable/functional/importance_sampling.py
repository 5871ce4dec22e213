"""Importance weights of tokens that another distribution has sampled: truncated, or masked beyond bounds.

A sampler that is not the trainer (other kernels, a rounded cache, another precision) makes every policy gradient one
of its own distribution. The weight w = pi_trainer / pi_sampler mends that, and its bound C keeps the variance finite
(Ionides, 2008, truncated importance sampling; Espeholt et al., 2018, IMPALA; Yao et al., 2025, on rollouts).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from amenable.functional.losses import LOG_RATIO_LIMIT
from amenable.functional.masked import segment_sums


def importance_weights(
    logp: Tensor,
    sampler_logp: Tensor,
    answers: Tensor,
    count: int,
    cap: float = 2.0,
    beyond: Literal["truncate", "mask"] = "truncate",
    level: Literal["token", "sequence"] = "token",
) -> tuple[Tensor, Tensor]:
    """Return the weight of each token, and True where it is bounded. All [M], without gradient.

        token     w_t = exp(logp_t - sampler_logp_t)
        sequence  w_t = exp(sum over its answer of (logp - sampler_logp))
        truncate  min(w, cap)
        mask      w where 1 / cap <= w <= cap, else 0

    logp, sampler_logp: log-probabilities by the trainer before any update, and by the sampler. answers [M]: each
    token's answer, 0 to count - 1. cap: 1 or more.
    """
    log_weights = logp.detach() - sampler_logp.detach()
    if level == "sequence":
        log_weights = segment_sums(log_weights, answers, count)[answers]
    weights = log_weights.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    if beyond == "truncate":
        return weights.clamp(max=cap), weights > cap
    outside = (weights > cap) | (weights < 1 / cap)
    return weights.masked_fill(outside, 0.0), outside
