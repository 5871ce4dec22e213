"""Tokenized examples: prompts, raw text and completions as rows of ids with a loss mask, and the rows left out.

Draws depend only on (seed, step), so that a step number is the data cursor.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from amenable.data import sources
from amenable.data.batches import chunk_documents
from amenable.data.lazy import Array
from amenable.data.mixture import Mixed, Sources, parse_sources
from amenable.data.record import no_column
from amenable.data.splits import held_out_of_sources, opening_key
from amenable.data.types import Conversation, Demonstration, Prompt, Ranking, Text
from amenable.errors import InputError
from amenable.seeds import derive_seed
from amenable.text.chat import render_completion, render_document, render_prompt, render_prompts
from amenable.text.tokenizer import Tokenizer
from amenable.train.forward import Row

T = TypeVar("T")
P = TypeVar("P", bound=Sequence[Any])
E = TypeVar("E", Prompt, Demonstration)
R = TypeVar("R")
WARN_ABOVE = 0.05
"""share of rows left out above which a run warns"""


@dataclass(frozen=True)
class LeftOut:
    """Number of rows of a split that are longer than the context: neither cut nor used, and not bad rows."""

    split: str
    count: int
    total: int
    unit: str
    """plural name of a row, such as "conversations" """
    context: int

    def __str__(self) -> str:
        return f"{self.split}: {self.count} of {self.total} {self.unit} left out: longer than {self.context} tokens"


class RejectedRows:
    """Unusable rows of all files that a run reads. More than a fraction `max_bad_rows` of a file is an InputError.

    Rows longer than the context are counted in `left_out` instead.
    """

    def __init__(self, max_bad_rows: float = 1.0):
        self.max_bad_rows = max_bad_rows
        self.rows: list[sources.Rejected] = []
        self.left_out: list[LeftOut] = []

    def filter(self, loaded: sources.Loaded[T]) -> list[T]:
        """Return the usable rows and store the others; print their number, and why the first is unusable, to stderr."""
        if not loaded.rejected:
            return loaded.rows
        bad, total, first = len(loaded.rejected), len(loaded.rejected) + len(loaded.rows), loaded.rejected[0]
        if bad / total > self.max_bad_rows:
            problem = f"{first.reason}; {bad} of {total} rows cannot be used, above a share of {self.max_bad_rows:.3g}"
            raise InputError(problem, f"{first.file}:{first.line}", "mend the rows, or raise --max-bad-rows")
        print(f"data  {loaded.report()}", file=sys.stderr)
        self.rows += loaded.rejected
        return loaded.rows

    def to_jsonl(self) -> str:
        """Return the rejected rows as lines of JSON, each once: file, line, reason."""
        return "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in dict.fromkeys(self.rows))


def keep_usable(
    loaded: sources.Loaded[T], rejected: RejectedRows | None = None, reward_reads: Callable[[str], bool] = no_column
) -> list[T]:
    """Return the usable rows, and print the columns that they were read from. Pass a run's `rejected` to enforce its
    limit; without it unusable rows are only reported. reward_reads: True for a column that the run's reward reads."""
    if rejected is not None:
        for line in loaded.plan(reward_reads):
            print(f"data  {line}", file=sys.stderr)
    return (rejected or RejectedRows()).filter(loaded)


class SplitOptions(Protocol):
    """Options that decide what is trained on, and what is held out: see `OfflineOptions`."""

    @property
    def data(self) -> Sources: ...
    @property
    def validation(self) -> Path | None: ...
    @property
    def validation_split(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def columns(self) -> Sequence[str]: ...


def read_splits(
    read: Callable[[Path], P],
    keys: Callable[[P], Array],
    select: Callable[[P, Array], P],
    options: SplitOptions,
) -> dict[str, Mixed[Any]]:
    """Read the rows to train on, "train", and held-out ones, "validation", by source: held-out ones are those of
    `options.validation`, or a share of each source's prompts, which are held out of every other source too.

    read: returns the rows of a path. keys: of the rows that stay together. select: (rows, True for some) -> those.
    """
    mixture, validation = parse_sources(options.data), options.validation
    names, parts = [source.name for source in mixture], [read(source.path) for source in mixture]
    if validation is not None:
        return {"train": Mixed(names, parts), "validation": Mixed([""], [read(validation)])}
    held = held_out_of_sources([keys(part) for part in parts], options.validation_split, options.seed)
    return {
        "train": Mixed(names, [select(part, ~mask) for part, mask in zip(parts, held)]),
        "validation": Mixed(names, [select(part, mask) for part, mask in zip(parts, held)]),
    }


def read_lists(
    read: Callable[..., sources.Loaded[E]], options: SplitOptions, rejected: RejectedRows | None = None
) -> dict[str, Mixed[E]]:
    """Read the splits of `read_splits` as lists. read: a function of `data.sources`."""
    return read_splits(
        lambda path: keep_usable(read(path, columns=options.columns), rejected),
        lambda rows: np.frombuffer(b"".join(opening_key(row.messages, row.id) for row in rows), np.uint64),
        lambda rows, chosen: [row for row, is_chosen in zip(rows, chosen) if is_chosen],
        options,
    )


def keep_fitting(
    split: str,
    examples: Sequence[T],
    rows: Sequence[R | None],
    unit: str,
    context: int,
    rejected: RejectedRows | None = None,
    required: Path | None = None,
) -> tuple[list[T], list[R]]:
    """Return the examples that have a row, and these rows; a row longer than the context is None.

    Prints the number of examples left out to stderr, as a warning if many. If none is left, raises InputError naming
    the file `required`, or only prints a line if that is None.
    """
    fitting = [(example, row) for example, row in zip(examples, rows, strict=True) if row is not None]
    report_left_out(split, len(fitting), len(examples), unit, context, rejected, required)
    return [example for example, _ in fitting], [row for _, row in fitting]


def report_left_out(
    split: str,
    fitting: int,
    total: int,
    unit: str,
    context: int,
    rejected: RejectedRows | None = None,
    required: Path | None = None,
) -> None:
    """Print how many examples of a split are longer than the context, and note it in `rejected`; as `keep_fitting`."""
    left = LeftOut(split, total - fitting, total, unit, context)
    if left.count and required and not fitting:
        hint = (
            "lower the number of new tokens" if unit == "prompts" else "shorten them, or use a model with more context"
        )
        raise InputError(f"none of the {left.total} {unit} is within {context} tokens", required, hint)
    if left.count:
        warning = "warning: " if left.count > WARN_ABOVE * left.total else ""
        print(f"data  {warning}{left}", file=sys.stderr)
    if left.count and not fitting:
        print(
            f"data  {split}: nothing is left{' to validate on' if split.startswith('validation') else ''}",
            file=sys.stderr,
        )
    if rejected is not None and left.count:
        rejected.left_out.append(left)


def keep_shown(
    examples: Sequence[E], rendering: Callable[[E], R], rejected: RejectedRows | None = None
) -> tuple[list[E], list[R]]:
    """Return the examples that the chat template can show, and their renderings; the others are unusable rows."""
    shown, renderings, refused = list[E](), list[R](), list[sources.Rejected]()
    first: InputError | None = None
    for number, example in enumerate(examples, start=1):
        try:
            renderings.append(rendering(example))
            shown.append(example)
        except InputError as error:
            first = first or InputError(error.what, example.id or f"row {number}", error.how)
            file, _, line = example.id.rpartition(":")
            at = (file, int(line)) if line.isdigit() else (example.id, number)
            refused.append(sources.Rejected(*at, error.what))
    if first is not None and not shown:
        raise first
    files = tuple(dict.fromkeys(row.file for row in refused))
    (rejected or RejectedRows()).filter(sources.Loaded(shown, refused, files))
    return shown, renderings


def fit_sources(
    split: str,
    examples: Mixed[T],
    fitting: Callable[..., tuple[list[T], list[R]]],
    required: Sources | None = None,
) -> tuple[Mixed[T], Mixed[R]]:
    """Return what `fitting`, called as (split, examples, required=file), returns for each source; the file is that of
    `required`, or None."""
    several = len(examples.parts) > 1
    paths: Sequence[Path | None] = [None] * len(examples.parts)
    if required is not None:
        paths = [source.path for source in parse_sources(required)]
    pairs = [
        fitting(f"{split} of {name}" if several else split, part, required=path)
        for name, part, path in zip(examples.names, examples.parts, paths, strict=True)
    ]
    return Mixed(examples.names, [pair[0] for pair in pairs]), Mixed(examples.names, [pair[1] for pair in pairs])


def read_prompts(
    data: Sources,
    limit: int = 0,
    rejected: RejectedRows | None = None,
    columns: Sequence[str] = (),
    reward_reads: Callable[[str], bool] = no_column,
) -> Mixed[Prompt]:
    """Read the first prompts of every source, at most `limit` of each (0: all).

    An id that two sources have gets its source's name in front: ids seed completions and join their labels.
    """
    mixture = parse_sources(data)
    loaded = [sources.read_prompts(source.path, limit=limit or None, columns=columns) for source in mixture]
    parts = [keep_usable(part, rejected, reward_reads) for part in loaded]
    counts = Counter(chain.from_iterable({prompt.id for prompt in part} for part in parts))
    named = [
        [replace(prompt, id=f"{source.name}:{prompt.id}") if counts[prompt.id] > 1 else prompt for prompt in part]
        for source, part in zip(mixture, parts)
    ]
    return Mixed([source.name for source in mixture], named)


def fitting_prompts(
    data: Sources,
    tokenizer: Tokenizer,
    room: int,
    limit: int = 0,
    rejected: RejectedRows | None = None,
    split: str = "train",
    required: bool = True,
    columns: Sequence[str] = (),
    reward_reads: Callable[[str], bool] = no_column,
    prompting: Callable[[Conversation], Conversation] = lambda messages: messages,
) -> tuple[Mixed[Prompt], Mixed[list[int]]]:
    """Read prompts of at most `room` tokens, with their ids, by source. InputError for a source that has none, if some
    are required. prompting: adds what comes before a prompt, in its ids alone."""

    def fitting(split: str, prompts: list[Prompt], required: Path | None) -> tuple[list[Prompt], list[list[int]]]:
        shown, ids = keep_shown(prompts, lambda each: render_prompt(tokenizer, prompting(each.messages)), rejected)
        rows = [row if len(row) <= room else None for row in ids]
        return keep_fitting(split, shown, rows, "prompts", room, rejected, required)

    prompts = read_prompts(data, limit, rejected, columns, reward_reads)
    return fit_sources(split, prompts, fitting, data if required else None)


def chunk_texts(texts: Sequence[Text], tokenizer: Tokenizer, context: int) -> list[list[int]]:
    """Tokenize documents and cut them into chunks of at most `context` ids."""
    return chunk_documents([render_document(tokenizer, text.text) for text in texts], context)


def text_row(ids: list[int]) -> Row:
    """Return the row of a text: every token is predicted but the first, which nothing comes before."""
    return ids, [False] + [True] * (len(ids) - 1)


def validation_rows(texts: Sequence[Text], tokenizer: Tokenizer, context: int, tokens: int) -> tuple[list[Row], int]:
    """Return rows of the first whole documents, together at most `tokens` tokens (at least one document), and the
    number of bytes of their text."""
    rows: list[Row] = []
    total = byte_count = 0
    for text in texts:
        chunks = chunk_texts([text], tokenizer, context)
        if rows and total + sum(map(len, chunks)) > tokens:
            break
        rows += [text_row(chunk) for chunk in chunks]
        total, byte_count = total + sum(map(len, chunks)), byte_count + len(text.text.encode())
    return rows, byte_count


def raw_rows(chunks: list[list[int]], tokens: int, seed: int, step: int, update: int) -> list[Row]:
    """Draw different chunks of raw text, together at least `tokens` tokens if there are as many.

    At most `tokens` chunks are drawn, since each has a token: the cost does not grow with the text.
    """
    rows: list[Row] = []
    total = 0
    generator = random.Random(derive_seed(seed, "raw", step, update))
    for i in generator.sample(range(len(chunks)), min(tokens, len(chunks))):
        rows.append(text_row(chunks[i]))
        total += len(chunks[i])
        if total >= tokens:
            break
    return rows


def ranking_rows(ranking: Ranking, tokenizer: Tokenizer, context: int) -> list[Row] | None:
    """Return the rows of a ranking's completions, or None if one is longer than the context: nothing is cut."""
    try:
        rows = completion_rows(tokenizer, ranking.prompt, ranking.completions, ended_flags(ranking))
    except InputError as error:
        raise InputError(error.what, ranking.id or None, error.how) from None
    return None if max(len(ids) for ids, _ in rows) > context else rows


def ended_flags(ranking: Ranking) -> list[bool]:
    """Return a flag for each completion, False where the length limit cut it; True for all where none are known."""
    ended = ranking.meta.get("ended")
    if isinstance(ended, list) and len(ended) == len(ranking.completions):
        return ended
    return [True] * len(ranking.completions)


def completion_rows(
    tokenizer: Tokenizer, prompt: Conversation, completions: Sequence[str], ended: Sequence[bool]
) -> list[Row]:
    """Return a row for each completion: the loss mask is True on the completion, and on EOS if it ended or is empty."""
    prompts = render_prompts(tokenizer, prompt, completions)
    rendered = [render_completion(tokenizer, text, end or not text) for text, end in zip(completions, ended)]
    return [to_row(*pair) for pair in zip(prompts, rendered)]


def to_row(prompt: Sequence[int], completion: Sequence[int]) -> Row:
    """Return the ids of a prompt and a completion as one row; the loss mask is True on the completion."""
    return [*prompt, *completion], [False] * len(prompt) + [True] * len(completion)
