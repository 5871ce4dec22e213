"""KTO: fit the policy to completions that are labelled desirable or not, without pairs.

    r = log pi(y) - log ref(y)      z = max(0, mean r of mismatched completions)
    L = lambda_D (1 - sigma(beta (r - z)))  of a desirable y,    lambda_U (1 - sigma(beta (z - r)))  of another

z estimates KL(pi || ref), without gradient, from the prompts of a step with completions of other prompts: each row has
the next one in the data. The reference's log-probabilities are computed once. Ethayarajh et al. (2024, eq. 8).

Reads the SFT model and rows of prompt, completion and label; writes a model directory and some of the policy's
completions of held-out prompts (samples.jsonl).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amenable.data import sources
from amenable.data.batches import Batch
from amenable.data.mixture import Mixed, Sources, data_inputs, mixture_batches
from amenable.evaluation import divergence
from amenable.functional.preference_losses import kto_losses, labeled_reward_stats
from amenable.models.decoder import Decoder
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, first_batch, forward, loading, plan, unpaired
from amenable.train.defaults import FROM_MODEL, FromModel, traits
from amenable.train.examples import RejectedRows, read_splits
from amenable.train.fit import Training, fit
from amenable.train.objective import Output, Stats, eval_metrics, mean_stats
from amenable.train.optimizer import Optimizer
from amenable.train.run import Run
from amenable.train.run_options import AdapterOptions, OfflineOptions
from amenable.train.runtime import start_runtime
from amenable.train.stage_report import StageReport
from amenable.train.unpaired import LabeledRow

REPORT = StageReport(
    "KTO",
    "Completions with a label each, without pairs.",
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
class Config(OfflineOptions, AdapterOptions):
    """Fit a policy to labelled completions, by KTO."""

    model: Path = Path("runs/sft")
    """policy and reference"""
    data: Sources = (Path("labelled.jsonl"),)
    """prompts with a completion and a label, true or false; several are mixed, each SOURCE or SOURCE=WEIGHT"""
    out: Path = Path("runs/kto")
    beta: float = 0.1
    """scale of the implicit reward, log(policy / reference): higher stays nearer"""
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    """best such that desirable completions count 1 to 1.5 times as much as undesirable ones; the plan has the ratio"""
    epochs: int = 1
    batch_size: int = 32
    """completions in one update, two or more; they share the estimate of the KL"""
    max_kl: float = 100.0
    """the run stops when objective/kl is above this, in nats a completion; 0 never"""
    eval_steps: int | None = None
    """steps between two evaluations on held-out data; by default 50, and at most a quarter of the steps"""
    eval_prompts: int = 32
    """held-out prompts that the policy completes each time, to measure its KL to the reference; 0 is none"""
    max_new_tokens: FromModel[int] = FROM_MODEL
    """maximum length of these completions"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_above_zero(self, "beta", "desirable_weight", "undesirable_weight")
        plan.require_at_least(2, self, "batch_size")
        plan.require_at_least(1, self, "epochs", "eval_steps", "max_new_tokens")
        plan.require_at_least(0, self, "eval_prompts", "max_kl")


class KTO:
    """Mean KTO loss over the completions of a step, which share z; an element is a completion and a mismatched one."""

    share_prefixes = True
    couples_elements = True
    output: Output = "logprobs"

    def __init__(self, policy: Decoder, config: Config):
        self.policy, self.config = policy, config

    def rows(self, element: LabeledRow) -> list[forward.Row]:
        return [element.row, element.mismatched]

    def weight(self, element: LabeledRow) -> float:
        return 1.0

    def outputs(self, batch: Batch) -> Tensor:
        return forward.summed_logprobs(self.policy, batch)

    def loss(self, elements: Sequence[LabeledRow], sums: Tensor) -> tuple[Tensor, Stats]:
        """Return loss and statistics; sums [2 * elements]: log-probability of each completion and mismatched one."""
        refs = torch.tensor([(each.ref_logp, each.ref_mismatched) for each in elements], device=sums.device)
        labels = torch.tensor([each.label for each in elements], device=sums.device)
        logp, _ = sums.view(len(elements), 2).unbind(1)
        logratio, mismatched = (sums.view(len(elements), 2) - refs).unbind(1)
        kl = mismatched.detach().mean().clamp(min=0)
        beta, weights = self.config.beta, (self.config.desirable_weight, self.config.undesirable_weight)
        loss = kto_losses(logratio, kl, labels, beta, *weights).mean()
        stats = labeled_reward_stats(beta * logratio.detach(), labels)
        for name, label in (("chosen", True), ("rejected", False)):
            if (labels == label).any():
                stats[f"logps/{name}"] = logp[labels == label].mean().detach()
        if labels.any():
            stats["logratios/chosen"] = logratio[labels].mean().detach()
        return loss, {"loss": loss.detach(), "kl": kl, **stats}


def run(config: Config) -> Path:
    """Train and return the run directory."""
    config, by_default = defaults.dpo(config, traits(config.model, virtual_tokens=config.prompt_tuning))
    inputs = {"model": config.model, **data_inputs(config.data), "validation": config.validation}
    run = Run(config.out, "kto", config, inputs, config.max_kl, max_kl_steps=1)
    if run.skip_finished():
        return run.out
    runtime = start_runtime(config.device)
    policy, tokenizer = loading.load_policy(config.model, runtime)
    config.adapt(policy, config.model, tokenizer, runtime)
    limit = config.max_tokens_per_pass
    training, validation = read(config, tokenizer, policy.config.context_length, run.rejected)
    steps, mixture = mixture_batches(config.data, training, config.batch_size, config.epochs, config.seed)
    schedule = plan.cosine_with_warmup(len(steps), config.warmup_steps, config.final_lr_frac)
    check = first_batch.check_completions([[each.row] for each in training], steps[0], tokenizer)
    reference = loading.load_reference(policy, config.model, runtime)
    rows = [each.row for each in validation]
    sizes = config.eval_prompts, config.max_new_tokens, limit, config.seed
    kl_monitor = divergence.make_kl_monitor(policy, reference, rows, tokenizer, runtime, *sizes, warn=run.log.warn)
    if not config.inspect_batch:
        training, validation = (
            unpaired.add_reference_logps(reference, part, runtime, limit, run.log.bar("reference"))
            for part in (training, validation)
        )
    del reference  # its memory is freed where KL is not measured
    objective = KTO(policy, config)
    line = f"{len(training)} completions x {config.epochs} epochs / {config.batch_size} a step = {schedule}"
    balance = unpaired.label_balance(training, config.desirable_weight, config.undesirable_weight)
    task = Training(
        objective=objective,
        elements=training,
        batches=steps,
        model=policy,
        optimizers={"": Optimizer([policy], config.optimizer)},
        schedule=schedule,
        check=check,
        plan=[line, balance, *mixture, by_default],
        show=("loss", "rewards/margins", "objective/kl"),
        held_out=[row for each in training for row in (each.row, each.mismatched)],
        reference=kl_monitor.reference,
        other_peaks=kl_monitor.peaks(),
    )

    def evaluate(step: int) -> dict[str, Any]:
        if step % plan.eval_steps(config.eval_steps, len(steps)) and step != len(steps):
            return {}
        policy.eval()
        metrics = eval_metrics(mean_stats(objective, validation, runtime, limit, run.log.bar("validation")))
        kl_metrics, samples = kl_monitor.measure(run.log.bar)
        run.log.samples(step, samples)
        return metrics | kl_metrics

    if not fit(run, task, config, runtime, evaluate):
        return run.out
    loading.save_model(run.out, policy, tokenizer, config.save_dtype)
    return run.finish(**run.metrics)


def read(
    config: Config, tokenizer: Tokenizer, context: int, rejected: RejectedRows | None = None
) -> tuple[Mixed[LabeledRow], Mixed[LabeledRow]]:
    """Read labelled completions to train on and held-out ones by source, without a prompt in both."""
    splits = read_splits(sources.read_unpaired, config, rejected)
    rows = unpaired.tokenize_splits(splits, tokenizer, context, config.data, rejected)
    return rows["train"], rows["validation"]
