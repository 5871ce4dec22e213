"""Scores of several completions to each of many prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from amenable.data.samples import Sample
from amenable.rewards.functions import RESERVED
from amenable.rewards.spec import Reward
from amenable.train.log import Progress, silent, tracked

MAX_COMPLETIONS = 256
"""completions that a reward is called with at once, unless a single prompt has more"""


def score_samples(reward: Reward, samples: Sequence[Sample], progress: Progress = silent) -> list[list[float] | None]:
    """Return the scores of each sample's completions; None for a sample without completions, or longer
    than a model among the parts reads."""
    parts = score_parts(reward, samples, progress)
    return [reward.total(scores).tolist() if scores is not None else None for scores in parts]


def score_parts(
    reward: Reward, samples: Sequence[Sample], progress: Progress = silent
) -> list[dict[str, Tensor] | None]:
    """Return the unweighted scores of each sample's completions by each part of the reward, by name; None likewise.

    Functions and endpoints have the samples' further columns, with `id`, `kind` and `ended`.
    """
    scores: list[dict[str, Tensor] | None] = [None] * len(samples)
    fitting = [
        i for i, row in enumerate(samples) if row.completions and reward.fits(row.prompt, row.completions, row.ended)
    ]
    for indices in tracked(list(batches(samples, fitting)), progress):
        rows = [samples[i] for i in indices]
        names = dict.fromkeys(name for row in rows for name in row.meta if name not in RESERVED)
        columns: dict[str, Sequence[Any]] = {
            **{name: [row.meta.get(name) for row in rows for _ in row.completions] for name in names},
            "id": [row.id for row in rows for _ in row.completions],
            "kind": [row.kind for row in rows for _ in row.completions],
            "ended": [end for row in rows for end in row.ended],
        }
        prompts = [row.prompt for row in rows for _ in row.completions]
        parts = reward.scores(prompts, [text for row in rows for text in row.completions], columns)
        end = 0
        for i, row in zip(indices, rows):
            begin, end = end, end + len(row.completions)
            scores[i] = {name: values[begin:end] for name, values in parts.items()}
    return scores


def batches(samples: Sequence[Sample], order: Sequence[int]) -> Iterator[list[int]]:
    """Divide indices of samples, in their order, into batches of at most MAX_COMPLETIONS completions."""
    batch: list[int] = []
    size = 0
    for i in order:
        if batch and size + len(samples[i].completions) > MAX_COMPLETIONS:
            yield batch
            batch, size = [], 0
        batch.append(i)
        size += len(samples[i].completions)
    if batch:
        yield batch
