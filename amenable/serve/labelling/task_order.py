"""Order of the tasks by a query rule of feedback/queries.py, computed once when the page opens.

Opened again with reward models that have learned from the labels, the order is another. Assignments do not depend on
it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from amenable.errors import InputError
from amenable.feedback.queries import SCORED, Pool, Rule, choose, word_vectors
from amenable.rewards.model import ModelReward
from amenable.seeds import seeded_generator
from amenable.serve.labelling.tasks import Task
from amenable.train.runtime import Runtime

BATCH = 50
"""tasks chosen at once"""


def require_ensemble(rule: Rule, ensemble: Sequence[Path]) -> None:
    """Raise InputError where a rule has fewer reward models than it needs."""
    needed = 0 if rule not in SCORED else 1 if rule == "uncertainty" else 2
    if len(ensemble) < needed:
        raise InputError(
            f"the order '{rule}' has {len(ensemble)} reward models to go by",
            how=f"name {needed} or more: --ensemble runs/reward runs/reward-1",
        )


def order_tasks(tasks: Sequence[Task], rule: Rule, ensemble: Sequence[Path], seed: int, runtime: Runtime) -> list[Task]:
    """Return the tasks, those of each kind in the rule's order; kinds come as in `tasks`."""
    ordered: list[Task] = []
    for kind in dict.fromkeys(task.kind for task in tasks):
        own = [task for task in tasks if task.kind == kind]
        pool = Pool(
            size=len(own),
            scores=scores_of(own, ensemble, runtime) if rule in SCORED else None,
            embeddings=word_vectors(["\n".join(turn.content for turn in task.prompt) for task in own]),
        )
        chosen: list[int] = []
        while len(chosen) < len(own):
            chosen += choose(rule, pool, BATCH, seeded_generator(seed, "order", kind, len(chosen)), chosen)
        ordered += [own[i] for i in chosen]
    return ordered


def scores_of(tasks: Sequence[Task], ensemble: Sequence[Path], runtime: Runtime) -> Tensor:
    """Return the scores [M, N, K] of N tasks' completions by M reward models; nan where a task has none or too long."""
    scores = torch.full((len(ensemble), len(tasks), max(len(task.completions) for task in tasks)), math.nan)
    for m, folder in enumerate(ensemble):
        reward = ModelReward.load(folder, runtime)
        rows, positions = [], []
        for n, task in enumerate(tasks):
            if task.completions and reward.fits(task.prompt, task.completions, task.ended):
                rows += reward.rows([task.prompt] * len(task.completions), task.completions, task.ended)
                positions += [(n, k) for k in range(len(task.completions))]
        if rows:
            index = torch.tensor(positions).t()
            scores[m, index[0], index[1]] = reward.score_rows(rows)
    return scores
