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
from pathlib import Path
from typing import Any

from torch import Tensor

from amenable.data import sources
from amenable.data.batches import Batch
from amenable.data.mixture import Mixed, Sources, data_inputs, mixture_batches
from amenable.data.rankings import PairSelection
from amenable.evaluation import divergence
from amenable.models.decoder import Decoder
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, first_batch, forward, loading, plan, rankings
from amenable.train.best import BestWeights
from amenable.train.defaults import FROM_MODEL, FromModel, traits
from amenable.train.examples import RejectedRows, read_splits
from amenable.train.fit import Training, fit
from amenable.train.objective import Output, Stats, eval_metrics, mean_stats
from amenable.train.optimizer import Optimizer
from amenable.train.pair_loss import PairLossOptions, describe, pair_loss
from amenable.train.run import Run
from amenable.train.run_options import AdapterOptions, OfflineOptions
from amenable.train.runtime import start_runtime
from amenable.train.stage_report import StageReport

REPORT = StageReport(
    "DPO",
    "The same comparisons, without a reward model.",
    "loss",
    (("accuracy", "rewards/accuracies"), ("margin", "rewards/margins"), ("KL, nats", "objective/kl")),
    (
        ("Loss", (("loss", "training"), ("eval/loss", "held out"))),
        ("Accuracy", (("rewards/accuracies", "training"), ("eval/accuracy", "held out"))),
        ("Margin of the implicit reward", (("rewards/margins", "margin"),)),
        ("KL to SFT, nats a completion", (("objective/kl", "held out"),)),
    ),
)


@dataclass(frozen=True)
class Config(PairLossOptions, OfflineOptions, AdapterOptions):
    """Fit a policy to comparisons, by DPO or a relative of it."""

    model: Path = Path("runs/sft")
    """policy and reference"""
    data: Sources = (Path("runs/annotate/train.jsonl"),)
    """rankings or pairs: a file, or a folder of files; several are mixed, each SOURCE or SOURCE=WEIGHT"""
    out: Path = Path("runs/dpo")
    epochs: int = 1
    pairs: PairSelection = "random"
    """of each ranking: all its pairs, the best completion against the worst, or pairs at random"""
    pairs_per_prompt: int = 0
    """with --pairs random: maximum number of pairs of a ranking, drawn by the seed; 0 takes all"""
    batch_size: int = 32
    """pairs in one update"""
    max_kl: float = 100.0
    """the run stops when objective/kl is above this, in nats a completion; 0 never"""
    kl_budget: float = 0.0
    """the run ends, normally, once objective/kl is above this; the weights of least eval/loss within it are saved"""
    eval_steps: int | None = None
    """steps between two evaluations on held-out data; by default 50, and at most a quarter of the steps"""
    eval_prompts: int = 32
    """held-out prompts that the policy completes each time, to measure its KL to the reference; 0 is none"""
    max_new_tokens: FromModel[int] = FROM_MODEL
    """maximum length of these completions"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(1, self, "epochs", "batch_size", "eval_steps", "max_new_tokens")
        plan.require_at_least(0, self, "pairs_per_prompt", "eval_prompts", "max_kl", "kl_budget")
        budgeted = self.reference == "none" and self.kl_budget
        plan.forbid(budgeted, "kl_budget without a reference model", "leave --reference none out, or the budget")


class DPO:
    """Mean loss over pairs (`pair_loss`), from the summed log-probabilities of both completions."""

    share_prefixes = True
    output: Output = "logprobs"

    def __init__(self, policy: Decoder, config: Config):
        self.policy, self.config = policy, config
        self.couples_elements = config.loss == "aot"

    def rows(self, pair: rankings.Pair) -> list[forward.Row]:
        return [pair.chosen, pair.rejected]

    def weight(self, pair: rankings.Pair) -> float:
        return 1.0

    def outputs(self, batch: Batch) -> Tensor:
        return forward.summed_logprobs(self.policy, batch)

    def loss(self, pairs: Sequence[rankings.Pair], sums: Tensor) -> tuple[Tensor, Stats]:
        """Return loss and statistics; sums [2 * pairs]: log-probability of each chosen and each rejected row."""
        return pair_loss(self.config, pairs, sums)


def run(config: Config) -> Path:
    """Train and return the run directory."""
    config, by_default = defaults.dpo(config, traits(config.model, virtual_tokens=config.prompt_tuning))
    inputs = {"model": config.model, **data_inputs(config.data), "validation": config.validation}
    run = Run(config.out, "dpo", config, inputs, config.max_kl, max_kl_steps=1)
    if run.skip_finished():
        return run.out
    runtime = start_runtime(config.device)
    policy, tokenizer = loading.load_policy(config.model, runtime)
    config.adapt(policy, config.model, tokenizer, runtime)
    context, limit = policy.config.context_length, config.max_tokens_per_pass
    training, validation = read(config, tokenizer, context, run.rejected)
    steps, mixture = mixture_batches(config.data, training, config.batch_size, config.epochs, config.seed)
    schedule = plan.cosine_with_warmup(len(steps), config.warmup_steps, config.final_lr_frac)
    check = first_batch.check_completions([(pair.chosen, pair.rejected) for pair in training], steps[0], tokenizer)
    reference = None if config.reference == "none" else loading.load_reference(policy, config.model, runtime)
    rows = [pair.chosen for pair in validation]
    sizes = config.eval_prompts, config.max_new_tokens, limit, config.seed
    kl_monitor = divergence.make_kl_monitor(policy, reference, rows, tokenizer, runtime, *sizes, warn=run.log.warn)
    unmeasured = config.kl_budget and kl_monitor.reference is None
    plan.forbid(unmeasured, "--kl-budget has no held-out prompts to measure on", "give --validation, --eval-prompts")
    if reference is not None and not config.inspect_batch:
        training, validation = (
            rankings.add_reference_logps(reference, pairs, runtime, limit, run.log.bar("reference"))
            for pairs in (training, validation)
        )
    del reference  # its memory is freed where KL is not measured
    objective = DPO(policy, config)
    line = f"{len(training)} pairs x {config.epochs} epochs / {config.batch_size} a step = {schedule}"
    task = Training(
        objective=objective,
        elements=training,
        batches=steps,
        model=policy,
        optimizers={"": Optimizer([policy], config.optimizer)},
        schedule=schedule,
        check=check,
        plan=[line, *describe(config, training), *mixture, by_default],
        show=("loss", "rewards/accuracies", "objective/kl"),
        held_out=[row for pair in training for row in (pair.chosen, pair.rejected)],
        reference=kl_monitor.reference,
        other_peaks=kl_monitor.peaks(),
        best=BestWeights(policy, "eval/loss", True, "objective/kl", config.kl_budget) if config.kl_budget else None,
    )

    def evaluate(step: int) -> dict[str, Any]:
        if step % plan.eval_steps(config.eval_steps, len(steps)) and step != len(steps):
            return {}
        policy.eval()
        metrics = eval_metrics(mean_stats(objective, validation, runtime, limit, run.log.bar("validation")))
        kl_metrics, samples = kl_monitor.measure(run.log.bar)
        run.log.samples(step, samples)
        return metrics | kl_metrics

    if not fit(run, task, config, runtime, evaluate, rankings.margin_statistics(training)):
        return run.out
    loading.save_model(run.out, policy, tokenizer, config.save_dtype)
    return run.finish(**run.metrics)


def read(
    config: Config, tokenizer: Tokenizer, context: int, rejected: RejectedRows | None = None
) -> tuple[Mixed[rankings.Pair], Mixed[rankings.Pair]]:
    """Read pairs to train on and held-out ones by source, without a prompt in both."""
    splits = read_splits(sources.read_rankings, config, rejected)
    selection = config.pairs, config.pairs_per_prompt, config.seed
    pairs = rankings.tokenize_splits(
        splits, lambda row: rankings.tokenize_pairs(row, tokenizer, context, *selection), context, config.data, rejected
    )
    return pairs["train"].flatten(), pairs["validation"].flatten()
