import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amenable.functional.rewards import combine_scores, overlong_penalty, penalize_missing_eos, token_rewards

LOGP = torch.tensor([[-1.2, -0.7, -2.0, -0.1]])
REF = torch.tensor([[-1.0, -0.9, -2.5, -0.1]])


def test_token_rewards_by_hand():
    rewards = token_rewards(LOGP, REF, torch.tensor([0.4]), torch.ones(1, 4, dtype=torch.bool), kl_coef=0.05)
    assert rewards[0].tolist() == pytest.approx([0.01, -0.01, -0.025, 0.4], abs=1e-6)
    assert rewards.sum().item() == pytest.approx(0.4 - 0.05 * 0.5, abs=1e-6)


def test_score_is_put_on_the_last_place_that_counts():
    mask = torch.tensor([[True, True, False, False], [True, False, True, False], [False] * 4])
    rewards = token_rewards(torch.zeros(3, 4), torch.zeros(3, 4), torch.tensor([1.0, 2.0, 3.0]), mask, 1.0)
    assert rewards.tolist() == [[0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]]


@given(
    st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=4), st.sampled_from([math.nan, 9.0])
)
def test_a_row_sums_to_score_less_penalty_whatever_stands_outside(rows, outside):
    mask = torch.tensor(rows)
    logp, ref = torch.where(mask, LOGP, outside), torch.where(mask, REF, -math.inf)
    score = torch.arange(len(rows)).float() + 1
    rewards = token_rewards(logp, ref, score, mask, 0.5)
    assert (rewards[~mask] == 0).all()
    for row, counts in enumerate(mask):
        expected = float(score[row] - 0.5 * (LOGP - REF)[0][counts].sum()) if counts.any() else 0.0
        assert rewards[row].sum().item() == pytest.approx(expected, abs=1e-5)


def test_missing_eos_is_subtracted():
    scores = penalize_missing_eos(torch.tensor([0.5, 0.5, -2.0]), torch.tensor([True, False, False]), 1.0)
    assert scores.tolist() == [0.5, -0.5, -3.0]


def test_another_estimate_of_kl_takes_k1s_place():
    rewards = token_rewards(LOGP, REF, torch.tensor([0.4]), torch.ones(1, 4, dtype=torch.bool), 0.5, "k2")
    assert rewards[0].tolist() == pytest.approx([-0.01, -0.01, -0.0625, 0.4], abs=1e-6)


def test_the_overlong_penalty_falls_on_a_line():
    penalties = overlong_penalty(torch.tensor([3, 6, 7, 9, 10, 12]), 10, 4)
    assert penalties.tolist() == [0.0, 0.0, -0.25, -0.75, -1.0, -1.0]


@pytest.mark.parametrize(
    ("how", "expected"),
    [("mean", [2.0, 1.0]), ("min", [1.0, 1.0]), ("std", [2 - 0.5 * 0.816497, 1.0]), ("var", [2 - 0.5 * 0.666667, 1.0])],
)
def test_combinations_of_scores_by_hand(how, expected):
    """Scores 1, 2, 3 and three times 1: variances 2/3 and 0; half of the deviation is taken off."""
    scores = torch.tensor([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]])
    assert combine_scores(scores, how, 0.5).tolist() == pytest.approx(expected, abs=1e-6)
