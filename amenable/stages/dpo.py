"""Direct preference optimisation: fit the policy to comparisons without a reward model.

    L = -log sigma(beta [(log pi(y_w) - log ref(y_w)) - (log pi(y_l) - log ref(y_l))] - m)

the reward model's loss with the implicit reward beta * log(pi / ref). m is 0, or the `margin` of --margin and of the
data, in units of reward (Amini et al., 2024). Log-probabilities are summed over a completion's tokens, EOS included;
the reference's are computed once. Rafailov et al. (2023, eq. 7); its relatives (--loss, --reference none) are in
functional/preference_losses.py. The loss keeps the policy near its reference only on the completions of the data, so
KL(policy || reference) is also measured on the policy's own completions.

Reads the SFT model and pairs or rankings (all pairs that are not tied, or fewer: see --pairs); writes a model directory
and some of the policy's completions of held-out prompts (samples.jsonl).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from amenable.data.batches import Batch
from amenable.data.mixture import Mixed, Sources
from amenable.data.rankings import PairSelection
from amenable.models.decoder import Decoder
from amenable.rl.offline import OfflinePolicyOptions, PolicyTask, load_policy, start, train_policy
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, forward, loading, plan, rankings
from amenable.train.defaults import traits
from amenable.train.examples import RejectedRows
from amenable.train.first_batch import check_completions
from amenable.train.log import Bars, no_bars
from amenable.train.objective import Output, Stats
from amenable.train.pair_loss import PairLossOptions, describe, pair_loss, parse_losses
from amenable.train.row_cache import RANKINGS, keep_fitting, read_splits
from amenable.train.runtime import Runtime
from amenable.train.stage_report import offline_report

REPORT = offline_report("DPO", "The same comparisons, without a reward model.")


@dataclass(frozen=True)
class Config(PairLossOptions, OfflinePolicyOptions):
    """Fit a policy to comparisons, by DPO or a relative of it."""

    model: Path = Path("runs/sft")
    """policy and reference"""
    data: Sources = (Path("runs/annotate/train.jsonl"),)
    """rankings or pairs: a file, or a folder of files; several are mixed, each SOURCE or SOURCE=WEIGHT"""
    out: Path = Path("runs/dpo")
    pairs: PairSelection = "random"
    """of each ranking: all its pairs, the best completion against the worst, or pairs at random"""
    pairs_per_prompt: int = 0
    """with --pairs random: maximum number of pairs of a ranking, drawn by the seed; 0 takes all"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(0, self, "pairs_per_prompt")
        budgeted = self.reference == "none" and self.kl_budget
        plan.forbid(budgeted, "kl_budget without a reference model", "leave --reference none out, or the budget")


class DPO:
    """Mean loss over pairs (`pair_loss`), from the summed log-probabilities of both completions."""

    share_prefixes = True
    output: Output = "logprobs"

    def __init__(self, policy: Decoder, config: Config):
        self.policy, self.config = policy, config
        self.couples_elements = "aot" in parse_losses(config.loss)

    def rows(self, pair: rankings.Pair) -> list[forward.Row]:
        return pair.rows(self.config.front)

    def weight(self, pair: rankings.Pair) -> float:
        return 1.0

    def outputs(self, batch: Batch) -> Tensor:
        return forward.summed_logprobs(self.policy, batch, collisions=self.config.use_weighting)

    def loss(self, pairs: Sequence[rankings.Pair], outputs: Tensor) -> tuple[Tensor, Stats]:
        """Return loss and statistics, from the log-probability of each of the pairs' rows (see `pair_loss`)."""
        return pair_loss(self.config, pairs, outputs)


def run(config: Config) -> Path:
    """Train and return the run directory."""
    config, by_default = defaults.dpo(config, traits(config.model, virtual_tokens=config.virtual_tokens))
    if (run := start(config, "dpo")) is None:
        return config.out
    runtime, policy, tokenizer = load_policy(config)
    training, validation = read(config, tokenizer, policy.config.context_length, run.rejected, run.log.bar)
    limit, objective = config.max_tokens_per_pass, DPO(policy, config)
    task = PolicyTask(
        objective=objective,
        training=training,
        validation=validation,
        unit="pairs",
        plan=describe(config, training),
        load_reference=lambda: reference_of(config, policy, runtime),
        add_reference=lambda reference, pairs, bar: rankings.add_reference_logps(
            reference, pairs, runtime, limit, bar, config.front
        ),
        check=lambda first: check_completions([row for i in first for row in objective.rows(training[i])], tokenizer),
        show=("loss", "rewards/accuracies", "objective/kl"),
        statistics=rankings.margin_statistics(training),
    )
    return train_policy(run, config, runtime, policy, tokenizer, by_default, task)


def reference_of(config: Config, policy: Decoder, runtime: Runtime) -> Decoder | None:
    """Return the frozen model that the loss holds the policy against; None with --reference none."""
    return None if config.reference == "none" else loading.load_reference(policy, config.model, runtime)


def read(
    config: Config, tokenizer: Tokenizer, context: int, rejected: RejectedRows | None = None, bars: Bars = no_bars
) -> tuple[Mixed[rankings.Pair], Mixed[rankings.Pair]]:
    """Read pairs to train on and held-out ones by source, without a prompt in both."""
    splits = read_splits(RANKINGS, config, tokenizer, rejected, bars)
    splits = keep_fitting(splits, RANKINGS.noun, context, config.data, rejected)
    select = partial(rankings.lazy_pairs, selection=config.pairs, count=config.pairs_per_prompt, seed=config.seed)
    return splits["train"].map(select), splits["validation"].map(select)
