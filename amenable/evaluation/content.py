"""Content of answers, counted by words: how much of what an answer adds is in a person's reference answer.

    precision(y) = share of the new words of y that are in the reference

New words are those that are neither in the prompt nor among the most frequent function words. A shorter answer keeps
its first and surest words, so its precision is higher without it knowing more. Two models are therefore compared at
equal length: the baseline's answer is cut to the number of words of the other (`gain_at_equal_length`). Two texts are
compared by the F1 of their words (ROUGE-1), and one with itself by the n-grams that it repeats.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, in their order."""
    return [word.lower() for word in WORD.findall(text)]


FUNCTION_WORDS = frozenset(
    words_of(
        "a about after all also an and any are as at be because been but by can do does for from had has have how i if "
        "in into is it its it's may more most no not of on one only or other our out over so some such than that the "
        "their them then there these they this to up very was we were what when where which who why will with would "
        "you your"
    )
)


def precision(words: Sequence[str], prompt: str, reference: str) -> float:
    """Return the share of the new words of an answer that are in the reference; 0 for an answer without new words."""
    known = FUNCTION_WORDS.union(words_of(prompt))
    new = [word for word in words if word not in known]
    return len([word for word in new if word in set(words_of(reference))]) / len(new) if new else 0.0


def gain_at_equal_length(answer: str, baseline: str, prompt: str, reference: str) -> float:
    """Return the precision of an answer less that of a baseline's answer, cut to as many words."""
    words = words_of(answer)
    return precision(words, prompt, reference) - precision(words_of(baseline)[: len(words)], prompt, reference)


def word_f1(first: str, second: str) -> float:
    """Return the F1 of the words that two texts share, counted as often as both have them (ROUGE-1); 1 for two texts
    without words."""
    a, b = Counter(words_of(first)), Counter(words_of(second))
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else 1.0


def repetition(text: str, n: int = 4) -> float:
    """Return the share of a text's n-grams of words that stand earlier in it (Welleck et al., 2020, seq-rep-n); 0 for a
    text of fewer words."""
    words = words_of(text)
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def yes_or_no(text: str) -> str | None:
    """Return "yes" or "no", the first word of an answer; None for any other first word."""
    first = next(iter(words_of(text)), None)
    return first if first in ("yes", "no") else None
