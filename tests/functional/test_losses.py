import math
from itertools import combinations, permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amenable.functional import losses
from amenable.functional.masked import masked_mean


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def everywhere(x):
    return torch.ones_like(x, dtype=torch.bool)


@pytest.mark.parametrize(
    ("advantage", "ratio", "expected", "slope"),
    [(1, 1.5, -1.2, 0.0), (1, 0.5, -0.5, -0.5), (-1, 1.5, 1.5, 1.5), (-1, 0.5, 0.8, 0.0)],
)
def test_ppo_clip_by_hand(advantage, ratio, expected, slope):
    logp = tensor(math.log(ratio)).requires_grad_()
    loss, stats = losses.ppo_policy_loss(logp, tensor(0.0), tensor(advantage), everywhere(logp), 0.2)
    loss.backward()
    assert loss.item() == pytest.approx(expected)
    assert logp.grad.item() == pytest.approx(slope)  # d ratio / d logp = ratio; 0 where clipped
    assert stats["clip_fraction"].item() == (slope == 0)
    assert stats["ratio"].item() == pytest.approx(ratio)
    assert stats["approx_kl"].item() == pytest.approx(ratio - 1 - math.log(ratio))
    assert stats["k1"].item() == pytest.approx(-math.log(ratio))


def test_ppo_at_the_first_step_is_the_policy_gradient():
    logp = tensor(-1.0, -2.0, -3.0).requires_grad_()
    advantages = tensor(0.5, -1.0, 2.0)
    loss, stats = losses.ppo_policy_loss(logp, logp.detach(), advantages, everywhere(logp), 0.2)
    loss.backward()
    assert torch.allclose(logp.grad, -advantages / 3)
    assert stats["ratio"] == 1 and stats["approx_kl"] == 0 and stats["clip_fraction"] == 0


def test_ppo_huge_ratios_are_clamped_and_counted():
    logp = tensor(500.0, 0.0).requires_grad_()
    loss, stats = losses.ppo_policy_loss(logp, tensor(0.0, 0.0), tensor(-1.0, 1.0), everywhere(logp), 0.2)
    loss.backward()
    assert loss.item() == pytest.approx((math.exp(20) - 1) / 2)
    assert stats["clamped_fraction"].item() == 0.5
    assert torch.isfinite(logp.grad).all() and all(torch.isfinite(value) for value in stats.values())


POLICY_LOSSES = [
    (losses.ppo_policy_loss, 0.2),
    (losses.ppo_kl_penalty_loss, 0.5),
    (losses.value_loss, 0.2),
]


@pytest.mark.parametrize(("loss", "number"), POLICY_LOSSES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_masked_changes_no_loss_and_no_gradient(loss, number, bad):
    draw = torch.Generator().manual_seed(0)
    columns = [torch.randn(3, 4, generator=draw) for _ in range(3)]
    mask = torch.tensor([[True, True, False, False], [True, False, True, True], [False] * 4])
    alone = [column[mask].requires_grad_() for column in columns]
    padded = [torch.where(mask, column, bad).requires_grad_() for column in columns]
    expected, expected_stats = loss(*alone, everywhere(alone[0]), number)
    result, stats = loss(*padded, mask, number)
    expected.backward()
    result.backward()
    assert result.item() == pytest.approx(expected.item())
    assert {key: value.item() for key, value in stats.items()} == pytest.approx(
        {key: value.item() for key, value in expected_stats.items()}
    )
    assert torch.allclose(padded[0].grad[mask], alone[0].grad) and (padded[0].grad[~mask] == 0).all()
    assert padded[1].grad is None and padded[2].grad is None  # only the first argument carries gradient
    assert not any(value.requires_grad for value in stats.values())


def test_ppo_kl_penalty_by_hand():
    logp = tensor(math.log(1.5)).requires_grad_()
    loss, stats = losses.ppo_kl_penalty_loss(logp, tensor(0.0), tensor(2.0), everywhere(logp), kl_coef=0.5)
    divergence = 0.5 - math.log(1.5)
    assert loss.item() == pytest.approx(-(1.5 * 2.0 - 0.5 * divergence))
    assert stats["approx_kl"].item() == pytest.approx(divergence) and "clip_fraction" not in stats


def test_the_penaltys_gradient_is_that_of_the_divergence_from_the_old_policy():
    """In expectation over the old policy's tokens, with no advantage: beta (new - old) in the logits."""
    old, new = tensor(0.7, 0.2, 0.1), tensor(0.4, 0.4, 0.2)
    logits = new.log().requires_grad_()
    total = torch.zeros(3, dtype=torch.float64)
    for token in range(3):
        logp = logits.log_softmax(0)[token : token + 1]
        loss, _ = losses.ppo_kl_penalty_loss(logp, old.log()[token : token + 1], tensor(0.0), everywhere(logp), 2.0)
        total += old[token] * torch.autograd.grad(loss, logits)[0]
    assert torch.allclose(total, 2.0 * (new - old))


def test_value_loss_by_hand():
    values = tensor(1.0).requires_grad_()
    loss, stats = losses.value_loss(values, tensor(0.5), tensor(2.0), everywhere(values), clip=0.2)
    assert loss.item() == pytest.approx(0.845)  # clipped to 0.7: (1.3)^2 / 2
    assert stats["clip_fraction"].item() == 1.0
    loss.backward()
    assert values.grad.item() == 0.0
    unclipped, stats = losses.value_loss(values, tensor(0.5), tensor(2.0), everywhere(values), clip=1.0)
    assert unclipped.item() == pytest.approx(0.5) and stats["clip_fraction"].item() == 0.0


def test_preference_losses_by_hand():
    one, zero = tensor(1.0, 0.0), tensor(0.0, 0.0)
    assert losses.preference_losses(one, zero).tolist() == pytest.approx([0.313262, 0.693147], abs=1e-6)
    assert losses.preference_losses(zero, one).tolist() == pytest.approx([1.313262, 0.693147], abs=1e-6)
    margin = losses.preference_losses(2 * one, zero, margin=tensor(1.0, 0.0))
    assert margin.tolist() == pytest.approx([0.313262, 0.693147], abs=1e-6)
    smoothed = losses.preference_losses(one, zero, label_smoothing=0.1)
    assert smoothed.tolist() == pytest.approx([0.9 * 0.313262 + 0.1 * 1.313262, 0.693147], abs=1e-6)


def test_a_share_of_answers_by_a_coin():
    """.9 sigma(1) + .05 = .7079527; no gap costs more than -log(.05)."""
    zero, one = tensor(0.0), tensor(1.0)
    assert losses.preference_losses(one, zero, noise=0.1).tolist() == pytest.approx([-math.log(0.7079527)], abs=1e-6)
    assert losses.preference_losses(zero, 1e6 * one, noise=0.1).tolist() == pytest.approx([-math.log(0.05)])
    assert losses.preference_losses(1e6 * one, zero, noise=0.1).tolist() == pytest.approx([-math.log(0.95)])
    assert losses.preference_losses(one, zero, noise=0.0).tolist() == losses.preference_losses(one, zero).tolist()
    both = [losses.preference_losses(*pair, noise=0.1).item() for pair in ((one, zero), (zero, one))]
    tie = losses.preference_losses(one, zero, label_smoothing=tensor(0.5), noise=0.1)
    assert tie.tolist() == pytest.approx([sum(both) / 2]) and sum(math.exp(-each) for each in both) == pytest.approx(1)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=5), st.floats(-50, 50))
def test_preference_losses_depend_on_differences_only(pairs, shift):
    chosen, rejected = (tensor(*side) for side in zip(*pairs))
    expected = losses.preference_losses(chosen, rejected).tolist()
    assert losses.preference_losses(chosen + shift, rejected + shift).tolist() == pytest.approx(expected)


SCORES = tensor(1.2, 0.3, 0.0, -0.5)


def test_ranking_loss_by_hand():
    loss, stats = losses.ranking_loss(SCORES, tensor(1, 2, 3, 4))
    assert loss.item() == pytest.approx(0.361959, abs=1e-6)
    assert stats["accuracy"].item() == pytest.approx(1.0) and stats["margin"].item() == pytest.approx(5.4 / 6)
    order = torch.tensor([2, 0, 3, 1])
    shuffled, _ = losses.ranking_loss(SCORES[order], tensor(1, 2, 3, 4)[order])
    assert shuffled.item() == pytest.approx(0.361959, abs=1e-6)


@pytest.mark.parametrize("loss", [losses.ranking_loss, losses.plackett_luce_loss])
def test_the_loss_of_two_completions_is_the_preference_loss(loss):
    expected = losses.preference_losses(tensor(0.3), tensor(1.2), 0.5)
    of_two, stats = loss(tensor(1.2, 0.3), tensor(2, 1), None, tensor(0.5))
    assert torch.allclose(of_two, expected)
    assert stats["accuracy"].item() == 0.0 and stats["margin"].item() == pytest.approx(-0.9)


def test_ties_are_not_compared():
    # ranks 1, 2, 2: the second and third completions are not compared
    pairs = losses.preference_losses(SCORES[0], SCORES[1:3])
    assert torch.allclose(losses.ranking_loss(SCORES[:3], tensor(1, 2, 2))[0], pairs.mean())
    # ranks 1, 1, 2: neither of the first two competes with the other
    pairs = losses.preference_losses(SCORES[:2], SCORES[2])
    assert torch.allclose(losses.plackett_luce_loss(SCORES[:3], tensor(1, 1, 2))[0], pairs.mean())
    for loss in (losses.ranking_loss, losses.plackett_luce_loss):
        with pytest.raises(ValueError, match="nothing to learn"):
            loss(SCORES[:2], tensor(1, 1))


rankings = st.lists(
    st.lists(st.tuples(st.floats(-3, 3), st.integers(1, 4)), min_size=1, max_size=5), min_size=1, max_size=4
)


@given(rankings, st.lists(st.floats(-3, 3), min_size=4, max_size=4), st.randoms())
def test_ranking_loss_is_the_mean_of_prompt_means(prompts, wanted, random):
    means, accuracies, margins = [], [], []
    for answers, margin in zip(prompts, wanted):
        gaps = []
        for (score, rank), (other, other_rank) in combinations(answers, 2):
            if rank != other_rank:
                gaps.append(score - other if rank < other_rank else other - score)
        if gaps:
            means.append(sum(math.log1p(math.exp(margin - gap)) for gap in gaps) / len(gaps))
            accuracies.append(sum(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for gap in gaps) / len(gaps))
            margins.append(sum(gaps) / len(gaps))
    rows = [(score, rank, i) for i, answers in enumerate(prompts) for score, rank in answers]
    random.shuffle(rows)
    scores, ranks, owners = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows))
    if not means:
        with pytest.raises(ValueError):
            losses.ranking_loss(scores, ranks, owners)
        return
    loss, stats = losses.ranking_loss(scores, ranks, owners.long(), tensor(*wanted))
    assert loss.item() == pytest.approx(sum(means) / len(means), rel=1e-5)
    assert stats["accuracy"].item() == pytest.approx(sum(accuracies) / len(accuracies), abs=1e-6)
    assert stats["margin"].item() == pytest.approx(sum(margins) / len(margins), abs=1e-5)


def test_a_margin_is_in_the_units_of_the_scores():
    """The pair 2 above 0 wants 1.5: log(1 + e^-0.5); without one: log(1 + e^-2)."""
    scores, ranks, prompts = tensor(2.0, 0.0), tensor(1, 2), torch.zeros(2, dtype=torch.long)
    loss, stats = losses.ranking_loss(scores, ranks, prompts, tensor(1.5))
    assert loss.item() == pytest.approx(0.474077, abs=1e-6) and stats["margin"].item() == 2.0
    none, zero = (losses.ranking_loss(scores, ranks, prompts, margins)[0] for margins in (None, tensor(0.0)))
    assert none.item() == zero.item() == pytest.approx(0.126928, abs=1e-6)


def test_plackett_luce_by_hand():
    """-log [e^1.2 / (e^1.2 + e^.3 + 1 + e^-.5)] - log [e^.3 / (e^.3 + 1 + e^-.5)] - log [1 / (1 + e^-.5)], of three."""
    ranks, order = tensor(1, 2, 3, 4), torch.tensor([2, 0, 3, 1])
    assert losses.plackett_luce_loss(SCORES, ranks)[0].item() == pytest.approx(1.894859 / 3, abs=1e-6)
    loss, stats = losses.plackett_luce_loss(SCORES[order], ranks[order])
    assert loss.item() == pytest.approx(1.894859 / 3, abs=1e-6)
    assert {name: value.item() for name, value in stats.items()} == pytest.approx({"accuracy": 1.0, "margin": 0.9})


def test_plackett_luce_is_the_mean_of_prompts():
    scores, ranks, prompts = torch.cat([SCORES, SCORES[:2] + 9]), tensor(1, 2, 3, 4, 1, 2), tensor(0, 0, 0, 0, 1, 1)
    alone = [losses.plackett_luce_loss(scores[part], ranks[part])[0] for part in (slice(0, 4), slice(4, 6))]
    order = torch.tensor([4, 2, 0, 5, 3, 1])
    loss, _ = losses.plackett_luce_loss(scores[order], ranks[order], prompts.long()[order])
    assert torch.allclose(loss, (alone[0] + alone[1]) / 2)
    moved, _ = losses.plackett_luce_loss(scores, ranks, prompts.long(), tensor(0.0, 0.9))
    expected = losses.preference_losses(scores[4], scores[5], 0.9)
    assert torch.allclose(moved, (alone[0] + expected) / 2)


def test_the_best_of_k_by_hand():
    """-log [e^1.2 / (e^1.2 + e^.3 + 1 + e^-.5)], whatever the order of the rest; with two best ones their mean."""
    loss, stats = losses.plackett_luce_loss(SCORES, tensor(1, 3, 2, 4), best_only=True)
    assert loss.item() == pytest.approx(-(SCORES[0] - SCORES.logsumexp(0)).item(), abs=1e-6)
    assert stats["accuracy"].item() == pytest.approx(5 / 6)
    two, _ = losses.plackett_luce_loss(SCORES[:3], tensor(1, 1, 2), best_only=True)
    assert torch.allclose(two, losses.preference_losses(SCORES[:2], SCORES[2]).mean())
    both = torch.cat([SCORES, SCORES[:2]]), tensor(1, 3, 2, 4, 2, 1), tensor(0, 0, 0, 0, 1, 1).long()
    other = losses.preference_losses(SCORES[1], SCORES[0])
    assert torch.allclose(losses.plackett_luce_loss(*both, best_only=True)[0], (loss + other) / 2)


def test_the_binary_loss_by_hand():
    """Scores .4 and -.2 of a pair: -1/2 [log sigma(.4) + log sigma(.2)]; with a margin of .2, of .3 and .1."""
    scores = tensor(0.4, -0.2)
    loss, stats = losses.binary_ranking_loss(scores, tensor(1, 2))
    assert loss.item() == pytest.approx((0.513015 + 0.598139) / 2, abs=1e-6) and stats["accuracy"].item() == 1
    shifted, _ = losses.binary_ranking_loss(scores, tensor(1, 2), torch.zeros(2, dtype=torch.long), tensor(0.2))
    assert shifted.item() == pytest.approx((0.554355 + 0.644397) / 2, abs=1e-6)


def test_smoothing_and_centering_of_rankings_by_hand():
    smooth, _ = losses.ranking_loss(tensor(0.3, 0.0), tensor(1, 2), label_smoothing=0.1)
    assert smooth.item() == pytest.approx(0.554355 + 0.1 * 0.3, abs=1e-6)
    scores, prompts = tensor(1.0, 2.0, -1.0, 0.5, -0.5), tensor(0, 0, 0, 1, 1).long()
    penalty = losses.centering_penalty(scores, tensor(1, 2, 2, 1, 2), prompts)
    assert penalty.item() == pytest.approx(((9 + 0) / 2 + 0) / 2)


def test_plackett_luce_probabilities_of_all_orders_sum_to_one():
    orders = [torch.tensor(order) for order in permutations(range(1, 5))]
    total = sum(torch.exp(-3 * losses.plackett_luce_loss(SCORES, order)[0]) for order in orders)
    assert total.item() == pytest.approx(1.0)


@given(st.floats(-4, 4), st.floats(0.01, 0.49))
def test_with_smoothed_labels_a_margin_moves_where_the_loss_is_least(margin, e):
    gap = tensor(margin + math.log((1 - e) / e)).requires_grad_()
    losses.preference_losses(gap, torch.zeros_like(gap), margin, e).sum().backward()
    assert gap.grad.item() == pytest.approx(0.0, abs=1e-9)


def test_ppo_on_a_bandit_reaches_the_closed_form_optimum():
    """pi* = ref exp(r / beta) / Z: expected rewards r - beta log(pi / ref), exact advantages, many small updates."""
    ref, reward, beta = tensor(0.2, 0.5, 0.3), tensor(1.0, 0.0, -1.0), 0.5
    logits = ref.log().requires_grad_()
    for _ in range(400):
        with torch.no_grad():
            old = logits.log_softmax(0)
            total = reward - beta * (old - ref.log())
            advantages = total - (old.exp() * total).sum()
        logp = logits.log_softmax(0)
        # each arm counts as often as it is drawn: scale its advantage by its probability
        loss, _ = losses.ppo_policy_loss(logp, old, advantages * old.exp() * 3, everywhere(logp), 0.2)
        (gradient,) = torch.autograd.grad(loss, logits)
        with torch.no_grad():
            logits -= 1.0 * gradient
    assert logits.softmax(0).tolist() == pytest.approx([0.732165, 0.247720, 0.020115], abs=1e-4)


def test_means_are_taken_over_the_mask_not_over_the_batch():
    logp = torch.zeros(2, 3)
    mask = torch.tensor([[True, False, False], [True, True, True]])
    advantages = torch.tensor([[4.0, 0, 0], [0, 0, 0]])
    loss, _ = losses.ppo_policy_loss(logp, logp, advantages, mask, 0.2)
    assert loss.item() == -1.0 == -masked_mean(advantages, mask).item()


@pytest.mark.parametrize(
    ("advantage", "ratio", "expected", "slope"),
    [
        (1, 1.5, 1.28, 0),
        (1, 1.25, 1.25, 1.25),
        (-1, 0.7, -0.8, 0),
        (-1, 2.5, -2.5, -2.5),
        (-1, 4.0, -3.0, 0),
        (1, 0.1, 0.1, 0.1),
    ],
)
def test_clip_higher_and_dual_clip_by_hand(advantage, ratio, expected, slope):
    """Bounds 0.8 and 1.28 for both signs, and 3 where the advantage is negative."""
    logp = tensor(math.log(ratio)).requires_grad_()
    loss, stats = losses.ppo_policy_loss(logp, tensor(0.0), tensor(advantage), everywhere(logp), 0.2, 0.28, 3.0)
    loss.backward()
    assert -loss.item() == pytest.approx(expected) and -logp.grad.item() == pytest.approx(slope)
    assert stats["clip_fraction"].item() == (slope == 0)


def test_an_infinite_clip_leaves_the_surrogate_as_it_is():
    logp = tensor(math.log(5.0), math.log(0.1)).requires_grad_()
    loss, stats = losses.ppo_policy_loss(logp, tensor(0.0, 0.0), tensor(1.0, -1.0), everywhere(logp), math.inf)
    assert loss.item() == pytest.approx(-(5.0 - 0.1) / 2) and stats["clip_fraction"] == 0


# two answers of three tokens and one; log-ratios of the reference oracle, whose mean ratio is 1.068939
RATIOS, ANSWERS = tensor(0.1, -0.2, 0.3, 0.0), torch.tensor([0, 0, 0, 1])


def group_losses(**options):
    logp = RATIOS.clone().requires_grad_()
    advantages = tensor(1.0, 1.0, 1.0, -2.0)
    terms, stats = losses.group_policy_losses(logp, torch.zeros_like(RATIOS), advantages, ANSWERS, 2, 0.2, **options)
    return terms, stats["clip_fraction"].item(), torch.autograd.grad(terms.sum(), logp)[0].tolist()


def test_group_losses_by_hand():
    terms, clipped, slopes = group_losses()
    assert terms.tolist() == pytest.approx([-1.105171, -0.818731, -1.2, 2.0], abs=1e-6) and clipped == 0.25
    assert slopes == pytest.approx([-1.105171, -0.818731, 0.0, 2.0], abs=1e-6)
    terms, clipped, slopes = group_losses(ratio_of="sequence")
    assert terms.tolist() == pytest.approx([-1.068939] * 3 + [2.0], abs=1e-6) and clipped == 0
    assert slopes == pytest.approx([-1.068939] * 3 + [2.0], abs=1e-6)  # a third of the mean's, three times
    terms, clipped, slopes = group_losses(form="cispo")
    assert terms.tolist() == pytest.approx([-0.1105171, 0.1637462, -0.36, 0.0], abs=1e-6) and clipped == 0.25
    assert slopes == pytest.approx([-1.105171, -0.818731, -1.2, 2.0], abs=1e-6)  # a clipped token still learns


@pytest.mark.parametrize("options", [{}, {"ratio_of": "sequence"}, {"form": "cispo"}])
def test_at_ratio_one_every_group_loss_has_the_policy_gradient(options):
    logp, advantages = tensor(-1.0, -2.0, -3.0, -0.5).requires_grad_(), tensor(0.5, 0.5, 0.5, -1.0)
    terms, _ = losses.group_policy_losses(logp, logp.detach(), advantages, ANSWERS, 2, 0.2, **options)
    losses.mean_of_tokens(terms, ANSWERS, 2, "tokens").backward()
    assert torch.allclose(logp.grad, -advantages / 4)


def test_means_of_tokens_by_hand():
    """Nine ones and a ten in one answer, four ones and a ten in the other: 2.35, 2.2 and 1.65."""
    numbers = torch.tensor([1.0] * 9 + [10.0] + [1.0] * 4 + [10.0])
    answers = torch.tensor([0] * 10 + [1] * 5)
    expected = {"answers": 2.35, "tokens": 33 / 15, "constant": 1.65}
    means = {name: losses.mean_of_tokens(numbers, answers, 2, name, 10).item() for name in expected}
    assert means == pytest.approx(expected)


def test_ppo_without_a_mask_is_ppo_with_a_mask_of_everything():
    draw = torch.Generator().manual_seed(0)
    logp, old, advantages = (torch.randn(64, generator=draw) for _ in range(3))
    results = []
    for mask in (everywhere(logp), None):
        leaf = logp.clone().requires_grad_()
        loss, stats = losses.ppo_policy_loss(leaf, old, advantages, mask, 0.2)
        loss.backward()
        results.append((loss.item(), {name: value.item() for name, value in stats.items()}, leaf.grad.tolist()))
    assert results[0] == results[1]
