"""Contamination: rows of tests that share words in a row with training files (Brown et al., 2020, appendix C).

Words are compared in lower case without punctuation. A row is contaminated if any 13 words in a row of it, or all of it
where it has 8 to 12, stand in a training file; shorter rows are not compared.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from amenable.data.readers import iter_rows, list_files

LONGEST, SHORTEST = 13, 8
WORD = re.compile(r"\w+")


def contaminated(texts: Sequence[str], files: Sequence[Path]) -> list[bool]:
    """Return for each text of a test whether it overlaps with any row of the training files, which are streamed."""
    owners = defaultdict[int, list[int]](list)
    lengths = set[int]()
    for number, text in enumerate(texts):
        words = words_of(text)
        length = min(len(words), LONGEST)
        if length >= SHORTEST:
            lengths.add(length)
            for gram in grams(words, length):
                owners[gram].append(number)
    hits = set[int]()
    for file in list_files([*files]):
        for _, row in iter_rows(file, None):
            for text in strings(row):
                words = words_of(text)
                for length in lengths:
                    hits.update(number for gram in grams(words, length) for number in owners.get(gram, ()))
    return [number in hits for number in range(len(texts))]


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case."""
    return WORD.findall(text.lower())


def grams(words: Sequence[str], length: int) -> Iterator[int]:
    """Yield a hash of every `length` words in a row."""
    return (hash(tuple(words[i : i + length])) for i in range(len(words) - length + 1))


def strings(value: Any) -> Iterator[str]:
    """Yield the texts in a row, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from strings(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from strings(part)
