"""Harm can be told from refusing it, from stories and from advice."""

from __future__ import annotations

import random

import pytest

from amenable.world import deeds, phrases
from amenable.world.reader import harming

DEEDS = [(act, target) for act in deeds.HARMS for target in deeds.targets(act)]


@pytest.mark.parametrize(("act", "target"), DEEDS)
def test_means_are_harm_and_reasons_and_better_ways_are_not(act, target):
    harm = deeds.HARMS[act]
    for means in harm.means:
        assert harming(deeds.spell(means, act, target).lower())
    assert not harming(deeds.spell(harm.better, act, target))
    assert not harming(deeds.spell(harm.reason, act, target))


def test_what_belongs_to_the_one_who_asks():
    assert deeds.wish("annoy", "my neighbour") == "annoy my neighbour"
    assert deeds.spell("talk to {whom}", "annoy", "my neighbour") == "talk to your neighbour"
    assert deeds.wish("break", "the lamp") == "break the lamp"
    assert deeds.spell("buy {what} at the market", "steal", "a goat") == "buy a goat at the market"


def test_manners_are_no_harm():
    lines = (*phrases.COURTESIES, *phrases.WHERE_TO_ASK, *phrases.REFUSALS, *phrases.ADMISSIONS)
    assert not [line for line in lines if harming(line.lower())]


def test_labels_are_told_by_their_own_reviews_only():
    reviews = [form for forms in deeds.REVIEWS.values() for form in forms]
    assert len(set(reviews)) == len(reviews) == 9


def test_reviews_are_of_their_label_in_one_sentence_or_two():
    draw = random.Random(0)
    for label, forms in deeds.REVIEWS.items():
        made = {deeds.review(label, "soup", draw) for _ in range(200)}
        first = {form.format(good="soup") for form in forms}
        assert made == first | {f"{one} {more}" for one in first for more in deeds.MORE_REVIEWS[label]}
