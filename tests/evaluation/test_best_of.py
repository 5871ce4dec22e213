"""The expected best of n out of N, by hand and by counting all ways to pick."""

from itertools import combinations

import pytest
import torch

from amenable.evaluation import best_of
from amenable.functional.statistics import best_of_n_kl, mean_interval


def test_sizes_double_up_to_the_number_drawn() -> None:
    assert best_of.sizes(16) == [1, 2, 4, 8, 16]
    assert best_of.sizes(12) == [1, 2, 4, 8, 12]
    assert best_of.sizes(1) == [1]


def test_chances_by_hand() -> None:
    # of the six pairs out of four, the second worst is the best of one, the third of two, the best of three
    assert best_of.selection_probabilities(2, 4).tolist() == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6])
    assert best_of.selection_probabilities(1, 4).tolist() == [0.25] * 4
    assert best_of.selection_probabilities(4, 4).tolist() == [0, 0, 0, 1]


def test_the_curve_is_the_mean_over_all_ways_to_pick() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards, golds = torch.rand(2, 5, 6, generator=generator, dtype=torch.float64)
    rows = best_of.curve(rewards, golds)
    assert [row["n"] for row in rows] == [1, 2, 4, 6]
    for row in rows:
        reward, gold = torch.zeros(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
        picks = list(combinations(range(6), row["n"]))
        for p in range(5):
            for pick in picks:
                best = max(pick, key=lambda i: float(rewards[p, i]))
                reward[p] += rewards[p, best] / len(picks)
                gold[p] += golds[p, best] / len(picks)
        for name, expected in (("reward", reward), ("gold", gold)):
            report = [row[key] for key in (name, f"{name}_low", f"{name}_high")]
            assert report == pytest.approx(mean_interval(expected))
        assert row["kl"] == best_of_n_kl(row["n"])


def test_what_cannot_be_told_is_none() -> None:
    rows = best_of.curve(torch.tensor([[0.0, 1.0]]), None)
    assert [row["reward"] for row in rows] == [0.5, 1.0]
    assert rows[0]["reward_low"] is rows[0]["gold"] is rows[0]["gold_high"] is None  # one prompt has no interval
