"""Which rows make a batch, and a batch as flat tensors.

The order of data is a function of (seed, epoch) and nothing else, so a step number is the whole data cursor: a run that
goes on after a stop sees what it would have seen. Nothing is padded: a batch of B rows is one vector `ids [N]` with
the rows one after another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain

import torch
from torch import Tensor

Row = tuple[Sequence[int], Sequence[bool]]
"""ids, and which of them are trained"""
WORTHWHILE = 8
"""a shorter context costs less to compute again than to share"""


def shuffled(n: int, seed: int, epoch: int) -> list[int]:
    """A permutation of range(n); other epochs and other seeds have unrelated ones."""
    digest = hashlib.blake2b(f"{seed}/{epoch}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest) >> 1)
    return torch.randperm(n, generator=generator).tolist()


def shuffled_groups(groups: int, size: int, seed: int, epoch: int) -> list[int]:
    """Rows in groups of `size`, such as the answers to a prompt: groups in random order, the rows of one together."""
    return [group * size + row for group in shuffled(groups, seed, epoch) for row in range(size)]


def by_rows(n: int, size: int, seed: int, epoch: int) -> list[list[int]]:
    """Shuffled batches of `size` rows; the last one has what is left. Every row is in exactly one batch."""
    if size < 1:
        raise ValueError(f"a batch of {size} rows")
    order = shuffled(n, seed, epoch)
    return [order[start : start + size] for start in range(0, n, size)]


def by_tokens(lengths: Sequence[int], budget: int, order: Sequence[int]) -> list[list[int]]:
    """Rows in the given order, in batches of at most `budget` tokens; a row longer than that is a batch of its own."""
    if budget < 1:
        raise ValueError(f"a budget of {budget} tokens")
    batches: list[list[int]] = []
    used = budget
    for row in order:
        if batches and used + lengths[row] <= budget:
            batches[-1].append(row)
            used += lengths[row]
        else:
            batches.append([row])
            used = lengths[row]
    return batches


def microbatches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Neighbouring rows together, at most `max_tokens` a part (a longer row is a part of its own); order is kept."""
    return by_tokens(lengths, max_tokens, range(len(lengths)))


def chunk_documents(documents: Sequence[Sequence[int]], context: int) -> list[list[int]]:
    """Cut documents into pieces of at most `context` tokens; each token but a document's first is predicted once.

    A piece begins with the last token of the piece before: the first token of a row has nothing to be predicted from.
    """
    if context < 2:
        raise ValueError(f"a context of {context} tokens leaves nothing to predict")
    step = context - 1
    return [
        list(document[start : start + context]) for document in documents for start in range(0, len(document) - 1, step)
    ]


@dataclass(frozen=True)
class Batch:
    """B rows one after another, N tokens in all."""

    ids: Tensor
    """[N] token ids"""
    lengths: tuple[int, ...]
    """tokens of each row"""
    trained: Tensor
    """[N] bool, True where the loss counts the prediction of this token"""
    shared: tuple[int, ...] = ()
    """of each row, how many of its first tokens are those of the row it branches off (models/layout.py) and are not
    repeated; empty where no row does, and then the lengths sum to N"""

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return replace(self, ids=self.ids.to(device), trained=self.trained.to(device))


def collate(rows: Sequence[Row], share: bool = False) -> Batch:
    """One batch of rows (ids, trained). An empty row, or two lists of different lengths, is an error.

    share: a context that neighbouring rows begin with is in the batch once, such as the prompt of several answers.
    """
    for place, (ids, trained) in enumerate(rows):
        if not len(ids) or len(ids) != len(trained):
            raise ValueError(f"row {place} has {len(ids)} ids and {len(trained)} marks")
    shared = stems(rows) if share else [0] * len(rows)
    own = [(ids[stem:], trained[stem:]) for (ids, trained), stem in zip(rows, shared)]
    return Batch(
        ids=torch.tensor(list(chain.from_iterable(ids for ids, _ in own)), dtype=torch.long),
        lengths=tuple(len(ids) for ids, _ in rows),
        trained=torch.tensor(list(chain.from_iterable(trained for _, trained in own)), dtype=torch.bool),
        shared=tuple(shared) if any(shared) else (),
    )


def stems(rows: Sequence[Row]) -> list[int]:
    """How many of its first tokens, none of them trained, each row shares with the last before it that shares none.

    A row has at least one token of its own. A stem of less than WORTHWHILE tokens is none.

    >>> prompt = [1, 5, 6, 7, 8, 9, 10, 11]
    >>> stems([(prompt + [12], [False] * 8 + [True]), (prompt + [13], [False] * 8 + [True])])
    [0, 8]
    """
    found: list[int] = []
    leader: Row = ((), ())
    for row in rows:
        most = min(context_of(leader), context_of(row), len(row[0]) - 1)
        same = common(leader[0], row[0], most)
        found.append(same if same >= WORTHWHILE else 0)
        if not found[-1]:
            leader = row
    return found


def context_of(row: Row) -> int:
    """How many tokens come before the first trained one."""
    return next((place for place, trained in enumerate(row[1]) if trained), len(row[1]))


def common(one: Sequence[int], other: Sequence[int], most: int) -> int:
    """How many first tokens two rows have in common, at most so many."""
    return next((place for place in range(most) if one[place] != other[place]), most)


def families(rows: Sequence[Row]) -> list[list[int]]:
    """Places of neighbouring rows that share a context, together."""
    found: list[list[int]] = []
    for place, stem in enumerate(stems(rows)):
        if stem:
            found[-1].append(place)
        else:
            found.append([place])
    return found


def distinct(rows: Sequence[Row]) -> int:
    """Tokens of a batch in which these rows share their contexts."""
    return sum(len(ids) for ids, _ in rows) - sum(stems(rows))


def targets(batch: Batch) -> tuple[Tensor, Tensor]:
    """Where each trained token is predicted, index [M], and which token it is [M].

    Token i is predicted from the state at i - 1, inside its own row. A row's first token has no such state: to train it
    is an error.
    """
    shared = batch.shared or (0,) * len(batch.lengths)
    own = [length - stem for length, stem in zip(batch.lengths, shared)]
    starts = list(accumulate(own[:-1], initial=0))
    device = batch.ids.device
    first = torch.tensor([start for start, stem in zip(starts, shared) if not stem], device=device)
    if batch.trained.index_select(0, first).any():
        raise ValueError("the first token of a row is marked as trained, but nothing comes before it")
    index = batch.trained.nonzero().squeeze(1)
    before = index - 1
    if batch.shared:
        previous = torch.arange(-1, len(batch.ids) - 1)
        leaders = accumulate((start if not stem else -1 for start, stem in zip(starts, shared)), max)
        for start, stem, leader in zip(starts, shared, leaders):
            if stem:
                previous[start] = leader + stem - 1
        before = previous.to(device).index_select(0, index)
    return before, batch.ids.index_select(0, index)
