"""Orders: which rows a step has, as a function of seed and step, so that the step number is a run's data cursor.

An order is endless and comes in epochs; batches cut it into steps, by a number of rows or a budget of tokens. Memory is
an array or two of an epoch's length, whatever the length of the run; an epoch of more than MAX_STORED rows is computed
where it is read.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, overload

import numpy as np

from amenable.data.batches import Indices, index_type, permutation
from amenable.data.feistel import Computed, feistel

Rows: TypeAlias = Indices | Computed
"""rows of an epoch, in order, read by slices"""
MAX_STORED = 1 << 22
"""rows of an epoch that are in memory; more are computed where they are read (`feistel.py`)"""
BLOCK = 1 << 16
"""rows, or steps, whose numbers are computed at once, without further arrays of an epoch's length"""


class Order(Protocol):
    """Endless order of rows, in epochs of n draws."""

    @property
    def n(self) -> int:
        """Draws of an epoch."""
        ...

    def indices(self, epoch: int) -> Rows:
        """Return the n rows of an epoch, in order."""
        ...


def shuffle(n: int, seed: int, epoch: int) -> Rows:
    """Return a permutation of range(n) that depends on seed and epoch."""
    return feistel(n, seed, epoch) if n > MAX_STORED else permutation(n, seed, epoch)


class EpochOrder:
    """Endless order of n rows: each epoch is a permutation of its own, a function of seed and epoch."""

    def __init__(self, n: int, seed: int):
        self.n, self.seed = n, seed

    def indices(self, epoch: int) -> Rows:
        """Return the n rows of an epoch, in order."""
        return shuffle(self.n, self.seed, epoch)


class Draws:
    """Rows of an endless order by position; an epoch is drawn once as long as positions stay within it."""

    def __init__(self, order: Order):
        self.order = order
        self.epoch = -1
        self.indices: Rows = np.empty(0, np.int64)

    def range(self, start: int, end: int) -> list[int]:
        """Return the rows at positions from `start`, counted from 0, to before `end`."""
        rows = list[int]()
        while start < end:
            epoch, within = divmod(start, self.order.n)
            if epoch != self.epoch:
                self.epoch, self.indices = -1, np.empty(0, np.int64)  # one epoch is held at a time
                self.epoch, self.indices = epoch, self.order.indices(epoch)
            rows += self.indices[within : within + end - start].tolist()
            start = min(end, (epoch + 1) * self.order.n)
        return rows

    def step(self, step: int, size: int) -> list[int]:
        """Return the rows of a step, from 1, of `size` rows each: an epoch's remainder joins the next epoch."""
        return self.range((step - 1) * size, step * size)


class EpochBatches(Sequence[list[int]]):
    """The rows of every step: each epoch has the n draws of an order, `size` a step; by default each of n rows once.

    An epoch's last step has the draws that are left.
    """

    def __init__(self, n: int, size: int, epochs: int, seed: int, order: Order | None = None):
        if n < 1 or size < 1 or epochs < 1:
            raise ValueError(f"{epochs} epochs of {n} rows, {size} a step")
        self.n, self.size, self.epochs = n, size, epochs
        self.order = order or EpochOrder(n, seed)
        self.draws = Draws(self.order)

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return -(-self.n // self.size)

    def __len__(self) -> int:
        return self.epochs * self.per_epoch

    @overload
    def __getitem__(self, step: int) -> list[int]: ...
    @overload
    def __getitem__(self, step: slice) -> list[list[int]]: ...
    def __getitem__(self, step: int | slice) -> list[int] | list[list[int]]:
        """Return the rows of a step, from 0."""
        if isinstance(step, slice):
            return [self[i] for i in range(*step.indices(len(self)))]
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of {len(self)}")
        epoch, within = divmod(step, self.per_epoch)
        start, end = epoch * self.n + within * self.size, (epoch + 1) * self.n
        return self.draws.range(start, min(start + self.size, end))

    def largest(self, count: int, lengths: np.ndarray[Any, Any]) -> list[int]:
        """Return the `count` steps of the first epoch with the most tokens, in order. lengths: tokens of each row."""
        rows, block = self.order.indices(0), self.size * -(-BLOCK // self.size)
        parts = [lengths[rows[start : start + block]] for start in range(0, self.n, block)]
        sizes = np.concatenate([np.add.reduceat(part, np.arange(0, len(part), self.size)) for part in parts])
        return np.sort(np.argsort(-sizes, kind="stable")[:count]).tolist()


class TokenBatches(Sequence[list[int]]):
    """The rows of `total` steps: rows as an order draws them, each step as many as fit a budget of tokens.

    A row over the budget is a step of its own, and no step goes beyond an epoch of the order. Held in memory are an
    epoch's order and the starts of its steps; the first step of an epoch follows from the epochs before it.
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray[Any, Any], budget: int, total: int, order: Order):
        """lengths: tokens of each row."""
        self.lengths, self.budget, self.total, self.order = np.asarray(lengths), budget, total, order
        self.first_steps = [0]
        self.epoch, self.starts = -1, np.empty(0, np.int64)
        self.indices: Rows = np.empty(0, np.int64)

    def __len__(self) -> int:
        return self.total

    @overload
    def __getitem__(self, step: int) -> list[int]: ...
    @overload
    def __getitem__(self, step: slice) -> list[list[int]]: ...
    def __getitem__(self, step: int | slice) -> list[int] | list[list[int]]:
        """Return the rows of a step, from 0."""
        if isinstance(step, slice):
            return [self[i] for i in range(*step.indices(self.total))]
        step = range(self.total)[step]
        while self.first_steps[-1] <= step:
            self.load(len(self.first_steps) - 1)
        self.load(bisect_right(self.first_steps, step) - 1)
        within = step - self.first_steps[self.epoch]
        return self.indices[self.starts[within] : self.starts[within + 1]].tolist()

    def load(self, epoch: int) -> None:
        """Order and pack an epoch, unless it is the one that is held."""
        if epoch == self.epoch:
            return
        self.epoch, self.indices = -1, np.empty(0, np.int64)  # one epoch is held at a time
        self.epoch, self.indices = epoch, self.order.indices(epoch)
        self.starts = batch_starts(self.lengths, self.indices, self.budget)
        if epoch == len(self.first_steps) - 1:
            self.first_steps.append(self.first_steps[-1] + len(self.starts) - 1)

    @property
    def epochs(self) -> float:
        """Epochs of the data that all steps have together, if each has its budget."""
        return self.total * self.budget / float(self.lengths.sum(dtype=np.int64))

    def largest(self, count: int) -> list[int]:
        """Return the `count` steps of the first epoch with the most tokens."""
        self.load(0)
        best, most = np.empty(0, np.int64), np.empty(0, np.int64)
        steps = min(self.total, len(self.starts) - 1)
        for first in range(0, steps, BLOCK):
            bounds = self.starts[first : min(first + BLOCK, steps) + 1]
            rows = self.indices[bounds[0] : bounds[-1]]
            tokens = np.add.reduceat(self.lengths[rows], bounds[:-1] - bounds[0], dtype=np.int64)
            best, most = np.append(best, first + np.arange(len(tokens))), np.append(most, tokens)
            chosen = np.argsort(-most, kind="stable")[:count]
            best, most = best[chosen], most[chosen]
        return best.tolist()


def batch_starts(lengths: np.ndarray[Any, Any], order: Rows, budget: int) -> Indices:
    """Return where each batch begins if rows are taken in order, as many as fit a budget of tokens, and the end.

    lengths: tokens of each row; a row over the budget is a batch of its own. order [n]: numbers of rows. The result are
    positions in the order.
    """
    if budget < 1:
        raise ValueError(f"a budget of {budget} tokens")
    kind = index_type(len(order))
    starts, size = array(kind.char, [0]), BLOCK
    while starts[-1] < len(order):
        first = starts[-1]
        tokens = lengths[order[first : first + size]]
        ends, count = np.cumsum(tokens, dtype=np.int64), len(tokens)
        following = np.searchsorted(ends, ends - tokens + budget, side="right")
        jump, row = memoryview(np.maximum(following, np.arange(1, count + 1))), 0
        while row < count and (jump[row] < count or first + count == len(order)):
            row = jump[row]
            starts.append(first + row)
        size = BLOCK if row else 2 * size  # a batch may go on beyond the block
    return np.frombuffer(starts, kind)
