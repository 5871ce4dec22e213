"""Loss functions. (Next-token cross-entropy is `logprobs.linear_nll`.)

Letters: B rows, T steps, P prompts, R completions of all prompts. A loss returns (loss, stats): a scalar with gradient,
and scalars without, by metric name. `preference_losses` returns a loss for each pair; those of policies on pairs are in
`preference_losses.py`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from amenable.functional import kl
from amenable.functional.masked import masked_mean, segment_means, zero_outside

Stats = dict[str, Tensor]
LOG_RATIO_LIMIT = 20.0
"""log-ratios are clamped to this size, so that exp stays finite"""


def ppo_policy_loss(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor | None,
    clip: float,
    clip_high: float | None = None,
    dual_clip: float = 0.0,
) -> tuple[Tensor, Stats]:
    """Clipped surrogate (Schulman et al., 2017, eq. 7), negated so that lower is better.

        ratio = exp(logp - old_logp)      L = -mean clipped_surrogate(ratio, A)

    logp, old_logp, advantages, mask: one shape, [B, T] or flat; mask None: everything counts. Only logp carries
    gradient. The log-ratio is clamped at +-20. An infinite clip leaves L^CPI (eq. 6). Stats, means over the mask:
    clip_fraction (a clipped term is taken), approx_kl and k1 (estimates k3 and k1 of KL(old || new)), ratio,
    clamped_fraction (log-ratios that were clamped).
    """
    log_ratio, ratio, advantages = ratios(logp, old_logp, advantages, mask)
    terms, clipped = clipped_surrogate(ratio, advantages, clip, clip_high, dual_clip)
    clip_fraction = masked_mean(clipped.float(), mask)
    return -masked_mean(terms, mask), {"clip_fraction": clip_fraction, **ratio_stats(log_ratio, ratio, mask)}


def clipped_surrogate(
    ratio: Tensor, advantages: Tensor, clip: float, clip_high: float | None = None, dual_clip: float = 0.0
) -> tuple[Tensor, Tensor]:
    """min(ratio A, clamp(ratio, 1 - clip, 1 + clip_high) A), and True where a bound has taken its gradient.

    ratio, advantages: one shape, as both results. clip_high: None is clip; larger is DAPO's clip-higher (Yu et al.,
    2025). dual_clip c above 1: where A < 0 no less than c A, which bounds large ratios (Ye et al., 2020; the two-sided
    clip of INTELLECT-2); 0 is none.
    """
    unclipped = ratio * advantages
    clipped = ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high)) * advantages
    terms, bounded = torch.minimum(unclipped, clipped), clipped < unclipped
    if dual_clip:
        least = torch.where(advantages < 0, dual_clip * advantages, -torch.inf)
        terms, bounded = torch.maximum(terms, least), bounded | (terms < least)
    return terms, bounded


def group_policy_losses(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    answers: Tensor,
    count: int,
    clip: float,
    clip_high: float | None = None,
    dual_clip: float = 0.0,
    ratio_of: Literal["token", "sequence"] = "token",
    form: Literal["clip", "cispo"] = "clip",
) -> tuple[Tensor, Stats]:
    """Losses of GRPO and its relatives, one a token; `mean_of_tokens` makes the loss of them.

        token      rho_t = exp(logp_t - old_logp_t)                                  GRPO (Shao et al., 2024)
        sequence   rho_t = exp(mean over its answer of (logp - old_logp))            GSPO (Zheng et al., 2025)
        clip       l_t = -clipped_surrogate(rho_t, A_t)
        cispo      l_t = -stop_gradient(min(rho_t, 1 + clip_high)) A_t logp_t        CISPO (MiniMax, 2025)

    logp, old_logp, advantages, answers (each token's answer, 0 to count - 1): [M], as the losses. Only logp carries
    gradient; by sequence every token's logp has the gradient of its answer's mean. Stats: clip_fraction, over tokens.
    """
    log_ratio = logp - old_logp.detach()
    if ratio_of == "sequence":
        log_ratio = segment_means(log_ratio, answers, count)[answers]
    ratio, advantages = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp(), advantages.detach()
    if form == "cispo":
        most = 1 + (clip if clip_high is None else clip_high)
        weights, bounded = ratio.detach().clamp(max=most), ratio > most
        return -weights * advantages * logp, {"clip_fraction": bounded.float().mean()}
    terms, bounded = clipped_surrogate(ratio, advantages, clip, clip_high, dual_clip)
    return -terms, {"clip_fraction": bounded.float().mean()}


def mean_of_tokens(
    numbers: Tensor, answers: Tensor, count: int, mean_over: Literal["tokens", "answers", "constant"], constant: int = 1
) -> Tensor:
    """Mean of numbers [M] of tokens that belong to `count` answers (answers [M]: 0 to count - 1), a scalar.

    tokens     mean over all tokens                                        BNPO, DAPO (Yu et al., 2025)
    answers    mean over answers of the mean over their tokens             GRPO (Shao et al., 2024)
    constant   mean over answers of the sum over their tokens / constant   Dr. GRPO (Liu et al., 2025)
    """
    if mean_over == "tokens":
        return numbers.mean()
    if mean_over == "answers":
        return segment_means(numbers, answers, count).mean()
    return numbers.sum() / (count * constant)


def ppo_kl_penalty_loss(
    logp: Tensor, old_logp: Tensor, advantages: Tensor, mask: Tensor, kl_coef: float
) -> tuple[Tensor, Stats]:
    """Surrogate with a KL penalty instead of a clip (Schulman et al., 2017, eq. 8), negated.

        L = -mean (ratio A - kl_coef KL(old || new))

    Shapes and stats as in `ppo_policy_loss`, without clip_fraction. The KL is estimated by k3 on the old policy's
    tokens, whose gradient is right in expectation. `kl.adapt_kl_penalty` adapts kl_coef between updates.
    """
    log_ratio, ratio, advantages = ratios(logp, old_logp, advantages, mask)
    divergence = kl.k3(torch.zeros_like(log_ratio), log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
    loss = -masked_mean(ratio * advantages - kl_coef * divergence, mask)
    return loss, ratio_stats(log_ratio, ratio, mask)


def ratios(logp: Tensor, old_logp: Tensor, advantages: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return logp - old_logp, its clamped exponential, and the advantages, each 0 (the ratio 1) outside the mask."""
    log_ratio = zero_outside(logp, mask) - zero_outside(old_logp.detach(), mask)
    ratio = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    return log_ratio, ratio, zero_outside(advantages.detach(), mask)


@torch.no_grad()
def ratio_stats(log_ratio: Tensor, ratio: Tensor, mask: Tensor | None) -> Stats:
    clamped = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return {
        "approx_kl": masked_mean(kl.k3(torch.zeros_like(clamped), clamped), mask),
        "k1": masked_mean(-log_ratio, mask),
        "ratio": masked_mean(ratio, mask),
        "clamped_fraction": masked_mean((log_ratio.abs() > LOG_RATIO_LIMIT).float(), mask),
    }


def value_loss(values: Tensor, old_values: Tensor, targets: Tensor, mask: Tensor, clip: float) -> tuple[Tensor, Stats]:
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


def preference_losses(
    chosen: Tensor,
    rejected: Tensor,
    margin: Tensor | float = 0.0,
    label_smoothing: Tensor | float = 0.0,
    noise: float = 0.0,
) -> Tensor:
    """Bradley-Terry negative log likelihood of 'chosen beats rejected', for each pair. Scores [B] and [B] -> [B].

        h = chosen - rejected - margin      L = -((1 - e) log p(h) + e log p(-h))      p(h) = (1 - n) sigma(h) + n / 2

    margin, a number or [B], in the units of the scores: how far apart a grade wants them (Touvron et al., 2023, eq. 2).
    label_smoothing e, a number or [B]: share of labels taken to be flipped; one half for 'equally good'. The loss is
    least at chosen - rejected = margin + log((1 - e) / e) where there is no noise.
    noise n: share of labels taken to be a fair coin's (Christiano et al., 2017, section 2.2.3: .1). No single label
    then costs more than -log(n / 2), however large h is.
    """
    gap = chosen - rejected - margin
    wins, losses = F.logsigmoid(gap), F.logsigmoid(-gap)
    if noise:
        coin = torch.full_like(gap, math.log(noise / 2))
        wins, losses = (torch.logaddexp(each + math.log1p(-noise), coin) for each in (wins, losses))
    return -((1 - label_smoothing) * wins + label_smoothing * losses)


def ranking_loss(
    scores: Tensor,
    ranks: Tensor,
    prompts: Tensor | None = None,
    margins: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Stats]:
    """Bradley-Terry loss over all pairs of ranked completions (Ouyang et al., 2022, eq. 1).

        L = -mean over prompts  mean over pairs  log sigma(r_better - r_worse - m)

    scores [R], ranks [R] (1 the best; pairs of equal rank are dropped), prompts [R] (each completion's prompt, from 0;
    None for a single prompt), margins m [P] (in the units of the scores, as in `preference_losses`; None for 0). A
    prompt without a pair carries no weight; ValueError if no prompt has one. Stats, averaged in the same way: accuracy
    (share of pairs whose better completion scores higher, equal scores one half) and margin (better score less worse
    score, whatever m is). label_smoothing: that of `preference_losses`.
    """
    better, worse, owners = comparisons(ranks, prompts)
    weights = prompt_weights(owners, scores.dtype)
    margin = 0.0 if margins is None else margins[owners]
    loss = (weights * preference_losses(scores[better], scores[worse], margin, label_smoothing)).sum()
    return loss, ranking_stats(scores[better] - scores[worse], weights)


def plackett_luce_loss(
    scores: Tensor,
    ranks: Tensor,
    prompts: Tensor | None = None,
    margins: Tensor | None = None,
    best_only: bool = False,
) -> tuple[Tensor, Stats]:
    """Plackett-Luce negative log likelihood of rankings: each completion is the choice among itself and all worse ones.

        L = -mean over prompts  mean over k  [r_k - m - log(exp(r_k - m) + sum_{j worse than k} exp(r_j))]

    k runs over the completions that have a worse one; without ties that is Plackett (1975) divided by the number of
    choices. Completions of equal rank do not compete, and two completions make the Bradley-Terry loss. Arguments,
    errors and stats are those of `ranking_loss`. best_only: k runs over a prompt's best alone, -log of the softmax over
    its completions, as of a person who names the best of K (Ziegler et al., 2019, eq. 1).
    """
    better, worse, owners = comparisons(ranks, prompts)
    stats = ranking_stats(scores[better] - scores[worse], prompt_weights(owners, scores.dtype))
    if best_only:
        lowest = ranks.new_full((int(owners.max()) + 1,), torch.inf).scatter_reduce(0, owners, ranks[better], "amin")
        best = ranks[better] == lowest[owners]
        better, worse, owners = better[best], worse[best], owners[best]
    chosen, choice = better.unique(return_inverse=True)
    rivals = scores.new_full((len(chosen), len(scores)), -torch.inf).index_put((choice, worse), scores[worse])
    chosen_owners = owners.new_zeros(len(chosen)).index_put((choice,), owners)
    margin = 0.0 if margins is None else margins[chosen_owners]
    losses = preference_losses(scores[chosen], rivals.logsumexp(1), margin)
    return (prompt_weights(chosen_owners, scores.dtype) * losses).sum(), stats


def binary_ranking_loss(
    scores: Tensor, ranks: Tensor, prompts: Tensor | None = None, margins: Tensor | None = None
) -> tuple[Tensor, Stats]:
    """Loss of a classifier of good and bad completions, each read alone (Askell et al., 2021, section 4).

        L = -mean over prompts  mean over pairs  1/2 [log sigma(r_better) + log sigma(-r_worse)]

    For preference model pretraining on naturally ranked text. Arguments, errors and stats are those of `ranking_loss`;
    with a margin m it is log sigma(r_better - m / 2) and log sigma(-r_worse - m / 2).
    """
    better, worse, owners = comparisons(ranks, prompts)
    weights = prompt_weights(owners, scores.dtype)
    half = 0.0 if margins is None else margins[owners] / 2
    losses = -(F.logsigmoid(scores[better] - half) + F.logsigmoid(-scores[worse] - half)) / 2
    return (weights * losses).sum(), ranking_stats(scores[better] - scores[worse], weights)


def centering_penalty(scores: Tensor, ranks: Tensor, prompts: Tensor | None = None) -> Tensor:
    """Mean over prompts of the mean over pairs of (r_better + r_worse)^2: 0 where both lie around 0 (Eisenstein et al.,
    2023, section 2). Arguments are those of `ranking_loss`."""
    better, worse, owners = comparisons(ranks, prompts)
    return (prompt_weights(owners, scores.dtype) * (scores[better] + scores[worse]).square()).sum()


def comparisons(ranks: Tensor, prompts: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return indices of the better and the worse completion, and the prompt, of each pair; ValueError for no pair."""
    prompts = torch.zeros_like(ranks, dtype=torch.long) if prompts is None else prompts
    better, worse = ((prompts[:, None] == prompts) & (ranks[:, None] < ranks)).nonzero(as_tuple=True)
    if better.numel() == 0:
        raise ValueError("no two completions of a prompt differ in rank: there is nothing to learn from")
    return better, worse, prompts[better]


def prompt_weights(owners: Tensor, dtype: torch.dtype) -> Tensor:
    """Return weights with which a sum is the mean over prompts of their means; owners [N]: each element's prompt."""
    _, owner, counts = owners.unique(return_inverse=True, return_counts=True)
    return 1 / (counts[owner] * counts.numel()).to(dtype)


@torch.no_grad()
def ranking_stats(gaps: Tensor, weights: Tensor) -> Stats:
    return {"accuracy": (weights * ((gaps.sign() + 1) / 2)).sum(), "margin": (weights * gaps).sum()}
