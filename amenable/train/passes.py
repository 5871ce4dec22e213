"""Sizes of a run's largest forward passes: tokens, and the padded slots that attention computes for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

import numpy as np

from amenable.data import batches
from amenable.data.lazy import column
from amenable.models.layout import choose_buckets
from amenable.train.forward import Row

E = TypeVar("E")
PLANNED = 4096
"""elements whose memory is planned where a data set may have millions"""


@dataclass(frozen=True)
class Pass:
    """Rows computed at once. Tokens are the flat batch's; slots are attention's: padded, shared prefixes repeated."""

    tokens: int
    slots: int
    trained: int
    """tokens with a prediction"""
    rows: int = 0
    accumulates: bool = False
    """True if an earlier pass of the step may have left gradients"""
    summed: bool = False
    """True if the loss is a sum over predictions: logits are then not stored"""

    def after(self, virtual_tokens: int) -> Pass:
        """Return the pass of the same rows after virtual tokens, which are computed once and read in every row."""
        return replace(self, tokens=self.tokens + virtual_tokens, slots=self.slots + virtual_tokens * self.rows)


def pass_of(rows: Sequence[Row], tokens: int | None = None) -> Pass:
    """Return the sizes of a batch of rows; tokens: computed ids, where shared prefixes are computed once."""
    lengths = [len(ids) for ids, _ in rows]
    slots = sum(count * length for count, length in choose_buckets(np.sort(lengths)))
    trained = sum(sum(trained) for _, trained in rows)
    return Pass(sum(lengths) if tokens is None else tokens, slots, trained, len(rows))


def largest_pass(
    steps: Iterable[Sequence[Sequence[Row]]], limit: int, share: bool = False, summed: bool = False
) -> Pass:
    """Return the largest pass of some steps, each a sequence of elements: the rows that a loss couples.

    limit: tokens of a pass. It accumulates if any step takes several passes.
    """
    size, computed, chosen, several = 0, 0, list[Row](), False
    for elements in steps:
        parts = [part for group in batches.loss_groups(elements, limit, share) for part in group.microbatches]
        rows, several = list(chain.from_iterable(elements)), several or len(parts) > 1
        largest = max(parts, key=lambda part: part.tokens + part.row_tokens)
        if largest.tokens + largest.row_tokens > size:
            size, computed = largest.tokens + largest.row_tokens, largest.tokens
            chosen = [rows[i] for i in largest.rows]
    return replace(pass_of(chosen, computed), accumulates=several, summed=summed)


def largest_inference_pass(rows: Sequence[Row], limit: int) -> Pass:
    """Return the largest pass over rows that are only read, in the order of `forward.length_sorted_batches`."""
    ordered = [rows[i] for i in batches.order_by_length(rows)]
    return largest_pass([[[ordered[i] for i in group] for group in batches.group_by_prompt(ordered)]], limit, True)


def longest_rows(elements: Sequence[E], rows: Callable[[E], Sequence[Row]]) -> list[Row]:
    """Return the rows of the elements with the most tokens, in order, PLANNED of them at most: the largest pass over
    all of them is one over these."""
    chosen: Sequence[int] = range(len(elements))
    if len(elements) > PLANNED:
        chosen = np.sort(np.argsort(-column(elements, "tokens"), kind="stable")[:PLANNED]).tolist()
    return [row for index in chosen for row in rows(elements[index])]


def full_row(prompt: list[int], length: int) -> Row:
    """Return the row of a prompt with a completion of `length` tokens."""
    return prompt + [0] * length, [False] * len(prompt) + [True] * length
