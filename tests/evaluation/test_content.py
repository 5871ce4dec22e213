"""Words that an answer adds, and how many of them a person wrote too."""

import pytest

from amenable.evaluation.content import gain_at_equal_length, precision, repetition, word_f1, words_of, yes_or_no

PROMPT, REFERENCE = "What causes tides?", "The gravity of the moon and, less, of the sun."


def test_words_are_compared_in_lower_case_without_signs() -> None:
    assert words_of("The MOON's pull, it's_big: 2 tides!") == ["the", "moon's", "pull", "it's", "big", "2", "tides"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The moon.", 1.0),
        ("Tides are caused by the moon and wind.", 1 / 3),  # caused, moon, wind: neither `tides` nor function words
        ("Tides, what causes the tides.", 0.0),
        ("", 0.0),
        ("Moon moon cheese.", 2 / 3),
    ],
)
def test_precision_is_the_share_of_new_words_in_the_reference(answer: str, expected: float) -> None:
    assert precision(words_of(answer), PROMPT, REFERENCE) == pytest.approx(expected)


def test_a_baseline_is_cut_to_as_many_words() -> None:
    baseline = "Moon gravity. Cheese, cheese, cheese, cheese."
    assert gain_at_equal_length("Sun gravity.", baseline, PROMPT, REFERENCE) == 0.0
    assert gain_at_equal_length("Wind gravity.", baseline, PROMPT, REFERENCE) == -0.5
    assert gain_at_equal_length("Sun, moon, gravity, sun.", baseline, PROMPT, REFERENCE) == 0.5


def test_only_the_first_word_says_yes_or_no() -> None:
    assert [yes_or_no(text) for text in ("Yes, it is.", "no", "It does, yes.", "Nothing", "")] == [
        "yes",
        "no",
        None,
        None,
        None,
    ]


def test_f1_of_words_by_hand() -> None:
    assert word_f1("A goat, a cow.", "a COW") == pytest.approx(2 * 2 / 6)  # a and cow, each once
    assert word_f1("one", "two") == 0.0 and word_f1("", "!") == 1.0 and word_f1("", "one") == 0.0


def test_repetition_is_the_share_of_ngrams_that_come_again() -> None:
    assert repetition("a b c d e f") == 0.0 == repetition("a b c")
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)  # abcd bcda cdab dabc abcd
    assert repetition("no no no no no no") == pytest.approx(2 / 3)
    assert repetition("a b a b", n=2) == pytest.approx(1 / 3)
