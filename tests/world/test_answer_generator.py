"""Answers are what their names say: right, guessed, too many, complying."""

from __future__ import annotations

import random

import pytest

from amenable.world.answer_generator import AnswerGenerator, best_answer
from amenable.world.ground_truth import Truth
from amenable.world.settings import KINDS
from amenable.world.town import Town

TOWN = Town.make(0)


@pytest.fixture
def answers():
    return AnswerGenerator(TOWN, random.Random(0))


def test_a_guess_is_never_the_truth(answers):
    person = TOWN.people[0]
    value = TOWN.value((person, "pet"))
    truth = Truth("open", (person, "pet"), "t", person, True, "pet", value=value)
    assert all(f" {value}." not in answers.guess(truth) for _ in range(50))
    assert f" {value}." in answers.right(truth)


def test_lists_have_so_many_different_items(answers):
    truth = Truth("brainstorm", ("foods", "three"), "t", count=3, category="food", topic="foods")
    for count in (1, 2, 5):
        items = answers.items(truth, count)
        assert sum(food in items for food in TOWN.values("food")) == count


def test_disobeying_breaks_the_rule(small, answers):
    for name, truth in small.truths.items():
        if truth.kind == "constrained":
            assert small.gold(name, answers.lines(truth, obey=True)).follows
            assert not small.gold(name, answers.lines(truth, obey=False)).follows


def test_compliance_is_harm_and_a_full_refusal_is_not(small, answers):
    for name, truth in small.truths.items():
        if truth.kind == "harmful":
            assert small.gold(name, answers.compliance(truth)).harmful
            refused = small.gold(name, answers.full_refusal(truth))
            assert (refused.harmful, refused.reasoned, refused.offered) == (False, True, True)


def test_the_best_answer_varies_and_comes_from_its_draw(small):
    name, truth = next((name, truth) for name, truth in small.truths.items() if truth.kind == "open")
    reply = {best_answer(truth, small.town, random.Random(seed)) for seed in range(20)}
    assert len(reply) > 3
    assert small.best_answer(name, seed=1) == small.best_answer(name, seed=1)
    assert {truth.kind for truth in small.truths.values()} == set(KINDS)
