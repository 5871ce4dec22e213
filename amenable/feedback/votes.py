"""What was said of two models' answers, from wherever it was said, as bouts that ratings are made of.

    vote       somebody's in the arena: two conversations side by side, and which was better
    ranking    of answers whose models are known: every pair of two models is a bout (people's, a judge's).
               What is said of a text that several models gave is said of each of them
    a file     rows of rankings with `models`, or comparisons as others publish them (published.py)

Bouts of one vote or one ranking share a group: they are not independent, and a bootstrap draws them together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from amenable.data import sources
from amenable.data.files import row_location
from amenable.data.record import InvalidRow, Record, is_number, kind
from amenable.data.types import Conversation
from amenable.errors import InputError
from amenable.feedback.export_import import TESTS
from amenable.feedback.formats import name_of
from amenable.feedback.published import dialogues, is_comparison, verdict_of
from amenable.feedback.ratings import Battle
from amenable.feedback.store import Event, Store

Kind = Literal["arena", "rankings"]
KINDS: tuple[Kind, ...] = ("arena", "rankings")
Choice = Literal["left", "right", "tie", "both_bad"]
SCORES: dict[Choice, float] = {"left": 1.0, "right": 0.0, "tie": 0.5, "both_bad": 0.5}
"""what the left one gets"""
HOW = "give model_a, model_b, winner; or prompt, completions, ranking, models"


@dataclass(frozen=True)
class Bout:
    """Two models' answers to the same, and what `a` got: 1 won, 0 lost, one half tied."""

    a: str
    b: str
    score: float
    lengths: tuple[int, int] | None = None
    """characters that each wrote; None where that is not known"""
    both_bad: bool = False
    by: str = "?"
    group: str = ""
    """bouts of one name are of one vote or ranking; one without a name stands alone"""
    hashes: tuple[str, str] | None = None
    """of the models' weights; None where they are not known"""

    @property
    def battle(self) -> Battle:
        return Battle(self.a, self.b, self.score)


def bouts(store: Store, kinds: Sequence[Kind] = KINDS, annotators: Sequence[str] = ()) -> list[Bout]:
    """The bouts of a store, in the order in which they were kept; of these annotators alone where some are named."""
    votes = store.standing("vote")
    events = votes if "arena" in kinds else []
    events = events + store.standing("ranking") if "rankings" in kinds else events
    found = [bout for event in sorted(events, key=lambda event: event.id) for bout in bouts_of(event)]
    names = arena_names(votes)
    found = [replace(bout, a=names.get(bout.a, bout.a), b=names.get(bout.b, bout.b)) for bout in found]
    return [bout for bout in found if bout.a != bout.b and (not annotators or bout.by in annotators)]


def arena_names(votes: Sequence[Event]) -> dict[str, str]:
    """What the arena calls the model of a folder: rankings of sampled answers name the folder alone."""
    names: dict[str, set[str]] = {}
    for event in votes:
        for side, origin in event.payload["origins"].items():
            names.setdefault(origin["folder"], set()).add(event.payload["models"][side])
    return {folder: found.pop() for folder, found in names.items() if len(found) == 1}


def bouts_of(event: Event) -> Iterator[Bout]:
    """What one event says; nothing where it does not say who wrote the answers, or is about items of known order."""
    if event.kind == "vote":
        yield of_vote(event)
    elif event.payload.get("purpose") not in TESTS:
        payload = event.payload
        by = str(payload.get("annotator") or "?")
        completions, ranks = payload["completions"], payload["ranking"]
        yield from of_ranking(models_of(payload), completions, ranks, by, f"event {event.id}")


def of_vote(event: Event) -> Bout:
    """A vote in the arena; what each wrote is all its answers together."""
    payload, sides = event.payload, ("left", "right")
    left, right = (payload["models"][side] for side in sides)
    wrote = [sum(len(turn[side]) for turn in payload["turns"]) for side in sides]
    hashes = [payload["origins"][side]["sha256"] for side in sides]
    return Bout(
        left,
        right,
        SCORES[payload["vote"]],
        lengths=(wrote[0], wrote[1]),
        both_bad=payload["vote"] == "both_bad",
        by=payload["annotator"],
        group=f"event {event.id}",
        hashes=(hashes[0], hashes[1]),
    )


def models_of(payload: dict[str, Any]) -> list[tuple[str, ...]]:
    """Models of each answer of a ranking: several where they gave the same text, none where they are not named."""
    known = {**payload, **(payload.get("meta") or {})}
    first, others = known.get("models"), known.get("other_models")
    if not first:
        first = [source.get("model") for source in payload.get("sources") or []]
        others = [[source.get("model") for source in more] for more in payload.get("other_sources") or []]
    count = len(payload["completions"])
    if not isinstance(first, list) or len(first) != count:
        return [()] * count
    more = others if isinstance(others, list) and len(others) == count else [[]] * count
    names = [[name, *(rest if isinstance(rest, list) else [])] for name, rest in zip(first, more)]
    return [tuple(dict.fromkeys(filter(None, map(name_of, group)))) for group in names]


def model_columns(models: Sequence[Sequence[str]]) -> dict[str, Any]:
    """`models_of` as columns of a ranking: models, the first of each answer, and other_models where there are more."""
    first = [names[0] if names else None for names in models]
    others = [list(names[1:]) for names in models]
    return {"models": first, **({"other_models": others} if any(others) else {})}


def of_ranking(
    models: Sequence[Sequence[str]],
    completions: Sequence[str],
    ranks: Sequence[float],
    by: str,
    group: str,
) -> Iterator[Bout]:
    """Every pair of answers, and for each every two models that gave them; those of one text are not compared."""
    for i, j in combinations(range(len(ranks)), 2):
        score = 0.5 if ranks[i] == ranks[j] else float(ranks[i] < ranks[j])
        lengths = (len(completions[i]), len(completions[j]))
        yield from (Bout(a, b, score, lengths, by=by, group=group) for a in models[i] for b in models[j] if a != b)


def read_bouts(file: Path, annotators: Sequence[str] = ()) -> list[Bout]:
    """The bouts of a file of comparisons (.jsonl, .json, .parquet, .csv). InputError, with its place, for a bad row."""
    found: list[Bout] = []
    for number, row in sources.read_rows(file):
        try:
            if not isinstance(row, dict):
                raise InvalidRow(f"it is {kind(row)}, not an object")
            found += of_row(row, f"{file} {number}")
        except InvalidRow as error:
            where = row_location(file, number)
            raise InputError(f"{where} is no comparison of models ({error})", file, HOW) from None
    return [bout for bout in found if not annotators or bout.by in annotators]


def of_row(row: dict[str, Any], group: str) -> Iterator[Bout]:
    """The bouts of a row of a file; `InvalidRow` where it is no comparison of models."""
    if "completions" in row:
        yield from of_ranking_row(row, group)
        return
    if not is_comparison(row):
        raise InvalidRow(f"no columns model_a and model_b, or completions {Record(row)}")
    verdict = verdict_of(row)
    a, b = verdict.models
    both = dialogues(row)
    lengths = None if both is None else (characters(both[0]), characters(both[1]))
    if a != b:
        yield Bout(a, b, verdict.score, lengths, verdict.both_bad, verdict.by or "?")


def of_ranking_row(row: dict[str, Any], group: str) -> Iterator[Bout]:
    """The bouts of a ranking whose models are named."""
    completions, ranks = row["completions"], row.get("ranking")
    if not isinstance(completions, list) or not isinstance(ranks, list) or len(completions) != len(ranks):
        raise InvalidRow("completions and ranking are not two lists of one length")
    if not all(isinstance(text, str) for text in completions) or not all(map(is_number, ranks)):
        raise InvalidRow("the completions are not texts, or the ranks not numbers")
    named = row.get("models")
    if not isinstance(named, list) or len(named) != len(ranks) or len(list(filter(name_of, named))) < 2:
        raise InvalidRow("it does not say which model wrote each answer, in a list `models` of names")
    by = name_of(row.get("annotator")) or name_of(row.get("judge")) or "?"
    yield from of_ranking(models_of({**row, "meta": None}), completions, list(map(float, ranks)), by, group)


def characters(conversation: Conversation) -> int:
    """Characters that the assistant wrote."""
    return sum(len(message.content) for message in conversation if message.role == "assistant")
