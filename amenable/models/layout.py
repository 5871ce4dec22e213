"""Where the rows of a flat batch lie, and how attention groups them.

A batch of B sequences is one list of N tokens, row after row, without padding. Only attention needs to know rows: it
reads them right-padded, in a few buckets of rows of similar length, so that little of what it computes is padding.
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

    lengths: B row lengths. positions [N]: place inside the token's own row, from 0. rows [N]: the token's row.
    starts, ends [B]: index of each row's first and last token in the flat batch. longest: the greatest length.
    """

    lengths: tuple[int, ...]
    positions: Tensor
    rows: Tensor
    starts: Tensor
    ends: Tensor
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device | str | None = None) -> Layout:
        """The layout of rows of these lengths. Raises ValueError for no rows at all or for an empty row."""
        lengths = tuple(int(length) for length in lengths)
        if not lengths:
            raise ValueError("a batch needs at least one row")
        if min(lengths) < 1:
            raise ValueError(f"row {lengths.index(min(lengths))} is empty")
        counts = np.asarray(lengths)
        ends = counts.cumsum()
        starts = ends - counts
        rows = np.repeat(np.arange(len(counts)), counts)
        positions = np.arange(int(ends[-1])) - starts[rows]
        index = [torch.from_numpy(a).to(device or "cpu") for a in (positions, rows, starts, ends - 1)]
        return cls(lengths, index[0], index[1], index[2], index[3], max(lengths))

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
        return Padding.of(self.lengths, self.positions.device)

    @cached_property
    def offsets(self) -> Tensor:
        """Row boundaries, int32 [B + 1]: where each row starts, and N."""
        return torch.cat([self.starts, self.ends[-1:] + 1]).to(torch.int32)


@dataclass(frozen=True, eq=False)
class Padding:
    """Buckets of right-padded rows, laid one after another in an area of P slots.

    buckets: (rows, length) of each. slots [N]: the slot of every token. tokens [P]: the token in every slot; a padded
    slot repeats the last token of its row, which nothing reads.
    """

    buckets: tuple[tuple[int, int], ...]
    slots: Tensor
    tokens: Tensor

    @property
    def sizes(self) -> list[int]:
        """Slots in each bucket."""
        return [rows * length for rows, length in self.buckets]

    @classmethod
    def of(cls, lengths: tuple[int, ...], device: torch.device) -> Padding:
        """Rows of similar length together, chosen to waste little."""
        counts = np.asarray(lengths)
        starts = counts.cumsum() - counts
        order = np.argsort(counts, kind="stable")
        buckets = tuple(choose_buckets(counts[order]))
        row_start = np.empty_like(counts)
        tokens, first, offset = [], 0, 0
        for size, length in buckets:
            members = order[first : first + size]
            place = np.minimum(np.arange(length)[None, :], counts[members, None] - 1)
            tokens.append((starts[members, None] + place).ravel())
            row_start[members] = offset + length * np.arange(size)
            first, offset = first + size, offset + size * length
        slots = np.repeat(row_start - starts, counts) + np.arange(int(counts.sum()))
        return cls(buckets, torch.from_numpy(slots).to(device), torch.from_numpy(np.concatenate(tokens)).to(device))


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
