"""Files of samples: prompts with completions, as `amenable sample` writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amenable.data.column_mapping import parse_mapping
from amenable.data.files import read_json_rows, row_location
from amenable.data.record import InvalidRow, Record, kind, text_of
from amenable.data.turns import conversation
from amenable.data.types import Conversation, Prompt, conversation_error, message_fields
from amenable.errors import InputError

COLUMNS = ("prompt", "completions", "ended", "model", "kind", "id")
HINT = "give a samples.jsonl of 'amenable sample'"


@dataclass(frozen=True)
class Sample:
    """Row of samples: a prompt and a model's completions, with `ended` for each."""

    id: str
    """the row number if the row has no id"""
    prompt: Conversation
    completions: tuple[str, ...]
    ended: tuple[bool, ...]
    model: str | None = None
    kind: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    """the row's further columns"""


def read_samples(file: Path, columns: Sequence[str] = ()) -> Iterator[tuple[int, Sample]]:
    """Yield (number, row) of a .jsonl or .json file of samples; InputError, with its line, for an invalid row.

    columns: entries TARGET=COLUMN, for samples in other columns (`column_mapping.py`).
    """
    if not file.is_file():
        raise InputError("no such file", file, "make it with 'amenable demo' or 'amenable sample', or give --data")
    mapping = parse_mapping(columns, COLUMNS)
    for number, row in read_json_rows(file, HINT):
        try:
            if not isinstance(row, dict):
                raise InvalidRow(f"it is {kind(row)}, not an object")
            yield number, sample_of(mapping.record(row), str(number))
        except InvalidRow as error:
            raise InputError(f"{row_location(file, number)} is no row of samples ({error})", file, HINT) from None


def sample_of(row: Record, id: str) -> Sample:
    """Read a row with columns prompt and completions, and optionally id, ended, model and kind."""
    for column in ("prompt", "completions"):
        if column not in row:
            raise InvalidRow(f"no column '{column}' {row}")
    prompt = conversation(row["prompt"], "prompt")
    error = conversation_error(prompt)
    if error is not None:
        raise InvalidRow(error)
    if not isinstance(row["completions"], list):
        raise InvalidRow(f"completions is {kind(row['completions'])}, not a list of texts")
    completions = tuple(text_of(text, f"completion {i}") for i, text in enumerate(row["completions"], start=1))
    ended = ended_of(row.get("ended"), len(completions))
    model, topic = (text_of(row.get(name, ""), name) for name in ("model", "kind"))
    return Sample(row.id(id), prompt, completions, ended, model or None, topic, row.rest())


def demonstration_rows(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row `prompt, completion` for each completion of a row of samples that ended and is not blank."""
    rest = {name: value for name, value in row.items() if name not in ("step", "completions", "ended")}
    pairs = zip(row["completions"], row["ended"], strict=True)
    return [{**rest, "completion": text} for text, ended in pairs if ended and text.strip()]


def ended_of(value: Any, count: int) -> tuple[bool, ...]:
    """Return `count` flags, True for completions that ended by EOS; all True if the row has none."""
    if value is None:
        return (True,) * count
    if not isinstance(value, list) or len(value) != count or not all(isinstance(mark, bool) for mark in value):
        raise InvalidRow(f"ended is not a list of {count} times true or false, one per completion")
    return tuple(value)


def sample_row(prompt: Prompt, completions: list[str], ended: list[bool], model: str) -> dict[str, Any]:
    """Return the row of samples.jsonl of a prompt and its completions, with the further columns of the prompt's row."""
    messages = [message_fields(message) for message in prompt.messages]
    own = {"id": prompt.id, "prompt": messages, "completions": completions, "ended": ended, "model": model}
    return {**prompt.meta, **own}
