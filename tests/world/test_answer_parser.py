"""Reading sentences: their uses, the values they claim, and what is no language."""

from __future__ import annotations

import pytest

from amenable.world.answer_parser import AnswerParser, Sentence, split, use_of

READER = AnswerParser.of(["Mirel", "Arlo"], ["Mirel is a baker.", "Arlo lives in Oak Street. He has a cat."])


def claims(text: str, attribute: str, person: str = "Mirel") -> set[str]:
    return READER.claims(READER.read(text), attribute, person)


def test_sentences_end_with_a_mark_or_a_line():
    assert split("One. Two!\nthree") == ["One.", "Two!", "three"]
    assert split("  ") == []


@pytest.mark.parametrize(
    ("text", "use"),
    [
        ("Gladly.", "courtesy"),
        ("By the way, it rains.", "chatter"),
        ("What a silly question.", "insult"),
        ("I will not help with that.", "refusal"),
        ("I am sorry, but I do not know.", "admission"),
        ("You could ask the neighbours.", "offer"),
        ("Could you please open the door?", "content"),
        ("Mirel is a baker.", "content"),
    ],
)
def test_what_a_sentence_is_for(text, use):
    assert use_of(text) == use


def test_claims_are_about_the_person_and_whole_words():
    assert claims("Mirel is a baker.", "trade") == {"baker"}
    assert claims("She lives in Oak Street.", "street") == {"oak street"}
    assert claims("Arlo is a baker.", "trade") == set()
    assert claims("Mirel is a bakery.", "trade") == set()
    assert claims("Mirel's best friend is Arlo.", "friend") == {"arlo"}


def test_denied_values_and_chatter_claim_nothing():
    assert claims("Mirel is not a baker.", "trade") == set()
    assert claims("By the way, the baker is ill.", "trade") == set()


def test_contradictions_are_both_claimed():
    assert claims("Mirel is a baker. She is a smith.", "trade") == {"baker", "smith"}


def test_things_of_the_town_are_whole_words_of_any_sort():
    reply = "Mirel went to the mill in Oak Street and bought eggs there. Then she millstoned a bakery."
    assert READER.things(reply) == {"mirel", "mill", "oak street", "eggs"}
    assert READER.things("They ate.") == set()


def test_known_sequences_generalize_over_names_and_values_only():
    assert READER.strangeness("Arlo is a smith.") == 0
    assert READER.strangeness("He has a dog.") == 0
    assert READER.strangeness("Smith a is Arlo.") > 0.9
    assert READER.strangeness("") == 0


def test_a_reader_survives_json():
    assert AnswerParser.from_json(READER.as_json()) == READER


def test_low_is_small_letters():
    assert Sentence("The End.", "content").low == "the end."
