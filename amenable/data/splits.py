"""Held-out rows: a share of the groups of rows that belong together, drawn by the seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from amenable.data.batches import permutation
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
    _, first, group, sizes = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    if len(first) == 1:
        group, sizes = np.arange(count), np.ones(count, np.int64)
    else:  # groups are numbered as they come
        order = np.argsort(first, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        group, sizes = rank[group], sizes[order]
    wanted = min(max(1, round(fraction * count)), count - 1)
    held, used = np.zeros(len(sizes), bool), 0
    drawn = permutation(len(sizes), seed, 0)
    for number, size in zip(drawn.tolist(), sizes[drawn].tolist()):
        if used + size <= wanted:
            held[number], used = True, used + size
            if used == wanted:
                break
    if not used:
        held[drawn[np.argmin(sizes[drawn])]] = True
    return held[group]
