"""Memory of an online run: its models, their optimizers, and the largest of generation, inference and updates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import nn

from amenable.data import batches
from amenable.data.orders import Draws, EpochOrder
from amenable.models.heads import ValueHead
from amenable.processes import local_part
from amenable.rl.algorithm import Algorithm
from amenable.rl.models import Models
from amenable.rl.options import OnlineOptions
from amenable.train import memory
from amenable.train.forward import Row
from amenable.train.memory import FP32
from amenable.train.memory_limit import Choice, require_memory
from amenable.train.passes import Pass, full_row, largest_inference_pass, largest_pass

STEPS = 50
"""steps whose prompts are searched for the longest"""


def describe(
    algorithm: Algorithm, models: Models, options: OnlineOptions, prompts: Sequence[Sequence[int]]
) -> list[str]:
    """Return lines on the memory of a run, and on rows that are over the budget of a pass. InputError for a run that
    does not fit the memory."""
    size, longest = peak_bytes(algorithm, models, options, prompts), max(map(len, prompts)) + options.max_new_tokens
    line = memory.describe(size, models.runtime, longest, options.max_tokens_per_pass)
    if options.inspect_batch:
        return [line]

    def peak(choice: Choice) -> int:
        return peak_bytes(algorithm, models, options, prompts, choice)

    choice = Choice(options.max_tokens_per_pass, options.checkpoint_activations)
    loaded = weight_bytes((*algorithm.models.values(), *models.frozen))
    adaptable = memory.can_adapt(models.policy, options)
    warning = require_memory(peak, choice, models.runtime, loaded, longest, adaptable)
    return [line, warning] if warning else [line]


def weight_bytes(modules: Iterable[nn.Module]) -> int:
    """Return the bytes of some models' weights that this process holds; those that several share count once."""
    return sum({id(weight): local_part(weight).nbytes for module in modules for weight in module.parameters()}.values())


def peak_bytes(
    algorithm: Algorithm,
    models: Models,
    options: OnlineOptions,
    prompts: Sequence[Sequence[int]],
    choice: Choice | None = None,
) -> int:
    """Return the peak of a run where every answer is as long as it may be; choice: other options than its own.

    Models that train have an optimizer and gradients each; their activations are held one model at a time. Adapters in
    place of the weights share those of the frozen models.
    """
    runtime, limit = models.runtime, choice.max_tokens_per_pass if choice else options.max_tokens_per_pass
    modules = [module for module in algorithm.models.values() if not isinstance(module, ValueHead)]
    training = [memory.chosen(memory.model_of(m, options.optimizer), m, choice, runtime) for m in modules]
    policy, frozen = training[0], [memory.model_of(module) for module in models.frozen]
    order = Draws(EpochOrder(len(prompts), options.seed))
    chosen = [order.step(step, options.prompts_per_step) for step in range(1, min(options.max_steps, STEPS) + 1)]
    steps = [full_answers([prompts[i] for i in places], options) for places in chosen]
    read = max((largest_inference_pass(rows, limit) for rows in steps), key=lambda work: work.tokens + work.slots)
    longest = max(len(ids) for rows in steps for ids, _ in rows)
    most = max(sum(len(ids) for ids, _ in rows) for rows in steps)
    prompt_tokens = (most - options.samples * options.max_new_tokens) // options.num_generations
    together = min(memory.GENERATION_ROWS, options.samples)
    prefill = min(memory.PREFILL_TOKENS, prompt_tokens)
    generation = memory.generation_bytes(policy, together, longest, prefill, runtime)
    gradients = FP32 * sum(model.training for model in training)
    work = largest_pass(minibatches(steps, options), limit, share=True)
    updates = [memory.training_bytes(model, work, runtime) + gradients - FP32 * model.training for model in training]
    if options.ptx_coef:
        mixed = min(options.ptx_tokens, limit)
        text = Pass(mixed, mixed, mixed, accumulates=True, summed=True)
        updates.append(memory.training_bytes(policy, text, runtime) + gradients)
    largest = max([generation, *updates, *(memory.inference_bytes(model, read, runtime) for model in frozen)])
    best = policy.parameters if options.keep_weights == "score" else 0
    if choice and choice.rank:
        weights = weight_bytes(models.frozen) + FP32 * sum(model.training for model in training)
    else:
        weights = weight_bytes([*modules, *models.frozen])
    weights += 4 * weight_bytes(module for module in algorithm.models.values() if isinstance(module, ValueHead))
    held = weights + FP32 * sum(model.moments for model in training)
    held += FP32 * sum(
        model.training * optimizer.extra_vectors for model, optimizer in zip(training, algorithm.optimizers.values())
    )
    if options.max_staleness and options.sampler == "amenable":  # a copy of the policy samples beside the rest
        held += FP32 * policy.training
        largest += generation
    state = sum(model.training + model.moments for model in training) + best
    held += FP32 * state if options.async_save else 0
    count = 2 * options.samples * longest // limit + 1 + options.num_ppo_epochs * options.num_mini_batches
    other_phase = min(generation, max(updates))
    passes, returned = options.max_steps * count, policy.checkpointed or policy.gathered > 0
    return memory.peak_bytes(held + FP32 * best, largest, passes, runtime, other_phase, returned)


def describe_sharing(algorithm: Algorithm, models: Models) -> str:
    """Return a line on weights that several models of a run have in common; empty where there are none."""
    modules = dict(algorithm.models)
    if isinstance(models.reference, nn.Module):
        modules["reference"] = models.reference
    for reward in models.reward.models:
        modules |= {f"reward {reward.folder} {i}".removesuffix(" 1"): m.model for i, m in enumerate(reward.members, 1)}
    owners: dict[int, list[str]] = {}
    for name, module in modules.items():
        for weight in module.parameters():
            owners.setdefault(id(weight), []).append(name)
    sizes = {id(weight): weight.nbytes for module in modules.values() for weight in module.parameters()}
    shared = {key: names for key, names in owners.items() if len(names) > 1}
    sharing = [name for name in modules if any(name in names for names in shared.values())]
    return f"{', '.join(sharing)} share {sum(map(sizes.__getitem__, shared)) / 2**20:,.0f} MiB" if sharing else ""


def full_answers(prompts: Sequence[Sequence[int]], options: OnlineOptions) -> list[Row]:
    """Return the rows of a rollout of some prompts if every answer is as long as it may be."""
    rows = [full_row(list(ids), options.max_new_tokens) for ids in prompts]
    return [row for row in rows for _ in range(options.num_generations)]


def minibatches(steps: Sequence[Sequence[Row]], options: OnlineOptions) -> Iterator[list[list[Row]]]:
    """Yield the minibatches of rollouts, rows of one prompt together."""
    size = options.samples // options.num_mini_batches
    for rows in steps:
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield [[part[i] for i in group] for group in batches.group_by_prompt(part)]
