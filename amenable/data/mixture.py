"""Mixtures of sources: the grammar of `--data`, and the order in which rows of several sources are drawn.

    --data texts/                     a file, a folder of files, a pattern such as 'texts/*.jsonl.zst', or a URL of one
    --data a.jsonl b.jsonl            both, as one: an epoch has every row once
    --data a.jsonl=2 b.jsonl=1        drawn by weight: of three draws two are from a.jsonl, of whatever size

What follows the last `=` is the weight if it is a number, unless the whole names a file that is there. Where any source
has a weight, one without has weight 1. A source's name in metrics and plans is that of its file or folder.

The draw at a position is a function of seed and position, so a run's step number is its data cursor.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from amenable.data.batches import Indices, index_type
from amenable.data.feistel import Computed
from amenable.data.orders import BLOCK, MAX_STORED, EpochBatches, EpochOrder, Order, Rows, TokenBatches, shuffle
from amenable.data.readers import MARKS
from amenable.data.urls import to_path
from amenable.errors import InputError
from amenable.seeds import derive_seed

T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")
if TYPE_CHECKING:
    Sources = str | Path | Sequence[str | Path]
else:
    Sources = tuple[Path, ...]
"""type of an option that takes SOURCE or SOURCE=WEIGHT: words on the command line, and in Python a path too"""

MODULUS = 1 << 64
GOLDEN_STEP = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: multiples of it, modulo 2^64, are spread evenly at every length (Weyl's sequence)"""


@dataclass(frozen=True)
class DataSource:
    """One source of a mixture."""

    name: str
    """unique in its mixture: the file's or folder's name, after its folder's where two are alike"""
    path: Path
    weight: float | None = None
    """None where no source of the mixture has a weight"""


def split_weight(spec: str) -> tuple[str, float | None]:
    """Split NAME=WEIGHT into both; the weight is None where none is written."""
    name, equals, number = spec.rpartition("=")
    try:
        weight = float(number)
    except ValueError:
        return spec, None
    return (spec, None) if not equals or Path(spec).exists() else (name, weight)


def parse_sources(data: Sources) -> tuple[DataSource, ...]:
    """Return the sources that an option names.

    InputError for none, a weight that is not above 0, and a source that is given twice or lies in another.
    """
    specs = [str(data)] if isinstance(data, str | Path) else [str(spec) for spec in data]
    if not specs:
        raise InputError(
            "no data is given", how="name a file or a folder of files, or several: SOURCE or SOURCE=WEIGHT"
        )
    paths, weights = list[Path](), list[float | None]()
    for spec in specs:
        name, weight = split_weight(spec)
        if weight is not None and not (math.isfinite(weight) and weight > 0 and name):
            raise InputError(f"'{spec}' has the weight {weight:g}", how="write SOURCE=WEIGHT with a number above 0")
        paths.append(to_path(name))
        weights.append(weight)
    require_apart(paths)
    weighted = any(weight is not None for weight in weights)
    return tuple(
        DataSource(name, path, (1.0 if weight is None else weight) if weighted else None)
        for name, path, weight in zip(names_of(paths), paths, weights)
    )


def require_apart(paths: Sequence[Path]) -> None:
    """Raise InputError if two paths are the same, or one lies in the other."""
    resolved = [path.expanduser().resolve() for path in paths]
    for i, path in enumerate(resolved):
        for j, other in enumerate(resolved):
            if i < j and path == other:
                raise InputError("is given twice", paths[i], "give a source once; SOURCE=2 draws it twice as often")
            if i != j and path in other.parents:
                raise InputError(f"lies in {paths[i]}, which is given too", paths[j], "give one of them")


def names_of(paths: Sequence[Path]) -> list[str]:
    """Return a name for each path: its last part without suffixes, after as many folders as tell the paths apart; of a
    pattern without parts that are marks alone.

    >>> names_of([Path("books/train.jsonl.gz"), Path("speeches/train.jsonl"), Path("web/*.jsonl")])
    ['books/train', 'speeches/train', 'web']
    """
    parts = [without_marks((*path.absolute().parts[1:-1], path.name.partition(".")[0] or path.name)) for path in paths]
    names = list[str]()
    for number, own in enumerate(parts):
        others = [other for i, other in enumerate(parts) if i != number]
        fitting = (depth for depth in range(1, len(own) + 1) if all(own[-depth:] != other[-depth:] for other in others))
        depth = next(fitting, 0)
        names.append("/".join(own[-depth:]) if depth else paths[number].name)
    return names


def without_marks(parts: Sequence[str]) -> tuple[str, ...]:
    """Return the parts of a path without the marks of a pattern, and without parts that are nothing else."""
    if not MARKS.search("/".join(parts)):
        return tuple(parts)
    return tuple(name for part in parts if (name := part.strip("*?-_.")))


def data_inputs(data: Sources, name: str = "data") -> dict[str, Path | None]:
    """Return the paths of an option's sources, for a run's lineage: `data`, or `data 1`, `data 2` ..."""
    paths = [source.path for source in parse_sources(data)]
    return {name if len(paths) == 1 else f"{name} {number}": path for number, path in enumerate(paths, start=1)}


def join_paths(data: Sources) -> str:
    """Return the paths of an option's sources as a text, for messages."""
    return " ".join(str(source.path) for source in parse_sources(data))


class Mixed(Sequence[T_co]):
    """Rows of several sources as one sequence, source after source."""

    def __init__(self, names: Sequence[str], parts: Sequence[Sequence[T_co]]):
        self.names: list[str] = list(names)
        self.parts: list[Any] = list(parts)
        self.sizes = [len(part) for part in parts]
        self.starts = [sum(self.sizes[:i]) for i in range(len(parts))]

    def __len__(self) -> int:
        return sum(self.sizes)

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> list[T_co]: ...
    def __getitem__(self, index: int | slice) -> T_co | list[T_co]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        number = self.source_of(index)
        return self.parts[number][index - self.starts[number]]

    def source_of(self, index: int) -> int:
        """Return the number of the source of a row."""
        return bisect_right(self.starts, index) - 1

    def sources_of(self, indices: Sequence[int]) -> list[str] | None:
        """Return the name of the source of each of some rows; None where there is one source."""
        return [self.names[self.source_of(i)] for i in indices] if len(self.parts) > 1 else None

    def map(self, function: Callable[[Any], Sequence[R]]) -> Mixed[R]:
        """Return what a function makes of each source's rows."""
        return Mixed(self.names, [function(part) for part in self.parts])

    def flatten(self: Mixed[Sequence[R]]) -> Mixed[R]:
        """Return the rows of each source's rows, where these are sequences."""
        return self.map(lambda part: list(chain.from_iterable(part)))


class MixtureOrder:
    """Endless order of the rows of several sources, drawn in given shares; an epoch is as many draws as there are rows.

    The source at a position p is where p times the golden ratio, modulo 1, falls among the cumulated shares: among any
    neighbouring draws a source has its share, within a few. Each source goes through permutations of its own rows.
    """

    def __init__(self, sizes: Sequence[int], shares: Sequence[float], seed: int):
        self.sizes, self.seed, self.n = list(sizes), seed, sum(sizes)
        total, cumulated = math.fsum(shares), np.cumsum(shares)
        self.bounds = [*(round(bound / total * MODULUS) for bound in cumulated[:-1].tolist()), MODULUS]
        self.shift = derive_seed(seed, "mixture") * 2
        self.passes: dict[int, tuple[int, Rows]] = {}  # of each source the epoch that was read last, and its order

    def indices(self, epoch: int) -> Rows:
        """Return the n rows of an epoch, in order."""
        first = epoch * self.n
        drawn = Computed(self.n, lambda start, end: self.draws(first + start, end - start))
        return drawn if self.n > MAX_STORED else drawn[:]

    def draws(self, first: int, count: int) -> Indices:
        """Return `count` rows, from the draw `first` on."""
        owner = np.empty(count, np.min_scalar_type(len(self.sizes)))
        for start in range(0, count, BLOCK):
            part = owner[start : start + BLOCK]
            positions = np.arange(first + start, first + start + len(part), dtype=np.uint64)
            points = positions * np.uint64(GOLDEN_STEP) + np.uint64(self.shift)
            part[:] = np.searchsorted(np.array(self.bounds[:-1], dtype=np.uint64), points, side="right")
        rows = np.empty(count, dtype=index_type(self.n))
        before = self.drawn(first)
        for number, start in enumerate(np.cumsum([0, *self.sizes[:-1]]).tolist()):
            mine = owner == number
            rows[mine] = self.rows_of(number, before[number], int(mine.sum()))
            np.add(rows, start, out=rows, where=mine)
        return rows

    def rows_of(self, number: int, start: int, count: int) -> Indices:
        """Return `count` rows of a source, from its draw `start` on."""
        size, seed = self.sizes[number], derive_seed(self.seed, "source", number)
        passes = range(start // size, (start + count - 1) // size + 1) if count else range(0)
        rows, begin = np.empty(count, index_type(size)), start % size
        for epoch in passes:
            if number not in self.passes or self.passes[number][0] != epoch:
                self.passes[number] = epoch, shuffle(size, seed, epoch)
            part = self.passes[number][1][begin : begin + count]
            rows[len(rows) - count :][: len(part)] = part
            begin, count = 0, count - len(part)
        return rows

    def drawn(self, position: int) -> list[int]:
        """Return the number of draws of each source before a position."""
        below = [0, *(count_below(position, bound, self.shift) for bound in self.bounds[:-1]), position]
        return [after - before for before, after in pairwise(below)]


def count_below(count: int, bound: int, shift: int) -> int:
    """Count the p < count with (p * GOLDEN_STEP + shift) mod 2^64 < bound, in logarithmic time."""
    wrapped = floor_sum(count, MODULUS, GOLDEN_STEP, shift + MODULUS - bound) - count
    return floor_sum(count, MODULUS, GOLDEN_STEP, shift) - wrapped


def floor_sum(count: int, modulus: int, step: int, shift: int) -> int:
    """Return the sum over i < count of floor((i * step + shift) / modulus), by Euclid's algorithm."""
    total = 0
    while count:
        total += (count - 1) * count // 2 * (step // modulus) + count * (shift // modulus)
        step, shift = step % modulus, shift % modulus
        count, shift = divmod(step * count + shift, modulus)
        modulus, step = step, modulus
    return total


def order_of(sources: Sequence[DataSource], sizes: Sequence[int], seed: int, means: Sequence[float] = ()) -> Order:
    """Return the order in which the rows of some sources are drawn: by weight, or each once an epoch without weights.
    InputError for a source without rows.

    sizes: rows of each source. means: mean tokens of its rows, where weights are shares of tokens.
    """
    for source, size in zip(sources, sizes):
        if not size:
            raise InputError("nothing of it is left to train on", source.path, "leave it out, or give other rows")
    if any(source.weight is None for source in sources):
        return EpochOrder(sum(sizes), seed)
    weights = [source.weight or 1.0 for source in sources]
    return MixtureOrder(sizes, [weight / mean for weight, mean in zip(weights, means or [1.0] * len(sizes))], seed)


def describe(
    sources: Sequence[DataSource], sizes: Sequence[int], order: Order, draws: int, means: Sequence[float] = ()
) -> list[str]:
    """Return a plan's line on the shares and epochs of each source in so many draws; [] for a single source.

    sizes: rows of each source. means: mean tokens of its rows, for shares of tokens.
    """
    if len(sources) == 1:
        return []
    counts = order.drawn(draws) if isinstance(order, MixtureOrder) else [draws * size / sum(sizes) for size in sizes]
    drawn = [count * mean for count, mean in zip(counts, means or [1.0] * len(sizes))]
    total = sum(drawn) or 1.0  # fewer tokens than a row has come to no draw
    parts = [
        f"{source.name} {own / total:.1%}, {count / size:.2f} epochs of {size:,}"
        for source, own, count, size in zip(sources, drawn, counts, sizes)
    ]
    return [f"mixture by {'tokens' if means else 'rows'}: {'; '.join(parts)}"]


def mixture_batches(
    data: Sources, rows: Mixed[Any], size: int, epochs: int, seed: int
) -> tuple[EpochBatches, list[str]]:
    """Return the rows of every step, `size` a step, and the plan's line on sources; an epoch has a draw a row."""
    sources = parse_sources(data)
    order = order_of(sources, rows.sizes, seed)
    steps = EpochBatches(len(rows), size, epochs, seed, order)
    return steps, describe(sources, rows.sizes, order, epochs * len(rows))


def token_batches(
    data: Sources, lengths: Sequence[np.ndarray[Any, Any]], budget: int, length: float, seed: int
) -> tuple[TokenBatches, list[str]]:
    """Return the rows of every step, as many as fit a budget of tokens, and the plan's line on sources, whose weights
    are shares of the tokens.

    lengths: tokens of each row, by source. length: number of steps, an int; or epochs, a float.
    """
    sources, sizes = parse_sources(data), [len(part) for part in lengths]
    means = [float(part.sum(dtype=np.int64)) / max(1, len(part)) for part in lengths]
    order, every = order_of(sources, sizes, seed, means), lengths[0] if len(lengths) == 1 else np.concatenate(lengths)
    tokens = int(every.sum(dtype=np.int64))
    total = length if isinstance(length, int) else max(1, round(tokens * length / budget))
    draws = round(total * budget / tokens * len(every))
    return TokenBatches(every, budget, total, order), describe(sources, sizes, order, draws, means)
