"""Held-out rows: a share of the groups of rows that belong together, drawn by the seed.

Conversations with the same turns before the assistant's first belong together, so no held-out prompt is trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from amenable.data.batches import Indices, index_type, permutation
from amenable.data.types import Conversation
from amenable.errors import InputError


def held_out_rows(keys: np.ndarray[Any, Any], fraction: float, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return True for the rows that are held out: about `fraction` of them, and at least one.

    keys [n]: rows with one key stay together. If all have the same key, they are divided individually. InputError for a
    fraction outside (0, 1), and fewer than two rows.
    """
    if not 0 < fraction < 1:
        raise InputError(f"the held-out fraction is {fraction}", how="give a number between 0 and 1")
    count = len(keys)
    if count < 2:
        raise InputError(f"{count} rows cannot be divided", how="give more rows, or held-out ones of their own")
    group, sizes = groups_of(keys)
    if len(sizes) == 1:
        group, sizes = np.arange(count, dtype=index_type(count)), np.ones(count, index_type(count))
    wanted = min(max(1, round(fraction * count)), count - 1)
    held, used = np.zeros(len(sizes), bool), 0
    drawn = permutation(len(sizes), seed, 0)
    for number, size in zip(drawn.data, sizes[drawn].data):
        if used + size <= wanted:
            held[number], used = True, used + size
            if used == wanted:
                break
    if not used:
        held[drawn[np.argmin(sizes[drawn])]] = True
    return held[group]


def groups_of(keys: np.ndarray[Any, Any]) -> tuple[Indices, Indices]:
    """Return the number of each row's group, [n], and the rows of each group. Rows with one key are a group; groups are
    numbered as they come."""
    kind = index_type(len(keys))
    order = np.argsort(keys, kind="stable").astype(kind)
    ordered = keys[order]
    bounds = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1], [True]])).astype(kind)
    del ordered
    sizes, first = np.diff(bounds), np.argsort(order[bounds[:-1]])
    numbers, group = np.empty(len(first), kind), np.empty(len(keys), kind)
    numbers[first] = np.arange(len(first), dtype=kind)
    group[order] = np.repeat(numbers, sizes)
    return group, sizes[first]


def held_out_of_sources(
    keys: Sequence[np.ndarray[Any, Any]], fraction: float, seed: int
) -> list[np.ndarray[Any, np.dtype[np.bool_]]]:
    """Return True for the held-out rows of each source: a share of its own, and those with the key of a held-out row of
    another source."""
    held = [held_out_rows(own, fraction, seed) for own in keys]
    held_keys = [own[mask] for own, mask in zip(keys, held)]
    for number, own in enumerate(keys):
        others = [other for i, other in enumerate(held_keys) if i != number]
        if others:
            held[number] |= np.isin(own, np.concatenate(others))
    return held


def opening_key(messages: Conversation, name: str) -> bytes:
    """Return a hash, 8 bytes, of the turns before the assistant's first; of the row's name where there is none."""
    roles = [message.role for message in messages]
    turns = messages[: roles.index("assistant")] if "assistant" in roles else messages
    opening = [replace(message, trained=True) for message in turns]
    return hashlib.blake2b(repr(opening or name).encode(), digest_size=8).digest()
