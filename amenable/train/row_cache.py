"""Row cache: the examples of a source and their rows of tokens, in arrays (`array_cache.py`), read as they are needed.

Of E examples with R rows and N tokens in all:

    ids, loss_mask     [N] token ids, and True for those that are trained, row after row
    row_ends           [R] end of each row in ids
    targets            [R] rank of each completion, or its label: 1 where it is desirable
    example_ends       [E] end of each example in the rows
    keys               [E] hash of the turns before the assistant's first
    prompts            [E] hash of the ids before the first trained one
    prompt_lengths     [E] ids before the first trained one
    margins            [E] margin of each pair
    hidden_turns       [E] turns of the assistant that are context because the template leaves out their thinking
    records            the examples as JSON, one after another; record_ends [E] their ends

Every row is checked as it is written (`first_batch.py`). Examples that the chat template cannot show are unusable rows.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, overload

import numpy as np

from amenable.data import sources
from amenable.data.batches import Indices
from amenable.data.lazy import Array, Lazy
from amenable.data.mixture import Mixed, Sources, parse_sources
from amenable.data.record import InvalidRow
from amenable.data.splits import opening_key
from amenable.data.types import (
    Demonstration,
    LabeledCompletion,
    Ranking,
    example_from_json,
    example_to_json,
    last_trained,
)
from amenable.errors import InputError
from amenable.text.bulk import id_type
from amenable.text.chat import render
from amenable.text.tokenizer import Tokenizer
from amenable.train import examples, first_batch
from amenable.train.array_cache import read_arrays, tokenizer_key
from amenable.train.array_folder import ArrayFiles, Conversion
from amenable.train.examples import RejectedRows, SplitOptions, completion_rows, ranking_rows, report_left_out
from amenable.train.forward import Row
from amenable.train.log import Bars, no_bars

VERSION = 1
TYPES = {
    **{"loss_mask": "bool", "row_ends": "int64", "targets": "float64", "example_ends": "int64", "keys": "uint64"},
    **{"prompts": "uint64", "prompt_lengths": "int64", "margins": "float64", "hidden_turns": "int64"},
    **{"records": "uint8", "record_ends": "int64"},
}
E = TypeVar("E", Demonstration, Ranking, LabeledCompletion)


@dataclass(frozen=True)
class Kind(Generic[E]):
    """Examples of a type, and how they become rows."""

    example: type[E]
    read: Callable[..., sources.Loaded[Any]]
    tokenize: Callable[[E, Tokenizer, tuple[bool, bool]], tuple[E, list[first_batch.Example], int]]
    """(example, tokenizer, facts of `template_bos`) -> the example as it is trained on, its rows, its hidden turns"""
    noun: str
    """plural of the examples, for messages"""
    options: tuple[str, ...] = ()
    """what else decides the rows"""


def rows_of_demonstration(
    example: Demonstration, tokenizer: Tokenizer, bos: tuple[bool, bool], train_on: Literal["all", "exchange", "last"]
) -> tuple[Demonstration, list[first_batch.Example], int]:
    """Return a conversation with the turns that are trained, its row, and the number of its hidden turns."""
    if train_on != "all":
        example = replace(example, messages=last_trained(example.messages, train_on))
    rendered = render(tokenizer, example.messages)
    row = rendered.ids, rendered.loss_mask
    return example, [first_batch.conversation_example(row, rendered.roles, example, bos)], rendered.hidden_turns


def rows_of_ranking(
    example: Ranking, tokenizer: Tokenizer, bos: tuple[bool, bool]
) -> tuple[Ranking, list[first_batch.Example], int]:
    """Return a ranking with the rows of its completions."""
    rows = ranking_rows(example, tokenizer, sys.maxsize) or []
    return example, [first_batch.completion_example(row, bos) for row in rows], 0


def rows_of_labeled(
    example: LabeledCompletion, tokenizer: Tokenizer, bos: tuple[bool, bool]
) -> tuple[LabeledCompletion, list[first_batch.Example], int]:
    """Return a labelled completion with its row."""
    (row,) = completion_rows(tokenizer, example.prompt, (example.completion,), [bool(example.meta.get("ended", True))])
    return example, [first_batch.completion_example(row, bos)], 0


def demonstrations(train_on: Literal["all", "exchange", "last"] = "all") -> Kind[Demonstration]:
    """Return the kind of conversations. train_on: assistant turns that are trained, as in `last_trained`."""
    tokenize = partial(rows_of_demonstration, train_on=train_on)
    return Kind(Demonstration, sources.read_demonstrations, tokenize, "conversations", (train_on,))


RANKINGS = Kind(Ranking, sources.read_rankings, rows_of_ranking, "rankings")
LABELED = Kind(LabeledCompletion, sources.read_unpaired, rows_of_labeled, "completions")


class Writer(Generic[E]):
    """Tokenizes examples as they are read, checks their rows, and writes both."""

    def __init__(self, kind: Kind[E], tokenizer: Tokenizer) -> None:
        self.kind: Kind[E] = kind
        self.tokenizer, self.bos = tokenizer, first_batch.template_bos(tokenizer)
        self.id_type = id_type(tokenizer.vocab_size)
        self.tokens = self.rows = self.bytes = 0

    def add(self, example: E, files: ArrayFiles) -> int:
        """Write an example and its rows. InvalidRow if the chat template cannot show it, InputError if a row breaks a
        rule of the first batch."""
        try:
            example, rows, hidden = self.kind.tokenize(example, self.tokenizer, self.bos)
        except InputError as error:
            raise InvalidRow(error.what) from error
        messages = example.messages if isinstance(example, Demonstration) else example.prompt
        for row, target in zip(rows, targets_of(example), strict=True):
            first_batch.require_sound(row, self.tokenizer, f"the row of {example.id}")
            self.tokens += len(row.ids)
            files.write("ids", np.array(row.ids, self.id_type).tobytes())
            files.write("loss_mask", np.array(row.loss_mask, bool).tobytes())
            files.write("targets", np.float64(target).tobytes())
            files.write_int("row_ends", self.tokens)
        ids, prompt_length = rows[0].ids, rows[0].loss_mask.index(True)
        record = example_to_json(example).encode()
        self.rows, self.bytes = self.rows + len(rows), self.bytes + len(record)
        files.write_int("example_ends", self.rows)
        files.write("keys", opening_key(messages, example.id))
        files.write("prompts", hashlib.blake2b(repr(ids[:prompt_length]).encode(), digest_size=8).digest())
        files.write_int("prompt_lengths", prompt_length)
        files.write("margins", np.float64(getattr(example, "margin", None) or 0.0).tobytes())
        files.write_int("hidden_turns", hidden)
        files.write("records", record)
        files.write_int("record_ends", self.bytes)
        return len(record)


def targets_of(example: Demonstration | Ranking | LabeledCompletion) -> Sequence[float]:
    """Return a number for each row of an example: a completion's rank, or its label."""
    return example.ranks if isinstance(example, Ranking) else [float(getattr(example, "label", True))]


class Examples(Sequence[E]):
    """Some examples of a source, with their rows."""

    def __init__(self, kind: type[E], arrays: dict[str, Any], numbers: Indices | None = None):
        """arrays: those of the source. numbers: examples of the source, in order; by default all."""
        self.kind: type[E] = kind
        self.arrays = arrays
        self.numbers = np.arange(len(arrays["example_ends"])) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> E: ...
    @overload
    def __getitem__(self, index: slice) -> list[E]: ...
    def __getitem__(self, index: int | slice) -> E | list[E]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        begin, end = self.bounds("record_ends", self.numbers[index])
        return example_from_json(self.kind, self.arrays["records"][begin:end].tobytes())

    def bounds(self, ends: str, number: int) -> tuple[int, int]:
        """Return where an entry begins and ends, by an array of ends."""
        return int(self.arrays[ends][number - 1]) if number else 0, int(self.arrays[ends][number])

    def row_numbers(self, index: int) -> range:
        """Return the numbers of an example's rows."""
        return range(*self.bounds("example_ends", self.numbers[index]))

    def rows(self, index: int) -> list[Row]:
        """Return the rows of an example."""
        return [self.row(number) for number in self.row_numbers(index)]

    def row(self, number: int) -> Row:
        """Return a row of the source."""
        part = slice(*self.bounds("row_ends", number))
        return self.arrays["ids"][part].tolist(), self.arrays["loss_mask"][part].tolist()

    def column(self, name: str) -> Array:
        """Return an array [E] of the source for these examples."""
        return self.arrays[name][self.numbers]

    def select(self, chosen: Array) -> Examples[E]:
        """Return those examples for which `chosen` [n] is True, or whose indices it holds."""
        return Examples(self.kind, self.arrays, self.numbers[chosen])

    def targets(self, index: int) -> list[float]:
        """Return the target of each row of an example."""
        return self.arrays["targets"][slice(*self.bounds("example_ends", self.numbers[index]))].tolist()

    def row_lengths(self) -> Array:
        """Return the tokens of each row of the source."""
        return np.diff(self.arrays["row_ends"], prepend=0)

    def sum_of_rows(self) -> Array:
        """Return the tokens of each example's rows."""
        return self.over_rows(np.add)

    def longest_rows(self) -> Array:
        """Return the tokens of each example's longest row."""
        return self.over_rows(np.maximum)

    def over_rows(self, reduce: np.ufunc) -> Array:
        """Return the lengths of each example's rows, reduced to one number."""
        if not len(self):
            return np.empty(0, np.int64)
        starts = np.concatenate([[0], self.arrays["example_ends"][:-1]])
        return reduce.reduceat(self.row_lengths(), starts)[self.numbers]

    def as_rows(self) -> Lazy[Row]:
        """Return the first row of each example."""
        return Lazy(lambda index: self.rows(index)[0], self.sum_of_rows())


def read_examples(
    path: Path,
    kind: Kind[E],
    tokenizer: Tokenizer,
    rejected: RejectedRows | None = None,
    columns: Sequence[str] = (),
    bars: Bars = no_bars,
) -> Examples[E]:
    """Return the examples of a source with their rows, tokenized now or before. InputErrors are those of
    `read_arrays`, and those of rows that cannot be trained on."""
    types = {"ids": id_type(tokenizer.vocab_size), **TYPES}
    key = ["rows", VERSION, kind.noun, kind.options, tokenizer_key(tokenizer)]
    conversion = Conversion(
        *(kind.read, partial(Writer, kind, tokenizer), types, kind.noun, key),
        flat=("ids", "loss_mask", "records"),
        counted={"row_ends": "ids", "example_ends": "row_ends", "record_ends": "records"},
        whole=kind.example is Ranking,  # an id belongs to one prompt in all files
    )
    return Examples(kind.example, read_arrays(path, conversion, rejected, bars("tokenizing"), columns))


def read_splits(
    kind: Kind[E],
    options: SplitOptions,
    tokenizer: Tokenizer,
    rejected: RejectedRows | None = None,
    bars: Bars = no_bars,
) -> dict[str, Mixed[E]]:
    """Read the examples to train on, "train", and held-out ones, "validation", by source: held-out ones are those of
    `options.validation`, or a share of each source's prompts, which are held out of every other source too."""
    return examples.read_splits(
        lambda path: read_examples(path, kind, tokenizer, rejected, options.columns, bars),
        lambda part: part.column("keys"),
        lambda part, chosen: part.select(chosen),
        options,
    )


def keep_fitting(
    splits: Mapping[str, Mixed[E]],
    noun: str,
    context: int,
    required: Sources,
    rejected: RejectedRows | None = None,
) -> dict[str, Mixed[E]]:
    """Return the examples of each split and source whose rows are all within the context: nothing is cut.

    Prints the number of examples left out, and of turns that are context. InputError, naming the source among
    `required`, if none of it is left in the split "train".
    """
    fitting = dict[str, Mixed[E]]()
    for split, mixed in splits.items():
        parts = []
        for number, (name, part) in enumerate(zip(mixed.names, mixed.parts)):
            assert isinstance(part, Examples)
            own = f"{split} of {name}" if len(mixed.parts) > 1 else split
            if hidden := int(part.column("hidden_turns").sum()):
                reason = "the chat template leaves out their thinking"
                print(f"data  {own}: {hidden:,} turns are context: {reason}", file=sys.stderr)
            fits = part.longest_rows() <= context
            path = parse_sources(required)[number].path if split == "train" else None
            report_left_out(own, int(fits.sum()), len(part), noun, context, rejected, path)
            parts.append(part.select(fits))
        fitting[split] = Mixed(mixed.names, parts)
    return fitting


def read_rows(
    split: str, path: Path | None, tokenizer: Tokenizer, context: int, rejected: RejectedRows | None = None
) -> Sequence[Row]:
    """Read demonstrations within the context as rows; [] without a path, InputError if no demonstration fits."""
    if path is None:
        return []
    kind = demonstrations()
    part = read_examples(path, kind, tokenizer, rejected)
    fits = part.longest_rows() <= context
    report_left_out(split, int(fits.sum()), len(part), kind.noun, context, rejected, path)
    return part.select(fits).as_rows()
