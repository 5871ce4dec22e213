"""Dynamic sampling (DAPO; Yu et al., 2025): prompts whose answers all have one score give way to others.

Such a group has no advantages: it costs its samples and teaches nothing. Up to `dynamic_sampling` times in a step its
prompt is replaced by a random one of the same source that the step has not drawn yet, or by itself with new random
numbers where there is none left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from amenable.data.mixture import Mixed
from amenable.generation.rollout import Rollout
from amenable.rl.experience import Experience, MakeExperience, TokenizedPrompt
from amenable.rl.options import OnlineOptions
from amenable.seeds import derive_seed, seeded_generator


def collect_varied(
    make_experience: MakeExperience,
    prompts: Mixed[TokenizedPrompt],
    places: Sequence[int],
    step: int,
    options: OnlineOptions,
) -> tuple[Experience, dict[str, float]]:
    """Return a step's experience on the prompts at `places`, some of them replaced by others of the same source, and
    metrics: the share of groups of equal scores that are left, and the prompts that were drawn in addition."""
    samples, drawn = options.num_generations, list(places)
    experience = make_experience([prompts[i] for i in places], ("rollout", step), samples)
    if samples < 2:
        return experience, {}
    for attempt in range(1, options.dynamic_sampling + 1):
        groups = equal_groups(experience.scores, samples)
        if not groups:
            break
        seed = derive_seed(options.seed, "dynamic sampling", step, attempt)
        others = replacements(prompts, drawn, [places[group] for group in groups], seed)
        drawn += others
        fresh = make_experience([prompts[i] for i in others], ("rollout", step, attempt), samples)
        experience = replace_groups(experience, fresh, groups, samples)
    metrics = {"sampling/equal_groups": len(equal_groups(experience.scores, samples)) / len(places)}
    return experience, metrics | ({"sampling/redrawn": len(drawn) - len(places)} if options.dynamic_sampling else {})


def equal_groups(scores: Tensor, samples: int) -> list[int]:
    """Return the numbers of the groups, `samples` neighbours of scores [B] each, whose scores are all equal."""
    low, high = scores.view(-1, samples).aminmax(dim=1)
    return (low == high).nonzero().flatten().tolist()


def replacements(
    prompts: Mixed[TokenizedPrompt], drawn: Sequence[int], replaced: Sequence[int], seed: int
) -> list[int]:
    """Return a random prompt of the same source for each that is replaced, none of those that are drawn already; the
    same prompt where its source has none left."""
    left = sorted(set(range(len(prompts))) - set(drawn))
    order = torch.randperm(len(left), generator=seeded_generator(seed)).tolist()
    waiting: list[list[int]] = [[] for _ in prompts.parts]
    for i in reversed(order):
        waiting[prompts.source_of(left[i])].append(left[i])
    queues = [waiting[prompts.source_of(i)] for i in replaced]
    return [queue.pop() if queue else i for queue, i in zip(queues, replaced)]


def replace_groups(experience: Experience, fresh: Experience, groups: Sequence[int], samples: int) -> Experience:
    """Return the experience with some of its groups of `samples` answers replaced by those of another, in order."""
    prompts, total = list(experience.prompts), len(experience.scores)
    index = list(range(total))
    for number, group in enumerate(groups):
        start = total + number * samples
        index[group * samples : (group + 1) * samples] = range(start, start + samples)
        prompts[group] = fresh.prompts[number]
    width = max(part.rollout.mask.shape[1] for part in (experience, fresh))

    def joined(first: Tensor, second: Tensor) -> Tensor:
        if first.ndim == 2:
            first, second = (F.pad(part, (0, width - part.shape[1])) for part in (first, second))
        return torch.cat([first, second])[index]

    old, new = experience.rollout, fresh.rollout
    old_steps, new_steps = experience.staleness, fresh.staleness
    rollout = Rollout(
        prompts=[(old.prompts + new.prompts)[i] for i in index],
        completions=[(old.completions + new.completions)[i] for i in index],
        ended=joined(old.ended, new.ended),
        mask=joined(old.mask, new.mask),
        logps=joined(old.logps, new.logps),
    )
    return replace(
        experience,
        rollout=rollout,
        raw_scores=joined(experience.raw_scores, fresh.raw_scores),
        scores=joined(experience.scores, fresh.scores),
        columns={name: joined(column, fresh.columns[name]) for name, column in experience.columns.items()},
        prompts=prompts,
        staleness=None if old_steps is None or new_steps is None else joined(old_steps, new_steps),
        reward_scores={
            name: joined(part, fresh.reward_scores[name]) for name, part in experience.reward_scores.items()
        },
    )
