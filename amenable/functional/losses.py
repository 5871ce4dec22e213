"""What training lowers, but for the next-token loss, which is logprobs.linear_nll.

Letters: B rows, T steps, K answers of a prompt, R answers of all prompts. A loss that people watch returns (loss,
stats): scalars, the stats without gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from amenable.functional import kl
from amenable.functional.masked import masked_mean, zero_outside

LOG_RATIO_LIMIT = 20.0
"""log-ratios are clamped to this size, so that exp stays finite"""


def ppo_policy_loss(
    logp: Tensor, old_logp: Tensor, advantages: Tensor, mask: Tensor, clip: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped surrogate (Schulman et al., 2017, eq. 7), negated so that lower is better.

        ratio = exp(logp - old_logp)      L = -mean min(ratio A, clamp(ratio, 1 +- clip) A)

    logp, old_logp, advantages, mask: one shape, [B, T] or flat. Only logp carries gradient. The log-ratio is clamped at
    +-20. Stats, means over the mask: clip_fraction (the clipped term is the smaller), approx_kl and k1 (estimates
    k3 and k1 of KL(old || new)), ratio, clamped_fraction (log-ratios that were clamped).
    """
    log_ratio, ratio, advantages = ratios(logp, old_logp, advantages, mask)
    unclipped = ratio * advantages
    clipped = ratio.clamp(1 - clip, 1 + clip) * advantages
    loss = -masked_mean(torch.minimum(unclipped, clipped), mask)
    clip_fraction = masked_mean((clipped < unclipped).float(), mask)
    return loss, {"clip_fraction": clip_fraction, **ratio_stats(log_ratio, ratio, mask)}


def ppo_kl_penalty_loss(
    logp: Tensor, old_logp: Tensor, advantages: Tensor, mask: Tensor, kl_coef: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Surrogate with a KL penalty instead of a clip (Schulman et al., 2017, eq. 8), negated.

        L = -mean (ratio A - kl_coef KL(old || new))

    Shapes and stats as in `ppo_policy_loss`, without clip_fraction. The KL is estimated by k3 on the old policy's
    tokens, whose gradient is right in expectation. Between updates `kl.halve_or_double` moves the coefficient.
    """
    log_ratio, ratio, advantages = ratios(logp, old_logp, advantages, mask)
    divergence = kl.k3(torch.zeros_like(log_ratio), log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
    loss = -masked_mean(ratio * advantages - kl_coef * divergence, mask)
    return loss, ratio_stats(log_ratio, ratio, mask)


def ratios(logp: Tensor, old_logp: Tensor, advantages: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """logp - old_logp, its clamped exponential, and the advantages: all harmless outside the mask."""
    log_ratio = zero_outside(logp, mask) - zero_outside(old_logp.detach(), mask)
    ratio = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    return log_ratio, ratio, zero_outside(advantages.detach(), mask)


@torch.no_grad()
def ratio_stats(log_ratio: Tensor, ratio: Tensor, mask: Tensor) -> dict[str, Tensor]:
    clamped = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return {
        "approx_kl": masked_mean(kl.k3(torch.zeros_like(clamped), clamped), mask),
        "k1": masked_mean(-log_ratio, mask),
        "ratio": masked_mean(ratio, mask),
        "clamped_fraction": masked_mean((log_ratio.abs() > LOG_RATIO_LIMIT).float(), mask),
    }


def value_loss(
    values: Tensor, old_values: Tensor, targets: Tensor, mask: Tensor, clip: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Half the squared error of the values, the worse of clipped and unclipped (Dhariwal et al., 2017, Baselines).

        L = 1/2 mean max((V - R)^2, (clamp(V, V_old +- clip) - R)^2)

    values, old_values, targets, mask: one shape. Only values carries gradient. Stats: clip_fraction, where the clipped
    error is the larger.
    """
    values, old_values, targets = (zero_outside(x, mask) for x in (values, old_values.detach(), targets.detach()))
    unclipped = (values - targets).square()
    clipped = (torch.clamp(values, old_values - clip, old_values + clip) - targets).square()
    loss = masked_mean(torch.maximum(unclipped, clipped), mask) / 2
    return loss, {"clip_fraction": masked_mean((clipped > unclipped).float(), mask)}


def preference_loss(
    chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0, label_smoothing: float = 0.0
) -> Tensor:
    """Bradley-Terry negative log likelihood of 'chosen beats rejected', a scalar. Scores [B] and [B].

        h = chosen - rejected - margin      L = -mean ((1 - e) log sigma(h) + e log sigma(-h))

    margin, a number or [B], in the units of the scores: how far apart a grade wants them (Touvron et al., 2023, eq. 2).
    label_smoothing e: share of labels taken to be flipped; the loss is least at chosen - rejected = margin +
    log((1 - e) / e).
    """
    gap = chosen - rejected - margin
    return -((1 - label_smoothing) * F.logsigmoid(gap) + label_smoothing * F.logsigmoid(-gap)).mean()


def ranking_loss(scores: Tensor, ranks: Tensor) -> Tensor:
    """Mean Bradley-Terry loss over the pairs of one prompt's K answers (Ouyang et al., 2022, eq. 1).

    Scores [K], ranks [K] -> scalar. Rank 1 is the best; pairs of equal rank are dropped; ValueError if none is left.
    """
    return ranking_loss_flat(scores, ranks, torch.zeros_like(ranks, dtype=torch.long))[0]


def ranking_loss_flat(
    scores: Tensor, ranks: Tensor, prompts: Tensor, margins: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """`ranking_loss` of many prompts at once: the mean over prompts of the mean over their pairs.

        L = -mean over prompts  mean over pairs  log sigma(r_better - r_worse - m)

    scores [R], ranks [R] (1 the best), prompts [R] (which prompt an answer belongs to, from 0), margins m [P] (of each
    prompt, in the units of the scores, as in `preference_loss`; none is 0). A prompt without a pair of different ranks
    carries no weight; ValueError if no prompt has one. Stats, averaged in the same way: accuracy (share of pairs whose
    better answer scores higher, equal scores one half) and margin (better score less worse), whatever m is.
    """
    better, worse = ((prompts[:, None] == prompts) & (ranks[:, None] < ranks)).nonzero(as_tuple=True)
    if better.numel() == 0:
        raise ValueError("no two answers of a prompt differ in rank: there is nothing to learn from")
    _, owner, pairs = prompts[better].unique(return_inverse=True, return_counts=True)
    weight = 1 / (pairs[owner] * pairs.numel()).to(scores.dtype)  # the weights sum to 1
    gap = scores[better] - scores[worse]
    wanted = 0.0 if margins is None else margins[prompts[better]]
    loss = -(weight * F.logsigmoid(gap - wanted)).sum()
    right = (gap.detach().sign() + 1) / 2
    return loss, {"accuracy": (weight * right).sum(), "margin": (weight * gap.detach()).sum()}


def plackett_luce_loss(scores: Tensor) -> Tensor:
    """Negative log likelihood of a whole order, best first (Plackett, 1975): scores [..., K] -> mean over the rest.

        L = -sum_k (r_k - logsumexp_{j >= k} r_j)

    With K = 2 it is `preference_loss`. There is no place for ties.
    """
    remaining = scores.flip(-1).logcumsumexp(-1).flip(-1)
    return (remaining - scores).sum(-1).mean()


def dpo_loss(
    chosen_logratio: Tensor,
    rejected_logratio: Tensor,
    beta: float,
    label_smoothing: float = 0.0,
    margin: Tensor | float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """DPO (Rafailov et al., 2023, eq. 7): `preference_loss` with the implicit reward beta log(pi / ref).

        h = beta (chosen_logratio - rejected_logratio) - margin      L = -mean log sigma(h)

    Log-ratios [B] and [B], summed over an answer's tokens, EOS included. label_smoothing e > 0 is conservative DPO:
    (1 - e) L(h) + e L(-h). margin, a number or [B], in units of reward (Amini et al., 2024: DPO with an offset).
    Stats, means over the batch: rewards/chosen, rewards/rejected, rewards/margins (what was reached, not `margin`),
    rewards/accuracies (equal rewards one half).
    """
    chosen, rejected = beta * chosen_logratio, beta * rejected_logratio
    loss = preference_loss(chosen, rejected, margin, label_smoothing)
    margins = (chosen - rejected).detach()
    return loss, {
        "rewards/chosen": chosen.detach().mean(),
        "rewards/rejected": rejected.detach().mean(),
        "rewards/margins": margins.mean(),
        "rewards/accuracies": ((margins.sign() + 1) / 2).mean(),
    }
