"""Layouts of flat batches: row boundaries and token positions, shared prefixes, and the padding that attention needs.

A batch of B sequences is one list of N tokens, row after row, without padding. Only attention needs rows: it reads them
right-padded, in a few buckets of rows of similar length, to compute little padding.

A row may share its prefix with an earlier row, such as a prompt with K completions: the prefix is in the list once.
Linear layers compute a shared prefix once; attention reads it in every row. Virtual tokens, with which all rows begin,
are the first tokens of the batch, once.
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
"""cost of a further bucket, in query-key pairs"""
SLOT_COST = 10.0
"""cost of a padded slot besides its pairs, in query-key pairs"""


@dataclass(frozen=True, eq=False)
class Layout:
    """Layout of a flat batch of N tokens in B rows. Frozen; built once per batch.

    lengths: B row lengths, shared prefixes included. positions [N]: position inside the token's row, from 0. rows [N]:
    row of each token; of a shared prefix the first row that has it. starts, last_tokens [B]: flat index of each row's
    first token of its own, and of its last token. longest: the greatest length. prefix_lengths: number of first tokens
    that each row shares with the last row before it that shares none; empty if no row shares any. virtual_tokens:
    number of tokens that all rows begin with, in the lengths and not in the prefix_lengths.
    """

    lengths: tuple[int, ...]
    positions: Tensor
    rows: Tensor
    starts: Tensor
    last_tokens: Tensor
    longest: int
    prefix_lengths: tuple[int, ...] = ()
    virtual_tokens: int = 0

    @classmethod
    def of(
        cls, lengths: Sequence[int], device: torch.device | str | None = None, prefix_lengths: Sequence[int] = ()
    ) -> Layout:
        """Return the layout of rows of these lengths. ValueError for no rows, an empty row, or an impossible prefix."""
        lengths = tuple(int(length) for length in lengths)
        if not lengths:
            raise ValueError("a batch needs at least one row")
        if min(lengths) < 1:
            raise ValueError(f"row {lengths.index(min(lengths))} is empty")
        prefixes = SharedPrefixes.of(lengths, prefix_lengths)
        counts = np.asarray(lengths) - prefixes.lengths
        last = counts.cumsum() - 1
        rows = np.repeat(np.arange(len(counts)), counts)
        positions = np.arange(int(last[-1]) + 1) - (prefixes.starts - prefixes.lengths)[rows]
        index = [torch.from_numpy(a).to(device or "cpu") for a in (positions, rows, prefixes.starts, last)]
        prefix_lengths = tuple(prefix_lengths) if any(prefix_lengths) else ()
        return cls(lengths, index[0], index[1], index[2], index[3], max(lengths), prefix_lengths)

    def after(self, virtual_tokens: int) -> Layout:
        """Return the layout of the same rows, each after so many virtual tokens, which come first in the batch."""
        count, first = virtual_tokens, torch.arange(virtual_tokens, device=self.rows.device)
        return Layout(
            tuple(length + count for length in self.lengths),
            torch.cat([first, self.positions + count]),
            torch.cat([torch.zeros_like(first), self.rows]),
            self.starts + count,
            self.last_tokens + count,
            self.longest + count,
            self.prefix_lengths,
            count,
        )

    @property
    def tokens(self) -> int:
        """N, the number of tokens."""
        return self.positions.numel()

    @property
    def shares_tokens(self) -> bool:
        """True if a token belongs to several rows."""
        return self.tokens < sum(self.lengths)

    @property
    def is_even(self) -> bool:
        """True if all rows have the same length: padding is then only a view."""
        return self.tokens == len(self.lengths) * self.longest

    @cached_property
    def padding(self) -> Padding:
        """The buckets in which attention pads these rows."""
        return Padding.of(self.lengths, self.positions.device, self.prefix_lengths, self.virtual_tokens)

    @cached_property
    def expanded(self) -> Padding:
        """The rows with their shared prefixes repeated and no padding: every row is a bucket of its own."""
        order = np.arange(len(self.lengths))
        buckets = tuple((1, length) for length in self.lengths)
        shared = self.prefix_lengths, self.virtual_tokens
        return Padding.filled(self.lengths, self.positions.device, *shared, order, buckets)

    @cached_property
    def offsets(self) -> Tensor:
        """Row boundaries with shared prefixes repeated, int32 [B + 1] (`cu_seqlens` of flash attention)."""
        return torch.tensor([0, *np.cumsum(self.lengths)], dtype=torch.int32, device=self.starts.device)


@dataclass(frozen=True, eq=False)
class SharedPrefixes:
    """Shared prefixes of B rows: their lengths, the flat index where each prefix begins, and where the row's own tokens
    begin."""

    lengths: np.ndarray
    prefix_starts: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, lengths: Sequence[int] | np.ndarray, prefix_lengths: Sequence[int] = ()) -> SharedPrefixes:
        """Locate the prefixes. ValueError for one as long as its row, or longer than the row it is shared with."""
        prefixes = np.asarray(prefix_lengths if len(prefix_lengths) else [0] * len(lengths), dtype=np.int64)
        if len(prefixes) != len(lengths):
            raise ValueError(f"{len(prefixes)} prefix lengths for {len(lengths)} rows")
        counts = np.asarray(lengths) - prefixes
        starts = counts.cumsum() - counts
        leaders = np.maximum.accumulate(np.where(prefixes == 0, np.arange(len(prefixes)), 0))
        bad = (prefixes < 0) | (counts < 1) | (prefixes > np.asarray(lengths)[leaders]) | (prefixes[:1] > 0)
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(f"row {row} of {lengths[row]} tokens cannot share {prefixes[row]} with row {leaders[row]}")
        return cls(prefixes, starts[leaders], starts)


@dataclass(frozen=True, eq=False)
class Padding:
    """Buckets of right-padded rows, one after another, P slots in all.

    buckets: (rows, length) of each. slots [N]: slot of each token. tokens [P]: token in each slot; a padded slot
    repeats the last token of its row and is never read. extra_slots [C]: further slots of shared tokens, or None.
    """

    buckets: tuple[tuple[int, int], ...]
    slots: Tensor
    tokens: Tensor
    extra_slots: Tensor | None

    @property
    def sizes(self) -> list[int]:
        """Slots in each bucket."""
        return [rows * length for rows, length in self.buckets]

    @classmethod
    def of(
        cls,
        lengths: tuple[int, ...],
        device: torch.device,
        prefix_lengths: Sequence[int] = (),
        virtual_tokens: int = 0,
    ) -> Padding:
        """Return buckets of rows of similar length, chosen to waste little."""
        counts = np.asarray(lengths)
        order = np.argsort(counts, kind="stable")
        buckets = tuple(choose_buckets(counts[order]))
        return cls.filled(lengths, device, prefix_lengths, virtual_tokens, order, buckets)

    @classmethod
    def filled(
        cls,
        lengths: tuple[int, ...],
        device: torch.device,
        prefix_lengths: Sequence[int],
        virtual_tokens: int,
        order: np.ndarray,
        buckets: tuple[tuple[int, int], ...],
    ) -> Padding:
        """Fill these buckets with the rows in this order."""
        counts = np.asarray(lengths)
        prefixes = SharedPrefixes.of(counts - virtual_tokens, prefix_lengths)
        row_start = np.empty_like(counts)
        tokens, first, offset = [], 0, 0
        for size, length in buckets:
            members = order[first : first + size]
            position = np.minimum(np.arange(length)[None, :], counts[members, None] - 1)
            origin = np.where(
                position - virtual_tokens < prefixes.lengths[members, None],
                prefixes.prefix_starts[members, None],
                (prefixes.starts - prefixes.lengths)[members, None],
            )
            tokens.append((np.where(position < virtual_tokens, 0, origin) + position).ravel())
            row_start[members] = offset + length * np.arange(size)
            first, offset = first + size, offset + size * length
        virtual, begins = row_start[:, None] + np.arange(virtual_tokens), row_start + virtual_tokens
        copied = prefixes.lengths
        own = counts - virtual_tokens - copied
        slots = np.repeat(begins + copied - prefixes.starts, own) + np.arange(int(own.sum()))
        extra = np.repeat(begins - (copied.cumsum() - copied), copied) + np.arange(int(copied.sum()))
        slots, extra = np.concatenate([virtual[0], slots]), np.concatenate([virtual[1:].ravel(), extra])
        index = [torch.from_numpy(a).to(device) for a in (slots, np.concatenate(tokens), extra)]
        return cls(buckets, index[0], index[1], index[2] if extra.size else None)


def choose_buckets(lengths: np.ndarray) -> list[tuple[int, int]]:
    """Cut rows, sorted by length, into at most MAX_BUCKETS buckets of least total cost: [(rows, length), ...].

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
