"""Which rows make a batch, and a batch as flat tensors.

The order of data is a function of (seed, epoch) and nothing else, so a step number is the whole data cursor: a run that
goes on after a stop sees what it would have seen. Nothing is padded: a batch of B rows is one vector `ids [N]` with
the rows one after another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, pairwise

import torch
from torch import Tensor

Row = tuple[Sequence[int], Sequence[bool]]
"""ids, and which of them are trained"""
WORTHWHILE = 8
"""a shorter context costs less to compute again than to share"""
MAX_REPEATS = 4
"""a microbatch's rows are together at most so many times the token budget: attention reads a shared context in each of
them, so that an endless number of answers to one prompt would fit the budget and not the memory"""


def shuffled(n: int, seed: int, epoch: int) -> list[int]:
    """A permutation of range(n); other epochs and other seeds have unrelated ones."""
    digest = hashlib.blake2b(f"{seed}/{epoch}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest) >> 1)
    return torch.randperm(n, generator=generator).tolist()


def shuffled_groups(groups: int, size: int, seed: int, epoch: int) -> list[int]:
    """Rows in groups of `size`, such as the answers to a prompt: groups in random order, the rows of one together."""
    return [group * size + row for group in shuffled(groups, seed, epoch) for row in range(size)]


def minibatches(groups: int, size: int, count: int, epochs: int, seed: int) -> list[list[int]]:
    """The rows of every update: each epoch passes once over all rows, in an order of its own, `count` batches a pass.

    Groups of `size` rows stay together as far as the batches' size allows; `count` divides groups * size.
    """
    step, orders = groups * size // count, (shuffled_groups(groups, size, seed, epoch) for epoch in range(epochs))
    return [order[start : start + step] for order in orders for start in range(0, groups * size, step)]


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


@dataclass(frozen=True)
class Microbatch:
    """Rows that one pass computes."""

    rows: list[int]
    """their places"""
    tokens: int
    """ids of the batch, a shared context counted once"""
    row_tokens: int
    """lengths of the rows together, a shared context counted in each"""
    share: bool
    """a context that neighbouring rows have in common is in the batch once"""

    def fits(self, max_tokens: int) -> bool:
        """True for a pass within the budget, and for a single row, which cannot be divided."""
        within = self.tokens <= max_tokens and self.row_tokens <= MAX_REPEATS * max_tokens
        return within or len(self.rows) <= 1


@dataclass(frozen=True)
class LossGroup:
    """Elements whose loss is computed at once: in one microbatch, or in several if a single one is over the budget."""

    elements: list[int]
    microbatches: list[Microbatch]
    """rows counted through all elements"""


def loss_groups(elements: Sequence[Sequence[Row]], max_tokens: int, share: bool = False) -> list[LossGroup]:
    """Neighbouring elements together, as many as fit a budget of `max_tokens` computed ids; order is kept.

    An element is the rows that a loss couples, such as the answers of a ranking. One over the budget is a group of its
    own, its rows divided into microbatches that fit. A single row over the budget is a microbatch of its own.
    """
    rows = list(chain.from_iterable(elements))
    spans = [range(*bounds) for bounds in pairwise(accumulate(map(len, elements), initial=0))]
    groups = []
    for members, whole in pack(rows, spans, max_tokens, share):
        divided = [whole]
        if not whole.fits(max_tokens):
            divided = [part for _, part in pack(rows, [[place] for place in whole.rows], max_tokens, share)]
        groups.append(LossGroup(members, divided))
    return groups


def microbatches(rows: Sequence[Row], max_tokens: int, share: bool = False) -> list[Microbatch]:
    """Neighbouring rows together, as many as fit a budget of `max_tokens` computed ids; order is kept.

    Rows with a common context stay together where they fit; where not, each microbatch has the context once. A single
    row over the budget is a microbatch of its own.
    """
    together = families(rows) if share else [[place] for place in range(len(rows))]
    elements = [[rows[place] for place in places] for places in together]
    return [part for group in loss_groups(elements, max_tokens, share) for part in group.microbatches]


def pack(
    rows: Sequence[Row], spans: Sequence[Sequence[int]], max_tokens: int, share: bool
) -> list[tuple[list[int], Microbatch]]:
    """Spans of rows one after another in microbatches that fit: the spans of each, and the microbatch. A span that is
    over the budget by itself is alone."""
    if max_tokens < 1:
        raise ValueError(f"a budget of {max_tokens} tokens")
    found: list[tuple[list[int], Microbatch]] = []
    leader: Row | None = None
    for number, span in enumerate(spans):
        added = [rows[place] for place in span]
        length = sum(len(ids) for ids, _ in added)
        members, last = found[-1] if found else ([], Microbatch([], 0, 0, share))
        shared = stems(added, leader) if share else [0] * len(added)
        joined = Microbatch([*last.rows, *span], last.tokens + length - sum(shared), last.row_tokens + length, share)
        if found and joined.fits(max_tokens):
            found[-1] = [*members, number], joined
        else:
            shared = stems(added) if share else shared
            found.append(([number], Microbatch(list(span), length - sum(shared), length, share)))
        leader = next((row for row, stem in zip(added[::-1], shared[::-1]) if not stem), leader)
    return found


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
    prefix_lengths: tuple[int, ...] = ()
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
        prefix_lengths=tuple(shared) if any(shared) else (),
    )


def stems(rows: Sequence[Row], leader: Row | None = None) -> list[int]:
    """Tokens that each row shares with the beginning of its leader: the last row before it that shares none.

    Only a whole context is shared, the tokens before a row's first trained one: rows that merely begin alike, as all
    with one system prompt do, have nothing in common. A row has at least one token of its own, and a context of less
    than WORTHWHILE tokens is not shared. leader: the one that these rows follow.

    >>> prompt = [1, 5, 6, 7, 8, 9, 10, 11]
    >>> stems([(prompt + [12], [False] * 8 + [True]), (prompt + [13], [False] * 8 + [True])])
    [0, 8]
    """
    found: list[int] = []
    context = context_of(leader) if leader is not None else []
    for row in rows:
        own = context_of(row)
        shared = min(len(own), len(row[0]) - 1) if own == context else 0
        found.append(shared if shared >= WORTHWHILE else 0)
        if not found[-1]:
            context = own
    return found


def context_of(row: Row) -> list[int]:
    """The tokens before the first trained one; all of them where none is trained."""
    ids, trained = row
    return list(ids[: trained.index(True)] if True in trained else ids)


def families(rows: Sequence[Row]) -> list[list[int]]:
    """Places of neighbouring rows that share a context, together."""
    found: list[list[int]] = []
    for place, stem in enumerate(stems(rows)):
        if stem:
            found[-1].append(place)
        else:
            found.append([place])
    return found


def by_length(rows: Sequence[Row]) -> list[int]:
    """Places of the rows from short to long; neighbours that share a context stay together."""
    groups = sorted(families(rows), key=lambda places: max(len(rows[place][0]) for place in places))
    return list(chain.from_iterable(groups))


def distinct(rows: Sequence[Row]) -> int:
    """Tokens of a batch in which these rows share their contexts."""
    return sum(len(ids) for ids, _ in rows) - sum(stems(rows))


def targets(batch: Batch) -> tuple[Tensor, Tensor]:
    """Where each trained token is predicted, index [M], and which token it is [M].

    Token i is predicted from the state at i - 1, inside its own row. A row's first token has no such state: to train it
    is an error.
    """
    shared = batch.prefix_lengths or (0,) * len(batch.lengths)
    own = [length - stem for length, stem in zip(batch.lengths, shared)]
    starts = list(accumulate(own[:-1], initial=0))
    device = batch.ids.device
    first = torch.tensor([start for start, stem in zip(starts, shared) if not stem], device=device)
    if batch.trained.index_select(0, first).any():
        raise ValueError("the first token of a row is marked as trained, but nothing comes before it")
    index = batch.trained.nonzero().squeeze(1)
    before = index - 1
    if batch.prefix_lengths:
        previous = torch.arange(-1, len(batch.ids) - 1)
        leaders = accumulate((start if not stem else -1 for start, stem in zip(starts, shared)), max)
        for start, stem, leader in zip(starts, shared, leaders):
            if stem:
                previous[start] = leader + stem - 1
        before = previous.to(device).index_select(0, index)
    return before, batch.ids.index_select(0, index)
