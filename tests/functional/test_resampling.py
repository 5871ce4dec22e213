"""The optimum of a KL-penalised reward, from samples and their weights."""

import math

import pytest
import torch

from amenable.functional.resampling import optimum, optimum_probabilities

REF = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
REWARDS = torch.tensor([0.0, 1.0, -2.0, 3.0], dtype=torch.float64)


def test_all_answers_weighed_by_their_probability_give_the_closed_form() -> None:
    for beta in (0.2, 1.0, 5.0):
        best = REF * (REWARDS / beta).exp()
        best /= best.sum()
        torch.testing.assert_close(optimum_probabilities(REWARDS, REF.log(), beta), best)
        reward, kl = optimum(REWARDS, REF.log(), beta, samples=1)
        assert reward == pytest.approx(float(best @ REWARDS))
        assert kl == pytest.approx(float((best * (best / REF).log()).sum()))


def test_no_other_policy_has_more_reward_less_its_price() -> None:
    reward, kl = optimum(REWARDS, REF.log(), 0.7, 1)
    for seed in range(50):
        other = torch.rand(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 1e-3
        other /= other.sum()
        price = 0.7 * float((other * (other / REF).log()).sum())
        assert float(other @ REWARDS) - price < reward - 0.7 * kl


def test_samples_of_equal_weight() -> None:
    """One sample of four has the reward 1: with kl_coef near 0 it is always drawn, at a KL of log 4 nats."""
    rewards = torch.tensor([0.0, 0.0, 1.0, 0.0])
    reward, kl = optimum(rewards, torch.zeros(4), 0.01, 4)
    assert reward == pytest.approx(1.0) and kl == pytest.approx(math.log(4), abs=1e-4)
    assert optimum(rewards, torch.zeros(4), 1e6, 4) == pytest.approx((0.25, 0.0), abs=1e-5)
