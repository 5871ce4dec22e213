"""Losses on pairs by hand: log pi -10 and -14, log ref -11 and -12, beta 0.1, so r = 1 and -2, and h = 0.3."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amenable.functional import preference_losses as losses


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


CHOSEN, REJECTED, GAP = tensor(1.0), tensor(-2.0), tensor(0.3)
REWARDS = 0.1 * CHOSEN, 0.1 * REJECTED
BY_HAND = [
    ("dpo_losses", (CHOSEN, REJECTED, 0.1), 0.554355),  # log(1 + e^-.3)
    ("dpo_losses", (CHOSEN, REJECTED, 0.1, 0.1), 0.584355),  # .9 x .554355 + .1 x .854355
    ("robust_losses", (GAP, 0.1), 0.516855),  # (.9 x .554355 - .1 x .854355) / .8
    ("hinge_losses", (GAP,), 0.7),
    ("hinge_losses", (GAP + 1,), 0.0),
    ("ipo_losses", (CHOSEN, REJECTED, 0.1), 4.0),  # (3 - 5)^2
    ("exo_losses", (GAP, 0.1), 0.358383),  # .574443 (-.554355 + .105361) + .425557 (-.854355 + 2.302585)
    ("nca_losses", REWARDS, 1.315665),  # .644397 + (.744397 + .598139) / 2
    ("sppo_losses", (CHOSEN, REJECTED, 0.1), 25.0),  # (1 - 5)^2 + (-2 + 5)^2
    ("apo_zero_losses", REWARDS, 0.925187),  # 1 - .524979 + .450166
    ("apo_down_losses", REWARDS, 0.950536),  # .524979 + 1 - .574443
    ("bco_losses", REWARDS, 1.242536),  # .644397 + .598139
    ("odds_ratio_losses", (tensor(-0.5), tensor(-0.56)), 0.622825),  # log odds .432752 and .286786
]


@pytest.mark.parametrize(("loss", "arguments", "expected"), BY_HAND)
def test_a_pair_by_hand(loss, arguments, expected):
    assert getattr(losses, loss)(*arguments).item() == pytest.approx(expected, abs=1e-6)


def test_dpo_gradient_and_rewards_by_hand():
    chosen = CHOSEN.clone().requires_grad_()
    losses.dpo_losses(chosen, REJECTED, 0.1).sum().backward()
    assert -chosen.grad.item() == pytest.approx(0.042556, abs=1e-6)
    stats = losses.implicit_reward_stats(*REWARDS)
    assert {key: value.item() for key, value in stats.items()} == pytest.approx(
        {"rewards/chosen": 0.1, "rewards/rejected": -0.2, "rewards/margins": 0.3, "rewards/accuracies": 1.0}
    )
    assert losses.implicit_reward_stats(GAP, GAP)["rewards/accuracies"] == 0.5


def test_dpo_with_a_margin_by_hand():
    """h = 0.1 (1 + 2) - 0.5 = -0.2: log(1 + e^0.2); smoothed by 0.1 less 0.1 h, as without a margin."""
    chosen, rejected = tensor(1.0, 1.0), tensor(-2.0, -2.0)
    each = losses.dpo_losses(chosen, rejected, 0.1, margin=tensor(0.5, 0.0))
    assert each.tolist() == pytest.approx([0.798139, 0.554355], abs=1e-6)
    smoothed = losses.dpo_losses(chosen, rejected, 0.1, 0.1, 0.5)
    assert smoothed.tolist() == pytest.approx(2 * [0.798139 - 0.1 * 0.2], abs=1e-6)


def test_dpo_before_any_update_is_log_two_with_half_the_gradient():
    chosen = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    loss = losses.dpo_losses(chosen, torch.zeros(4, dtype=torch.float64), beta=0.1).mean()
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert torch.allclose(chosen.grad, torch.full_like(chosen, -0.1 / 2 / 4))


def test_simpo_by_hand():
    """Lengths 20 and 25, beta 2, gamma 1: z = 2 (-10 / 20) - 2 (-14 / 25) - 1 = -0.88."""
    loss = losses.dpo_losses(tensor(-10 / 20), tensor(-14 / 25), 2.0, margin=1.0)
    assert loss.item() == pytest.approx(1.226976, abs=1e-6)


def test_aot_by_hand():
    """Gaps 4 and 1, the reference's 0 and 2: sorted, 1 - 0 and 4 - 2, whichever pair they are of."""
    each = losses.aot_losses(tensor(4.0, 1.0), tensor(0.0, 2.0), 0.1)
    assert each.tolist() == pytest.approx([0.644397, 0.598139], abs=1e-6)  # log(1 + e^-.1), log(1 + e^-.2)
    assert torch.equal(each, losses.aot_losses(tensor(1.0, 4.0), tensor(0.0, 2.0), 0.1))
    smoothed = losses.aot_losses(tensor(4.0, 1.0), tensor(0.0, 2.0), 0.1, 0.1)
    assert smoothed.tolist() == pytest.approx([0.644397 + 0.1 * 0.1, 0.598139 + 0.1 * 0.2], abs=1e-6)


KTO = [
    (True, 1.0, 0.1, 0.482507),  # 1 - sigma(.1 x .7)
    (False, -2.0, 0.1, 0.442752),  # 1 - sigma(.1 x 2.3)
    (True, 1.0, 2.0, 0.197816),  # 1 - sigma(2 x .7)
]


@pytest.mark.parametrize(("label", "logratio", "beta", "expected"), KTO)
def test_kto_by_hand(label, logratio, beta, expected):
    """z = 0.3, without gradient; weights 1 and 3."""
    kl = tensor(0.3).requires_grad_()
    r = tensor(logratio).requires_grad_()
    loss = losses.kto_losses(r, kl, torch.tensor([label]), beta, 1.0, 3.0).sum()
    loss.backward()
    assert loss.item() == pytest.approx(expected * (1 if label else 3), abs=1e-5)
    assert kl.grad is None and (r.grad < 0) == label


def test_rewards_by_label_by_hand():
    stats = losses.labeled_reward_stats(tensor(0.4, -0.2, -0.1), torch.tensor([True, True, False]))
    assert {key: round(value.item(), 6) for key, value in stats.items()} == {
        "rewards/chosen": 0.1,
        "rewards/rejected": -0.1,
        "rewards/margins": 0.2,
        "rewards/accuracies": 0.5,
    }
    alone = losses.labeled_reward_stats(tensor(0.4), torch.tensor([False]))
    assert set(alone) == {"rewards/rejected"}


@given(st.floats(-5, 5), st.floats(0.01, 0.49))
def test_robust_dpo_is_unbiased_under_flips(gap, e):
    """The mean over labels that are flipped with probability e is DPO's loss of the true labels."""
    right, flipped = losses.robust_losses(tensor(gap), e), losses.robust_losses(tensor(-gap), e)
    expected = math.log1p(math.exp(-gap))
    assert ((1 - e) * right + e * flipped).item() == pytest.approx(expected, abs=1e-9)


@given(st.floats(0.01, 0.49))
def test_exo_is_zero_where_the_policy_has_the_smoothed_label(e):
    gap = tensor(math.log((1 - e) / e)).requires_grad_()
    loss = losses.exo_losses(gap, e)
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-12) and gap.grad.item() == pytest.approx(0.0, abs=1e-12)


def test_odds_of_certain_completions_are_finite():
    logps = tensor(-1e-12, -50.0).requires_grad_()
    loss = losses.odds_ratio_losses(logps, logps.flip(0)).sum()
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logps.grad).all()


@pytest.mark.parametrize(
    ("divergence", "alpha", "expected"),
    [
        ("reverse_kl", 0.5, 0.693147),
        ("forward_kl", 0.5, 0.5),  # 1 - 1/2
        ("js_divergence", 0.5, 0.287682),  # log 4/3
        ("alpha_divergence", 0.5, 0.585786),  # (2^-.5 - 1) / -.5
        ("alpha_divergence", 0.0, 0.5),
        ("alpha_divergence", 1.0, 0.693147),
    ],
)
def test_f_divergence_scores_by_hand(divergence, alpha, expected):
    """At a ratio of 2; each rises with the ratio, and at a ratio of 1 is 0 with slope 1, but JS, whose slope is 1/2."""
    r = tensor(math.log(2), 0.0, -200.0).requires_grad_()
    scores = losses.f_divergence_scores(r, divergence, alpha)
    (slope,) = torch.autograd.grad(scores.sum(), r)
    assert scores[:2].tolist() == pytest.approx([expected, 0.0], abs=1e-6) and scores.isfinite().all()
    assert slope[1].item() == pytest.approx(0.5 if divergence == "js_divergence" else 1.0) and (slope >= 0).all()


def test_desensitized_logps_by_hand():
    logps = tensor(-10.0, -4.0, -6.0)[None]
    assert losses.desensitized_logps(logps, torch.tensor([[True, False]]), 0.5).tolist() == [[-8.0, -4.0]]
    assert losses.desensitized_logps(logps, torch.tensor([[False, False]]), 0.5).tolist() == [[-10.0, -4.0]]


def test_on_policy_weights_by_hand():
    weights = losses.on_policy_weights(tensor(-3.0, -1.0)[None], tensor(-1.0, -0.5)[None], tensor(2.0, 1.0)[None])
    assert weights.tolist() == pytest.approx([0.223130])  # e^(-1 - .5)


def test_unpaired_bco_by_hand():
    """Rewards .3 and -.2 around .1, without its gradient; weights 1 and 3."""
    reward, shift = tensor(0.3, -0.2).requires_grad_(), tensor(0.1).requires_grad_()
    each = losses.bco_unpaired_losses(reward, shift, torch.tensor([True, False]), 1.0, 3.0)
    each.sum().backward()
    assert each.tolist() == pytest.approx([0.598139, 3 * 0.554355], abs=1e-6)
    assert shift.grad is None and reward.grad[0] < 0 < reward.grad[1]
