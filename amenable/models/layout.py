"""Where the rows of a flat batch lie, and how attention groups them.

A batch of B sequences is one list of N tokens, row after row, without padding. Only attention needs to know rows: it
reads them right-padded, in a few buckets of rows of similar length, so that little of what it computes is padding.

A row may branch off an earlier one: its first tokens are those of that row and are not repeated, so that a prompt with
K answers is in the list once. Linear layers compute such a stem once; attention reads it in every row that has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

MAX_BUCKETS = 8
BUCKET_COST = 5_000.0
"""what one more bucket costs, in query-key pairs"""
SLOT_COST = 10.0
"""what one padded slot costs besides its pairs, in query-key pairs"""


@dataclass(frozen=True, eq=False)
class Layout:
    """Rows of a flat batch of N tokens in B rows. Frozen; made once per batch.

    lengths: B row lengths, stems included. positions [N]: place inside the token's own row, from 0. rows [N]: the
    token's row; of a stem, the first that has it. starts, ends [B]: index of each row's first own token and of its last
    one in the flat batch. longest: the greatest length. shared: how many of each row's first tokens are those of the
    last row before it that shares none; empty where no row shares any.
    """

    lengths: tuple[int, ...]
    positions: Tensor
    rows: Tensor
    starts: Tensor
    ends: Tensor
    longest: int
    shared: tuple[int, ...] = ()

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device | str | None = None, shared: Sequence[int] = ()) -> Layout:
        """The layout of rows of these lengths. ValueError for no rows, an empty row, or a stem that cannot be one."""
        lengths = tuple(int(length) for length in lengths)
        if not lengths:
            raise ValueError("a batch needs at least one row")
        if min(lengths) < 1:
            raise ValueError(f"row {lengths.index(min(lengths))} is empty")
        stems = Stems.of(lengths, shared)
        counts = np.asarray(lengths) - stems.lengths
        ends = counts.cumsum()
        rows = np.repeat(np.arange(len(counts)), counts)
        positions = np.arange(int(ends[-1])) - (stems.starts - stems.lengths)[rows]
        index = [torch.from_numpy(a).to(device or "cpu") for a in (positions, rows, stems.starts, ends - 1)]
        told = tuple(shared) if any(shared) else ()
        return cls(lengths, index[0], index[1], index[2], index[3], max(lengths), told)

    @property
    def tokens(self) -> int:
        """N, the number of tokens."""
        return self.positions.numel()

    @property
    def is_even(self) -> bool:
        """Whether all rows are of one length, so that padding them is only a view."""
        return self.tokens == len(self.lengths) * self.longest

    @cached_property
    def padding(self) -> Padding:
        """How attention pads these rows."""
        return Padding.of(self.lengths, self.positions.device, self.shared)

    @cached_property
    def unfolded(self) -> Padding:
        """The rows one after another with their stems repeated, and no padding: every row a bucket of its own."""
        order = np.arange(len(self.lengths))
        buckets = tuple((1, length) for length in self.lengths)
        return Padding.filled(self.lengths, self.positions.device, self.shared, order, buckets)

    @cached_property
    def offsets(self) -> Tensor:
        """Row boundaries, int32 [B + 1]: where each row starts, its stem included, and where the last one ends."""
        return torch.tensor([0, *np.cumsum(self.lengths)], dtype=torch.int32, device=self.starts.device)


@dataclass(frozen=True, eq=False)
class Stems:
    """Of each of B rows: how many tokens it shares, where these begin in the flat batch, and where its own begin."""

    lengths: np.ndarray
    places: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, lengths: Sequence[int], shared: Sequence[int] = ()) -> Stems:
        """ValueError for a stem that is as long as its row, or longer than the row it branches off."""
        stems = np.asarray(shared if len(shared) else [0] * len(lengths), dtype=np.int64)
        if len(stems) != len(lengths):
            raise ValueError(f"{len(stems)} stems for {len(lengths)} rows")
        counts = np.asarray(lengths) - stems
        starts = counts.cumsum() - counts
        leaders = np.maximum.accumulate(np.where(stems == 0, np.arange(len(stems)), 0))
        bad = (stems < 0) | (counts < 1) | (stems > np.asarray(lengths)[leaders]) | (stems[:1] > 0)
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(f"row {row} of {lengths[row]} tokens cannot share {stems[row]} with row {leaders[row]}")
        return cls(stems, starts[leaders], starts)


@dataclass(frozen=True, eq=False)
class Padding:
    """Buckets of right-padded rows, laid one after another in an area of P slots.

    buckets: (rows, length) of each. slots [N]: the slot of every token. tokens [P]: the token in every slot; a padded
    slot repeats the last token of its row, which nothing reads. again [C]: further slots of tokens that several rows
    share; None where no row does.
    """

    buckets: tuple[tuple[int, int], ...]
    slots: Tensor
    tokens: Tensor
    again: Tensor | None

    @property
    def sizes(self) -> list[int]:
        """Slots in each bucket."""
        return [rows * length for rows, length in self.buckets]

    @classmethod
    def of(cls, lengths: tuple[int, ...], device: torch.device, shared: Sequence[int] = ()) -> Padding:
        """Rows of similar length together, chosen to waste little."""
        counts = np.asarray(lengths)
        order = np.argsort(counts, kind="stable")
        return cls.filled(lengths, device, shared, order, tuple(choose_buckets(counts[order])))

    @classmethod
    def filled(
        cls,
        lengths: tuple[int, ...],
        device: torch.device,
        shared: Sequence[int],
        order: np.ndarray,
        buckets: tuple[tuple[int, int], ...],
    ) -> Padding:
        """These buckets, filled with the rows in this order."""
        counts, stems = np.asarray(lengths), Stems.of(lengths, shared)
        row_start = np.empty_like(counts)
        tokens, first, offset = [], 0, 0
        for size, length in buckets:
            members = order[first : first + size]
            place = np.minimum(np.arange(length)[None, :], counts[members, None] - 1)
            origin = np.where(
                place < stems.lengths[members, None],
                stems.places[members, None],
                (stems.starts - stems.lengths)[members, None],
            )
            tokens.append((origin + place).ravel())
            row_start[members] = offset + length * np.arange(size)
            first, offset = first + size, offset + size * length
        own = counts - stems.lengths
        slots = np.repeat(row_start + stems.lengths - stems.starts, own) + np.arange(int(own.sum()))
        copied = stems.lengths
        again = np.repeat(row_start - (copied.cumsum() - copied), copied) + np.arange(int(copied.sum()))
        index = [torch.from_numpy(a).to(device) for a in (slots, np.concatenate(tokens), again)]
        return cls(buckets, index[0], index[1], index[2] if copied.any() else None)


def choose_buckets(lengths: np.ndarray) -> list[tuple[int, int]]:
    """Cut rows, sorted by length, into at most MAX_BUCKETS runs of least total cost: [(rows, length), ...].

    A bucket of b rows padded to T costs b (T^2 + SLOT_COST T) + BUCKET_COST. Dynamic programming over the lengths that
    occur.
    """
    values, counts = np.unique(lengths, return_counts=True)
    before = np.concatenate([[0], counts.cumsum()])
    rows = before[None, 1:] - before[:-1, None]  # [first, last]: rows in a bucket of the lengths first..last
    cost = np.where(rows > 0, rows * (values * (values + SLOT_COST))[None, :] + BUCKET_COST, np.inf)
    best, cuts = cost[0], []
    totals = [best[-1]]
    for _ in range(min(MAX_BUCKETS, len(values)) - 1):
        through = best[:-1, None] + cost[1:, :]  # the earlier buckets end at length i, the last one starts at i + 1
        cuts.append(through.argmin(0))
        best = through.min(0)
        totals.append(best[-1])
    last, chosen = len(values) - 1, []
    for k in range(int(np.argmin(totals)), 0, -1):
        cut = int(cuts[k - 1][last])
        chosen.append((int(rows[cut + 1, last]), int(values[last])))
        last = cut
    return [(int(rows[0, last]), int(values[last])), *reversed(chosen)]
