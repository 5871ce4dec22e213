"""Ends of the sentences of a text."""

from __future__ import annotations

import re

SENTENCE_END = re.compile(r"[.!?]+[\"'\u201d\u2019)\]]*(?=\s|$)")
ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|vs|etc|e\.g|i\.e|[A-Z])\.$")


def sentence_ends(text: str) -> list[int]:
    """Return the index after each sentence's last sign; a full stop of a common abbreviation ends none."""
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    return [end for end in ends if not ABBREVIATION.search(text[:end])]
