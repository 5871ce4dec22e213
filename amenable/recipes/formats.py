"""Formats of data sets: which columns are read, and which commands a row serves.

`amenable formats` prints a table of the published formats: it reads a row of each with the readers of all commands.
`amenable formats FILE` reads the first rows of a file, and says which columns each command would use, what is not used,
why a row cannot be read, and how the first row was understood.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from amenable.data import columns as conventions
from amenable.data import sources
from amenable.data.column_mapping import ColumnMapping
from amenable.data.format_examples import EXAMPLES, FormatExample
from amenable.data.published_formats import join_rows
from amenable.data.record import InvalidRow, LeftOutRow, Record
from amenable.data.types import Conversation, LabeledCompletion, Ranking, Text
from amenable.errors import InputError

READERS: dict[str, tuple[Callable[..., Any], Callable[..., sources.Loaded[Any]]]] = {
    "pretrain": (conventions.text, sources.read_texts),
    "sft": (conventions.demonstration, sources.read_demonstrations),
    "reward, dpo": (conventions.ranking, sources.read_rankings),
    "kto": (conventions.unpaired, sources.read_unpaired),
    "ppo, rloo": (conventions.prompt, sources.read_prompts),
}
"""commands -> the reader of a row, and that of files; `tokenizer` reads as pretrain, `sample` and `evaluate` as ppo"""


OBVIOUS = ("no column", "does not end with an answer", "a preference, not a demonstration", "with a label")
"""parts of reasons that the table does not repeat: the format has no columns for the command"""


@dataclass(frozen=True)
class Config:
    """Print the formats of data sets, or how the rows of a file are read."""

    data: tyro.conf.Positional[Path | None] = None
    """a file, or a folder of files; a table of all formats is printed where none is given"""
    columns: tuple[str, ...] = ()
    """TARGET=COLUMN: columns of other names, as in prompt=question chosen=better rejected=worse"""
    max_rows: int = 1000
    """rows that are read"""


def run(config: Config) -> None:
    """Print the table, or what is in the file. InputError where no command can read it."""
    if config.data is None:
        print("\n".join(table()))
        return
    readable = [line for name in READERS for line in describe(name, config)]
    if not readable:
        raise InputError("no command can read a row", config.data, "'amenable formats' lists what they read")


def describe(name: str, config: Config) -> list[str]:
    """Print what commands would read in a file, and return the printed lines; only the reason if they cannot."""
    try:
        loaded = READERS[name][1](config.data, limit=config.max_rows, columns=config.columns)
    except InputError as error:
        print(f"{name}: no; {error.what}")
        return []
    lines = [f"{name}: {line}" for line in loaded.plan()]
    lines += [f"  rejected: {row}" for row in loaded.rejected[:3]]
    lines += [f"  {line}" for line in shown(loaded.rows[0])]
    print("\n".join(lines))
    return lines


def shown(row: Any) -> list[str]:
    """Return an example as lines: its messages by role, and ranked completions."""
    if isinstance(row, Text):
        return [f"text       {clipped(row.text)}"]
    messages: Conversation = row.prompt if isinstance(row, Ranking | LabeledCompletion) else row.messages
    lines = [f"{message.role:10} {clipped(message.content)}" for message in messages]
    if isinstance(row, LabeledCompletion):
        lines.append(f"{str(row.label).lower():10} {clipped(row.completion)}")
    if isinstance(row, Ranking):
        ordered = sorted(zip(row.ranks, row.completions), key=lambda pair: pair[0])
        lines += [f"rank {rank:<5g} {clipped(text)}" for rank, text in ordered]
        lines += [f"margin     {row.margin:g}"] if row.margin is not None else []
    return lines


def clipped(text: str, length: int = 100) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 3]}..."


def table() -> list[str]:
    """Return the lines of a Markdown table: a format, the columns used and not used, and the commands it serves."""
    head = ["format", "columns used", "not used", *READERS, "refused, and why"]
    rows = [head, ["---"] * len(head), *map(table_row, EXAMPLES)]
    return [f"| {' | '.join(cell.replace('|', ' ') for cell in row)} |" for row in rows]


def table_row(example: FormatExample) -> list[str]:
    """Return the cells of a format: its rows are read by every reader."""
    outcomes = {name: outcome(example, reader) for name, (reader, _) in READERS.items()}
    best = next(outcomes[name] for name in ("reward, dpo", "sft", "pretrain", "ppo, rloo") if outcomes[name].used)
    reasons = dict.fromkeys(reason for each in outcomes.values() for reason in each.reasons)
    served = ["yes" if each.used else "" for each in outcomes.values()]
    return [example.name, ", ".join(best.used), ", ".join(best.unused), *served, "; ".join(reasons)]


@dataclass(frozen=True)
class Outcome:
    """Result of reading the rows of a format: columns used, columns not used, reasons of refused rows."""

    used: Sequence[str]
    unused: Sequence[str]
    reasons: Sequence[str]


def outcome(example: FormatExample, reader: Callable[..., Any]) -> Outcome:
    """Read the rows of an example."""
    used, unused, reasons = dict[str, None](), dict[str, None](), list[str]()
    mapping = ColumnMapping({})
    rows = ((number, mapping.record(row)) for number, row in enumerate(example.rows, start=1))
    for number, record in join_rows(rows, mapping) if reader is conventions.ranking else rows:
        assert isinstance(record, Record)
        try:
            reader(record, str(number))
        except LeftOutRow as reason:
            reasons.append(f"left out and counted: {reason}")
        except InvalidRow as reason:
            reasons += [] if any(part in str(reason) for part in OBVIOUS) else [str(reason)]
        else:
            order = list(record.row)
            used.update(
                dict.fromkeys(sorted(record.used_sources(), key=lambda path: (order.index(path.split(".")[0]), path)))
            )
            unused.update(dict.fromkeys(record.unused()))
    return Outcome(tuple(used), tuple(unused), tuple(reasons))
