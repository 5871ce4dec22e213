"""Texts of a task as rows of ids, each of which ends in the token that a classifier reads.

    classification     start text extract
    entailment         start premise delimiter hypothesis extract
    similarity         start first delimiter second extract,  and the same of second and first
    multiple-choice    start context delimiter choice extract,  for each choice

Start, delimiter and extract are special tokens, which no text can spell. Radford et al. (2018, section 3.3, figure 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from amenable.text.tokenizer import Tokenizer

Task = Literal["classification", "entailment", "similarity", "multiple-choice"]
START, DELIMITER, EXTRACT = "<|task_start|>", "<|task_delimiter|>", "<|task_extract|>"
TASK_TOKENS = (START, DELIMITER, EXTRACT)


def task_rows(tokenizer: Tokenizer, task: Task, texts: Sequence[str]) -> list[list[int]]:
    """Return the rows of ids of a task's texts: one text, two of them, or a context and its choices. The tokenizer has
    TASK_TOKENS (`Tokenizer.with_tokens`)."""
    start, delimiter, extract = tokenizer.encode_with_special_tokens("".join(TASK_TOKENS))
    first, *others = [tokenizer.encode(text, "special") for text in texts]
    if task == "classification":
        return [[start, *first, extract]]
    pairs = [(first, other) for other in others]
    if task == "similarity":
        pairs += [(other, first) for other in others]
    return [[start, *a, delimiter, *b, extract] for a, b in pairs]
