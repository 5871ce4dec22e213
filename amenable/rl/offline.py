"""Offline training of a policy beside a reference: the run that DPO, KTO and context distillation share.

The loss keeps the policy near its reference only on the data, so KL(policy || reference) is also measured on the
policy's own completions of held-out prompts (`evaluation/divergence.py`), and may limit or end the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from amenable.data.mixture import Mixed, data_inputs, mixture_batches
from amenable.evaluation import divergence
from amenable.models.decoder import Decoder
from amenable.models.sharding import shard_frozen
from amenable.text.tokenizer import Tokenizer
from amenable.train import loading, plan
from amenable.train.best import BestWeights
from amenable.train.defaults import FROM_MODEL, FromModel
from amenable.train.examples import fitting_prompts
from amenable.train.first_batch import BatchCheck
from amenable.train.fit import Training, fit
from amenable.train.forward import Row
from amenable.train.log import Progress
from amenable.train.objective import Objective, eval_metrics, mean_stats
from amenable.train.optimizer import Optimizer
from amenable.train.passes import longest_rows
from amenable.train.run import Run
from amenable.train.run_options import AdapterOptions, OfflineOptions
from amenable.train.runtime import Runtime, start_runtime

E = TypeVar("E")


@dataclass(frozen=True, kw_only=True)
class OfflinePolicyOptions(OfflineOptions, AdapterOptions):
    """Options of every stage that trains a policy on a fixed data set, beside a reference."""

    epochs: int = 1
    batch_size: int = 32
    """pairs, or completions, in one update"""
    max_kl: float = 100.0
    """the run stops when objective/kl is above this, in nats a completion; 0 never"""
    kl_budget: float = 0.0
    """the run ends, normally, once objective/kl is above this; the weights of least eval/loss within it are saved"""
    eval_steps: int | None = None
    """steps between two evaluations on held-out data; by default 50, and at most a quarter of the steps"""
    eval_prompts: int = 32
    """held-out prompts that the policy completes each time, to measure its KL to the reference; fewer prompts are
    completed several times; 0 is none"""
    max_new_tokens: FromModel[int] = FROM_MODEL
    """maximum length of these completions"""
    kl_temperature: float = 1.0
    """temperature at which they are sampled and the KL is measured; of what is sampled colder the KL is larger"""
    kl_prompts: Path | None = None
    """file of these prompts; by default those of the validation data, which may be easier than most: pairs, say, are of
    prompts whose completions differ"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(1, self, "epochs", "batch_size", "eval_steps", "max_new_tokens")
        plan.require_at_least(0, self, "eval_prompts", "max_kl", "kl_budget")
        plan.require_above_zero(self, "kl_temperature")


@dataclass
class PolicyTask(Generic[E]):
    """Arguments of `train_policy` that a stage provides."""

    objective: Objective[E]
    training: Mixed[E]
    validation: Mixed[E]
    unit: str
    """plural name of an element"""
    plan: Sequence[str]
    """lines to print before training, beside those on steps and data"""
    load_reference: Callable[[], Decoder | None]
    check: Callable[[Sequence[int]], BatchCheck]
    """(indices of the first step's elements) -> its rows"""
    show: tuple[str, ...]
    """metrics beside the progress bar"""
    add_reference: Callable[[Decoder, Mixed[E], Progress], Mixed[E]] = lambda reference, elements, progress: elements
    """(reference, elements, progress) -> the elements with what the loss reads of the reference"""
    statistics: Callable[[int, list[E], dict[str, Any]], dict[str, Any]] = lambda step, elements, stats: stats
    """metrics of a training step, from (step, elements, mean statistics)"""


def start(config: Any, stage: str, **inputs: Path | None) -> Run | None:
    """Return the run of a stage's options, or None where it has finished before. inputs: files beside the data's."""
    inputs = {"model": config.model, **data_inputs(config.data), "validation": config.validation, **inputs}
    inputs |= {"kl_prompts": config.kl_prompts} if config.kl_prompts is not None else {}
    run = Run(config.out, stage, config, inputs, config.max_kl, max_kl_steps=1)
    return None if run.skip_finished() else run


def load_policy(config: Any) -> tuple[Runtime, Decoder, Tokenizer]:
    """Return the device, and the policy with the adapters of a stage's options and its tokenizer."""
    runtime = start_runtime(config.device)
    policy, tokenizer = loading.load_policy(config.model, runtime)
    config.adapt(policy, config.model, tokenizer, runtime)
    return runtime, policy, tokenizer


def train_policy(
    run: Run, config: Any, runtime: Runtime, policy: Decoder, tokenizer: Tokenizer, by_default: str, task: PolicyTask[E]
) -> Path:
    """Train a policy, save it and return the run directory. by_default: the plan's line on options that follow from the
    model."""
    limit, training, validation = config.max_tokens_per_pass, task.training, task.validation
    steps, mixture = mixture_batches(config.data, training, config.batch_size, config.epochs, config.seed)
    schedule = plan.cosine_with_warmup(len(steps), config.warmup_steps, config.final_lr_frac)
    check = task.check(steps[0])
    reference = task.load_reference()
    rows: Iterable[Row] = (task.objective.rows(each)[0] for each in validation)
    if config.kl_prompts is not None:
        room = policy.config.context_length - config.max_new_tokens
        _, prompts = fitting_prompts(
            config.kl_prompts, tokenizer, room, config.eval_prompts, run.rejected, "kl_prompts"
        )
        rows = (([*ids, tokenizer.eos_id], [False] * len(ids) + [True]) for part in prompts.parts for ids in part)
    sizes = config.eval_prompts, config.max_new_tokens, limit, config.seed, run.log.warn, config.kl_temperature
    kl_monitor = divergence.make_kl_monitor(policy, reference, rows, tokenizer, runtime, *sizes)
    unmeasured = config.kl_budget and kl_monitor.reference is None
    plan.forbid(unmeasured, "--kl-budget has no held-out prompts to measure on", "give --validation, --eval-prompts")
    if reference is not None and not config.inspect_batch:
        training, validation = (
            task.add_reference(reference, part, run.log.bar("reference")) for part in (training, validation)
        )
    del reference  # its memory is freed where KL is not measured
    if config.optimizer.fsdp and kl_monitor.reference is not None:
        shard_frozen(kl_monitor.reference)
    line = f"{len(training)} {task.unit} x {config.epochs} epochs / {config.batch_size} a step = {schedule}"
    optimizer = Optimizer([policy], config.optimizer)
    best = BestWeights(policy, "eval/loss", True, "objective/kl", config.kl_budget) if config.kl_budget else None
    job = Training(
        objective=task.objective,
        elements=training,
        batches=steps,
        model=policy,
        optimizers={"": optimizer},
        schedule=schedule,
        check=check,
        plan=[line, *task.plan, *mixture, by_default],
        show=task.show,
        held_out=longest_rows(training, task.objective.rows),
        reference=kl_monitor.reference,
        other_peaks=kl_monitor.peaks(),
        best=best,
    )

    def evaluate(step: int) -> dict[str, Any]:
        if step % plan.eval_steps(config.eval_steps, len(steps)) and step != len(steps):
            return {}
        policy.eval()
        metrics = eval_metrics(mean_stats(task.objective, validation, runtime, limit, run.log.bar("validation")))
        kl_metrics, samples = kl_monitor.measure(run.log.bar)
        run.log.samples(step, samples)
        return metrics | kl_metrics

    if not fit(run, job, config, runtime, evaluate, task.statistics):
        return run.out
    loading.save_model(run.out, policy, tokenizer, config.save_dtype)
    return run.finish(**run.metrics)
