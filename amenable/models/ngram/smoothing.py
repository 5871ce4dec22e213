"""Smoothing of n-gram counts: probabilities of what was counted after a context, and the context's back-off weight.

    p(w | h) = p*(w | h) where h w was counted, else b(h) p(w | h')        h': the context without its first token

    maximum likelihood   p* = c(h w) / c(h);  b = 0
    add-k (Lidstone)     p* = (c(h w) + k) / (c(h) + k V);  all others share the rest evenly
    Katz                 p* = d_c c(h w) / c(h), d by Good and Turing;  b = (1 - sum p*) / (1 - sum p(w | h'))
    stupid backoff       s = c(h w) / c(h), else 0.4 s(w | h'), divided by its sum over the vocabulary
    Kneser-Ney           p* = (a(h w) - D) / a(h) + b p(w | h');  b = sum D / a(h), with an equal share of V at the end

a is the count at the highest order. Below, it is the number of tokens that come before (adjusted counts). D is
n1 / (n1 + 2 n2), or, modified, D_c = c - (c + 1) Y n_(c+1) / n_c for c = 1, 2, 3 and above, with Y = n1 / (n1 + 2 n2);
n_c is the number of n-grams of that order whose count is c.

Katz (1987); Kneser and Ney (1995); Chen and Goodman (1998); Brants et al. (2007); KenLM: Heafield et al. (2013).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

Array = np.ndarray[Any, Any]
SmoothingName = Literal["mle", "add-k", "katz", "stupid-backoff", "kneser-ney", "modified-kneser-ney"]
NAMES: tuple[SmoothingName, ...] = get_args(SmoothingName)
FALLBACK_DISCOUNTS = (0.0, 0.5, 1.0, 1.5)
"""of counts 0, 1, 2, 3 and above, where counts of counts give none: KenLM's --discount_fallback"""
KATZ_LARGEST = 5
"""largest count that Katz discounts"""
STUPID_FACTOR = 0.4
"""of Brants et al. (2007)"""


@dataclass(frozen=True)
class Contexts:
    """Counted n-grams of some contexts, those of a context next to each other."""

    counts: Array
    """[M] float64 counts, or adjusted counts, above 0"""
    starts: Array
    """[C] index of each context's first n-gram"""
    lower: Array
    """[M] probability of each n-gram's last token after the shorter context"""
    lower_scale: Array
    """[C] sum of the shorter context's stupid-backoff scores over the vocabulary"""

    def total(self, numbers: Array) -> Array:
        """Return the sum [C] of each context's numbers [M]."""
        return np.add.reduceat(numbers, self.starts)

    def spread(self, numbers: Array) -> Array:
        """Return each context's number [C] for each of its n-grams [M]."""
        return np.repeat(numbers, np.diff(self.starts, append=len(self.counts)))


@dataclass(frozen=True)
class Estimates:
    """Probabilities [M] of the counted n-grams, and [C] back-off weights of their contexts."""

    probabilities: Array
    backoffs: Array
    scale: Array | None = None
    """[C] sum of the scores that were normalised (stupid backoff)"""


Smoothing = Callable[[Contexts], Estimates]
"""estimates the n-grams of some contexts of one order"""


def smoothing_of(
    name: SmoothingName, counts_of_counts: Sequence[int], outcomes: int, k: float = 1.0, discounts: Array | None = None
) -> tuple[Smoothing, str]:
    """Return the smoothing of one order, and a note on what could not be estimated, or "".

    counts_of_counts: the numbers of n-grams of this order whose count is 0, 1, 2 ... outcomes: number of tokens that
    can follow. k: what add-k adds. discounts: Kneser-Ney's of counts 0, 1, 2, 3 and above, in place of estimated ones.
    """
    if name == "mle":
        return maximum_likelihood, ""
    if name == "add-k":
        return partial(add_k, k=k, outcomes=outcomes), ""
    if name == "stupid-backoff":
        return stupid_backoff, ""
    if name == "katz":
        ratios = good_turing_ratios(counts_of_counts)
        note = "" if ratios[1] < 1 else "Good and Turing's discounts do not exist for these counts: 0.5 is taken off"
        return partial(katz, ratios=ratios), note
    note = ""
    if discounts is None:
        modified = name == "modified-kneser-ney"
        discounts = modified_discounts(counts_of_counts) if modified else absolute_discounts(counts_of_counts)
        if discounts is None:
            discounts = np.array(FALLBACK_DISCOUNTS) if modified else np.array([0, 0.5, 0.5, 0.5])
            note = f"discounts cannot be estimated from these counts: {', '.join(f'{d:g}' for d in discounts[1:])}"
    return partial(kneser_ney, discounts=discounts), note


def absolute_discounts(counts_of_counts: Sequence[int]) -> Array | None:
    """Return the discount n1 / (n1 + 2 n2) of counts 0 (none), 1, 2, 3 and above; None where n1 or n2 is 0."""
    _, n1, n2 = counts_of_counts[:3]
    return np.array([0.0, *[n1 / (n1 + 2 * n2)] * 3]) if n1 and n2 else None


def modified_discounts(counts_of_counts: Sequence[int]) -> Array | None:
    """Return the discounts of counts 0 (none), 1, 2, 3 and above (Chen and Goodman, 1998, equation 26).

    None where a count of counts is 0, or a discount is outside of 0 ... count.
    """
    _, n1, n2, n3, n4 = counts_of_counts[:5]
    if not (n1 and n2 and n3):
        return None
    y = n1 / (n1 + 2 * n2)
    discounts = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    return discounts if (discounts >= 0).all() and (discounts <= np.arange(4)).all() else None


def good_turing_ratios(counts_of_counts: Sequence[int]) -> Array:
    """Return d_r of counts r = 0 ... k, the share of a count that Katz keeps (1987, equation 15).

        d_r = (r* / r - A) / (1 - A),   r* = (r + 1) n_(r+1) / n_r,   A = (k + 1) n_(k+1) / n_1

    k is the largest up to 5 for which every d_r lies between 0 and 1; where there is none d_1 is 1.
    """
    for k in range(KATZ_LARGEST, 0, -1):
        n = [float(count) for count in counts_of_counts[: k + 2]]
        if len(n) < k + 2 or not all(n[1 : k + 1]):
            continue
        share = (k + 1) * n[k + 1] / n[1]
        if share >= 1:
            continue
        ratios = [((r + 1) * n[r + 1] / n[r] / r - share) / (1 - share) for r in range(1, k + 1)]
        if all(0 < ratio < 1 for ratio in ratios):
            return np.array([1.0, *ratios])
    return np.array([1.0, 1.0])


def maximum_likelihood(contexts: Contexts) -> Estimates:
    """Return relative frequencies; what was not counted after a context has probability 0."""
    totals = contexts.total(contexts.counts)
    return Estimates(contexts.counts / contexts.spread(totals), np.zeros(len(totals)))


def add_k(contexts: Contexts, k: float, outcomes: int) -> Estimates:
    """Return probabilities with k added to every count; the weights are of the uniform distribution."""
    totals = contexts.total(contexts.counts) + k * outcomes
    return Estimates((contexts.counts + k) / contexts.spread(totals), k * outcomes / totals)


def stupid_backoff(contexts: Contexts, factor: float = STUPID_FACTOR) -> Estimates:
    """Return relative frequencies that back off by a constant factor, each context's divided by their sum.

    The scores of a context h sum to Z(h) = 1 + factor Z(h') (1 - sum of p(w | h') over the w that were counted).
    """
    rest = np.maximum(1 - contexts.total(contexts.lower), 0)
    scale = 1 + factor * contexts.lower_scale * rest
    totals = contexts.total(contexts.counts) * scale
    return Estimates(contexts.counts / contexts.spread(totals), factor * contexts.lower_scale / scale, scale)


def katz(contexts: Contexts, ratios: Array) -> Estimates:
    """Return discounted frequencies, and weights that give the shorter context's probabilities what they leave.

    ratios: d_r of counts 0 ... k; larger counts are kept. Where d_1 is 1, 0.5 is taken off every count instead, since
    something must be left. A context that every token was counted after loses nothing.
    """
    counts = contexts.counts
    shares = np.append(ratios, 1.0)[np.minimum(counts, len(ratios)).astype(np.int64)]
    discounted = counts * shares if ratios[1] < 1 else counts - 0.5
    totals = contexts.total(counts)
    unseen = 1 - contexts.total(contexts.lower)
    left = totals - contexts.total(discounted)
    # a context all of whose counts are large: half a count is taken off, as if one were left for what is new
    discounted = np.where(contexts.spread(left <= 0), counts - 0.5, discounted)
    full = unseen < 1e-9
    probabilities = np.where(contexts.spread(full), counts, discounted) / contexts.spread(totals)
    rest = np.maximum(1 - contexts.total(probabilities), 0)
    return Estimates(probabilities, np.where(full, 0, rest / np.where(full, 1, unseen)))


def kneser_ney(contexts: Contexts, discounts: Array) -> Estimates:
    """Return discounted counts interpolated with the shorter context's probabilities.

    discounts: of counts 0, 1, 2, 3 and above.
    """
    taken = discounts[np.minimum(contexts.counts, 3).astype(np.int64)]
    totals = contexts.total(contexts.counts)
    backoffs = contexts.total(taken) / totals
    probabilities = (contexts.counts - taken) / contexts.spread(totals) + contexts.spread(backoffs) * contexts.lower
    return Estimates(probabilities, backoffs)
