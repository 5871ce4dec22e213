"""Rankings of answers by a reward: the higher score is the better rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from amenable.data.rankings import from_scores
from amenable.data.types import Ranking
from amenable.feedback.candidates import Candidates
from amenable.feedback.votes import model_columns
from amenable.rewards.samples import score_parts
from amenable.rewards.spec import Reward
from amenable.train.examples import keep_fitting
from amenable.train.log import Log


def rank_by_reward(name: str, rows: Sequence[Candidates], reward: Reward, log: Log) -> list[Ranking]:
    """Rank the answers of each row by their scores, and log the parts' figures under the name of the split. Rows that
    are longer than a model reads are left out."""
    scores = score_parts(reward, rows, log.bar(name))
    fitting, parts = keep_fitting(name, rows, scores, "rankings", reward.context_length)
    if parts:
        joined = {part.name: torch.cat([each[part.name] for each in parts]) for part in reward.parts}
        figures = "  ".join(f"{key} {value:.3g}" for key, value in reward.metrics(joined).items())
        log.info(f"{name}: {figures}")
    return [
        ranking_of(row, tuple(from_scores(reward.total(each).tolist())), reward.name, each)
        for row, each in zip(fitting, parts)
    ]


def ranking_of(
    row: Candidates, ranks: tuple[float, ...], annotator: str, scores: Mapping[str, Tensor] | None = None
) -> Ranking:
    """Make a ranking of a row's answers, with the scores behind it by name, if there are any."""
    meta: dict[str, Any] = {"ended": list(row.ended), "kind": row.kind}
    if scores is not None:
        meta["rewards"] = {name: [round(value, 4) for value in part.tolist()] for name, part in scores.items()}
    if row.models:
        meta |= model_columns(row.models)
    return Ranking(row.prompt, row.completions, ranks, row.id, annotator, meta)
