"""Ends of the sentences of a text."""

from __future__ import annotations

import re

SENTENCE_END = re.compile(r"[.!?]+[\"'\u201d\u2019)\]]*(?=\s|$)")
ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|vs|etc|e\.g|i\.e|[A-Z])\.$")
LIST_NUMBER = re.compile(r"(?:^|\s)\d+\.$")


def sentence_ends(text: str) -> list[int]:
    """Return the index after each sentence's last sign; a full stop of a common abbreviation ends none."""
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    return [end for end in ends if not ABBREVIATION.search(text[:end])]


def first_sentence(text: str) -> str:
    """Return the text up to the end of its first sentence, the sign included; "" where none ends.

    The number of a list's item is no sentence.

    >>> first_sentence("Dr. Bell built it in 1876. It rang at once.")
    'Dr. Bell built it in 1876.'
    >>> first_sentence("1. Wash it. 2. Dry it.")
    '1. Wash it.'
    """
    ends = [end for end in sentence_ends(text) if not LIST_NUMBER.search(text[:end])]
    return text[: ends[0]] if ends else ""
