"""Ends of sentences."""

import pytest

from amenable.text.sentences import sentence_ends


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("It rains. Take a hat.", "It rains."),
        ('He said "go!" And she went.', 'He said "go!"'),
        ("Mr. Hill paid 3.50 for it. He left.", "Mr. Hill paid 3.50 for it."),
        ("It rains.", "It rains."),
        ("No end in", ""),
        ("", ""),
    ],
)
def test_the_first_sentence(text: str, first: str) -> None:
    ends = sentence_ends(text)
    assert (text[: ends[0]] if ends else "") == first


def test_a_sentence_ends_after_its_last_sign() -> None:
    assert sentence_ends("Why?! (So.) Dr. Bell left") == [5, 11]
