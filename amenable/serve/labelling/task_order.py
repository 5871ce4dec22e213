"""Order of the tasks by a query rule of feedback/queries.py, computed once when the page opens.

Opened again with rewards that have learned from the labels, the order is another. Assignments do not depend on
it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from amenable.data.samples import Sample
from amenable.data.types import Conversation
from amenable.errors import InputError
from amenable.feedback.queries import SCORED, Pool, Rule, choose, word_vectors
from amenable.rewards.samples import score_samples
from amenable.rewards.spec import Reward, Spec
from amenable.seeds import seeded_generator
from amenable.serve.labelling.tasks import Task

BATCH = 50
"""tasks chosen at once"""


def require_ensemble(rule: Rule, ensemble: Sequence[Spec]) -> None:
    """Raise InputError where a rule has fewer rewards than it needs."""
    needed = 0 if rule not in SCORED else 1 if rule == "uncertainty" else 2
    if len(ensemble) < needed:
        raise InputError(
            f"the order '{rule}' has {len(ensemble)} rewards to go by",
            how=f"name {needed} or more: --reward runs/reward runs/reward-1",
        )


def order_tasks(tasks: Sequence[Task], rule: Rule, ensemble: Sequence[Reward], seed: int) -> list[Task]:
    """Return the tasks, those of each kind in the rule's order; kinds come as in `tasks`."""
    ordered: list[Task] = []
    for kind in dict.fromkeys(task.kind for task in tasks):
        own = [task for task in tasks if task.kind == kind]
        pool = Pool(
            size=len(own),
            scores=scores_of(own, ensemble) if rule in SCORED else None,
            embeddings=word_vectors(["\n".join(turn.content for turn in task.prompt) for task in own]),
        )
        chosen: list[int] = []
        while len(chosen) < len(own):
            chosen += choose(rule, pool, BATCH, seeded_generator(seed, "order", kind, len(chosen)), chosen)
        ordered += [own[i] for i in chosen]
    return ordered


def sample_of(
    prompt: Conversation, completions: Sequence[str], ended: Sequence[bool], columns: Mapping[str, Any]
) -> Sample:
    """Return completions as a row of samples, with the columns of its prompt."""
    identity, topic = str(columns.get("id", "")), str(columns.get("kind", ""))
    return Sample(identity, prompt, tuple(completions), tuple(ended), kind=topic, meta=dict(columns))


def scores_of(tasks: Sequence[Task], ensemble: Sequence[Reward]) -> Tensor:
    """Return the scores [M, N, K] of N tasks' completions by M rewards; nan where a task has none or too long ones."""
    scores = torch.full((len(ensemble), len(tasks), max(len(task.completions) for task in tasks)), math.nan)
    samples = [sample_of(task.prompt, task.completions, task.ended, task.columns) for task in tasks]
    for m, reward in enumerate(ensemble):
        for n, values in enumerate(score_samples(reward, samples)):
            if values is not None:
                scores[m, n, : len(values)] = torch.tensor(values)
    return scores
