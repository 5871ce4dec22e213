"""Estimation of an n-gram model from counts: one order after another, a part of an order at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from amenable.models.ngram.counting import BLOCK, Array, NGramCounts, Scratch, look_up
from amenable.models.ngram.smoothing import KATZ_LARGEST, Contexts, SmoothingName, smoothing_of
from amenable.models.ngram.tables import NGramTables

COUNTS_OF_COUNTS = KATZ_LARGEST + 2
"""counts from 0 on whose n-grams are counted"""


def estimate(
    counts: NGramCounts,
    smoothing: SmoothingName,
    k: float = 1.0,
    discounts: Sequence[Array] | None = None,
    scratch: Scratch | None = None,
) -> tuple[NGramTables, list[str]]:
    """Return the smoothed n-gram model of some counts, and notes on what could not be estimated, by order.

    k: what add-k adds. discounts: of each order those of counts 0, 1, 2, 3 and above, for Kneser-Ney, in place of
    estimated ones.
    """
    scratch, size, order = scratch or Scratch(), counts.vocab_size, counts.order
    suffixes = suffix_rows(counts, scratch)
    numbers = adjusted_counts(counts, suffixes, scratch) if smoothing.endswith("kneser-ney") else counts.counts
    outcome = np.ones(size, bool)
    outcome[counts.begin] = counts.counts[0][counts.begin] > 0
    outcomes, notes = int(outcome.sum()), list[str]()
    smoothings = []
    for i, column in enumerate(numbers):
        given = None if discounts is None else discounts[i]
        smooth, note = smoothing_of(smoothing, counts_of_counts(column), outcomes, k, given)
        smoothings.append(smooth)
        notes += [f"order {i + 1}: {note}"] if note else []

    known = np.flatnonzero(numbers[0] > 0)
    uniform = 1 / outcomes
    root = smoothings[0](
        Contexts(numbers[0][known].astype(float), np.array([0]), np.full(len(known), uniform), np.ones(1))
    )
    unigrams = np.where(outcome, root.backoffs[0] * uniform, 0.0)
    unigrams[known] = root.probabilities
    probabilities, backoffs = [unigrams], list[Array]()
    scale = root.scale if root.scale is not None else np.ones(1)
    for i in range(1, order):
        parts = np.empty(len(counts.keys[i]))
        weights, scales = np.ones(len(counts.keys[i - 1])), np.ones(len(counts.keys[i - 1]))
        for part in whole_contexts(counts.keys[i], size):
            prefixes = counts.keys[i][part] // size
            starts = np.flatnonzero(np.append(True, prefixes[1:] != prefixes[:-1]))
            rows = prefixes[starts]
            lower_scale = scale[suffixes[i - 1][rows]] if i > 1 else np.repeat(scale, len(rows))
            lower = probabilities[i - 1][suffixes[i][part]]
            estimates = smoothings[i](Contexts(numbers[i][part].astype(float), starts, lower, lower_scale))
            parts[part], weights[rows] = estimates.probabilities, estimates.backoffs
            scales[rows] = 1.0 if estimates.scale is None else estimates.scale
        scale = scratch.keep(scales)
        probabilities.append(scratch.keep(parts))
        backoffs.append(scratch.keep(logs(weights)))
    logarithms = [scratch.keep(logs(numbers)) for numbers in probabilities]
    return NGramTables(size, counts.keys[1:], logarithms, backoffs, smoothing == "add-k"), notes


def logs(numbers: Array) -> Array:
    """Return natural logarithms as float32; -inf of 0."""
    with np.errstate(divide="ignore"):
        return np.log(numbers).astype(np.float32)


def suffix_rows(counts: NGramCounts, scratch: Scratch) -> list[Array]:
    """Return for each order the row of every n-gram's last n - 1 tokens in the order below; of order 1 nothing."""
    size, suffixes = counts.vocab_size, [np.empty(0, np.int64)]
    for i in range(1, counts.order):
        rows = np.empty(len(counts.keys[i]), np.int64)
        for part in blocks(len(rows)):
            prefixes, tokens = np.divmod(counts.keys[i][part], size)
            rows[part] = tokens
            if i > 1:
                rows[part] = look_up(counts.keys[i - 1], suffixes[i - 1][prefixes] * size + tokens)
        suffixes.append(scratch.keep(rows))
    return suffixes


def adjusted_counts(counts: NGramCounts, suffixes: Sequence[Array], scratch: Scratch) -> list[Array]:
    """Return the counts of Kneser-Ney: below the highest order the number of different tokens before an n-gram, and of
    one at the beginning of documents, before which nothing can be, its count."""
    begins = np.arange(counts.vocab_size) == counts.begin
    adjusted = list[Array]()
    for i in range(counts.order - 1):
        numbers = np.zeros(len(counts.keys[i]), np.int64)
        for part in blocks(len(suffixes[i + 1])):
            numbers += np.bincount(suffixes[i + 1][part], minlength=len(numbers))
        if i > 0:
            begins = begins[counts.keys[i] // counts.vocab_size]
            numbers = np.where(begins, counts.counts[i], numbers)
        adjusted.append(scratch.keep(numbers))
    return [*adjusted, counts.counts[-1]]


def counts_of_counts(numbers: Array) -> list[int]:
    """Return how many n-grams have count 0, 1, 2 ... COUNTS_OF_COUNTS - 1."""
    totals = np.zeros(COUNTS_OF_COUNTS + 1, np.int64)
    for part in blocks(len(numbers)):
        totals += np.bincount(np.minimum(numbers[part], COUNTS_OF_COUNTS), minlength=COUNTS_OF_COUNTS + 1)
    return totals[:-1].tolist()


def blocks(length: int, block: int = BLOCK) -> Iterator[slice]:
    """Yield slices of about `block` rows."""
    return (slice(start, start + block) for start in range(0, length, block))


def whole_contexts(keys: Array, vocab_size: int, block: int = BLOCK) -> Iterator[slice]:
    """Yield slices of about `block` sorted keys that hold all n-grams of each of their contexts."""
    start = 0
    while start < len(keys):
        last = int(keys[min(start + block, len(keys)) - 1])
        end = int(np.searchsorted(keys, (last // vocab_size + 1) * vocab_size))
        yield slice(start, end)
        start = end
