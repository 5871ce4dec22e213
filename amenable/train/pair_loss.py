"""Choice of the loss on pairs, its options, and its mean over the pairs of a step with the metrics that all have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from amenable.data.lazy import column
from amenable.functional import preference_losses as losses
from amenable.train import plan
from amenable.train.objective import Stats
from amenable.train.rankings import Pair
from amenable.train.run_options import TrainingOptions

PairLoss = Literal[
    "sigmoid", "ipo", "hinge", "robust", "exo", "nca", "sppo", "aot", "apo_zero", "apo_down", "bco", "orpo"
]
SMOOTHED = ("sigmoid", "robust", "exo", "aot")
"""losses with label smoothing"""
OF_GAPS = ("sigmoid", "hinge", "robust", "exo")
"""losses of the gap of implicit rewards alone, which a margin may be taken from"""
REFERENCE_FREE = (*OF_GAPS, "ipo", "orpo")
"""losses that mean something without a reference: others hold each completion against it"""
OF_MEANS = ("ipo", "orpo")
"""losses that are defined on mean log-probabilities"""


@dataclass(frozen=True, kw_only=True)
class PairLossOptions(TrainingOptions):
    """Options of a loss on pairs."""

    loss: PairLoss = "sigmoid"
    """sigmoid (DPO), or a relative of it; ipo is of mean log-probabilities, and orpo has no reference"""
    beta: float = 0.1
    """scale of the implicit reward, log(policy / reference): higher stays nearer; with orpo the weight of its odds
    ratio term"""
    label_smoothing: float = 0.0
    """share of labels taken to be flipped (sigmoid: conservative DPO); for sigmoid, robust, exo and aot"""
    margin: float = 0.0
    """difference of implicit rewards that every pair should reach, beside the data's own (SimPO's gamma); for sigmoid,
    hinge, robust and exo"""
    length_normalization: bool = False
    """take the mean log-probability of a completion's tokens in place of the sum"""
    rpo_alpha: float = 0.0
    """weight of the chosen completions' negative log-probability a token, added to the loss (RPO, CPO)"""
    reference: Literal["model", "none"] = "model"
    """none: no reference model, and no KL from it (SimPO, CPO, ORPO)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_above_zero(self, "beta")
        plan.require_at_least(0, self, "margin", "rpo_alpha")
        smoothing, loss = f"label_smoothing is {self.label_smoothing}", f"loss is {self.loss}"
        plan.forbid(not 0 <= self.label_smoothing < 0.5, smoothing, "it must lie in [0, 0.5)")
        smoothed = self.label_smoothing and self.loss not in SMOOTHED
        plan.forbid(smoothed, f"{smoothing} and {loss}", f"it is defined for {', '.join(SMOOTHED)}")
        plan.forbid(self.loss == "exo" and not self.label_smoothing, f"{smoothing} and {loss}", "give 0.001 or more")
        shifted = self.margin and self.loss not in OF_GAPS
        plan.forbid(shifted, f"margin is {self.margin} and {loss}", f"it is defined for {', '.join(OF_GAPS)}")
        held = self.reference == "none" and self.loss not in REFERENCE_FREE
        others = ", ".join(REFERENCE_FREE)
        plan.forbid(held, f"reference is none and {loss}", f"it holds completions against a reference: take {others}")
        with_reference = self.loss == "orpo" and self.reference != "none"
        plan.forbid(with_reference, f"{loss} with a reference model", "give --reference none")
        twice = self.loss == "orpo" and self.rpo_alpha
        plan.forbid(
            twice, f"rpo_alpha is {self.rpo_alpha} and {loss}", "orpo has that term with weight 1: leave it out"
        )

    @property
    def of_means(self) -> bool:
        """True where log-probabilities are means over a completion's tokens."""
        return self.length_normalization or self.loss in OF_MEANS

    @property
    def nll_weight(self) -> float:
        """Weight of the chosen completions' negative log-probability a token."""
        return 1.0 if self.loss == "orpo" else self.rpo_alpha


def describe(options: PairLossOptions, pairs: Sequence[Pair]) -> list[str]:
    """Return lines for the plan: the loss, if it is not DPO's, and what is not measured or not used."""
    means = ", of mean log-probabilities" if options.of_means else ""
    nll = f", plus {options.nll_weight:g} times the NLL of the chosen" if options.nll_weight else ""
    lines = [f"loss {options.loss}{means}{nll}"] if options.loss != "sigmoid" or means or nll else []
    if options.reference == "none":
        lines.append("no reference model (--reference none): none is loaded, and no KL is measured")
    if options.loss not in OF_GAPS and column(pairs, "margin").any():
        lines.append(f"the margins of the data are not used: --loss {options.loss} has none")
    return lines


def pair_loss(options: PairLossOptions, pairs: Sequence[Pair], sums: Tensor) -> tuple[Tensor, Stats]:
    """Return the mean loss of N pairs and its statistics.

    sums [2 N]: log-probability of each chosen and each rejected row, summed over its loss mask. Stats: loss, those of
    `implicit_reward_stats`; logps/chosen, logps/rejected and, with a reference, logratios/chosen, sums whatever the
    loss is of; nll_loss where it is a term.
    """
    logps = sums.view(len(pairs), 2)
    refs = torch.tensor([(pair.ref_chosen, pair.ref_rejected) for pair in pairs], device=sums.device)
    margin = torch.tensor([pair.margin for pair in pairs], device=sums.device) + options.margin
    lengths = logps.new_tensor([(sum(pair.chosen[1]), sum(pair.rejected[1])) for pair in pairs])
    units = lengths if options.of_means else torch.ones_like(lengths)
    each = losses_of(options, logps / units, refs / units, margin)
    loss, nll = each.mean(), -(logps / lengths)[:, 0].mean()
    stats = losses.implicit_reward_stats(*(options.beta * (logps - refs) / units).detach().unbind(1))
    stats |= {"logps/chosen": logps[:, 0].mean().detach(), "logps/rejected": logps[:, 1].mean().detach()}
    if options.reference != "none":
        stats["logratios/chosen"] = (logps - refs)[:, 0].mean().detach()
    if options.nll_weight:
        loss = loss + options.nll_weight * nll
        stats["nll_loss"] = nll.detach()
    return loss, {"loss": loss.detach(), **stats}


def losses_of(options: PairLossOptions, logps: Tensor, refs: Tensor, margin: Tensor) -> Tensor:
    """Return the loss of each pair, [N]. logps, refs [N, 2]: log-probabilities of chosen and rejected completions."""
    beta, smoothing = options.beta, options.label_smoothing
    chosen, rejected = (logps - refs).unbind(1)
    gap = beta * (chosen - rejected) - margin
    match options.loss:
        case "sigmoid":
            return losses.dpo_losses(chosen, rejected, beta, smoothing, margin)
        case "robust":
            return losses.robust_losses(gap, smoothing)
        case "hinge":
            return losses.hinge_losses(gap)
        case "ipo":
            return losses.ipo_losses(chosen, rejected, beta)
        case "exo":
            return losses.exo_losses(gap, smoothing)
        case "nca":
            return losses.nca_losses(beta * chosen, beta * rejected)
        case "sppo":
            return losses.sppo_losses(chosen, rejected, beta)
        case "aot":
            return losses.aot_losses(logps[:, 0] - logps[:, 1], refs[:, 0] - refs[:, 1], beta, smoothing)
        case "apo_zero":
            return losses.apo_zero_losses(beta * chosen, beta * rejected)
        case "apo_down":
            return losses.apo_down_losses(beta * chosen, beta * rejected)
        case "bco":
            return losses.bco_losses(beta * chosen, beta * rejected)
        case "orpo":
            return beta * losses.odds_ratio_losses(chosen, rejected)
