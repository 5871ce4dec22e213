"""Pseudo-random permutations that are computed at the positions that are read, and never stored.

A Feistel network is a permutation of the numbers of so many bits, whatever its round function is (Luby and Rackoff,
1988). Its bits are the fewest that hold n numbers; one that falls on n or above is permuted again until it is below
(cycle walking; Black and Rogaway, 2002), fewer than twice on average.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from amenable.data.batches import Indices, index_type

Numbers = np.ndarray[Any, np.dtype[np.uint64]]
ROUNDS = 6
"""four are needed of a perfect round function"""
MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
"""of the mixing function of SplitMix64 (Steele, Lea and Flood, 2014)"""
AHEAD = 4096
"""numbers that are computed at once, since a call costs as much as a thousand"""


class Computed:
    """n numbers that are computed where a slice of them is read, AHEAD at once."""

    def __init__(self, n: int, compute: Callable[[int, int], Indices]):
        """compute: returns the numbers at positions from `start` to before `end`."""
        self.n, self.compute = n, compute
        self.first, self.numbers = 0, np.empty(0, index_type(n))

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, part: slice) -> Indices:
        start, end, step = part.indices(self.n)
        if start < self.first or end > self.first + len(self.numbers):
            self.first, self.numbers = start, self.compute(start, min(self.n, max(end, start + AHEAD)))
        return self.numbers[start - self.first : max(start, end) - self.first : step]


def feistel(n: int, seed: int, epoch: int) -> Computed:
    """Return a permutation of range(n) that depends on seed and epoch, of the type `index_type(n)`."""
    if n < 1:
        raise ValueError(f"a permutation of {n} numbers")
    digest = hashlib.blake2b(f"feistel/{seed}/{epoch}".encode(), digest_size=8 * ROUNDS).digest()
    keys, bits = np.frombuffer(digest, "<u8").astype(np.uint64), max(2, (n - 1).bit_length())

    def compute(start: int, end: int) -> Indices:
        numbers = permute(np.arange(start, end, dtype=np.uint64), keys, bits)
        while len(beyond := np.flatnonzero(numbers >= n)):
            numbers[beyond] = permute(numbers[beyond], keys, bits)
        return numbers.astype(index_type(n))

    return Computed(n, compute)


def permute(numbers: Numbers, keys: Numbers, bits: int) -> Numbers:
    """Return the numbers, uint64 below 2^bits, as a Feistel network with a key a round permutes them."""
    low_bits, high_bits = np.uint64(bits // 2), np.uint64(bits - bits // 2)
    for key in keys:
        # the lower bits become the higher ones, and the higher ones, changed by the lower, become the lower
        low, high = numbers & ((np.uint64(1) << low_bits) - np.uint64(1)), numbers >> low_bits
        changed = (high ^ mix(low ^ key)) & ((np.uint64(1) << high_bits) - np.uint64(1))
        numbers = low << high_bits | changed
        low_bits, high_bits = high_bits, low_bits
    return numbers


def mix(numbers: Numbers) -> Numbers:
    """Return a hash of each number, uint64: the mixing function of SplitMix64."""
    numbers = (numbers ^ numbers >> np.uint64(30)) * MULTIPLIERS[0]
    numbers = (numbers ^ numbers >> np.uint64(27)) * MULTIPLIERS[1]
    return numbers ^ numbers >> np.uint64(31)
