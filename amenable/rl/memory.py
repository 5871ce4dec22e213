"""Memory of an online run: its models, their optimizers, and the largest of sampling, reading and learning."""

from __future__ import annotations

from collections.abc import Sequence

from amenable.data import batches
from amenable.rl.algorithm import Algorithm
from amenable.rl.models import Models
from amenable.rl.options import OnlineOptions
from amenable.train import memory
from amenable.train.forward import Row
from amenable.train.memory import FP32, Pass

STEPS = 50
"""steps whose prompts are looked at for the longest"""


def describe(algorithm: Algorithm, models: Models, options: OnlineOptions, prompts: Sequence[Sequence[int]]) -> str:
    """Return a line on the memory of a run, and on rows that are over the budget of a pass."""
    longest = max(map(len, prompts)) + options.max_new_tokens
    row = Pass(longest, longest, options.max_new_tokens, budget=options.max_tokens_per_pass)
    return memory.told(peak_bytes(algorithm, models, options, prompts), models.runtime, [row])


def peak_bytes(algorithm: Algorithm, models: Models, options: OnlineOptions, prompts: Sequence[Sequence[int]]) -> int:
    """Return the peak of a run where every answer is as long as it may be.

    Models that train have an optimizer and gradients each; their activations are held one model at a time.
    """
    runtime, limit = models.runtime, options.max_tokens_per_pass
    training = [memory.model_of(module, options.optimizer) for module in algorithm.models.values()]
    policy, frozen = training[0], [memory.model_of(module) for module in models.frozen]
    order = batches.EpochOrder(len(prompts), options.seed)
    chosen = [order.step(step, options.prompts_per_step) for step in range(1, min(options.max_steps, STEPS) + 1)]
    steps = [full_answers([prompts[i] for i in places], options) for places in chosen]
    whole = max((memory.largest_reading(rows, limit) for rows in steps), key=lambda work: work.tokens + work.slots)
    longest = max(len(ids) for rows in steps for ids, _ in rows)
    most = max(sum(len(ids) for ids, _ in rows) for rows in steps)
    asked = (most - options.samples * options.max_new_tokens) // options.num_generations
    gradients = FP32 * sum(model.training for model in training)
    passing = [
        memory.sampling(policy, min(memory.ROWS, options.samples), longest, min(memory.PREFILL, asked), runtime),
        *(memory.reading(model, whole, runtime) for model in frozen),
    ]
    for work in heaviest_minibatches(steps, options):
        passing += [memory.learning([model], work, runtime) + gradients - FP32 * model.training for model in training]
    if options.ptx_coef:
        mixed = min(options.ptx_tokens, limit)
        work = Pass(mixed, mixed, mixed, further=True, summed=True)
        passing.append(memory.learning([policy], work, runtime) + gradients)
    best = policy.parameters if options.keep_weights == "score" else 0
    held = sum(model.bytes + FP32 * model.moments for model in training) + sum(model.bytes for model in frozen)
    updates = options.num_ppo_epochs * options.num_mini_batches
    passes = options.max_steps * (2 * options.samples * longest // limit + 1 + updates)
    saved = memory.saving(training, best)
    return memory.peak(held + FP32 * best, max(passing), saved, passes, runtime)


def full_answers(prompts: Sequence[Sequence[int]], options: OnlineOptions) -> list[Row]:
    """Return the rows of a rollout of some prompts if every answer is as long as it may be."""
    rows = [memory.full_answer(list(ids), options.max_new_tokens) for ids in prompts]
    return [row for row in rows for _ in range(options.num_generations)]


def heaviest_minibatches(steps: Sequence[Sequence[Row]], options: OnlineOptions) -> list[Pass]:
    """Return the largest passes of a rollout's minibatches."""
    size = options.samples // options.num_mini_batches
    elements: list[list[Row]] = []
    minibatches: list[range] = []
    for rows in steps:
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            before = len(elements)
            elements += [[some[i] for i in family] for family in batches.group_by_prefix(some)]
            minibatches.append(range(before, len(elements)))
    return memory.heaviest(elements, minibatches, options.max_tokens_per_pass, share=True)
