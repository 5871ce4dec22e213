"""Which of the tasks people are asked first, by a rule of feedback/queries.py.

The order is made once, when the page opens: open it again with reward models that have learned from the labels, and it
is another. Who had which task does not depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from amenable.data.types import Ranking
from amenable.errors import InputError
from amenable.feedback.queries import SCORED, Pool, Rule, choose, word_vectors
from amenable.seeds import seeded_generator
from amenable.serve.labelling.task_queue import Task
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.examples import ranking_rows
from amenable.train.runtime import Runtime

BATCH = 50
"""tasks that are chosen at once"""


def require_ensemble(rule: Rule, ensemble: Sequence[Path]) -> None:
    """InputError where a rule has fewer reward models than it needs."""
    needed = 0 if rule not in SCORED else 1 if rule == "uncertainty" else 2
    if len(ensemble) < needed:
        how = f"name {needed} or more: --ensemble runs/reward runs/reward-1"
        raise InputError(f"the order '{rule}' has {len(ensemble)} reward models to go by", how=how)


def in_order(tasks: Sequence[Task], rule: Rule, ensemble: Sequence[Path], seed: int, runtime: Runtime) -> list[Task]:
    """The tasks, each kind by the rule; kinds stay in the order in which they came."""
    ordered: list[Task] = []
    for kind in dict.fromkeys(task.kind for task in tasks):
        own = [task for task in tasks if task.kind == kind]
        pool = Pool(
            size=len(own),
            scores=scores_of(own, ensemble, runtime) if rule in SCORED else None,
            embeddings=word_vectors(["\n".join(turn.content for turn in task.prompt) for task in own]),
        )
        places: list[int] = []
        while len(places) < len(own):
            places += choose(rule, pool, BATCH, seeded_generator(seed, "order", kind, len(places)), places)
        ordered += [own[place] for place in places]
    return ordered


def scores_of(tasks: Sequence[Task], ensemble: Sequence[Path], runtime: Runtime) -> Tensor:
    """Scores [M, N, K] of the tasks' answers by each reward model; nan for what is not there, or too long for it."""
    scores = torch.full((len(ensemble), len(tasks), max(len(task.completions) for task in tasks)), math.nan)
    for number, folder in enumerate(ensemble):
        loading.require_model(folder, "amenable reward")
        tokenizer = Tokenizer.load(folder)
        model = loading.load_reward_model(folder, runtime, tokenizer, frozen=True)
        rows, places = [], []
        for place, task in enumerate(tasks):
            level = (1.0,) * len(task.completions)
            blank = Ranking(task.prompt, task.completions, level, meta={"ended": list(task.ended)})
            found = ranking_rows(blank, tokenizer, model.decoder.config.context_length) if task.completions else None
            rows += found or []
            places += [(place, answer) for answer in range(len(found or []))]
        if rows:
            where = torch.tensor(places).t()
            scores[number, where[0], where[1]] = forward.compute_rewards(model, rows, runtime, max_tokens=8192)
    return scores
