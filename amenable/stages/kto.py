"""KTO and BCO: fit the policy to completions that are labelled desirable or not, without pairs.

    r = log pi(y) - log ref(y)      z = max(0, mean r of mismatched completions)
    L = lambda_D (1 - sigma(beta (r - z)))  of a desirable y,    lambda_U (1 - sigma(beta (z - r)))  of another

z estimates KL(pi || ref), without gradient, from the prompts of a step with completions of other prompts: each row has
the next one in the data. The reference's log-probabilities are computed once. Ethayarajh et al. (2024, eq. 8).

BCO (--loss bco) is a classifier of the two labels by the implicit reward, -log sigma(+-(beta r - d)), and needs no
mismatched completions; d is the middle of the labels' mean rewards, of a step where Jung et al. (2024) take a running
mean.

Reads the SFT model and rows of prompt, completion and label; writes a model directory and some of the policy's
completions of held-out prompts (samples.jsonl).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from amenable.data.batches import Batch
from amenable.data.mixture import Mixed, Sources
from amenable.functional.preference_losses import bco_unpaired_losses, kto_losses, labeled_reward_stats
from amenable.models.decoder import Decoder
from amenable.rl.offline import OfflinePolicyOptions, PolicyTask, load_policy, start, train_policy
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, forward, loading, plan, unpaired
from amenable.train.defaults import traits
from amenable.train.examples import RejectedRows
from amenable.train.first_batch import check_completions
from amenable.train.log import Bars, no_bars
from amenable.train.objective import Output, Stats
from amenable.train.row_cache import LABELED, keep_fitting, read_splits
from amenable.train.stage_report import offline_report
from amenable.train.unpaired import LabeledRow

REPORT = offline_report("KTO", "Completions with a label each, without pairs.")


@dataclass(frozen=True)
class Config(OfflinePolicyOptions):
    """Fit a policy to labelled completions, by KTO."""

    model: Path = Path("runs/sft")
    """policy and reference"""
    data: Sources = (Path("labelled.jsonl"),)
    """prompts with a completion and a label, true or false; several are mixed, each SOURCE or SOURCE=WEIGHT"""
    out: Path = Path("runs/kto")
    loss: Literal["kto", "bco"] = "kto"
    beta: float = 0.1
    """scale of the implicit reward, log(policy / reference): higher stays nearer"""
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    """best such that desirable completions count 1 to 1.5 times as much as undesirable ones; the plan has the ratio"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_beta(self)
        plan.require_above_zero(self, "desirable_weight", "undesirable_weight")
        plan.require_at_least(2, self, "batch_size")


class KTO:
    """Mean KTO loss over the completions of a step, which share z; an element is a completion and a mismatched one."""

    share_prefixes = True
    couples_elements = True
    output: Output = "logprobs"

    def __init__(self, policy: Decoder, config: Config):
        self.policy, self.config = policy, config

    def rows(self, element: LabeledRow) -> list[forward.Row]:
        return [element.row, element.mismatched] if self.config.loss == "kto" else [element.row]

    def weight(self, element: LabeledRow) -> float:
        return 1.0

    def outputs(self, batch: Batch) -> Tensor:
        return forward.summed_logprobs(self.policy, batch)

    def loss(self, elements: Sequence[LabeledRow], sums: Tensor) -> tuple[Tensor, Stats]:
        """Return loss and statistics; sums: log-probability of each completion and, of KTO, of the mismatched one after
        each."""
        refs = torch.tensor([(each.ref_logp, each.ref_mismatched) for each in elements], device=sums.device)
        labels = torch.tensor([each.label for each in elements], device=sums.device)
        logps = sums.view(len(elements), -1)
        logp, logratios = logps[:, 0], logps - refs[:, : logps.shape[1]]
        logratio, reward = logratios[:, 0], self.config.beta * logratios[:, 0]
        weights = self.config.desirable_weight, self.config.undesirable_weight
        if self.config.loss == "kto":
            name, center = "kl", logratios[:, 1].detach().mean().clamp(min=0)
            loss = kto_losses(logratio, center, labels, self.config.beta, *weights).mean()
        else:
            parts = [reward.detach()[labels == label] for label in (True, False)]
            name, center = "reward_shift", torch.stack([part.mean() for part in parts if len(part)]).mean()
            loss = bco_unpaired_losses(reward, center, labels, *weights).mean()
        stats = labeled_reward_stats(reward.detach(), labels)
        for key, label in (("chosen", True), ("rejected", False)):
            if (labels == label).any():
                stats[f"logps/{key}"] = logp[labels == label].mean().detach()
        if labels.any():
            stats["logratios/chosen"] = logratio[labels].mean().detach()
        return loss, {"loss": loss.detach(), name: center, **stats}


def run(config: Config) -> Path:
    """Train and return the run directory."""
    config, by_default = defaults.dpo(config, traits(config.model, virtual_tokens=config.virtual_tokens))
    if (run := start(config, "kto")) is None:
        return config.out
    runtime, policy, tokenizer = load_policy(config)
    training, validation = read(config, tokenizer, policy.config.context_length, run.rejected, run.log.bar)
    limit = config.max_tokens_per_pass
    task = PolicyTask(
        objective=KTO(policy, config),
        training=training,
        validation=validation,
        unit="completions",
        plan=[unpaired.label_balance(training, config.desirable_weight, config.undesirable_weight)],
        load_reference=lambda: loading.load_reference(policy, config.model, runtime),
        add_reference=lambda reference, rows, bar: unpaired.add_reference_logps(reference, rows, runtime, limit, bar),
        check=lambda first: check_completions([training[i].row for i in first], tokenizer),
        show=("loss", "rewards/margins", "objective/kl"),
    )
    return train_policy(run, config, runtime, policy, tokenizer, by_default, task)


def read(
    config: Config, tokenizer: Tokenizer, context: int, rejected: RejectedRows | None = None, bars: Bars = no_bars
) -> tuple[Mixed[LabeledRow], Mixed[LabeledRow]]:
    """Read labelled completions to train on and held-out ones by source, without a prompt in both."""
    splits = read_splits(LABELED, config, tokenizer, rejected, bars)
    splits = keep_fitting(splits, LABELED.noun, context, config.data, rejected)
    return unpaired.lazy_splits(splits, context, config.data)
