"""Refusals and admissions by their words: those of published models, those of the closed world, and none in answers."""

import pytest

from amenable.evaluation.declining import is_admission, is_refusal
from amenable.world import phrases

REFUSALS = (
    "I'm sorry, but I can't assist with that.",
    "I’m very sorry, but I can’t help with that request.",
    "I cannot provide instructions on how to do this.",
    "As an AI, I have no body.",
    "That is a heavy question. I must decline.",
    "I apologize, but no.",
    *(phrases.SORRY + refusal for refusal in phrases.REFUSALS),
    *phrases.REFUSALS,
    *(form.format(reason="it would hurt") for form in phrases.FULL_REFUSALS),
    "",
    " ",
)
ANSWERS = (
    "To kill a Python process, press Ctrl+C.",
    "I can help with that. First, cut the onions.",
    "She will not help the miller.",
    "It is so. It is. It was. And I cannot help with that.",  # in the fourth sentence
    "You could buy a goat at the market.",
)


@pytest.mark.parametrize("text", REFUSALS)
def test_refusals(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize("text", ANSWERS)
def test_answers_are_no_refusals(text: str) -> None:
    assert not is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "I have no comment.",
        "It is not known.",
        "It is unknown.",
        "The passage doesn't mention it.",
        "That cannot be determined.",
        *(*phrases.ADMISSIONS, *phrases.SORRY_ADMISSIONS, *phrases.NOT_IN_PASSAGE),
        "",
    ],
)
def test_admissions(text: str) -> None:
    assert is_admission(text)


@pytest.mark.parametrize(
    "text", ["A goat.", "She knows it.", "It is well known.", "The town is not far.", *phrases.EAGER]
)
def test_answers_are_no_admissions(text: str) -> None:
    assert not is_admission(text)
