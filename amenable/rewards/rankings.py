"""Rankings of answers by a reward: the higher score is the better rank. A model as the only judge compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from amenable.data.rankings import from_scores
from amenable.data.types import Ranking
from amenable.feedback.candidates import Candidates
from amenable.feedback.votes import model_columns
from amenable.rewards.model_judge import ModelJudge, describe_counts
from amenable.rewards.samples import score_parts
from amenable.rewards.spec import Reward
from amenable.train.examples import keep_fitting
from amenable.train.log import Log, tracked


def rank_by_reward(name: str, rows: Sequence[Candidates], reward: Reward, log: Log) -> list[Ranking]:
    """Rank the answers of each row by their scores, and log the parts' figures under the name of the split. Rows that
    are longer than a model reads are left out."""
    if reward.judge is not None:
        return rank_by_judge(name, rows, reward.judge, reward.name, log)
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


def rank_by_judge(name: str, rows: Sequence[Candidates], judge: ModelJudge, annotator: str, log: Log) -> list[Ranking]:
    """Rank the answers of each row by a model's verdicts on every two of them, in both orders, and log its counts and
    how much the order counts."""
    rankings = []
    for batch in tracked(range(0, len(rows), judge.workers), log.bar(name)):
        part = rows[batch : batch + judge.workers]
        ranks = judge.rank_all([row.prompt for row in part], [row.completions for row in part])
        rankings += [ranking_of(row, tuple(values), annotator) for row, values in zip(part, ranks)]
    pairs = [(row.prompt, *row.completions[:2]) for row in rows if len(row.completions) > 1]
    first, consistent = judge.bias(*zip(*pairs)) if pairs else (0.5, 1.0)
    counts = describe_counts(judge.take_counts())
    log.info(
        f"{name}: {counts}; the answer shown first wins {first:.0%}, {consistent:.0%} of pairs alike in both orders"
    )
    return rankings


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
