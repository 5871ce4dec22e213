"""Comparisons of models, from votes, rankings and files, as ratings take them.

    vote       of the arena: two conversations side by side, and which was better
    ranking    of answers whose models are known: every pair of two models is a comparison (people's, a judge's).
               A text that several models gave counts for each of them
    a file     rows of rankings with `models`, or comparisons as others publish them (data/model_comparisons.py)

Comparisons of one vote or one ranking share a group: they are not independent, and ratings weigh them together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any, Literal

from amenable.data import readers
from amenable.data.files import row_location
from amenable.data.model_comparisons import dialogues, is_comparison, verdict_of
from amenable.data.record import InvalidRow, Record, is_number, kind
from amenable.data.types import Conversation
from amenable.errors import InputError
from amenable.feedback.export_import import GOLD_PURPOSES
from amenable.feedback.formats import name_of
from amenable.feedback.ratings import Comparison
from amenable.feedback.store import Event, Store

Kind = Literal["arena", "rankings"]
KINDS: tuple[Kind, ...] = ("arena", "rankings")
Choice = Literal["left", "right", "tie", "both_bad"]
SCORES: dict[Choice, float] = {"left": 1.0, "right": 0.0, "tie": 0.5, "both_bad": 0.5}
"""score of the left answer"""
COLUMNS = "give model_a, model_b, winner; or prompt, completions, ranking, models"


def comparisons(store: Store, kinds: Sequence[Kind] = KINDS, annotators: Sequence[str] = ()) -> list[Comparison]:
    """Return the comparisons in a store, in the order of the events; only those by `annotators`, if any are named."""
    votes = store.active("vote")
    events = votes if "arena" in kinds else []
    events = events + store.active("ranking") if "rankings" in kinds else events
    rows = [row for event in sorted(events, key=lambda event: event.id) for row in from_event(event)]
    names = arena_names(votes)
    rows = [replace(row, a=names.get(row.a, row.a), b=names.get(row.b, row.b)) for row in rows]
    return [row for row in rows if row.a != row.b and (not annotators or row.annotator in annotators)]


def arena_names(votes: Sequence[Event]) -> dict[str, str]:
    """Return the arena's names of models by folder: rankings of sampled answers name the folder alone."""
    names: dict[str, set[str]] = {}
    for event in votes:
        for side, origin in event.payload["origins"].items():
            names.setdefault(origin["folder"], set()).add(event.payload["models"][side])
    return {folder: of_folder.pop() for folder, of_folder in names.items() if len(of_folder) == 1}


def from_event(event: Event) -> Iterator[Comparison]:
    """Yield the comparisons in an event; none for a ranking of a gold item, or of answers of unknown models."""
    if event.kind == "vote":
        yield from_vote(event)
    elif event.payload.get("purpose") not in GOLD_PURPOSES:
        payload = event.payload
        annotator = str(payload.get("annotator") or "?")
        completions, ranks = payload["completions"], payload["ranking"]
        yield from from_ranking(models_of(payload), completions, ranks, annotator, f"event {event.id}")


def from_vote(event: Event) -> Comparison:
    """Return a vote of the arena as a comparison; lengths are those of all answers of a side."""
    payload, sides = event.payload, ("left", "right")
    left, right = (payload["models"][side] for side in sides)
    lengths = [sum(len(turn[side]) for turn in payload["turns"]) for side in sides]
    hashes = [payload["origins"][side]["sha256"] for side in sides]
    return Comparison(
        left,
        right,
        SCORES[payload["vote"]],
        lengths=(lengths[0], lengths[1]),
        both_bad=payload["vote"] == "both_bad",
        annotator=payload["annotator"],
        group=f"event {event.id}",
        hashes=(hashes[0], hashes[1]),
    )


def models_of(payload: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the models of each answer of a ranking: several that gave the same text, or none where unknown."""
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
    """Return `models_of` as columns of a ranking: models, the first of each answer, and other_models, if any."""
    first = [names[0] if names else None for names in models]
    others = [list(names[1:]) for names in models]
    return {"models": first, **({"other_models": others} if any(others) else {})}


def from_ranking(
    models: Sequence[Sequence[str]],
    completions: Sequence[str],
    ranks: Sequence[float],
    annotator: str,
    group: str,
) -> Iterator[Comparison]:
    """Yield a comparison of every two models of every pair of answers; models of one text are not compared."""
    for i, j in combinations(range(len(ranks)), 2):
        score = 0.5 if ranks[i] == ranks[j] else float(ranks[i] < ranks[j])
        lengths = (len(completions[i]), len(completions[j]))
        for a, b in product(models[i], models[j]):
            if a != b:
                yield Comparison(a, b, score, lengths, annotator=annotator, group=group)


def read_comparisons(file: Path, annotators: Sequence[str] = ()) -> list[Comparison]:
    """Read the comparisons in a file (.jsonl, .json, .parquet, .csv). Raises InputError by line for a bad row."""
    comparisons: list[Comparison] = []
    for number, row in readers.read_rows(file):
        try:
            if not isinstance(row, dict):
                raise InvalidRow(f"it is {kind(row)}, not an object")
            comparisons += from_row(row, f"{file} {number}")
        except InvalidRow as error:
            where = row_location(file, number)
            raise InputError(f"{where} is not a comparison of models ({error})", file, COLUMNS) from None
    return [row for row in comparisons if not annotators or row.annotator in annotators]


def from_row(row: dict[str, Any], group: str) -> Iterator[Comparison]:
    """Yield the comparisons in a row of a file. Raises `InvalidRow` where it is no comparison of models."""
    if "completions" in row:
        yield from from_ranking_row(row, group)
        return
    if not is_comparison(row):
        raise InvalidRow(f"no columns model_a and model_b, or completions {Record(row)}")
    verdict = verdict_of(row)
    a, b = verdict.models
    both = dialogues(row)
    lengths = None if both is None else (characters(both[0]), characters(both[1]))
    if a != b:
        yield Comparison(a, b, verdict.score, lengths, verdict.both_bad, verdict.annotator or "?")


def from_ranking_row(row: dict[str, Any], group: str) -> Iterator[Comparison]:
    """Yield the comparisons in a row that is a ranking with `models`."""
    completions, ranks = row["completions"], row.get("ranking")
    if not isinstance(completions, list) or not isinstance(ranks, list) or len(completions) != len(ranks):
        raise InvalidRow("completions and ranking are not two lists of one length")
    if not all(isinstance(text, str) for text in completions) or not all(map(is_number, ranks)):
        raise InvalidRow("the completions are not texts, or the ranks not numbers")
    named = row.get("models")
    if not isinstance(named, list) or len(named) != len(ranks) or len(list(filter(name_of, named))) < 2:
        raise InvalidRow("it does not say which model wrote each answer, in a list `models` of names")
    annotator = name_of(row.get("annotator")) or name_of(row.get("judge")) or "?"
    yield from from_ranking(models_of({**row, "meta": None}), completions, list(map(float, ranks)), annotator, group)


def characters(conversation: Conversation) -> int:
    """Return the number of characters in the assistant's messages."""
    return sum(len(message.content) for message in conversation if message.role == "assistant")
