"""Choice of the loss on pairs, its options, and its mean over the pairs of a step with the metrics that all have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from amenable.data.lazy import column
from amenable.data.mixture import split_weight
from amenable.functional import preference_losses as losses
from amenable.functional.preference_losses import FDivergence
from amenable.train import plan
from amenable.train.objective import Stats
from amenable.train.rankings import Pair
from amenable.train.run_options import TrainingOptions

PAIR_LOSSES = ("sigmoid", "ipo", "hinge", "robust", "exo", "nca", "sppo", "aot", "apo_zero", "apo_down", "bco", "orpo")
SFT = "sft"
"""the chosen completions' negative log-probability a token, as a term beside a loss on pairs"""
SMOOTHED = ("sigmoid", "robust", "exo", "aot")
"""losses with label smoothing"""
OF_GAPS = ("sigmoid", "hinge", "robust", "exo")
"""losses of the gap of implicit rewards alone, which a margin may be taken from, or which another divergence has"""
REFERENCE_FREE = (*OF_GAPS, "ipo", "orpo")
"""losses that mean something without a reference: others hold each completion against it"""
OF_MEANS = ("ipo", "orpo")
"""losses that are defined on mean log-probabilities"""


@dataclass(frozen=True, kw_only=True)
class PairLossOptions(TrainingOptions):
    """Options of a loss on pairs."""

    loss: tuple[str, ...] = ("sigmoid",)
    """sigmoid (DPO), or a relative: ipo, hinge, robust, exo, nca, sppo, aot, apo_zero, apo_down, bco, orpo; ipo is of
    mean log-probabilities, and orpo has no reference. Several are added, each NAME or NAME=WEIGHT, and sft with them:
    the negative log-probability of the chosen completions a token"""
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
    f_divergence_type: FDivergence = "reverse_kl"
    """divergence from the reference that holds the policy (f-DPO); for sigmoid, hinge, robust and exo"""
    f_alpha_divergence_coef: float = 0.5
    """alpha of alpha_divergence: forward KL at 0, reverse KL at 1"""
    ld_alpha: float = 1.0
    """weight of the tokens that a completion has more than the other of its pair (LD-DPO); 1 counts all alike"""
    use_weighting: bool = False
    """weight pairs by how likely the policy is to write them itself (WPO)"""
    reference: Literal["model", "none"] = "model"
    """none: no reference model, and no KL from it (SimPO, CPO, ORPO)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_beta(self)
        plan.require_at_least(0, self, "margin", "rpo_alpha")
        plan.require_share(self, "ld_alpha", "f_alpha_divergence_coef")
        plan.forbid(
            not 0 <= self.label_smoothing < 0.5, f"label_smoothing is {self.label_smoothing}", "give less than .5"
        )
        names = list(parse_losses(self.loss))
        self.require_defined("label_smoothing", self.label_smoothing, names, SMOOTHED)
        self.require_defined("margin", self.margin, names, OF_GAPS)
        divergence = "" if self.f_divergence_type == "reverse_kl" else self.f_divergence_type
        self.require_defined("f_divergence_type", divergence, names, OF_GAPS)
        self.require_defined("reference", self.reference == "none" and "none", names, REFERENCE_FREE)
        paired = [name for name in PAIR_LOSSES if name != "aot"]
        self.require_defined("use_weighting", self.use_weighting, names, paired)
        smoothing = f"label_smoothing is {self.label_smoothing} and loss is exo"
        plan.forbid("exo" in names and not self.label_smoothing, smoothing, "give 0.001 or more")
        orpo = "orpo" in names
        plan.forbid(orpo and self.reference != "none", "loss is orpo with a reference model", "give --reference none")
        unheld = divergence and self.reference == "none"
        plan.forbid(unheld, f"f_divergence_type is {divergence} without a reference model", "leave one out")
        twice = sum([orpo, SFT in names, self.rpo_alpha > 0]) > 1
        problem = f"rpo_alpha is {self.rpo_alpha} and loss is {' '.join(names)}"
        plan.forbid(
            twice, problem, "rpo_alpha, sft and orpo each have the chosen completions' log-probability: take one"
        )

    def require_defined(self, option: str, value: object, names: Sequence[str], defined: Sequence[str]) -> None:
        """Raise InputError for an option's value that is not "" or 0, where a loss among the names does not have it."""
        other = next((name for name in names if name not in (*defined, SFT)), "")
        problem = f"{option} is {value} and loss is {other}"
        plan.forbid(value and other, problem, f"it is defined for {', '.join(defined)}")

    @property
    def of_means(self) -> bool:
        """True where implicit rewards, as metrics, are of means over a completion's tokens."""
        return self.length_normalization or next(iter(parse_losses(self.loss))) in OF_MEANS

    @property
    def nll_weight(self) -> float:
        """Weight of the chosen completions' negative log-probability a token."""
        terms = parse_losses(self.loss)
        return terms.get("orpo", 0.0) + terms.get(SFT, 0.0) + self.rpo_alpha

    @property
    def front(self) -> bool:
        """True where the loss reads the first tokens of the longer completion apart."""
        return self.ld_alpha < 1


def parse_losses(specs: str | Sequence[str]) -> dict[str, float]:
    """Return the weight of each loss of `--loss`, 1 where none is written. InputError for an unknown name, a weight
    that is not above 0, a name twice, or sft alone."""
    pairs = [split_weight(spec) for spec in ([specs] if isinstance(specs, str) else specs)]
    weights = {name: 1.0 if weight is None else weight for name, weight in pairs}
    known = f"known are {', '.join((*PAIR_LOSSES, SFT))}"
    unknown = next((name for name in weights if name not in (*PAIR_LOSSES, SFT)), None)
    plan.forbid(unknown is not None, f"loss is {unknown}", known)
    plan.forbid(len(weights) < len(pairs), "loss has a name twice", "give each once, with a weight")
    wrong = next((name for name, weight in weights.items() if not 0 < weight < math.inf), None)
    plan.forbid(wrong, f"loss {wrong} has the weight {weights.get(wrong or '')}", "it must be above 0")
    plan.forbid(set(weights) <= {SFT}, "loss has no loss on pairs", f"add one, or use 'amenable sft'; {known}")
    return weights


def describe(options: PairLossOptions, pairs: Sequence[Pair]) -> list[str]:
    """Return lines for the plan: the loss, if it is not DPO's, and what is not measured or not used."""
    terms = parse_losses(options.loss)
    text = " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in terms.items())
    means = ", of mean log-probabilities" if options.of_means else ""
    nll = (
        f", plus {options.nll_weight:g} times the NLL of the chosen" if options.nll_weight and SFT not in terms else ""
    )
    divergence = f", held by {options.f_divergence_type}" if options.f_divergence_type != "reverse_kl" else ""
    desensitized = f", tokens beyond the shorter completion x {options.ld_alpha:g}" if options.front else ""
    weighted = ", pairs weighted by the policy's own likelihood" if options.use_weighting else ""
    rest = means + nll + divergence + desensitized + weighted
    lines = [f"loss {text}{rest}"] if text != "sigmoid" or rest else []
    if options.reference == "none":
        lines.append("no reference model (--reference none): none is loaded, and no KL is measured")
    unused = [name for name in terms if name not in (*OF_GAPS, SFT)]
    if unused and column(pairs, "margin").any():
        lines.append(f"the margins of the data are not used: --loss {unused[0]} has none")
    return lines


def pair_loss(options: PairLossOptions, pairs: Sequence[Pair], outputs: Tensor) -> tuple[Tensor, Stats]:
    """Return the mean loss of N pairs and its statistics.

    outputs [R N]: log-probability of each of the pairs' rows (`Pair.rows`, R a pair), summed over its loss mask; with
    --use-weighting [R N, 2], the second column log-collisions. Stats: loss, those of `implicit_reward_stats`;
    logps/chosen, logps/rejected and, with a reference, logratios/chosen, sums whatever the loss is of; nll_loss where
    it is a term; weight where pairs are weighted.
    """
    columns = outputs.view(len(pairs), -1, 2 if options.use_weighting else 1)
    refs = torch.tensor([(pair.ref_chosen, pair.ref_rejected, pair.ref_front) for pair in pairs], device=outputs.device)
    lengths = columns.new_tensor([pair.lengths for pair in pairs])
    logps, whole = columns[..., 0], columns[:, :2, 0]
    if options.front:
        longer = lengths > lengths.flip(1)
        logps, refs = (losses.desensitized_logps(each, longer, options.ld_alpha) for each in (logps, refs))
    refs, nll = refs[:, :2], -(whole / lengths)[:, 0].mean()
    stats = {"logps/chosen": whole[:, 0].mean().detach(), "logps/rejected": whole[:, 1].mean().detach()}
    units = lengths if options.of_means else torch.ones_like(lengths)
    stats |= losses.implicit_reward_stats(*(options.beta * (logps - refs) / units).detach().unbind(1))
    if options.reference != "none":
        stats["logratios/chosen"] = (logps - refs)[:, 0].mean().detach()
    weights = torch.ones_like(whole[:, 0])
    if options.use_weighting:
        weights = losses.on_policy_weights(whole, columns[:, :2, 1], lengths)
        stats["weight"] = weights.mean()
    margin = torch.tensor([pair.margin for pair in pairs], device=outputs.device) + options.margin
    loss = options.nll_weight * nll
    for name, weight in parse_losses(options.loss).items():
        if name != SFT:
            units = lengths if options.length_normalization or name in OF_MEANS else torch.ones_like(lengths)
            loss = loss + weight * (weights * losses_of(name, options, logps / units, refs / units, margin)).mean()
    if options.nll_weight:
        stats["nll_loss"] = nll.detach()
    return loss, {"loss": loss.detach(), **stats}


def losses_of(name: str, options: PairLossOptions, logps: Tensor, refs: Tensor, margin: Tensor) -> Tensor:
    """Return the loss `name` of each pair, [N]. logps, refs [N, 2]: log-probabilities of chosen and rejected
    completions."""
    beta, smoothing = options.beta, options.label_smoothing
    scores = losses.f_divergence_scores(logps - refs, options.f_divergence_type, options.f_alpha_divergence_coef)
    chosen, rejected = scores.unbind(1)
    gap = beta * (chosen - rejected) - margin
    match name:
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
    raise ValueError(f"no loss on pairs: {name}")
