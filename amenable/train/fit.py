"""Training loop of the offline stages: pretraining, supervised fine-tuning, reward modelling, DPO.

    for every step:   elements -> accumulate(objective) -> optimizers -> evaluate -> one row of metrics

A stage defines its elements and their loss (`Objective`); steps, checkpoints, first batch, plan and metrics are the
same for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from torch import nn

from amenable.data import batches
from amenable.data.lazy import column
from amenable.data.mixture import Mixed
from amenable.data.orders import EpochBatches, TokenBatches
from amenable.errors import InputError
from amenable.seeds import seed_step
from amenable.train import first_batch, members, memory, plan
from amenable.train.best import BestWeights
from amenable.train.checkpoint import Stateful
from amenable.train.first_batch import BatchCheck
from amenable.train.forward import Row, checkpoint_activations
from amenable.train.memory_limit import Choice, require_memory
from amenable.train.objective import Objective, accumulate
from amenable.train.optimizer import Optimizer
from amenable.train.passes import Pass, largest_inference_pass, largest_pass
from amenable.train.run import Run
from amenable.train.run_options import TrainingOptions
from amenable.train.runtime import Runtime
from amenable.train.trained_weights import TrainedWeights

PLANNED_STEPS = 64
"""steps of most tokens whose memory is planned where an epoch may have millions"""
E = TypeVar("E")
Metrics = dict[str, Any]


@dataclass
class Training(Generic[E]):
    """Arguments of `fit` that a stage provides: objective, data, model and optimizers."""

    objective: Objective[E]
    elements: Sequence[E]
    batches: EpochBatches | TokenBatches
    """indices of every step's elements"""
    model: nn.Module
    """the model that trains"""
    optimizers: Mapping[str, Optimizer]
    """by the prefix of their metrics: "", or such as "head_" for weights with an optimizer of their own"""
    schedule: plan.Schedule
    check: BatchCheck
    """rows of the first step"""
    plan: Sequence[str]
    """lines to print before training: data, number of steps"""
    train_mode: bool = False
    """True for dropout in the loss"""
    show: tuple[str, ...] = ("loss",)
    """metrics beside the progress bar"""
    held_out: Sequence[Row] = ()
    """validation rows"""
    reference: nn.Module | None = None
    """frozen model, such as DPO's reference"""
    other_peaks: Sequence[int] = ()
    """peak bytes of other work, such as generation"""
    best: BestWeights | None = None
    """weights of the best evaluation; None keeps the last weights"""


def fit(
    run: Run,
    task: Training[E],
    options: TrainingOptions,
    runtime: Runtime,
    evaluate: Callable[[int], Metrics] = lambda step: {},
    statistics: Callable[[int, list[E], Metrics], Metrics] = lambda step, elements, stats: stats,
) -> bool:
    """Train the model for all steps and restore the best weights. Returns False if --inspect-batch ends the run before.

    evaluate(step) returns metrics on held-out data, or none; statistics(step, elements, stats) returns the metrics of a
    training step, or raises InputError.
    """
    checkpoint_activations([task.model], options.checkpoint_activations)
    first = [task.elements[i] for i in task.batches[0]]
    try:
        members.require_shares(len(first))
        planned = memory_plan(task, options, runtime)
    except InputError:
        run.lock.release()
        raise
    run.begin(task.schedule, runtime)
    run.log.info(f"{plan.parameters(task.model)}, {planned[0]}")
    shares = members.describe_shares([tokens_of(task.objective, [element]) for element in first])
    shared = shares, members.describe_products()
    for line in (*planned[1:], *task.plan, *shared, *plan.template_notes(task.check.tokenizer)):
        run.log.info(line)
    if first_batch.show(run, task.check, options.inspect_batch):
        return False
    state: dict[str, Stateful] = {"model": TrainedWeights(task.model)}
    state |= {f"{prefix}optimizer": optimizer for prefix, optimizer in task.optimizers.items()}
    state |= {"best": task.best} if task.best is not None else {}
    for step in run.steps(len(task.batches), state, options.save_steps):
        seed_step(options.seed, step, members.data_rank())
        run.note_batch(step, task.batches[step - 1])
        elements = [task.elements[i] for i in task.batches[step - 1]]
        task.model.train(task.train_mode)
        sources = task.elements.sources_of(task.batches[step - 1]) if isinstance(task.elements, Mixed) else None
        stats = accumulate(task.objective, elements, runtime, options.max_tokens_per_pass, sources=sources)
        metrics = statistics(step, elements, dict(stats))
        norms = [optimizer.step(task.schedule(step)) for optimizer in task.optimizers.values()]
        metrics |= {"grad_norm": math.hypot(*norms), **evaluate(step)}
        for prefix, optimizer in task.optimizers.items():
            metrics |= optimizer.rates(prefix)
        if task.best is not None:
            task.best.update(metrics, step)
        run.record(step, tokens_of(task.objective, elements), task.show, **metrics)
        if task.best is not None and (reason := task.best.end_line(metrics)) is not None:
            run.end(reason)
    if task.best is not None:
        task.best.restore()
        run.log.info(f"weights of step {task.best.step} of {len(task.batches)} are saved")
    return True


def tokens_of(objective: Objective[E], elements: Sequence[E]) -> int:
    """Count the tokens of some elements, a shared prefix once."""
    rows = [row for element in elements for row in objective.rows(element)]
    return batches.unique_tokens(rows) if objective.share_prefixes else sum(len(ids) for ids, _ in rows)


def memory_plan(task: Training[E], options: TrainingOptions, runtime: Runtime) -> list[str]:
    """Return lines on the peak memory of a run, from the passes of its first epoch. InputError for one that does not
    fit the memory."""
    objective, elements = task.objective, task.elements
    if isinstance(task.batches, TokenBatches):
        longest, planned = int(task.batches.lengths.argmax()), task.batches.largest(PLANNED_STEPS)
    else:
        sizes = column(elements, "tokens")
        longest, planned = int(sizes.argmax()), task.batches.largest(PLANNED_STEPS, sizes)
    steps = [*(task.batches[i] for i in planned), [longest]]

    def work_of(limit: int) -> Pass:
        rows = ([objective.rows(elements[i]) for i in step] for step in steps)
        work = largest_pass(rows, limit, objective.share_prefixes, summed=objective.output == "nll")
        return replace(work, trained=work.rows) if objective.output == "scalar" else work

    def peak(choice: Choice) -> int:
        limit = choice.max_tokens_per_pass
        return memory.training_peak(
            task.model,
            options.optimizer,
            work_of(limit),
            runtime,
            len(task.batches),
            largest_inference_pass(task.held_out, limit) if task.held_out else None,
            best=task.best is not None,
            reference=task.reference,
            others=task.other_peaks,
            choice=choice,
            async_save=options.async_save,
        )

    choice = Choice(options.max_tokens_per_pass, options.checkpoint_activations)
    longest_row = max(len(ids) for ids, _ in objective.rows(elements[longest]))
    tokens = work_of(options.max_tokens_per_pass).tokens
    line = memory.describe(peak(choice), runtime, tokens, options.max_tokens_per_pass)
    if options.inspect_batch:
        return [line]
    modules = [task.model, *([task.reference] if task.reference is not None else [])]
    loaded = sum(memory.model_of(module).bytes for module in modules)
    adaptable = memory.can_adapt(task.model, options)
    warning = require_memory(peak, choice, runtime, loaded, longest_row, adaptable)
    return [line, warning] if warning else [line]
