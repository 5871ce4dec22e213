import math
from itertools import combinations, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amenable.functional.advantages import (
    best_of_group,
    discounted_returns,
    gae,
    grpo_advantages,
    masked_gae,
    n_step_advantages,
    pass_at_k_advantages,
    rloo_advantages,
)


def double(rows):
    return torch.tensor(rows, dtype=torch.float64)


REWARDS = double([[0.0, -0.1, 0.05, 1.0]])
VALUES = double([[0.5, 0.4, 0.6, 0.8]])
WHOLE = torch.ones(1, 4, dtype=torch.bool)
GROUP = double([[1.0, 0.0, 0.5, 0.1]])


@pytest.mark.parametrize(
    ("gamma", "lam", "expected"),
    [
        (1.0, 0.95, [0.3921, 0.518, 0.44, 0.2]),
        (1.0, 1.0, [0.45, 0.55, 0.45, 0.2]),
        (1.0, 0.0, [-0.1, 0.1, 0.25, 0.2]),
        (0.99, 0.95, [0.364848, 0.498509, 0.4301, 0.2]),
    ],
)
def test_gae_by_hand(gamma, lam, expected):
    advantages, targets = masked_gae(REWARDS, VALUES, WHOLE, gamma, lam)
    assert advantages[0].tolist() == pytest.approx(expected, abs=1e-4)
    assert torch.equal(targets, advantages + VALUES)
    discounts = double([[gamma] * 3 + [0.0]])
    assert torch.allclose(gae(REWARDS, VALUES, discounts, lam, torch.zeros(1).double())[0], advantages)


def loop_with_done_flags(rewards, values, dones, gamma, lam, last_value):
    """The control style: one environment, a flag where an episode ends after the step."""
    advantages, running = [0.0] * len(rewards), 0.0
    for t in reversed(range(len(rewards))):
        following = last_value if t == len(rewards) - 1 else values[t + 1]
        alive = 0.0 if dones[t] else 1.0
        running = rewards[t] + gamma * following * alive - values[t] + gamma * lam * alive * running
        advantages[t] = running
    return advantages


numbers = st.floats(-5, 5)


@given(st.data(), st.floats(0, 1), st.floats(0, 1))
def test_gae_equals_a_loop_with_done_flags(data, gamma, lam):
    n = data.draw(st.integers(1, 6))
    rewards, values = (data.draw(st.lists(numbers, min_size=n, max_size=n)) for _ in range(2))
    dones, last = data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), data.draw(numbers)
    r, v = (double([x]) for x in (rewards, values))
    discounts = double([[0.0 if done else gamma for done in dones]])
    advantages, _ = gae(r, v, discounts, lam, double([last]))
    assert advantages[0].tolist() == pytest.approx(loop_with_done_flags(rewards, values, dones, gamma, lam, last))


@given(st.data(), st.floats(0, 1), st.floats(0, 1), st.sampled_from([math.nan, math.inf, 7.0]))
def test_masked_gae_equals_each_row_alone(data, gamma, lam, outside):
    steps = data.draw(st.integers(1, 6))
    mask = torch.tensor(
        data.draw(st.lists(st.lists(st.booleans(), min_size=steps, max_size=steps), min_size=1, max_size=3))
    )
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    rewards, values = (torch.randn(mask.shape, generator=draw).double() for _ in range(2))
    advantages, targets = masked_gae(
        torch.where(mask, rewards, outside), torch.where(mask, values, outside), mask, gamma, lam
    )
    assert (advantages[~mask] == 0).all() and (targets[~mask] == 0).all()
    for row in range(len(mask)):
        r, v = rewards[row][mask[row]].tolist(), values[row][mask[row]].tolist()
        alone = loop_with_done_flags(r, v, [False] * len(r), gamma, lam, 0.0)
        assert advantages[row][mask[row]].tolist() == pytest.approx(alone)
        assert targets[row][mask[row]].tolist() == pytest.approx([a + b for a, b in zip(alone, v)])


def test_discounted_returns_by_hand():
    rewards = torch.tensor([[1.0, 2.0, 8.0], [4.0, math.nan, 3.0]])
    mask = torch.tensor([[True, True, True], [True, False, True]])
    # the second row's middle step does not exist: its third step comes right after the first
    assert discounted_returns(rewards, mask, 0.5).tolist() == [[4.0, 6.0, 8.0], [5.5, 0.0, 3.0]]


def test_with_lambda_one_targets_are_the_discounted_returns():
    mask = torch.tensor([[True, True, False, True]])
    _, targets = masked_gae(REWARDS, VALUES, mask, 0.9, 1.0)
    assert torch.allclose(targets, discounted_returns(REWARDS, mask, 0.9))


@pytest.mark.parametrize(("n", "first"), [(1, -0.1), (2, -0.104), (9, 0.1795)])
def test_n_step_advantages_by_hand(n, first):
    """gamma .9, two steps: 0 - .9 x .1 + .81 x .6 - .5; one step of gamma 1 is GAE at lambda 0."""
    gamma = 1.0 if n == 1 else 0.9
    advantages, targets = n_step_advantages(REWARDS, VALUES, WHOLE, gamma, n)
    by_loop = []
    for t in range(4):
        steps = range(t, min(t + n, 4))
        value = gamma**n * float(VALUES[0, t + n]) if t + n < 4 else 0.0
        by_loop.append(sum(gamma ** (i - t) * float(REWARDS[0, i]) for i in steps) + value - float(VALUES[0, t]))
    assert advantages[0].tolist() == pytest.approx(by_loop)
    assert advantages[0, 0].item() == pytest.approx(first) and torch.equal(targets, advantages + VALUES)


def test_n_steps_skip_what_is_masked_and_end_in_the_whole_return():
    mask = torch.tensor([[True, False, True, True]])
    rewards, values = torch.where(mask, REWARDS, math.nan), torch.where(mask, VALUES, math.inf)
    advantages, _ = n_step_advantages(rewards, values, mask, 0.9, 1)
    assert advantages[0].tolist() == pytest.approx([0.9 * 0.6 - 0.5, 0.0, 0.05 + 0.9 * 0.8 - 0.6, 0.2])
    whole = n_step_advantages(rewards, values, mask, 0.9, 4)
    assert all(torch.allclose(*pair) for pair in zip(whole, masked_gae(rewards, values, mask, 0.9, 1.0)))


def test_rloo_by_hand():
    assert rloo_advantages(GROUP)[0].tolist() == pytest.approx([0.8, -0.533333, 0.133333, -0.4], abs=1e-6)


@given(st.lists(numbers, min_size=2, max_size=6))
def test_rloo_is_the_score_less_the_mean_of_the_others(scores):
    expected = [s - (sum(scores) - s) / (len(scores) - 1) for s in scores]
    assert rloo_advantages(double([scores]))[0].tolist() == pytest.approx(expected, abs=1e-9)


def test_grpo_by_hand():
    assert grpo_advantages(GROUP)[0].tolist() == pytest.approx([1.319534, -0.879689, 0.219922, -0.659767], abs=1e-6)
    one_right = grpo_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))[0].tolist()
    assert one_right == pytest.approx([1.4997, -0.4999, -0.4999, -0.4999], abs=1e-4)
    assert grpo_advantages(torch.full((2, 3), 0.7)).tolist() == [[0.0] * 3] * 2


def test_the_scale_and_the_baseline_are_arguments():
    scores = torch.stack([GROUP[0], 2 * GROUP[0] + 1])
    centred = torch.tensor([[0.6, -0.4, 0.1, -0.3], [1.2, -0.8, 0.2, -0.6]]).double()
    assert torch.allclose(grpo_advantages(scores, "none"), centred)  # Dr. GRPO: RLOO times (K - 1) / K
    assert torch.allclose(grpo_advantages(scores, "none"), rloo_advantages(scores) * 3 / 4)
    assert torch.allclose(grpo_advantages(scores, "batch", epsilon=0.0), centred / scores.std())
    remax = grpo_advantages(scores, "none", torch.full_like(scores, 0.5))
    assert remax[0].tolist() == pytest.approx([0.5, -0.5, 0.0, -0.4])


def best_of_sets(scores, k):
    """k times the mean, over sets of k - 1 others, of what a sample adds to their best."""
    rows = []
    for i, score in enumerate(scores):
        sets = list(combinations(scores[:i] + scores[i + 1 :], k - 1))
        rows.append(k * sum(max(score - max(others), 0.0) for others in sets) / len(sets))
    return rows


def test_the_best_of_a_group_are_marked_and_of_equal_scores_the_first():
    scores = double([[0.5, 2.0, 1.0], [1.0, 1.0, 0.0]])
    assert best_of_group(scores).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert best_of_group(scores, 2).tolist() == [[0, 1, 1], [1, 1, 0]]


def test_pass_at_k_by_hand():
    # 1 beats {0, .5}, {0, .1}, {.5, .1} by .5, .9, .5; .5 beats {0, .1} of its three sets by .4
    assert pass_at_k_advantages(GROUP, 3)[0].tolist() == pytest.approx([1.9, 0.0, 0.4, 0.0], abs=1e-9)


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=6), st.data())
def test_pass_at_k_equals_all_sets(scores, data):
    k = data.draw(st.integers(2, len(scores)))
    assert pass_at_k_advantages(double([scores]), k)[0].tolist() == pytest.approx(best_of_sets(scores, k), abs=1e-9)


def test_pass_at_k_has_the_gradient_of_the_expected_best():
    """Over all 3^4 groups of four samples of three actions; the best of two, by autograd."""
    logits = double([0.3, -0.2, 0.5]).requires_grad_()
    scores, logps = double([1.0, 0.2, -0.5]), logits.log_softmax(0)
    best = sum(logps[[i, j]].sum().exp() * torch.maximum(scores[i], scores[j]) for i, j in product(range(3), repeat=2))
    (expected,) = torch.autograd.grad(best, logits, retain_graph=True)
    estimate = torch.zeros(3).double()
    for group in product(range(3), repeat=4):
        advantages = pass_at_k_advantages(scores[list(group)][None], 2)[0]
        (gradient,) = torch.autograd.grad((advantages * logps[list(group)]).mean(), logits, retain_graph=True)
        estimate += logps[list(group)].sum().exp().detach() * gradient
    assert torch.allclose(estimate, expected) and expected.abs().max() > 0.1


@pytest.mark.parametrize("k", [1, 5])
def test_pass_at_k_needs_k_of_the_group(k):
    with pytest.raises(ValueError, match=f"k is {k}"):
        pass_at_k_advantages(GROUP, k)


@pytest.mark.parametrize("advantages", [rloo_advantages, grpo_advantages])
def test_a_group_of_one_is_refused(advantages):
    with pytest.raises(ValueError, match="2 or more"):
        advantages(torch.ones(3, 1))
