"""Labels in published comparisons of two models (`data/model_comparisons.py`): rankings of their answers, ties too."""

from __future__ import annotations

from collections.abc import Iterator

from amenable.data.model_comparisons import compared
from amenable.data.rankings import from_scores
from amenable.data.record import Record
from amenable.data.types import Ranking
from amenable.feedback.formats import Label, attempt, make_ranking
from amenable.feedback.hints import Hints


def comparison_labels(row: Record, id: str, hints: Hints) -> Iterator[Label]:
    """Yield the comparison as a ranking of two answers, with `models` in its meta."""
    yield attempt(ranking_of, row, row.id(str(row.get("question_id", id))))


def ranking_of(row: Record, id: str) -> Ranking:
    """Return a ranking of both answers. Raises `InvalidRow` where the row does not compare two answers."""
    prompt, answers, verdict = compared(row)
    ranks = from_scores([verdict.score, 1 - verdict.score])
    about = {"models": list(verdict.models), "both_bad": verdict.both_bad or None}
    about |= {"preference": row["preference"]} if "preference" in row else {}
    others = {name: row[name] for name in row.rest()}
    return make_ranking(prompt, answers, ranks, id, verdict.annotator, {**others, **about})
