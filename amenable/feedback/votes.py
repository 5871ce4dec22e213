"""What was said of two models' answers, from wherever it was said, as bouts that ratings are made of.

    vote       somebody's in the arena: two conversations side by side, and which was better
    ranking    of answers whose models are known: every pair of two models is a bout (people's, simulated, or a judge's)
    a file     rows of rankings with `models`, or in the form that arenas publish: model_a, model_b, winner

Bouts of one vote or one ranking share a group: they are not independent, and a bootstrap draws them together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from amenable.errors import InputError
from amenable.feedback.exchange import TESTS
from amenable.feedback.ratings import Battle
from amenable.feedback.store import Event, Store

Kind = Literal["arena", "rankings"]
KINDS: tuple[Kind, ...] = ("arena", "rankings")
Choice = Literal["left", "right", "tie", "both_bad"]
SCORES: dict[Choice, float] = {"left": 1.0, "right": 0.0, "tie": 0.5, "both_bad": 0.5}
"""what the left one gets"""
WINNERS = {"model_a": 1.0, "a": 1.0, "model_b": 0.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5, "tie (bothbad)": 0.5}


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


def models_of(payload: dict[str, Any]) -> list[str | None]:
    """Which model wrote each answer of a ranking, None where that is not said."""
    named = (payload.get("meta") or {}).get("models") or payload.get("models")
    if named is None:
        named = [source.get("model") for source in payload.get("sources") or []]
    count = len(payload["completions"])
    return [None if name is None else str(name) for name in named] if len(named) == count else [None] * count


def of_ranking(
    models: Sequence[str | None],
    completions: Sequence[str],
    ranks: Sequence[float],
    by: str,
    group: str,
) -> Iterator[Bout]:
    """Every pair of answers of two models that are known."""
    for i, j in combinations(range(len(ranks)), 2):
        a, b = models[i], models[j]
        if a is not None and b is not None and a != b:
            score = 0.5 if ranks[i] == ranks[j] else float(ranks[i] < ranks[j])
            yield Bout(a, b, score, (len(completions[i]), len(completions[j])), by=by, group=group)


def read_bouts(file: Path, annotators: Sequence[str] = ()) -> list[Bout]:
    """The bouts of a file of comparisons, .jsonl or .json. InputError for a row that is none, by its line."""
    found: list[Bout] = []
    for line, row in rows_of(file):
        try:
            found += of_row(row, f"{file} line {line}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            why = f"no column {error}" if isinstance(error, KeyError) else str(error)
            how = "give model_a, model_b, winner; or prompt, completions, ranking, models"
            raise InputError(f"row {line} is no comparison of models ({why})", file, how) from None
    return [bout for bout in found if not annotators or bout.by in annotators]


def rows_of(file: Path) -> list[tuple[int, Any]]:
    """(number, row) of a file: a list of rows, or one row a line."""
    try:
        text = file.read_text("utf-8-sig")
        if text.lstrip().startswith("["):
            return list(enumerate(json.loads(text), start=1))
        return [(n, json.loads(line)) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file, "give a .jsonl or .json file") from None
    except ValueError as error:
        raise InputError(f"is not JSON: {error}", file, "give a list of rows, or one row a line") from None


def of_row(row: dict[str, Any], group: str) -> Iterator[Bout]:
    """A row of a file; KeyError, TypeError or ValueError where it is none."""
    by = str(row.get("annotator") or row.get("judge") or "?")
    if "completions" in row:
        models, completions, ranks = models_of(row), row["completions"], row["ranking"]
        if len(completions) != len(ranks) or not all(isinstance(text, str) for text in completions):
            raise ValueError(f"{len(ranks)} ranks for {len(completions)} answers, which are texts")
        if None in models:
            raise ValueError("it does not say which model wrote each answer")
        yield from of_ranking(models, completions, [float(rank) for rank in ranks], by, group)
        return
    a, b, winner = str(row["model_a"]), str(row["model_b"]), str(row["winner"]).lower()
    if winner not in WINNERS:
        raise ValueError(f"the winner is '{winner:.40}', not model_a, model_b, tie or tie (bothbad)")
    if a != b:
        yield Bout(a, b, WINNERS[winner], lengths_of(row), "bad" in winner, by)


def lengths_of(row: dict[str, Any]) -> tuple[int, int] | None:
    """How much each wrote, in a conversation or an answer; None where the row has neither."""
    for one, other in (("conversation_a", "conversation_b"), ("answer_a", "answer_b"), ("response_a", "response_b")):
        if row.get(one) is not None and row.get(other) is not None:
            return written(row[one]), written(row[other])
    return None


def written(said: Any) -> int:
    """Characters of a text, or of the assistant's turns of a conversation."""
    if isinstance(said, str):
        return len(said)
    return sum(len(turn["content"]) for turn in said if turn["role"] == "assistant")
