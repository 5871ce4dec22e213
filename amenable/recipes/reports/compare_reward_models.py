"""Two reward models on the same rankings: each one's accuracy and loss, and their agreement with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amenable.data import sources
from amenable.data.rankings import pairs_of
from amenable.data.types import Ranking, message_fields
from amenable.errors import InputError
from amenable.evaluation.ranking_accuracy import correct, ranking_metrics
from amenable.functional.statistics import bootstrap_mean, clustered_share
from amenable.models import pretrained
from amenable.recipes.reports.compare_policies import mean_row
from amenable.seeds import seeded_generator
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.examples import RejectedRows, keep_usable
from amenable.train.rankings import TokenizedRanking, tokenize_ranking
from amenable.train.runtime import Runtime

Row = dict[str, Any]

SHOWN = 6
"""disagreements shown"""


@dataclass(frozen=True)
class ScoredRanking:
    """One ranking with the scores that a reward model gives its answers."""

    ranking: Ranking
    item: TokenizedRanking
    scores: Tensor
    """[K]"""


def compare(a: Path, b: Path, rankings: Sequence[Ranking], runtime: Runtime, max_tokens: int, seed: int) -> Row:
    """Return accuracy and loss of each model, the gain in accuracy from a to b, agreement and disagreements."""
    tokenized = [tokenize(folder, rankings) for folder in (a, b)]
    fitting = [i for i in range(len(rankings)) if all(items[i] is not None for items in tokenized)]
    if not fitting:
        raise InputError("no ranking fits the context of both models", how="give --data with shorter ones")
    first, second = (
        score(folder, [(rankings[i], item) for i in fitting if (item := items[i]) is not None], runtime, max_tokens)
        for folder, items in zip((a, b), tokenized)
    )
    return {
        "rankings": len(fitting),
        "a": accuracy(first, seed),
        "b": accuracy(second, seed),
        "gain": mean_gain([gains(x, y) for x, y in zip(first, second)], seed),
        "agreement": mean_agreement([agreements(x.scores, y.scores) for x, y in zip(first, second)]),
        "disputes": disagreements(first, second),
    }


def read(data: Path, limit: int = 0) -> list[Ranking]:
    """Read the rankings of a file, or the first `limit` of them."""
    return keep_usable(sources.read_rankings(data, limit=limit or None), RejectedRows())


def tokenize(folder: Path, rankings: Sequence[Ranking]) -> list[TokenizedRanking | None]:
    """Tokenize rankings for a model; None for one that does not fit its context."""
    tokenizer, context = Tokenizer.load(folder), pretrained.read_config(folder).context_length
    return [tokenize_ranking(ranking, tokenizer, context) for ranking in rankings]


def score(
    folder: Path, items: Sequence[tuple[Ranking, TokenizedRanking]], runtime: Runtime, max_tokens: int
) -> list[ScoredRanking]:
    """Return every ranking with a model's scores."""
    model = loading.load_reward_model(folder, runtime, Tokenizer.load(folder), frozen=True)
    scores = forward.compute_rewards(model, [row for _, item in items for row in item.rows], runtime, max_tokens)
    parts = scores.split([len(item.rows) for _, item in items])
    return [ScoredRanking(ranking, item, part) for (ranking, item), part in zip(items, parts)]


def accuracy(scored: Sequence[ScoredRanking], seed: int) -> Row:
    """Return the share of pairs ordered as the annotators did, and the loss, both with intervals."""
    items, scores = [ranking.item for ranking in scored], [ranking.scores for ranking in scored]
    figures = ranking_metrics(items, scores, seeded_generator(seed, "compare"))
    return {key: figures[key] for key in ("accuracy", "low", "high", "loss", "loss_low", "loss_high", "pairs")}


def gains(a: ScoredRanking, b: ScoredRanking) -> list[float]:
    """Return for each pair that the annotator ordered: 1 if b is right and a wrong, -1 the other way round."""
    pairs = pairs_of(a.item.ranks)
    return [correct(gap(b.scores, better, worse)) - correct(gap(a.scores, better, worse)) for better, worse in pairs]


def agreements(a: Tensor, b: Tensor) -> list[float]:
    """Return for each pair of answers, scores [K]: 1 if both put the same answer first, 0.5 if either sees a tie.

    >>> agreements(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1.0, 1.0, 5.0]))
    [0.5, 0.0, 0.0]
    """
    return [correct(gap(a, i, j) * gap(b, i, j)) for i, j in combinations(range(len(a)), 2)]


def gap(scores: Tensor, i: int, j: int) -> float:
    """Return the score of answer i less that of answer j."""
    return float(scores[i] - scores[j])


def mean_gain(values: Sequence[Sequence[float]], seed: int) -> Row | None:
    """Return the mean of values that come several a prompt, its interval over prompts, and their number."""
    flat, clusters = flatten(values)
    if not len(flat):
        return None
    mean, low, high = bootstrap_mean(flat, seeded_generator(seed, "compare"), clusters=clusters)
    return {**mean_row(mean, low, high), "n": len(flat)}


def mean_agreement(values: Sequence[Sequence[float]]) -> Row | None:
    """Return the mean of shares that come several a prompt, with its interval, and their number."""
    flat, clusters = flatten(values)
    if not len(flat):
        return None
    mean, low, high = clustered_share(flat, clusters)
    return {"value": mean, "low": low, "high": high, "n": len(flat)}


def flatten(values: Sequence[Sequence[float]]) -> tuple[Tensor, Tensor]:
    """Return the values [N] of all prompts, and the index [N] of each one's prompt."""
    clusters = [i for i, part in enumerate(values) for _ in part]
    return torch.tensor([value for part in values for value in part]), torch.tensor(clusters)


def disagreements(a: Sequence[ScoredRanking], b: Sequence[ScoredRanking]) -> list[Row]:
    """Return pairs of answers of which each model clearly prefers another, one a prompt, the strongest first."""
    rows = [row for x, y in zip(a, b) if (row := disagreement(x, y)) is not None]
    return sorted(rows, key=lambda row: row["strength"], reverse=True)[:SHOWN]


def disagreement(a: ScoredRanking, b: ScoredRanking) -> Row | None:
    """Return the pair of a prompt's answers that divides the models most: `strength` is the lesser of their gaps."""
    pairs = permutations(range(len(a.scores)), 2)
    strength, i, j = max((min(gap(a.scores, i, j), gap(b.scores, j, i)), i, j) for i, j in pairs)
    if strength <= 0:
        return None
    return {
        "id": a.ranking.id,
        "annotator": a.ranking.annotator,
        "prompt": [message_fields(message) for message in a.ranking.prompt],
        "strength": strength,
        "answers": [
            {
                "text": a.ranking.completions[k],
                "rank": a.ranking.ranks[k],
                "a": float(a.scores[k]),
                "b": float(b.scores[k]),
            }
            for k in (i, j)
        ],
    }
