"""Agreement of several answers, and what they say, by hand."""

import pytest

from amenable.evaluation.stability import agreement, content_of, flips, mentions, normalized, pairwise


def test_agreement_by_hand() -> None:
    assert agreement(["goat", "goat", "cow"]) == pytest.approx(1 / 3)
    assert agreement(["goat"] * 4) == 1.0 == agreement(["goat"])
    assert agreement(["a", "a", "b", "b"]) == pytest.approx(2 / 6)
    assert pairwise([1, 2, 4], lambda a, b: float(a) * float(b)) == pytest.approx((2 + 4 + 8) / 3)  # type: ignore[arg-type]


def test_flips_are_between_right_and_wrong() -> None:
    assert flips([True, False, True])
    assert not flips([True, True]) and not flips([False]) and not flips([])


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("She lives in Mill Lane.", "mill lane", True),
        ("Mill Road and Oak Lane", "Mill Lane", False),
        ("She is unhappy.", "happy", False),
        ("It's a goat!", "The goat", True),
        ("anything", "the", False),
        ("", "goat", False),
    ],
)
def test_an_answer_is_mentioned_as_whole_words_in_a_row(text: str, answer: str, expected: bool) -> None:
    assert mentions(text, answer) is expected


def test_content_is_the_choice_or_the_words() -> None:
    assert normalized("The goat, it's a Goat!") == "goat it's goat"
    assert content_of("It is the goat.", ["goat", "cow"]) == content_of("A goat", ["goat", "cow"]) == "goat"
    assert content_of("A goat or a cow", ["cow", "goat"]) == "cow / goat"
    assert content_of("The sea.", ["goat"]) == content_of("sea", []) == "sea"
