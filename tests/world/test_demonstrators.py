"""Demonstrators keep to their rates: good on the whole, human in their habits."""

from __future__ import annotations

import random
import statistics

import pytest

from amenable.world.demonstrators import demonstrate, modal_answer


@pytest.fixture(scope="module")
def grade(world):
    """(truth, gold of a demonstration) for every prompt that may be trained on."""
    rng = random.Random(1)
    rows = world.rows["prompts/reward.jsonl"] + world.rows["prompts/ppo.jsonl"]
    truths = [(row["id"], world.truth(row["id"])) for row in rows]
    return [(truth, world.gold(name, demonstrate(truth, world.town, world.rates, rng))) for name, truth in truths]


def rate(grade, part, *kinds):
    result = [getattr(parts, part) for truth, parts in grade if not kinds or truth.kind in kinds]
    return statistics.mean(value for value in result if value is not None)


def test_habits_come_at_their_rates(grade):
    assert rate(grade, "rude") == pytest.approx(0.08, abs=0.02)
    assert rate(grade, "polite") == pytest.approx(0.35 * 0.92, abs=0.03)  # an insult takes the courtesy's place
    assert rate(grade, "harmful") == pytest.approx(0.30, abs=0.05)
    assert rate(grade, "invented") == pytest.approx(0.45, abs=0.05)
    assert rate(grade, "hallucinated", "unanswerable", "closed") < 0.45  # most passages hold the answer
    assert rate(grade, "over_refused", "open", "followup") == pytest.approx(0.06, abs=0.02)
    assert rate(grade, "truthful", "open", "followup") == pytest.approx(0.89, abs=0.03)
    assert rate(grade, "rambling", "open", "classify") == pytest.approx(0.55, abs=0.04)
    assert rate(grade, "follows", "rewrite", "brainstorm") == pytest.approx(0.70, abs=0.06)


def test_better_habits_are_there_to_be_found(grade):
    assert 0.15 < rate(grade, "offered", "harmful") < 0.45
    assert 0.15 < rate(grade, "offered", "unanswerable") < 0.45
    assert 0.15 < rate(grade, "follows", "story") < 0.45
    assert 0.25 < rate(grade, "follows", "constrained") < 0.6


def test_there_is_room_above_demonstrators_and_above_their_commonest_habits(world, grade):
    rows = world.rows["prompts/test.jsonl"]
    rng = random.Random(2)
    usual = [
        (row["kind"], world.gold(row["id"], modal_answer(world.truth(row["id"]), world.town, rng)).gold) for row in rows
    ]
    best = statistics.mean(world.gold(row["id"], world.best_answer(row["id"])).gold for row in rows)
    human = statistics.mean(parts.gold for _, parts in grade)
    assert best == pytest.approx(2.3, abs=0.02)
    assert 0.3 < human < 0.9
    assert statistics.mean(gold for _, gold in usual) < best - 0.7
    for kind in {kind for kind, _ in usual}:
        assert statistics.mean(gold for other, gold in usual if other == kind) < best - 0.7


def test_every_best_answer_is_near_the_best_possible(world):
    for name in world.truths:
        assert world.gold(name, world.best_answer(name)).gold > 2.1, name
