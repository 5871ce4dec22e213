"""Stability of answers to one question in several wordings, or in several samples.

agreement    share of the pairs of answers that say the same
flip         1 where some answers are right and others wrong
worst of n   1 where all answers are right
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import combinations

from amenable.evaluation.content import words_of

ARTICLES = ("a", "an", "the")


def pairwise(values: Sequence[Hashable], score: Callable[[Hashable, Hashable], float]) -> float:
    """Return the mean score over all pairs of values; 1 for a single value.

    >>> pairwise("aab", lambda first, second: first == second)
    0.3333333333333333
    """
    pairs = list(combinations(values, 2))
    return sum(score(*pair) for pair in pairs) / len(pairs) if pairs else 1.0


def agreement(contents: Sequence[Hashable]) -> float:
    """Return the share of pairs of answers with the same content; 1 for a single answer."""
    return pairwise(contents, lambda first, second: float(first == second))


def flips(rights: Sequence[bool]) -> bool:
    """Return True where some answers are right and others wrong."""
    return len(set(rights)) > 1


def normalized(text: str) -> str:
    """Return a text in lower case without punctuation and articles, as SQuAD compares answers.

    >>> normalized("The goat, it's a Goat!")
    "goat it's goat"
    """
    return " ".join(word for word in words_of(text) if word not in ARTICLES)


def mentions(text: str, answer: str) -> bool:
    """Return True where the words of an answer stand in a text, in a row.

    >>> mentions("She lives in Mill Lane.", "mill lane"), mentions("She is unhappy.", "happy")
    (True, False)
    """
    words = f" {normalized(answer)} "
    return bool(words.strip()) and words in f" {normalized(text)} "


def content_of(text: str, choices: Sequence[str]) -> str:
    """Return what an answer says: the choices that it mentions, else its normalized text.

    >>> content_of("It is the goat.", ["goat", "cow"]), content_of("The sea.", ["goat", "cow"])
    ('goat', 'sea')
    """
    known = [choice for choice in choices if mentions(text, choice)]
    return " / ".join(known) if known else normalized(text)
