"""Claims of answers against a passage, by hand."""

import pytest

from amenable.evaluation.grounding import names_of, sentences, stem, unsupported_claims

PASSAGE = "Ann Lee keeps a goat. In 1850 she sold 1,200 plums, which cost 3.5 crowns, in Mill Lane."
QUESTION = "What does Ann Lee keep?"


@pytest.mark.parametrize(
    "answer",
    [
        "A goat.",
        "Gladly. Ann keeps a goat.",
        "She keeps a goat, and sold 1200 plums in 1850.",
        "The plums cost 3.5 crowns.",
        "I hope this helps. Have a nice day!",
        "The passage does not say it.",
        "",
        "What does Ann Lee keep?",
    ],
)
def test_supported(answer: str) -> None:
    assert unsupported_claims(answer, PASSAGE, QUESTION) == []


@pytest.mark.parametrize(
    ("answer", "claims"),
    [
        ("A pig.", ["A pig."]),  # a word
        ("She keeps a goat. It was in 1851.", ["It was in 1851."]),  # a number
        ("She keeps three goats.", ["She keeps three goats."]),  # a number in words
        ("Ann keeps a goat in Oak Lane.", ["Ann keeps a goat in Oak Lane."]),  # a name
        ("A goat! She loves music and dancing.", ["She loves music and dancing."]),
    ],
)
def test_unsupported(answer: str, claims: list[str]) -> None:
    assert unsupported_claims(answer, PASSAGE, QUESTION) == claims


def test_sentences_and_names() -> None:
    assert sentences("It cost 3.5 crowns. Yes!\nThat is all") == ["It cost 3.5 crowns.", "Yes!", "That is all"]
    assert names_of("Ann Lee met Bo. Goats eat.") == {"ann", "lee", "bo"}, "the first word alone may be any"
    assert [stem(word) for word in ("Ann's", "goats", "glass", "is", "bus")] == ["ann", "goat", "glass", "is", "bus"]
