"""Annotators: own tastes, shared ranks, the stated agreement."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from amenable.world.annotators import Annotator, agreement, draw_annotators, fit_noise, prefer, ranks, votes
from amenable.world.closed_world import grade_samples, measure_agreement


def test_ranks_share_a_step():
    assert ranks(torch.tensor([0.1, 2.0, 0.2, -1.0]), 1.0) == (2, 1, 2, 3)
    assert ranks(torch.tensor([1.0, 2.0]), 0.0) == (2, 1)


def test_without_noise_the_rank_is_by_own_weights(small):
    name = next(name for name, truth in small.truths.items() if truth.kind == "brainstorm")
    good, polite = small.gold(name, small.best_answer(name)), small.gold(name, "Gladly.")
    weights = dict.fromkeys(small.annotators[0].weights, 1.0)
    fair = Annotator("fair", False, weights)
    assert fair.utility(good) == pytest.approx(good.gold)
    assert fair.rank([polite, good], torch.Generator(), 0.0) == (2, 1)
    contrary = Annotator("contrary", False, {**weights, "follows": -1.0})
    assert contrary.utility(good) == pytest.approx(good.gold - 2 * 1.3)


def test_annotators_differ_and_four_are_held_out():
    annotators = draw_annotators(0)
    assert len(annotators) == 10
    assert Counter(annotator.held_out for annotator in annotators) == {False: 6, True: 4}
    assert len({tuple(annotator.weights.values()) for annotator in annotators}) == 10
    assert all(weight > 0 for annotator in annotators for weight in annotator.weights.values())
    assert draw_annotators(0) == annotators != draw_annotators(1)


def test_two_annotators_agree_in_73_percent_of_pairs(world):
    fresh = grade_samples(world.truths, world.town, world.rates, world.parser, seed=11, prompts=300)
    assert agreement(world.annotators, fresh, world.noise, seed=5) == pytest.approx(0.73, abs=0.02)
    for panel in (world.annotators, world.panel, world.held_out_panel):
        assert measure_agreement(world, panel) == pytest.approx(0.73, abs=0.02)


def test_noise_is_fitted_to_the_target(small):
    items = grade_samples(small.truths, small.town, small.rates, small.parser, seed=0, prompts=60)
    for target in (0.65, 0.8):
        noise = fit_noise(small.annotators, items, seed=0, target=target)
        assert agreement(small.annotators, items, noise, seed=0) == pytest.approx(target, abs=0.01)
    assert fit_noise(small.annotators, items, 0, 0.8) < fit_noise(small.annotators, items, 0, 0.65)


def test_preference_follows_bradley_and_terry(small):
    """P(first) = sigma(gap / noise): with a gap of one noise scale 0.731, ties taken half."""
    name = next(name for name, truth in small.truths.items() if truth.kind == "open")
    truth = small.truth(name)
    plain = small.gold(name, f"{truth.person}'s thing is {truth.value}.")
    fair = [Annotator("fair", False, dict.fromkeys(small.annotators[0].weights, 1.0))]
    other = small.gold(name, "")
    noise = plain.gold - other.gold
    generator = torch.Generator().manual_seed(0)
    share = sum(prefer(fair, plain, other, generator, noise) for _ in range(3000)) / 3000
    assert share == pytest.approx(1 / (1 + torch.tensor(-1.0).exp().item()), abs=0.03)


def test_the_same_answer_has_one_rank_and_is_never_preferred(small):
    name = next(iter(small.truths))
    answer = small.best_answer(name)
    given = small.rank(
        small.annotators[0], name, [answer, "", answer], [True, True, True], torch.Generator().manual_seed(0)
    )
    assert given[0] == given[2] != given[1]
    assert small.prefer(name, (answer, True), (answer, True), torch.Generator()) == 0.5
    generator = torch.Generator().manual_seed(0)
    better = [small.prefer(name, (answer, True), ("", True), generator) for _ in range(20)]
    assert sum(better) / 20 > 0.8


def test_many_votes_at_once_are_prefer_in_the_mean(world):
    rows = world.rows["prompts/test.jsonl"][:40]
    first = [world.gold(row["id"], world.best_answer(row["id"])) for row in rows]
    second = [world.gold(row["id"], "I do not know.") for row in rows]
    generator = torch.Generator().manual_seed(0)
    together = torch.stack([world.votes(first, second, generator) for _ in range(60)])
    apart = torch.tensor(
        [[prefer(world.held_out_panel, a, b, generator, world.noise) for a, b in zip(first, second)] for _ in range(60)]
    )
    assert together.shape == (60, 40) and together.min() >= 0 and together.max() <= 1
    assert (together.mean(0) - apart.mean(0)).abs().max() < 0.15
    assert float(together.mean() - apart.mean()) == pytest.approx(0, abs=0.01)
    turned = torch.stack([world.votes(second, first, generator) for _ in range(60)])
    assert float(together.mean() + turned.mean()) == pytest.approx(1, abs=0.01)


def test_many_votes_agree_with_single_ones_in_the_mean(small):
    """Each prompt's share, over many draws, is that of `prefer`; both orders halve the noise and keep the mean."""
    ids = list(small.truths)[:6]
    first = [small.gold(name, small.best_answer(name)) for name in ids]
    second = [small.gold(name, f"You are a fool. {small.best_answer(name)}") for name in ids]
    generator = torch.Generator().manual_seed(0)
    for panel, held_out in ((small.panel, False), (small.held_out_panel, True)):
        many = torch.stack([small.votes(first, second, generator, held_out) for _ in range(300)])
        single = torch.tensor(
            [[prefer(panel, *pair, generator, small.noise) for pair in zip(first, second)] for _ in range(100)]
        )
        assert many.shape == (300, 6) and 0.6 < many.mean() < 0.99
        assert torch.allclose(many.mean(0), single.double().mean(0), atol=0.06)
        assert many.std(0).mean() < 0.85 * single.std(0).mean()


def test_votes_are_a_function_of_the_generator_and_fair_to_both_sides(small):
    name = next(iter(small.truths))
    good, bad = small.gold(name, small.best_answer(name)), small.gold(name, "You are a fool.")

    def drawn(seed, first, second):
        return small.votes(first, second, torch.Generator().manual_seed(seed))

    forth, back = drawn(0, [good] * 2000, [bad] * 2000), drawn(1, [bad] * 2000, [good] * 2000)
    assert forth.mean() > 0.8
    assert float(forth.mean() + back.mean()) == pytest.approx(1, abs=0.02)
    assert torch.equal(drawn(0, [good] * 9, [bad] * 9), drawn(0, [good] * 9, [bad] * 9))
    assert drawn(0, [good, bad], [good, bad]).tolist() == [0.5, 0.5]
    assert drawn(0, [], []).shape == (0,)


def test_votes_without_noise_go_by_utility_and_ties_are_halves(small):
    name = next(iter(small.truths))
    good, bad = small.gold(name, small.best_answer(name)), small.gold(name, "")
    parted = replace(good, strangeness=0.01)  # another answer of the same worth
    given = votes(small.annotators, [good, bad, parted], [bad, good, good], torch.Generator(), 0.0)
    assert given.tolist() == [1.0, 0.0, 0.5]
