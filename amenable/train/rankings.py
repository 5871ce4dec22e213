"""Tokenized rankings and pairs: the elements of a reward model's batch, and of DPO's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TypeVar

from amenable.data.mixture import Mixed, Sources
from amenable.data.rankings import PairSelection, pairs_of, select_pairs
from amenable.data.types import Ranking
from amenable.models.decoder import Decoder
from amenable.seeds import derive_seed
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.examples import RejectedRows, fit_sources, keep_fitting, ranking_rows
from amenable.train.forward import Row
from amenable.train.log import Progress, silent
from amenable.train.runtime import Runtime

R = TypeVar("R")


@dataclass(frozen=True)
class TokenizedRanking:
    """One prompt with its K ranked completions."""

    rows: list[Row]
    """K rows of prompt and completion; the loss mask is True on the completion"""
    ranks: list[float]
    """K ranks, 1 the best, ties share"""
    lengths: list[int]
    """characters of each completion"""
    annotator: str
    margin: float = 0.0
    """difference of rewards that each pair should reach"""


@dataclass(frozen=True)
class Pair:
    """One comparison as rows, and the reference's log-probabilities of both completions."""

    chosen: Row
    rejected: Row
    margin: float = 0.0
    """difference of implicit rewards that the pair should reach"""
    ref_chosen: float = 0.0
    """log-probability of the chosen completion under the reference, summed over its tokens"""
    ref_rejected: float = 0.0


M = TypeVar("M", TokenizedRanking, Pair)


def tokenize_ranking(ranking: Ranking, tokenizer: Tokenizer, context: int) -> TokenizedRanking | None:
    """Tokenize a ranking; None if a completion is longer than the context."""
    rows = ranking_rows(ranking, tokenizer, context)
    if rows is None:
        return None
    lengths = [len(text) for text in ranking.completions]
    return TokenizedRanking(rows, list(ranking.ranks), lengths, ranking.annotator or "", ranking.margin or 0.0)


def tokenize_pairs(
    ranking: Ranking, tokenizer: Tokenizer, context: int, selection: PairSelection, count: int, seed: int
) -> list[Pair] | None:
    """Tokenize the selected pairs of a ranking (`select_pairs`); None if a completion is longer than the context."""
    rows = ranking_rows(ranking, tokenizer, context)
    if rows is None:
        return None
    pairs = select_pairs(ranking.ranks, selection, count, derive_seed(seed, "pairs", ranking.id))
    return [Pair(rows[better], rows[worse], ranking.margin or 0.0) for better, worse in pairs]


def split_into_pairs(rankings: Sequence[TokenizedRanking]) -> list[TokenizedRanking]:
    """Return every pair as a ranking of two, the better first: a completion appears once for each of its pairs."""
    return [
        replace(
            ranking,
            rows=[ranking.rows[i] for i in pair],
            ranks=[1.0, 2.0],
            lengths=[ranking.lengths[i] for i in pair],
        )
        for ranking in rankings
        for pair in pairs_of(ranking.ranks)
    ]


def add_reference_logps(
    reference: Decoder, pairs: Mixed[Pair], runtime: Runtime, max_tokens: int, progress: Progress = silent
) -> Mixed[Pair]:
    """Return the pairs with the reference's log-probabilities of both completions. max_tokens: tokens of a pass."""
    rows = [row for pair in pairs for row in (pair.chosen, pair.rejected)]
    logps = forward.compute_logprobs(reference, rows, runtime, max_tokens, progress=progress)
    sums = [float(part.sum()) for part in logps]
    chosen, rejected = iter(sums[::2]), iter(sums[1::2])
    return pairs.map(
        lambda part: [replace(pair, ref_chosen=next(chosen), ref_rejected=next(rejected)) for pair in part]
    )


def batch_elements(
    rankings: Mixed[TokenizedRanking], unit: Literal["prompts", "pairs"], prompts_per_step: int
) -> tuple[Mixed[TokenizedRanking], int]:
    """Return the elements that are shuffled, and their number in a step: rankings, or their pairs, as many as
    `prompts_per_step` prompts have on average."""
    if unit == "prompts":
        return rankings, prompts_per_step
    pairs = rankings.map(split_into_pairs)
    return pairs, max(1, round(prompts_per_step * len(pairs) / len(rankings)))


def describe(rankings: Sequence[TokenizedRanking]) -> str:
    """Return the number of rankings, their completions and their pairs as text."""
    completions = sum(len(ranking.rows) for ranking in rankings)
    pairs = sum(len(pairs_of(ranking.ranks)) for ranking in rankings)
    return f"{len(rankings)} rankings, {completions} completions, {pairs} pairs"


def first_prompts(rankings: Sequence[Ranking], count: int) -> list[Ranking]:
    """Return the rankings of the first `count` prompts; all of them for 0."""
    prompts = set(list(dict.fromkeys(ranking.prompt for ranking in rankings))[: count or None])
    return [ranking for ranking in rankings if ranking.prompt in prompts]


def tokenize_splits(
    splits: Mapping[str, Mixed[Ranking]],
    tokenize: Callable[[Ranking], R | None],
    context: int,
    required: Sources,
    rejected: RejectedRows | None = None,
) -> dict[str, Mixed[R]]:
    """Return what `tokenize` makes of the rankings of each split, without those for which it returns None.

    InputError, naming the source of `required`, if nothing of it is left in the split "train".
    """

    def fitting(split: str, part: Sequence[Ranking], required: Path | None) -> tuple[list[Ranking], list[R]]:
        rows = [tokenize(ranking) for ranking in part]
        return keep_fitting(split, part, rows, "rankings", context, rejected, required)

    return {
        name: fit_sources(name, rankings, fitting, required if name == "train" else None)[1]
        for name, rankings in splits.items()
    }


def margin_statistics(elements: Sequence[M]) -> Callable[[int, Sequence[M], dict[str, Any]], dict[str, Any]]:
    """Return the `statistics` of `fit`: unchanged, or with the mean of the elements' margins if the data has any."""
    if not any(element.margin for element in elements):
        return lambda step, batch, stats: stats
    return lambda step, batch, stats: stats | {"margin/given": fmean(element.margin for element in batch)}


def with_sources(sets: Mapping[str, Sequence[TokenizedRanking]]) -> dict[str, Sequence[TokenizedRanking]]:
    """Return the sets, and those of several sources by source too, as `validation/NAME`."""
    several = {name: rows for name, rows in sets.items() if isinstance(rows, Mixed) and len(rows.parts) > 1}
    return dict(sets) | {
        f"{name}/{part}": own for name, rows in several.items() for part, own in zip(rows.names, rows.parts)
    }
