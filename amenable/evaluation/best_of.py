"""Best of n answers by the reward model: the gain of search, to compare with the gain of training.

Of N answers drawn to a prompt, in rising order of reward r_(1) .. r_(N), the i-th is the best of n picked among them
with probability C(i-1, n-1) / C(N, n). So the N drawn give the expected best of every n up to N without bias, and the
smaller n is, the less noise (the estimator of Nakano et al., 2021, appendix I).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from amenable.functional.statistics import best_of_n_kl, mean_interval
from amenable.train.log import plain_number


def sizes(num_answers: int) -> list[int]:
    """Return 1, 2, 4 .. and the number of answers itself.

    >>> sizes(12)
    [1, 2, 4, 8, 12]
    """
    return sorted({*(2**power for power in range(num_answers.bit_length())), num_answers})


def selection_probabilities(n: int, num_answers: int) -> Tensor:
    """Return the probability of each answer, the worst first, to be the best of n picked among all. [num_answers]."""
    picks = math.comb(num_answers, n)
    return torch.tensor([math.comb(i, n - 1) / picks for i in range(num_answers)], dtype=torch.float64)


def expected(values: Tensor, n: int) -> Tensor:
    """Return the expected value of the best of n [P]; values [P, N] are sorted by reward."""
    return values.double() @ selection_probabilities(n, values.shape[1])


def curve(rewards: Tensor, golds: Tensor | None) -> list[dict[str, Any]]:
    """Return expected reward and gold of the best of n, for n = 1, 2, 4 .., with 95 % intervals over the prompts.

    rewards, golds: [P prompts, N answers]. kl is that of the best of n to a single answer.
    """
    rewards, order = rewards.double().sort(dim=1)
    in_order = {"reward": rewards, "gold": None if golds is None else golds.double().gather(1, order)}
    rows = []
    for n in sizes(rewards.shape[1]):
        row: dict[str, Any] = {"n": n, "kl": best_of_n_kl(n)}
        for name, values in in_order.items():
            interval = (None,) * 3 if values is None else mean_interval(expected(values, n))
            row |= zip((name, f"{name}_low", f"{name}_high"), map(plain_number, interval))
        rows.append(row)
    return rows
