"""KL divergence: estimates from samples, the exact sum, and two rules that adapt a penalty's coefficient.

The estimators (Schulman, "Approximating KL divergence", 2020) take log-probabilities of tokens drawn from the policy
and estimate KL(policy || reference). Any may be reported. On the policy's own samples, with r = log pi - log ref:

    in the loss     k1: gradient 0 in expectation     k2: the right one     k3: that of KL(reference || policy)
                    |k1|: sign(r) in place of r; full, the sum over the vocabulary: the right one, without noise
    in the reward   k1: the right gradient, future states included     k2, k3, |k1|: that of another divergence
                    full: none at its own token, which it does not depend on

(Tang and Munos, 2025). A loss at a token leaves out what the token does to later states; a reward does not.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from amenable.functional.logprobs import CHUNK_CPU, at_least_fp32, log_softmax, row_slices


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


def abs_k1(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """|log pi - log ref|: never negative, an estimate of E|log pi - log ref| and not of KL. Any shape, elementwise."""
    return (logp - ref_logp).abs()


Estimator = Literal["k1", "k2", "k3", "abs"]


def estimate(estimator: Estimator, logp: Tensor, ref_logp: Tensor) -> Tensor:
    """Return the estimate k1, k2, k3 or |k1| ("abs"). Any shape, elementwise."""
    estimates = {"k1": k1, "k2": k2, "k3": k3, "abs": abs_k1}
    return estimates[estimator](logp, ref_logp)


def exact_kl(logits: Tensor, ref_logits: Tensor, temperature: float = 1.0, ref_temperature: float = 1.0) -> Tensor:
    """sum_v pi_v (log pi_v - log ref_v) at every position, in fp32 nats. logits [..., V] twice -> [...].

    pi = softmax(logits / temperature), ref = softmax(ref_logits / ref_temperature). A token with pi_v = 0 adds 0, in
    value and gradient; one with ref_v = 0 alone makes the divergence infinite.
    """
    logps, ref_logps = log_softmax(logits, temperature), log_softmax(ref_logits, ref_temperature)
    probabilities = logps.exp()
    impossible = probabilities == 0
    gaps = logps.masked_fill(impossible, 0.0) - ref_logps.masked_fill(impossible, 0.0)
    with torch.autocast(logits.device.type, enabled=False):
        return torch.einsum("...v,...v->...", probabilities, gaps)


def linear_kl(
    hidden: Tensor,
    weight: Tensor,
    ref_hidden: Tensor,
    ref_weight: Tensor,
    temperature: float = 1.0,
    ref_temperature: float = 1.0,
    chunk: int = CHUNK_CPU,
    top_k: int = 0,
) -> Tensor:
    """`exact_kl` at every position, from hidden states: at most `chunk` logits of either model are held at once.

    hidden [M, D] and weight [V, D] of the policy, ref_hidden [M, E] and ref_weight [V, E] of the reference -> [M],
    fp32 nats, with the gradients of both. A backward pass computes a chunk's logits again. Products are
    fp32 under autocast too: logits rounded to bf16 add 9 % to a KL of 0.001 nats and more than double one of 0.0001.
    top_k: `top_k_kl` in place of the exact sum; 0 is the exact one.
    """
    hidden, weight, ref_hidden, ref_weight = map(at_least_fp32, (hidden, weight, ref_hidden, ref_weight))

    def of_chunk(states: Tensor, ref_states: Tensor) -> Tensor:
        logits, ref_logits = states @ weight.t(), ref_states @ ref_weight.t()
        if top_k:
            return top_k_kl(log_softmax(logits, temperature), log_softmax(ref_logits, ref_temperature), top_k)
        return exact_kl(logits, ref_logits, temperature, ref_temperature)

    def again(*states: Tensor) -> Tensor:
        return checkpoint(of_chunk, *states, use_reentrant=False, preserve_rng_state=False)

    compute, kls = again if torch.is_grad_enabled() else of_chunk, [hidden.new_empty(0)]
    with torch.autocast(hidden.device.type, enabled=False):
        for rows in row_slices(len(hidden), max(1, chunk // len(weight))):
            kls.append(compute(hidden[rows], ref_hidden[rows]))
    return torch.cat(kls)


def top_k_kl(logps: Tensor, ref_logps: Tensor, k: int) -> Tensor:
    """KL of k + 1 events: the k tokens most probable under pi, and all others as one. logps [..., V] twice -> [...].

        sum_{v in top k} pi_v (log pi_v - log ref_v) + pi_rest (log pi_rest - log ref_rest),    p_rest = sum_others p_v

    At most `exact_kl`, as by the log-sum inequality, and equal to it at k >= V - 1. The paper's k is 50 (Askell et al.,
    2021, section 2.3).
    """
    order = logps.topk(min(k, logps.shape[-1] - 1), dim=-1).indices
    ours, theirs = (
        torch.cat([each.gather(-1, order), each.scatter(-1, order, -torch.inf).logsumexp(-1, keepdim=True)], dim=-1)
        for each in (logps, ref_logps)
    )
    return (ours.exp() * (ours - theirs)).sum(-1)


MAX_CHANGE = 0.2
"""largest share by which `adapt_kl_coef` changes a coefficient at once, as Ziegler et al. (2019) clip the error"""


def adapt_kl_coef(coef: float, kl: float, target: float, horizon: float, n: int) -> float:
    """Return the coefficient after n samples whose mean KL was `kl` (Ziegler et al., 2019, section 2.2).

        e = clip(kl / target - 1, -0.2, 0.2)      coef' = coef (1 + clip(e n / horizon, -0.2, 0.2))

    The paper's K is n / horizon, 0.1 there. Up to n = horizon the second clip never binds and this is the paper's
    update; beyond, 1 + K e alone would reach 0 at n = 5 horizon and turn negative, a bonus for leaving the reference.
    One measurement moves the coefficient by a fifth at most, so a positive one stays positive for every n, horizon, kl.

    kl and target in nats a completion, coef in units of reward a nat; target and horizon (in samples) above 0.
    """
    error = clip(kl / target - 1, MAX_CHANGE)
    return coef * (1 + clip(error * n / horizon, MAX_CHANGE))


def clip(value: float, limit: float) -> float:
    """Return `value` clipped to [-limit, limit]."""
    return min(max(value, -limit), limit)


def adapt_kl_penalty(coef: float, kl: float, target: float) -> float:
    """Return the coefficient of PPO's KL-penalty form after an update (Schulman et al., 2017, section 4).

    Halved where kl < target / 1.5, doubled where kl > 1.5 target, else unchanged.
    """
    if kl < target / 1.5:
        return coef / 2
    return coef * 2 if kl > target * 1.5 else coef
