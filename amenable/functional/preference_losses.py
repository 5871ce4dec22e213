"""Losses of a policy on pairs, a chosen and a rejected completion of a prompt, DPO and its relatives; and KTO.

    r(y) = log pi(y) - log ref(y)      the log-ratio of a completion: of its tokens' sum, EOS included, or of their mean
    h = beta (r_w - r_l) - m           the gap of the implicit rewards beta r, less a margin m (number or [B])

without a reference, log ref = 0. Arguments are [B], one number a pair, and so are the returned losses L.
label_smoothing e: share of labels taken to be flipped.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from amenable.functional.losses import Stats, preference_losses

FDivergence = Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"]


def dpo_losses(
    chosen_logratio: Tensor,
    rejected_logratio: Tensor,
    beta: float,
    label_smoothing: float = 0.0,
    margin: Tensor | float = 0.0,
) -> Tensor:
    """DPO losses (Rafailov et al., 2023, eq. 7): `preference_losses` of the implicit reward beta r.

        L = -log sigma(h)

    label_smoothing e > 0 is conservative DPO: (1 - e) L(h) + e L(-h). margin, in units of reward: DPO with an offset
    (Amini et al., 2024). Of means and without a reference it is SimPO (Meng et al., 2024, eq. 6, m = gamma).
    """
    return preference_losses(beta * chosen_logratio, beta * rejected_logratio, margin, label_smoothing)


def f_divergence_scores(logratio: Tensor, divergence: FDivergence, alpha: float = 0.5) -> Tensor:
    """f'(u) at u = pi / ref, what a log-ratio becomes where the policy is held by an f-divergence (Wang et al., 2024).

        reverse_kl  log u      forward_kl  1 - 1 / u      js_divergence  log (2 u / (1 + u))
        alpha_divergence  (u^(a - 1) - 1) / (a - 1), forward KL at a = 0 and reverse KL at its limit a = 1

    up to constants, which a gap does not have. logratio r = log u, any shape; powers of u are cut at e^80.
    """
    if divergence == "reverse_kl" or (divergence == "alpha_divergence" and alpha == 1):
        return logratio
    if divergence == "js_divergence":
        return math.log(2) + F.logsigmoid(logratio)
    power = -1.0 if divergence == "forward_kl" else alpha - 1
    return torch.expm1((power * logratio).clamp(max=80)) / power


def desensitized_logps(logps: Tensor, longer: Tensor, alpha: float) -> Tensor:
    """Log-probabilities in which the tokens that a completion has more than the other count alpha (LD-DPO, Liu et al.,
    2024, eq. 12): log p(first l tokens) + alpha log p(the rest), with l the length of the shorter one.

    logps [B, 3]: of chosen, rejected, and of the longer one's first l tokens; longer [B, 2] (bool), True for the longer
    one -> [B, 2].
    """
    return torch.where(longer, alpha * logps[:, :2] + (1 - alpha) * logps[:, 2:], logps[:, :2])


def on_policy_weights(logps: Tensor, log_collisions: Tensor, lengths: Tensor) -> Tensor:
    """Weight of each pair by how likely the policy is to write both completions (WPO, Zhou et al., 2024, eq. 2).

        w = prod_{w, l} exp(1 / |y| sum_t [log pi(y_t) - log sum_v pi(v)^2])      without gradient

    logps, log_collisions [B, 2]: sums over a completion's tokens of both logarithms; lengths [B, 2] -> [B].
    """
    return ((logps - log_collisions) / lengths).detach().sum(-1).exp()


def robust_losses(gap: Tensor, label_smoothing: float) -> Tensor:
    """Robust DPO (Ray Chowdhury et al., 2024): unbiased where a share e < 1/2 of the labels is flipped.

    L = [-(1 - e) log sigma(h) + e log sigma(-h)] / (1 - 2e)      unbounded below
    """
    clean, flipped = -F.logsigmoid(gap), -F.logsigmoid(-gap)
    return ((1 - label_smoothing) * clean - label_smoothing * flipped) / (1 - 2 * label_smoothing)


def hinge_losses(gap: Tensor) -> Tensor:
    """Hinge loss of SLiC (Zhao et al., 2023; on implicit rewards in Liu et al., 2024, RSO): L = max(0, 1 - h)."""
    return F.relu(1 - gap)


def ipo_losses(chosen_logratio: Tensor, rejected_logratio: Tensor, beta: float) -> Tensor:
    """IPO (Azar et al., 2024, eq. 17): L = (r_w - r_l - 1 / (2 beta))^2, with r of mean log-probabilities."""
    return (chosen_logratio - rejected_logratio - 1 / (2 * beta)).square()


def exo_losses(gap: Tensor, label_smoothing: float) -> Tensor:
    """EXO on pairs (Ji et al., 2024, eq. 16): KL of the policy's choice from the label smoothed by e > 0.

    L = sigma(h) [log sigma(h) - log(1 - e)] + sigma(-h) [log sigma(-h) - log e]
    """
    chosen = gap.sigmoid() * (F.logsigmoid(gap) - math.log1p(-label_smoothing))
    return chosen + (-gap).sigmoid() * (F.logsigmoid(-gap) - math.log(label_smoothing))


def nca_losses(chosen_reward: Tensor, rejected_reward: Tensor) -> Tensor:
    """NCA on pairs (Chen et al., 2024, noise contrastive alignment), of implicit rewards beta r.

    L = -log sigma(beta r_w) - 1/2 [log sigma(-beta r_w) + log sigma(-beta r_l)]
    """
    noise = F.logsigmoid(-chosen_reward) + F.logsigmoid(-rejected_reward)
    return -F.logsigmoid(chosen_reward) - noise / 2


def sppo_losses(chosen_logratio: Tensor, rejected_logratio: Tensor, beta: float) -> Tensor:
    """SPPO with hard labels (Wu et al., 2024, eq. 4.7): L = (r_w - 1 / (2 beta))^2 + (r_l + 1 / (2 beta))^2."""
    return (chosen_logratio - 0.5 / beta).square() + (rejected_logratio + 0.5 / beta).square()


def aot_losses(logp_gap: Tensor, ref_logp_gap: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """AOT on pairs (Melnyk et al., 2024): `preference_losses` of sorted gaps, which couples all pairs of a step.

        L_k = -log sigma(beta [d_(k) - ref_(k)]),      d = log pi(y_w) - log pi(y_l), sorted, as is the reference's

    The distribution of the policy's gaps is to dominate that of the reference's, whichever pair has them.
    """
    dominance = logp_gap.sort().values - ref_logp_gap.sort().values
    return preference_losses(beta * dominance, torch.zeros_like(dominance), 0.0, label_smoothing)


def apo_zero_losses(chosen_reward: Tensor, rejected_reward: Tensor) -> Tensor:
    """APO-zero (D'Oosterlinck et al., 2024, eq. 7): chosen completions gain on the reference, rejected ones lose.

    L = 1 - sigma(beta r_w) + sigma(beta r_l), for chosen completions that are better than the policy's own
    """
    return 1 - chosen_reward.sigmoid() + rejected_reward.sigmoid()


def apo_down_losses(chosen_reward: Tensor, rejected_reward: Tensor) -> Tensor:
    """APO-down (D'Oosterlinck et al., 2024, eq. 8): both lose, the rejected more.

    L = sigma(beta r_w) + 1 - sigma(beta (r_w - r_l)), for chosen completions that are worse than the policy's own
    """
    return chosen_reward.sigmoid() + 1 - (chosen_reward - rejected_reward).sigmoid()


def bco_losses(chosen_reward: Tensor, rejected_reward: Tensor) -> Tensor:
    """BCO on pairs (Jung et al., 2024), a classifier of single completions, without the paper's reward shift.

    L = -log sigma(beta r_w) - log sigma(-beta r_l)
    """
    return -F.logsigmoid(chosen_reward) - F.logsigmoid(-rejected_reward)


def odds_ratio_losses(chosen_mean_logp: Tensor, rejected_mean_logp: Tensor) -> Tensor:
    """Odds ratio term of ORPO (Hong et al., 2024, eq. 7), of mean log-probabilities a token: no reference.

        L = -log sigma(log odds(y_w) - log odds(y_l)),      odds = p / (1 - p),  p = exp(mean log-probability)

    A mean is taken as -1e-6 at most, where 1 - p is still above 0.
    """
    chosen, rejected = (logp.clamp(max=-1e-6) for logp in (chosen_mean_logp, rejected_mean_logp))
    log_odds = (chosen - torch.log(-torch.expm1(chosen))) - (rejected - torch.log(-torch.expm1(rejected)))
    return -F.logsigmoid(log_odds)


def kto_losses(
    logratio: Tensor, kl: Tensor, desirable: Tensor, beta: float, desirable_weight: float, undesirable_weight: float
) -> Tensor:
    """KTO of single completions (Ethayarajh et al., 2024, eq. 8), with a weight for each label.

        L = w_D [1 - sigma(beta (r - z))]  if desirable,    w_U [1 - sigma(beta (z - r))]  if not

    logratio r [B], desirable [B] (bool), kl z: a scalar without gradient, in nats, max(0, mean r of mismatched pairs).
    """
    gap = torch.where(desirable, 1.0, -1.0) * beta * (logratio - kl.detach())
    return torch.where(desirable, desirable_weight, undesirable_weight) * (1 - gap.sigmoid())


def bco_unpaired_losses(
    reward: Tensor, shift: Tensor, desirable: Tensor, desirable_weight: float, undesirable_weight: float
) -> Tensor:
    """BCO of single completions (Jung et al., 2024, eq. 8), a classifier of the labels, with a weight for each.

        L = -w_D log sigma(beta r - d)  if desirable,    -w_U log sigma(d - beta r)  if not

    reward beta r [B], desirable [B] (bool), shift d: a scalar without gradient, the middle of the labels' mean rewards.
    """
    gap = torch.where(desirable, 1.0, -1.0) * (reward - shift.detach())
    return -torch.where(desirable, desirable_weight, undesirable_weight) * F.logsigmoid(gap)


@torch.no_grad()
def labeled_reward_stats(reward: Tensor, desirable: Tensor) -> Stats:
    """Return means of the implicit rewards of B completions by label [B] (bool): rewards/chosen of desirable ones,
    rewards/rejected of others; of all couples of the two rewards/margins and rewards/accuracies (equal rewards one
    half). A label without completions has no statistics."""
    chosen, rejected = reward[desirable], reward[~desirable]
    stats = {
        name: part.mean() for name, part in (("rewards/chosen", chosen), ("rewards/rejected", rejected)) if len(part)
    }
    if len(stats) == 2:
        margins = chosen[:, None] - rejected
        stats |= {"rewards/margins": margins.mean(), "rewards/accuracies": ((margins.sign() + 1) / 2).mean()}
    return stats


@torch.no_grad()
def implicit_reward_stats(chosen_reward: Tensor, rejected_reward: Tensor) -> Stats:
    """Return means over B pairs of implicit rewards: rewards/chosen, rewards/rejected, rewards/margins, and
    rewards/accuracies (equal rewards one half)."""
    margins = chosen_reward - rejected_reward
    return {
        "rewards/chosen": chosen_reward.mean(),
        "rewards/rejected": rejected_reward.mean(),
        "rewards/margins": margins.mean(),
        "rewards/accuracies": ((margins.sign() + 1) / 2).mean(),
    }
