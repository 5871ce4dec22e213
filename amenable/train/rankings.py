"""Tokenized rankings and pairs: the elements of a reward model's batch, and of DPO's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TypeVar

import numpy as np

from amenable.data.lazy import Lazy, changed, column
from amenable.data.mixture import Mixed
from amenable.data.rankings import PairSelection, pairs_of, select_pairs
from amenable.data.types import Ranking
from amenable.models.decoder import Decoder
from amenable.seeds import derive_seed
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.examples import RejectedRows
from amenable.train.forward import Row
from amenable.train.log import Progress, silent
from amenable.train.row_cache import Examples, read_rows
from amenable.train.runtime import Runtime


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
    id: str = ""
    """of the prompt"""

    @property
    def completions(self) -> int:
        """Number of completions."""
        return len(self.rows)

    @property
    def pairs(self) -> int:
        """Number of pairs that are not tied."""
        return len(pairs_of(self.ranks))

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(len(ids) for ids, _ in self.rows)


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
    ref_front: float = 0.0
    """that of `front`, where it is read"""

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens of the chosen and of the rejected completion."""
        return sum(self.chosen[1]), sum(self.rejected[1])

    @property
    def front(self) -> Row:
        """The row of the longer completion, cut to as many tokens as the shorter one has."""
        (ids, loss_mask), length = max(self.chosen, self.rejected, key=lambda row: sum(row[1])), min(self.lengths)
        stop = loss_mask.index(True) + length
        return ids[:stop], loss_mask[:stop]

    def rows(self, front: bool = False) -> list[Row]:
        """Return the rows of both completions, and with `front` that of the longer one's first tokens."""
        return [self.chosen, self.rejected, *([self.front] if front else [])]


M = TypeVar("M", TokenizedRanking, Pair)


def with_rows(ranking: Ranking, rows: list[Row]) -> TokenizedRanking:
    """Return a ranking with the rows of its completions."""
    lengths = [len(text) for text in ranking.completions]
    facts = (ranking.annotator or "", ranking.margin or 0.0, ranking.id)
    return TokenizedRanking(rows, list(ranking.ranks), lengths, *facts)


def lazy_rankings(part: Examples[Ranking]) -> Lazy[TokenizedRanking]:
    """Return the rankings of a source, read as they are needed."""
    ranks = [part.targets(index) for index in range(len(part))]
    counts = {"completions": np.array(list(map(len, ranks)), int)}
    counts["pairs"] = np.array([len(pairs_of(of_ranking)) for of_ranking in ranks], int)
    tokens, margins = part.sum_of_rows(), part.column("margins")
    return Lazy(lambda index: with_rows(part[index], part.rows(index)), tokens, margin=margins, **counts)


def lazy_pairs(part: Examples[Ranking], selection: PairSelection, count: int, seed: int) -> Lazy[Pair]:
    """Return the selected pairs (`select_pairs`) of a source's rankings, read as they are needed."""
    owners, numbers = list[int](), list[tuple[int, int]]()
    for index in range(len(part)):
        pairs, rows = pairs_of(part.targets(index)), part.row_numbers(index)
        if len(pairs) > 1:
            pair_seed = derive_seed(seed, "pairs", part[index].id)
            pairs = select_pairs(part.targets(index), selection, count, pair_seed)
        owners += [index] * len(pairs)
        numbers += [(rows[better], rows[worse]) for better, worse in pairs]
    pair_rows, margins = np.array(numbers, int).reshape(-1, 2), part.column("margins")[np.array(owners, int)]

    def make(index: int) -> Pair:
        better, worse = pair_rows[index].tolist()
        return Pair(part.row(better), part.row(worse), float(margins[index]))

    return Lazy(make, part.row_lengths()[pair_rows].sum(1), margin=margins)


def read_demonstrations(
    path: Path | None, tokenizer: Tokenizer, context: int, rejected: RejectedRows | None = None
) -> Sequence[TokenizedRanking]:
    """Read conversations, each as a ranking of one completion; [] without a path, InputError if none fits."""
    rows = read_rows("demonstrations", path, tokenizer, context, rejected)
    make, ones = (lambda index: TokenizedRanking([rows[index]], [1.0], [0], "")), np.ones(len(rows), int)
    return Lazy(make, column(rows, "tokens"), completions=ones)


def split_into_pairs(rankings: Sequence[TokenizedRanking]) -> Lazy[TokenizedRanking]:
    """Return every pair as a ranking of two, the better first: a completion appears once for each of its pairs."""
    pairs = [(index, pair) for index, ranking in enumerate(rankings) for pair in pairs_of(ranking.ranks)]
    owners = np.array([index for index, _ in pairs], int)

    def make(index: int) -> TokenizedRanking:
        owner, pair = pairs[index]
        ranking = rankings[owner]
        rows, lengths = [ranking.rows[i] for i in pair], [ranking.lengths[i] for i in pair]
        return replace(ranking, rows=rows, ranks=[1.0, 2.0], lengths=lengths)

    margins = column(rankings, "margin").astype(float)[owners]
    return Lazy(make, column(rankings, "tokens").astype(int)[owners], margin=margins)


def add_reference_logps(
    reference: Decoder,
    pairs: Mixed[Pair],
    runtime: Runtime,
    max_tokens: int,
    progress: Progress = silent,
    front: bool = False,
) -> Mixed[Pair]:
    """Return the pairs with the reference's log-probabilities of both completions, and with `front` of the longer one's
    first tokens. max_tokens: tokens of a pass."""
    sums = forward.element_logprobs(reference, pairs, lambda pair: pair.rows(front), runtime, max_tokens, progress)
    sums = [[*each, 0.0][:3] for each in sums]
    return changed(
        pairs, lambda pair, i: replace(pair, ref_chosen=sums[i][0], ref_rejected=sums[i][1], ref_front=sums[i][2])
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


def count_completions(rankings: Sequence[TokenizedRanking]) -> int:
    """Count the completions of some rankings."""
    return int(column(rankings, "completions").sum())


def describe(rankings: Sequence[TokenizedRanking]) -> str:
    """Return the number of rankings, their completions and their pairs as text."""
    pairs = int(column(rankings, "pairs").sum())
    return f"{len(rankings)} rankings, {count_completions(rankings)} completions, {pairs} pairs"


def first_prompts(rankings: Examples[Ranking], count: int) -> Examples[Ranking]:
    """Return the rankings of the first `count` prompts; all of them for 0."""
    prompts = rankings.column("prompts")
    firsts = np.sort(np.unique(prompts, return_index=True)[1])[: count or None]
    return rankings.select(np.isin(prompts, prompts[firsts]))


def margin_statistics(elements: Sequence[M]) -> Callable[[int, Sequence[M], dict[str, Any]], dict[str, Any]]:
    """Return the `statistics` of `fit`: unchanged, or with the mean of the elements' margins if the data has any."""
    if not column(elements, "margin").any():
        return lambda step, batch, stats: stats
    return lambda step, batch, stats: stats | {"margin/given": fmean(element.margin for element in batch)}


def with_sources(sets: Mapping[str, Sequence[TokenizedRanking]]) -> dict[str, Sequence[TokenizedRanking]]:
    """Return the sets, and those of several sources by source too, as `validation/NAME`."""
    several = {name: rows for name, rows in sets.items() if isinstance(rows, Mixed) and len(rows.parts) > 1}
    return dict(sets) | {
        f"{name}/{part}": own for name, rows in several.items() for part, own in zip(rows.names, rows.parts)
    }
