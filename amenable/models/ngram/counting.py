"""Counts of n-grams, of all orders up to n, in memory that does not grow with the text.

The n-grams of order k are a sorted array of keys: the row of the first k - 1 tokens in the array of order k - 1,
times V, plus the last token. So what follows a context are neighbouring rows, at any order and for any vocabulary.
Order 1 has all V tokens, each in its own row.

A block of text becomes a sorted run of its distinct keys and their counts; runs are merged from disk to disk. Order k
is counted from the rows of order k - 1, which each block keeps for its positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Block = tuple[Array, Array]
"""ids [N] of some whole documents, and the position of each in its document"""

BLOCK = 1 << 21
"""positions, or keys, in memory at a time"""


@dataclass(frozen=True)
class NGramCounts:
    """Counts of the n-grams of order 1, 2 ... n, in this order."""

    vocab_size: int
    """V"""
    begin: int
    """the token that documents begin with, which is never predicted there"""
    keys: list[Array]
    """[M] sorted int64 keys of each order; of order 1 they are the token ids"""
    counts: list[Array]
    """[M] int64: positions, after the first of a document, where each n-gram ends"""

    @property
    def order(self) -> int:
        """n"""
        return len(self.keys)


@dataclass
class Scratch:
    """Arrays that are kept on disk in a folder, or in memory without one."""

    folder: Path | None = None
    number: int = 0
    files: list[Path] = field(default_factory=list)

    def keep(self, array: Array) -> Array:
        """Return an array as a memory map of a new file, which changes to it do not reach."""
        if self.folder is None:
            return array
        path = self.path()
        np.save(path, array)
        return np.load(path, mmap_mode="c")

    def path(self) -> Path:
        """Return the path of a new file."""
        assert self.folder is not None
        self.number += 1
        return self.folder / f"{self.number}.npy"

    def append(self, parts: Iterator[tuple[Array, ...]], types: Sequence[str]) -> list[Array]:
        """Return the arrays that parts are the pieces of, one array for each type."""
        if self.folder is None:
            columns = list(zip(*parts))
            return [np.concatenate(column) for column in columns] if columns else [np.empty(0, each) for each in types]
        paths = [self.path().with_suffix(".bin") for _ in types]
        size = 0
        files = [path.open("wb") for path in paths]
        try:
            for part in parts:
                size += len(part[0])
                for file, array, kind in zip(files, part, types):
                    file.write(np.ascontiguousarray(array, kind).data)
        finally:
            for file in files:
                file.close()
        return [np.memmap(path, kind, "c") if size else np.empty(0, kind) for path, kind in zip(paths, types)]


def count_ngrams(
    blocks: Callable[[], Iterable[Block]], order: int, vocab_size: int, begin: int, scratch: Scratch | None = None
) -> NGramCounts:
    """Count the n-grams of all orders up to `order` in blocks of whole documents, each of which begins with `begin`.

    blocks: called once for each order. scratch: where what does not fit into memory is kept.
    """
    scratch = scratch or Scratch()
    unigrams = np.zeros(vocab_size, np.int64)
    for ids, positions in blocks():
        unigrams += np.bincount(ids[positions > 0], minlength=vocab_size)
    keys, counts = [np.arange(vocab_size)], [unigrams]
    rows: Iterable[Array | None] = iter(lambda: None, 0)
    for _ in range(2, order + 1):
        runs, inverses = list[tuple[Array, Array]](), list[Array]()
        for (ids, positions), before in zip(blocks(), rows):
            run, inverse = count_block(ids.astype(np.int64), positions, before, len(keys), vocab_size)
            runs.append((scratch.keep(run[0]), scratch.keep(run[1])))
            inverses.append(scratch.keep(inverse))
        merged = runs[0] if len(runs) == 1 else scratch.append(merge_runs(runs), ("int64", "int64"))
        keys.append(merged[0])
        counts.append(merged[1])
        rows = rows_of_positions(merged[0], runs, inverses)
    return NGramCounts(vocab_size, begin, keys, counts)


def count_block(
    ids: Array, positions: Array, before: Array | None, length: int, vocab_size: int
) -> tuple[tuple[Array, Array], Array]:
    """Return the sorted distinct keys of the n-grams of `length` + 1 tokens in a block, with their counts; and for each
    position the index of the n-gram that ends there, -1 for one that would begin before its document.

    before: the row of the n-gram of `length` tokens that ends at each position; None for one token, its own row.
    """
    before = ids if before is None else before
    ends = np.flatnonzero(positions >= length)
    keys = before[ends - 1] * vocab_size + ids[ends]
    order = np.argsort(keys)
    ordered = keys[order]
    first = np.ones(len(keys), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    inverse = np.full(len(ids), -1, np.int32)
    inverse[ends[order]] = np.cumsum(first) - 1
    starts = np.flatnonzero(first)
    return (ordered[starts], np.diff(starts, append=len(keys))), inverse


def rows_of_positions(merged: Array, runs: Sequence[tuple[Array, Array]], inverses: Sequence[Array]) -> Iterator[Array]:
    """Yield for each block the row in `merged` of the n-gram that ends at each position, -1 where there is none."""
    for (keys, _), inverse in zip(runs, inverses):
        places = np.append(np.searchsorted(merged, keys), -1)  # the last entry is that of index -1
        yield places[inverse]


def merge_runs(runs: Sequence[tuple[Array, Array]], block: int = BLOCK) -> Iterator[tuple[Array, Array]]:
    """Yield the sorted distinct keys of sorted runs, with summed counts, in pieces of about `block` keys."""
    size = max(block // len(runs), 1)
    cursors = [0] * len(runs)
    while True:
        heads = [keys[cursor : cursor + size] for (keys, _), cursor in zip(runs, cursors)]
        if not (ends := [int(head[-1]) for head in heads if len(head)]):
            return
        taken = [int(np.searchsorted(head, min(ends), side="right")) for head in heads]
        counts = [numbers[cursor : cursor + count] for (_, numbers), cursor, count in zip(runs, cursors, taken)]
        yield sum_equal(np.concatenate([head[:count] for head, count in zip(heads, taken)]), np.concatenate(counts))
        cursors = [cursor + count for cursor, count in zip(cursors, taken)]


def sum_equal(keys: Array, counts: Array) -> tuple[Array, Array]:
    """Return the sorted distinct keys, with the sum of the counts of each."""
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    return keys[starts], np.add.reduceat(counts, starts)


def look_up(keys: Array, wanted: Array) -> Array:
    """Return the row of each wanted key in sorted keys; -1 for one that is not there."""
    if not len(keys):
        return np.full(len(wanted), -1)
    rows = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[rows] == wanted, rows, -1)
