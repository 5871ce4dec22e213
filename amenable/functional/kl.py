"""KL divergence: estimates from samples, the exact sum, and two ways to steer a penalty's coefficient.

The estimators (Schulman, "Approximating KL divergence", 2020) take log-probabilities of tokens drawn from the policy
and estimate KL(policy || reference). Any may be reported. As a *loss*, k1 has gradient 0 in expectation, k2 the
right one and k3 that of KL(reference || policy) (Tang and Munos, 2025); as a *reward*, k1 is right.
"""

from __future__ import annotations

import torch
from torch import Tensor


def k1(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """log pi - log ref: unbiased, can be negative. Any shape, elementwise."""
    return logp - ref_logp


def k2(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """(log pi - log ref)^2 / 2: never negative, biased. Any shape, elementwise."""
    return (logp - ref_logp).square() / 2


def k3(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """r - 1 - log r with r = ref / pi: unbiased and never negative. Any shape, elementwise."""
    log_ratio = ref_logp - logp
    return torch.expm1(log_ratio) - log_ratio


def exact_kl(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """sum_v pi_v (log pi_v - log ref_v) at every position, in fp32 nats. logits [..., V] twice -> [...].

    A token that the policy gives probability 0 adds 0, in value and gradient; one that only the reference gives 0 makes
    the divergence infinite.
    """
    double = torch.float64 in (logits.dtype, ref_logits.dtype)
    logps, ref_logps = (torch.log_softmax(x if double else x.float(), dim=-1) for x in (logits, ref_logits))
    probabilities = logps.exp()
    impossible = probabilities == 0
    gap = logps.masked_fill(impossible, 0.0) - ref_logps.masked_fill(impossible, 0.0)
    return (probabilities * gap).sum(-1)


def adapt_kl_coef(coef: float, kl: float, target: float, horizon: float, n: int) -> float:
    """The coefficient after n samples whose KL was `kl` (Ziegler et al., 2019, section 2.2).

    coef' = coef (1 + clip(kl / target - 1, -0.2, 0.2) n / horizon)
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coef * (1 + error * n / horizon)


def halve_or_double(coef: float, kl: float, target: float) -> float:
    """The coefficient of PPO's KL-penalty form after an update (Schulman et al., 2017, section 4).

    Halved where kl < target / 1.5, doubled where kl > 1.5 target, else as it was.
    """
    if kl < target / 1.5:
        return coef / 2
    return coef * 2 if kl > target * 1.5 else coef
