"""Batches: data order, microbatches within a token budget, and collation into flat tensors.

The data order depends on (seed, epoch) alone, so the step number is the data cursor of a resumed run. Nothing is
padded: a batch of B rows is one vector `ids [N]`, row after row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amenable import processes

Row = tuple[Sequence[int], Sequence[bool]]
"""token ids, and the loss mask: True for ids that are trained"""
Indices = np.ndarray[Any, np.dtype[np.signedinteger]]
MIN_SHARED_PREFIX = 8
"""a shorter prompt costs less to compute again than to share"""
MAX_REPEATS = 4
"""greatest sum of a microbatch's row lengths, in token budgets: attention reads a shared prompt in each row, so many
completions of one prompt fit the budget and not the memory"""


def index_type(n: int) -> np.dtype[np.signedinteger]:
    """Return the type of the numbers from 0 to n: int32, or int64 where they need it."""
    return np.dtype(np.int32 if n < 1 << 31 else np.int64)


def permutation(n: int, seed: int, epoch: int) -> Indices:
    """Return a permutation of range(n) that depends on seed and epoch, of the type `index_type(n)`."""
    digest = hashlib.blake2b(f"{seed}/{epoch}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest) >> 1)
    kind = torch.int32 if index_type(n) == np.int32 else torch.int64
    return torch.randperm(n, generator=generator, dtype=kind).numpy()


def shuffled(n: int, seed: int, epoch: int) -> list[int]:
    """Return a permutation of range(n) that depends on seed and epoch, as a list."""
    return permutation(n, seed, epoch).tolist()


def shuffled_groups(groups: int, size: int, seed: int, epoch: int) -> list[int]:
    """Return row indices in groups of `size` (such as the completions of a prompt): shuffled groups, adjacent rows."""
    return [group * size + row for group in shuffled(groups, seed, epoch) for row in range(size)]


def minibatches(groups: int, size: int, count: int, epochs: int, seed: int) -> list[list[int]]:
    """Return the rows of every update: `count` minibatches per epoch over all rows, in a new order each epoch.

    Groups of `size` rows stay together as far as the minibatch size allows. Where `count` does not divide groups *
    size, the last minibatch of an epoch is smaller, or there are fewer.
    """
    step = max(1, -(-groups * size // count))
    orders = (shuffled_groups(groups, size, seed, epoch) for epoch in range(epochs))
    return [order[start : start + step] for order in orders for start in range(0, groups * size, step)]


@dataclass(frozen=True)
class Microbatch:
    """Rows of one forward and backward pass."""

    rows: list[int]
    """row indices"""
    tokens: int
    """ids of the batch, a shared prefix counted once"""
    row_tokens: int
    """sum of the row lengths, a shared prefix counted in each"""
    prefix_lengths: tuple[int, ...] = ()
    """number of first tokens that each row shares with its leader; empty if none is shared"""

    def with_rows(
        self, span: Sequence[int], added: Sequence[Row], leader: Row | None, following: Sequence[Row], share: bool
    ) -> tuple[Microbatch, list[int]]:
        """Return this microbatch with further rows, and their prefix lengths. following: the row after them, if any."""
        prefixes = shared_prefix_lengths(added, leader, following) if share else [0] * len(added)
        length = sum(len(ids) for ids, _ in added)
        tokens, row_tokens = self.tokens + length - sum(prefixes), self.row_tokens + length
        return Microbatch([*self.rows, *span], tokens, row_tokens, (*self.prefix_lengths, *prefixes)), prefixes

    def fits(self, max_tokens: int) -> bool:
        """Return True within the budget, and for a single row, which cannot be divided."""
        within = self.tokens <= max_tokens and self.row_tokens <= MAX_REPEATS * max_tokens
        return within or len(self.rows) <= 1


@dataclass(frozen=True)
class LossGroup:
    """Elements whose loss is computed together: in one microbatch, or several for a single element over the budget."""

    elements: list[int]
    microbatches: list[Microbatch]
    """with row indices through all elements"""


def loss_groups(elements: Sequence[Sequence[Row]], max_tokens: int, share: bool = False) -> list[LossGroup]:
    """Group neighbouring elements, in order, up to a budget of `max_tokens` computed ids.

    An element is the rows that a loss couples, such as the completions of a ranking. An element over the budget is a
    group of its own, divided into microbatches that fit; a single row over the budget is a microbatch of its own.
    """
    rows = list(chain.from_iterable(elements))
    spans = [range(*bounds) for bounds in pairwise(accumulate(map(len, elements), initial=0))]
    groups = []
    for members, whole in pack(rows, spans, max_tokens, share):
        divided = [whole]
        if not whole.fits(max_tokens):
            divided = [part for _, part in pack(rows, [[row] for row in whole.rows], max_tokens, share)]
        groups.append(LossGroup(members, divided))
    return groups


def microbatches(rows: Sequence[Row], max_tokens: int, share: bool = False) -> list[Microbatch]:
    """Pack neighbouring rows, in order, into microbatches of at most `max_tokens` computed ids.

    Rows with a common prompt stay together if they fit; if not, each microbatch has the prompt once. A single row over
    the budget is a microbatch of its own.
    """
    groups = group_by_prompt(rows) if share else [[i] for i in range(len(rows))]
    elements = [[rows[i] for i in group] for group in groups]
    return [part for group in loss_groups(elements, max_tokens, share) for part in group.microbatches]


def own_microbatches(rows: Sequence[Row], max_tokens: int, share: bool) -> list[Microbatch]:
    """Return this process's share of the rows' microbatches; they are small enough that each process has some."""
    if processes.size() == 1:
        return microbatches(rows, max_tokens, share)
    tokens = sum(len(ids) for ids, _ in rows)
    parts = microbatches(rows, min(max_tokens, max(1, -(-tokens // processes.size()))), share)
    return [parts[i] for i in processes.own_share([part.tokens for part in parts])]


def pack(
    rows: Sequence[Row], spans: Sequence[Sequence[int]], max_tokens: int, share: bool
) -> list[tuple[list[int], Microbatch]]:
    """Pack spans of row indices in order; return (span indices, microbatch) pairs. A span over the budget is alone."""
    if max_tokens < 1:
        raise ValueError(f"a budget of {max_tokens} tokens")
    packed: list[tuple[list[int], Microbatch]] = []
    leader: Row | None = None
    for number, span in enumerate(spans):
        added, following = [rows[i] for i in span], rows[span[-1] + 1 : span[-1] + 2]
        members, last = packed[-1] if packed else ([], Microbatch([], 0, 0))
        joined, prefixes = last.with_rows(span, added, leader, following, share)
        if packed and joined.fits(max_tokens):
            packed[-1] = [*members, number], joined
        else:
            whole, prefixes = Microbatch([], 0, 0).with_rows(span, added, None, following, share)
            packed.append(([number], whole))
        leader = next((row for row, prefix in zip(added[::-1], prefixes[::-1]) if not prefix), leader)
    return packed


def chunk_documents(documents: Sequence[Sequence[int]], context: int) -> list[list[int]]:
    """Cut documents into pieces of at most `context` tokens; each token but a document's first is predicted once.

    A piece begins with the last token of the previous piece, since a row's first token cannot be predicted.
    """
    if context < 2:
        raise ValueError(f"a context of {context} tokens leaves nothing to predict")
    step = context - 1
    return [
        list(document[start : start + context]) for document in documents for start in range(0, len(document) - 1, step)
    ]


@dataclass(frozen=True)
class Batch:
    """Flat batch of B rows, N tokens in all."""

    ids: Tensor
    """[N] token ids"""
    lengths: tuple[int, ...]
    """tokens of each row"""
    loss_mask: Tensor
    """[N] bool, True for tokens whose prediction is in the loss"""
    prefix_lengths: tuple[int, ...] = ()
    """number of first tokens that each row shares with its leader (models/layout.py) and that are not repeated; empty
    if no row shares any: then the lengths sum to N"""

    def to(self, device: torch.device | str) -> Batch:
        """Copy the batch to a device."""
        return replace(self, ids=self.ids.to(device), loss_mask=self.loss_mask.to(device))


def collate(rows: Sequence[Row], prefix_lengths: Sequence[int] = ()) -> Batch:
    """Collate rows (ids, loss mask). ValueError for an empty row or lists of different lengths.

    prefix_lengths: number of first tokens that each row shares with its leader; they are in the batch once.
    """
    for i, (ids, loss_mask) in enumerate(rows):
        if not len(ids) or len(ids) != len(loss_mask):
            raise ValueError(f"row {i} has {len(ids)} ids and a loss mask of {len(loss_mask)}")
    prefixes = prefix_lengths or [0] * len(rows)
    own = [(ids[prefix:], loss_mask[prefix:]) for (ids, loss_mask), prefix in zip(rows, prefixes)]
    return Batch(
        ids=torch.tensor(list(chain.from_iterable(ids for ids, _ in own)), dtype=torch.long),
        lengths=tuple(len(ids) for ids, _ in rows),
        loss_mask=torch.tensor(list(chain.from_iterable(loss_mask for _, loss_mask in own)), dtype=torch.bool),
        prefix_lengths=tuple(prefixes) if any(prefixes) else (),
    )


def shared_prefix_lengths(rows: Sequence[Row], leader: Row | None = None, following: Sequence[Row] = ()) -> list[int]:
    """Return the number of first tokens that each row shares with its leader, the last row before it that shares none.

    Rows of one prompt share it whole. A row whose prompt the next row does not repeat shares what it has in common with
    its leader, such as a system prompt; a prompt that is repeated begins anew, so that its rows can share it. Trained
    tokens are never shared, a row has at least one token of its own, and fewer than MIN_SHARED_PREFIX tokens are not
    shared. leader, following: the leader of the rows before these, and the row after them.

    >>> prompt = [1, 5, 6, 7, 8, 9, 10, 11]
    >>> shared_prefix_lengths([(prompt + [12], [False] * 8 + [True]), (prompt + [13], [False] * 8 + [True])])
    [0, 8]
    """
    prompts = [prompt_ids(row) for row in (*rows, *following)]
    leading = prompt_ids(leader) if leader is not None else []
    lengths: list[int] = []
    for i, (ids, _) in enumerate(rows):
        begins = prompts[i] != leading and prompts[i + 1 : i + 2] == [prompts[i]]
        shared = 0 if begins else min(common_length(prompts[i], leading), len(ids) - 1)
        lengths.append(shared if shared >= MIN_SHARED_PREFIX else 0)
        if not lengths[-1]:
            leading = prompts[i]
    return lengths


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Count the first elements that two lists have in common."""
    if first == second:
        return len(first)
    return next((i for i, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second)))


def prompt_ids(row: Row) -> list[int]:
    """Return the ids before the first trained token; all ids if none is trained."""
    ids, loss_mask = row
    return list(ids[: loss_mask.index(True)] if True in loss_mask else ids)


def group_by_prompt(rows: Sequence[Row]) -> list[list[int]]:
    """Group the indices of neighbouring rows with one prompt, unless it is too short to be shared."""
    groups: list[list[int]] = []
    before: list[int] = []
    for i, row in enumerate(rows):
        prompt = prompt_ids(row)
        if groups and prompt == before and min(len(prompt), len(row[0]) - 1) >= MIN_SHARED_PREFIX:
            groups[-1].append(i)
        else:
            groups.append([i])
        before = prompt
    return groups


def order_by_length(rows: Sequence[Row]) -> list[int]:
    """Return row indices from short to long; neighbours that share a prompt stay together."""
    groups = sorted(group_by_prompt(rows), key=lambda group: max(len(rows[i][0]) for i in group))
    return list(chain.from_iterable(groups))


def unique_tokens(rows: Sequence[Row]) -> int:
    """Count the tokens of a batch of these rows with shared prefixes."""
    return sum(len(ids) for ids, _ in rows) - sum(shared_prefix_lengths(rows))


def targets(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the flat index [M] at which each trained token is predicted, and the token [M].

    Token i is predicted from the state at i - 1 inside its row. ValueError for a trained first token of a row.
    """
    prefixes = batch.prefix_lengths or (0,) * len(batch.lengths)
    own = [length - prefix for length, prefix in zip(batch.lengths, prefixes)]
    starts = list(accumulate(own[:-1], initial=0))
    device = batch.ids.device
    first = torch.tensor([start for start, prefix in zip(starts, prefixes) if not prefix], device=device)
    if batch.loss_mask.index_select(0, first).any():
        raise ValueError("the first token of a row is in the loss mask, but cannot be predicted")
    index = batch.loss_mask.nonzero().squeeze(1)
    before = index - 1
    if batch.prefix_lengths:
        previous = torch.arange(-1, len(batch.ids) - 1)
        leaders = accumulate((start if not prefix else -1 for start, prefix in zip(starts, prefixes)), max)
        for start, prefix, leader in zip(starts, prefixes, leaders):
            if prefix:
                previous[start] = leader + prefix - 1
        before = previous.to(device).index_select(0, index)
    return before, batch.ids.index_select(0, index)
