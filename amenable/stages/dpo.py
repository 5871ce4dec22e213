"""Direct preference optimisation: fit the policy to comparisons without a reward model.

    L = -log sigma(beta [(log pi(y_w) - log ref(y_w)) - (log pi(y_l) - log ref(y_l))] - m)

which is the reward model's loss with the implicit reward beta * log(pi / ref); m is 0, or the `margin` that the data
gives of a pair, in units of reward (Amini et al., 2024). Log-probabilities are summed over the answer's tokens, EOS
included; the reference's are computed once. Rafailov et al. (2023, eq. 7).

The loss holds the policy near its reference only on the answers that it is shown. So the KL on the policy's own answers
to held-out prompts is measured as well, and can stop the run.

Reads the SFT model and pairs or rankings (of each every pair that is not tied, or fewer: see --pairs); writes a model
directory and some of the answers to held-out prompts (samples.jsonl).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from amenable.data import sources
from amenable.data.batches import Batch, EpochBatches
from amenable.data.types import Ranking
from amenable.errors import InputError
from amenable.evaluation import divergence
from amenable.feedback.comparisons import Choice, choose_pairs
from amenable.functional.losses import dpo_loss
from amenable.models.decoder import Decoder
from amenable.seeds import derive_seed
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, first_batch, forward, loading, plan
from amenable.train.defaults import FROM_MODEL, FromModel, traits
from amenable.train.examples import RejectedRows, keep_fitting, keep_usable, ranking_rows
from amenable.train.fit import Training, fit
from amenable.train.log import Progress, silent
from amenable.train.objective import Output, Stats, accumulate
from amenable.train.optimizer import Optimizer, freeze
from amenable.train.run import Run
from amenable.train.run_options import TrainingOptions, require_held_out
from amenable.train.runtime import Runtime, start_runtime
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
        ("KL to SFT, nats an answer", (("objective/kl", "held out"),)),
    ),
)

EVAL_STEPS = 50


@dataclass(frozen=True)
class Config(TrainingOptions):
    """Fit a policy to comparisons, by DPO."""

    model: Path = Path("runs/sft")
    """policy and reference"""
    data: Path = Path("runs/annotate/train.jsonl")
    """rankings or pairs: a file, or a folder of files"""
    validation: Path | None = None
    """held-out rankings or pairs; without it a share of the prompts is held out"""
    validation_split: float = 0.05
    """share of the prompts held out where no validation file is given"""
    out: Path = Path("runs/dpo")
    beta: float = 0.1
    label_smoothing: float = 0.0
    """share of labels taken to be flipped (conservative DPO)"""
    epochs: int = 1
    pairs: Choice = "random"
    """of each ranking: all its pairs, the best answer against the worst, or pairs at random"""
    pairs_per_prompt: int = 0
    """with --pairs random: most pairs of one ranking, drawn by the seed; 0 takes all"""
    batch_size: int = 32
    """pairs in one update"""
    frozen_layers: int = 0
    """lowest layers (with the embeddings) that are not trained"""
    max_kl: float = 100.0
    """the run stops when objective/kl is above this, in nats a response; 0 never"""
    eval_steps: int | None = None
    """steps between two evaluations on held-out data; by default 50, and at most a quarter of the steps"""
    eval_prompts: int = 32
    """held-out prompts that the policy answers each time, to measure its KL to the reference; 0 is none"""
    max_new_tokens: FromModel[int] = FROM_MODEL
    """of these answers"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_above_zero(self, "beta")
        if not 0 <= self.label_smoothing < 0.5:
            raise InputError(f"label_smoothing is {self.label_smoothing}", how="it must lie in [0, 0.5)")
        plan.require_at_least(1, self, "epochs", "batch_size", "eval_steps", "max_new_tokens")
        plan.require_at_least(0, self, "pairs_per_prompt", "frozen_layers", "eval_prompts", "max_kl")
        require_held_out(self.validation, self.validation_split)


@dataclass(frozen=True)
class Pair:
    """One comparison as rows, and the reference's summed log-probabilities of both answers."""

    chosen: forward.Row
    rejected: forward.Row
    margin: float = 0.0
    ref_chosen: float = 0.0
    ref_rejected: float = 0.0


class DPO:
    """Mean DPO loss over pairs, from the summed log-probabilities of both answers."""

    share_prefixes = True
    output: Output = "logprobs"

    def __init__(self, policy: Decoder, config: Config):
        self.policy, self.config = policy, config

    def rows(self, pair: Pair) -> list[forward.Row]:
        return [pair.chosen, pair.rejected]

    def weight(self, pair: Pair) -> float:
        return 1.0

    def outputs(self, batch: Batch) -> Tensor:
        return forward.summed_logprobs(self.policy, batch)

    def loss(self, pairs: Sequence[Pair], sums: Tensor) -> tuple[Tensor, Stats]:
        """sums [2 * pairs]: each pair's log-probabilities, of the chosen and the rejected row."""
        chosen, rejected = sums.view(len(pairs), 2).unbind(1)
        ref_chosen = torch.tensor([pair.ref_chosen for pair in pairs], device=sums.device)
        ref_rejected = torch.tensor([pair.ref_rejected for pair in pairs], device=sums.device)
        margin = torch.tensor([pair.margin for pair in pairs], device=sums.device)
        beta, smoothing = self.config.beta, self.config.label_smoothing
        loss, stats = dpo_loss(chosen - ref_chosen, rejected - ref_rejected, beta, smoothing, margin)
        logps = {"logps/chosen": chosen, "logps/rejected": rejected, "logratios/chosen": chosen - ref_chosen}
        means = {name: values.mean().detach() for name, values in logps.items()}
        return loss, {"loss": loss.detach(), **stats, **means}


def run(config: Config) -> Path:
    """Train and return the run directory."""
    config, by_default = defaults.dpo(config, traits(config.model))
    inputs = {"model": config.model, "data": config.data, "validation": config.validation}
    run = Run(config.out, "dpo", config, inputs, config.max_kl, max_kl_steps=1)
    if run.skip_finished():
        return run.out
    runtime = start_runtime(config.device)
    policy, tokenizer = loading.load_policy(config.model, runtime)
    freeze(policy, config.frozen_layers)
    training, validation = read(config, tokenizer, policy.config.context_length, run.rejected)
    room = policy.config.context_length - config.max_new_tokens
    prompts = divergence.first_prompts([pair.chosen for pair in validation], config.eval_prompts, room)
    steps = EpochBatches(len(training), config.batch_size, config.epochs, config.seed)
    schedule = plan.cosine_with_warmup(len(steps), config.warmup_steps, config.final_lr_frac)
    check = first_batch.check_completions([(pair.chosen, pair.rejected) for pair in training], steps[0], tokenizer)
    initial = runtime.to_inference(loading.load_policy(config.model, runtime)[0])
    if not config.inspect_batch:
        training, validation = (
            add_reference_logps(initial, pairs, runtime, config.max_tokens_per_pass, run.log.bar("reference"))
            for pairs in (training, validation)
        )
    kl_monitor = None
    if prompts:
        sizes = config.max_new_tokens, config.max_tokens_per_pass, config.seed
        kl_monitor = divergence.KLMonitor(policy, initial, prompts, tokenizer, runtime, *sizes)
    del initial  # it is held only where KL is measured
    objective = DPO(policy, config)
    task = Training(
        objective=objective,
        elements=training,
        batches=steps,
        model=policy,
        optimizers={"": Optimizer([policy], config.optimizer)},
        schedule=schedule,
        check=check,
        plan=[f"{len(training)} pairs x {config.epochs} epochs / {config.batch_size} a step = {schedule}", by_default],
        show=("loss", "rewards/accuracies", "objective/kl"),
        held_out=[row for pair in training for row in (pair.chosen, pair.rejected)],
        reference=kl_monitor.reference if kl_monitor is not None else None,
        other_peaks=kl_monitor.peaks() if kl_monitor is not None else (),
    )
    if config.eval_prompts and not prompts:
        what = f"no held-out prompt leaves room for --max-new-tokens {config.max_new_tokens}"
        run.log.warn(f"{what}: the KL to the reference is not measured")
    eval_steps = config.eval_steps or max(1, min(EVAL_STEPS, len(steps) // 4))
    with_margins = any(pair.margin for pair in training)

    def statistics(step: int, pairs: list[Pair], stats: dict[str, Any]) -> dict[str, Any]:
        return {**stats, "margin/given": fmean(pair.margin for pair in pairs)} if with_margins else stats

    def evaluate(step: int) -> dict[str, Any]:
        if step % eval_steps and step != len(steps):
            return {}
        metrics = validate(objective, validation, runtime, config.max_tokens_per_pass, run.log.bar("validation"))
        measured, samples = kl_monitor.measure(run.log.bar) if kl_monitor is not None else ({}, [])
        run.log.samples(step, samples)
        return metrics | measured

    if not fit(run, task, config, runtime, evaluate, statistics):
        return run.out
    loading.save_model(run.out, policy, tokenizer, config.save_dtype)
    return run.finish(**run.metrics)


def read(
    config: Config, tokenizer: Tokenizer, context: int, rejected: RejectedRows | None = None
) -> tuple[list[Pair], list[Pair]]:
    """Return pairs to train on and held-out ones, no prompt in both."""
    training = keep_usable(sources.read_rankings(config.data), rejected)
    if config.validation is not None:
        validation = keep_usable(sources.read_rankings(config.validation), rejected)
    else:
        training, validation = sources.split_holdout(training, config.validation_split, config.seed)
    splits = []
    for split, rankings, required in (("train", training, config.data), ("validation", validation, None)):
        tokenized = [tokenize_pairs(ranking, tokenizer, context, config) for ranking in rankings]
        _, fitting = keep_fitting(split, rankings, tokenized, "rankings", context, rejected, required)
        splits.append([pair for pairs in fitting for pair in pairs])
    return splits[0], splits[1]


def tokenize_pairs(ranking: Ranking, tokenizer: Tokenizer, context: int, config: Config) -> list[Pair] | None:
    """Return the chosen pairs of a ranking; None where they are longer than the context."""
    rows = ranking_rows(ranking, tokenizer, context)
    if rows is None:
        return None
    seed = derive_seed(config.seed, "pairs", ranking.id)
    pairs = choose_pairs(ranking.ranks, config.pairs, config.pairs_per_prompt, seed)
    return [Pair(rows[better], rows[worse], ranking.margin or 0.0) for better, worse in pairs]


def add_reference_logps(
    reference: Decoder, pairs: list[Pair], runtime: Runtime, max_tokens: int, progress: Progress = silent
) -> list[Pair]:
    """Return the pairs with the log-probabilities that the reference gives them."""
    rows = [row for pair in pairs for row in (pair.chosen, pair.rejected)]
    logps = forward.compute_logprobs(reference, rows, runtime, max_tokens, progress=progress)
    sums = [float(part.sum()) for part in logps]
    return [replace(pair, ref_chosen=sums[2 * i], ref_rejected=sums[2 * i + 1]) for i, pair in enumerate(pairs)]


@torch.no_grad()
def validate(
    objective: DPO, pairs: list[Pair], runtime: Runtime, max_tokens: int, progress: Progress = silent
) -> dict[str, float]:
    """Return loss and accuracy on held-out pairs; {} where there are none."""
    if not pairs:
        return {}
    objective.policy.eval()
    stats = accumulate(objective, pairs, runtime, max_tokens, progress)
    return {"eval/loss": stats["loss"], "eval/accuracy": stats["rewards/accuracies"]}
