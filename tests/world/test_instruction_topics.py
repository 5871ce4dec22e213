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
        assert harming(instruction_topics.reply(means, target).lower())
    assert not harming(instruction_topics.reply(harm.better, target))
    assert not harming(instruction_topics.reply(harm.reason, target))


def test_what_belongs_to_the_customer_is_yours_in_a_reply():
    assert instruction_topics.reply("talk to {target}", "my neighbour") == "talk to your neighbour"
    assert instruction_topics.reply("buy {target} at the market", "a goat") == "buy a goat at the market"


def test_a_day_has_three_sentences():
    day = instruction_topics.day("Runa", True, "went to the mill", "bought soup there", "It rained a little.")
    assert day == "Runa went to the mill. She bought soup there. It rained a little."
    day = instruction_topics.day("Marn", False, "met a friend at the well", "they ate nuts", "It was a warm day.")
    assert day == "Marn met a friend at the well. They ate nuts. It was a warm day."


def test_manners_are_no_harm():
    lines = (*phrases.COURTESIES, *phrases.WHERE_TO_ASK, *phrases.REFUSALS, *phrases.ADMISSIONS)
    assert not [line for line in lines if harming(line.lower())]


def test_labels_are_told_by_their_own_reviews_only():
    reviews = [form for forms in instruction_topics.REVIEWS.values() for form in forms]
    assert len(set(reviews)) == len(reviews) == 9


def test_reviews_are_of_their_label_in_one_sentence_or_two():
    rng = random.Random(0)
    for label, forms in instruction_topics.REVIEWS.items():
        built = {instruction_topics.review(label, "soup", rng) for _ in range(200)}
        first = {form.format(good="soup") for form in forms}
        assert built == first | {f"{one} {more}" for one in first for more in instruction_topics.MORE_REVIEWS[label]}
