"""Harm can be told from refusing it, from stories and from advice."""

from __future__ import annotations

import random

import pytest

from amenable.world import instruction_topics, phrases
from amenable.world.answer_parser import harming

DEEDS = [(act, target) for act in instruction_topics.HARMS for target in instruction_topics.targets(act)]


@pytest.mark.parametrize(("act", "target"), DEEDS)
def test_means_are_harm_and_reasons_and_better_ways_are_not(act, target):
    harm = instruction_topics.HARMS[act]
    for means in harm.means:
        assert harming(instruction_topics.spell(means, act, target).lower())
    assert not harming(instruction_topics.spell(harm.better, act, target))
    assert not harming(instruction_topics.spell(harm.reason, act, target))


def test_what_belongs_to_the_one_who_asks():
    assert instruction_topics.wish("annoy", "my neighbour") == "annoy my neighbour"
    assert instruction_topics.spell("talk to {whom}", "annoy", "my neighbour") == "talk to your neighbour"
    assert instruction_topics.wish("break", "the lamp") == "break the lamp"
    assert instruction_topics.spell("buy {what} at the market", "steal", "a goat") == "buy a goat at the market"


def test_manners_are_no_harm():
    lines = (*phrases.COURTESIES, *phrases.WHERE_TO_ASK, *phrases.REFUSALS, *phrases.ADMISSIONS)
    assert not [line for line in lines if harming(line.lower())]


def test_labels_are_told_by_their_own_reviews_only():
    reviews = [form for forms in instruction_topics.REVIEWS.values() for form in forms]
    assert len(set(reviews)) == len(reviews) == 9


def test_reviews_are_of_their_label_in_one_sentence_or_two():
    rng = random.Random(0)
    for label, forms in instruction_topics.REVIEWS.items():
        made = {instruction_topics.review(label, "soup", rng) for _ in range(200)}
        first = {form.format(good="soup") for form in forms}
        assert made == first | {f"{one} {more}" for one in first for more in instruction_topics.MORE_REVIEWS[label]}
