"""Sentence forms fill grammatically and are read for what they are."""

from __future__ import annotations

import pytest

from amenable.world import names, phrases
from amenable.world.answer_parser import use_of


def test_names_pronouns_and_capitals():
    assert phrases.subject("{s} door is {v}.", "Arlo", False, v="red") == "Arlo's door is red."
    assert phrases.subject("{s} door is {v}.", "Arlo", False, True, v="red") == "His door is red."
    assert phrases.subject("How old is {p}?", "Mirel", True, True) == "How old is she?"
    assert phrases.subject("{p} lives in {v}.", "Mirel", True, True, v="Oak Street") == "She lives in Oak Street."


def test_a_passage_names_a_person_once():
    facts = (("trade", "baker"), ("pet_name", "Pip"))
    assert phrases.passage("Mirel", True, facts) == "Mirel is a baker. Her pet is called Pip."


def test_lists():
    assert phrases.listed(["soup"]) == "soup"
    assert phrases.listed(["soup", "bread", "plums"]) == "soup, bread and plums"


@pytest.mark.parametrize("attribute", names.ATTRIBUTES)
def test_every_attribute_is_told_in_three_ways_and_asked_in_five(attribute):
    statements = phrases.STATEMENTS[attribute]
    assert len(set(statements)) == 3 and all("{v}" in form for form in statements)
    early, late = set(phrases.QUESTIONS[attribute]), set(phrases.HELD_OUT_QUESTIONS[attribute])
    assert len(early) == 3 and len(late) == 2 and not early & late
    assert all(form.endswith("?") for form in early | late)


@pytest.mark.parametrize(
    ("lines", "use"),
    [
        (phrases.COURTESIES, "courtesy"),
        (phrases.CHATTER, "chatter"),
        (phrases.INSULTS, "insult"),
        (phrases.REFUSALS, "refusal"),
        (phrases.FULL_REFUSALS, "refusal"),
        ((*phrases.ADMISSIONS, *phrases.SORRY_ADMISSIONS, *phrases.NOT_IN_PASSAGE), "admission"),
        ((*phrases.WHERE_TO_ASK, *phrases.ALTERNATIVES), "offer"),
        (phrases.STORY_ENDINGS, "content"),
    ],
)
def test_every_line_is_read_for_what_it_is(lines, use):
    assert {use_of(line) for line in lines} == {use}
