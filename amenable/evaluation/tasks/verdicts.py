"""Yes or no of a judge that is a model, on answers to the rows of a test."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from amenable.rewards.model_judge import ModelJudge

ENDING = 'End with one line that is "Verdict: yes" or "Verdict: no".'
VERDICT = re.compile(r"verdict\W*(yes|no)\b", re.IGNORECASE)
ALONE = re.compile(r"\W*(yes|no)\W*", re.IGNORECASE)


def verdicts(judge: ModelJudge | None, questions: Sequence[str]) -> list[bool | None]:
    """Return the judge's verdict on each question, None where it gives none, or where there is no judge."""
    if judge is None:
        return [None] * len(questions)

    def verdict(question: str) -> bool | None:
        value = judge.query(f"{question} {ENDING}", read_yes_or_no, ENDING)
        return None if value is None else bool(value)

    with ThreadPoolExecutor(judge.workers) as pool:
        return list(pool.map(verdict, questions))


def clear(judge: ModelJudge | None, values: Sequence[bool | None]) -> list[bool | None]:
    """Return whether the judge gave each verdict; None for each where there is no judge."""
    return [None if judge is None else value is not None for value in values]


def read_yes_or_no(text: str) -> float | None:
    """Return 1 for the last verdict of yes in a text, 0 for no, None where there is no verdict."""
    words = VERDICT.findall(text)
    alone = ALONE.fullmatch(text.strip())
    if not words and alone is None:
        return None
    return float((words[-1] if words else alone[1] if alone else "").lower() == "yes")
