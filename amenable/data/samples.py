"""Read files of samples: prompts with their answers, as `sample` writes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amenable.data.files import place_of, read_json_rows
from amenable.data.record import Record, Unusable, kind, text_of
from amenable.data.turns import conversation
from amenable.data.types import Conversation, fault
from amenable.errors import InputError

HOW = "give a samples.jsonl of 'amenable sample'"


@dataclass(frozen=True)
class Sample:
    """A row of samples: a prompt and the answers of one model. completions and ended are of one length."""

    id: str
    """the number of the row where it names none"""
    prompt: Conversation
    completions: tuple[str, ...]
    ended: tuple[bool, ...]
    model: str | None = None
    kind: str = ""


def read_samples(file: Path) -> Iterator[tuple[int, Sample]]:
    """(number, row) of a file of samples, .jsonl or .json; InputError, with its place, for a row that is none."""
    if not file.is_file():
        raise InputError("no such file", file, "make it with 'amenable demo' or 'amenable sample', or give --data")
    for number, row in read_json_rows(file, HOW):
        try:
            if not isinstance(row, dict):
                raise Unusable(f"it is {kind(row)}, not an object")
            yield number, sample_of(Record(row), str(number))
        except Unusable as error:
            raise InputError(f"{place_of(file, number)} is no row of samples ({error})", file, HOW) from None


def sample_of(row: Record, id: str) -> Sample:
    """The columns prompt and completions, and id, ended, model and kind where they are there. `Unusable` otherwise."""
    for column in ("prompt", "completions"):
        if column not in row:
            raise Unusable(f"no column '{column}' {row}")
    prompt = conversation(row["prompt"], "prompt")
    wrong = fault(prompt)
    if wrong is not None:
        raise Unusable(wrong)
    if not isinstance(row["completions"], list):
        raise Unusable(f"completions is {kind(row['completions'])}, not a list of texts")
    places = enumerate(row["completions"], start=1)
    completions = tuple(text_of(text, f"completion {place}") for place, text in places)
    ended = ended_of(row.get("ended"), len(completions))
    model, topic = (text_of(row.get(name, ""), name) for name in ("model", "kind"))
    return Sample(row.id(id), prompt, completions, ended, model or None, topic)


def ended_of(value: Any, count: int) -> tuple[bool, ...]:
    """Marks that are True for an answer that ended by itself [count]; all of them where the row has none."""
    if value is None:
        return (True,) * count
    if not isinstance(value, list) or len(value) != count or not all(isinstance(mark, bool) for mark in value):
        raise Unusable(f"ended is not a list of {count} times true or false, one a completion")
    return tuple(value)
