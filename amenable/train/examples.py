"""What a step is fed: prompts and raw text, as functions of seed and step, so that a step number is the data cursor."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from amenable.data import sources
from amenable.data.batches import chunk_documents
from amenable.data.types import Conversation, Prompt, Ranking, Text
from amenable.errors import InputError
from amenable.seeds import derive_seed
from amenable.text.chat import render_completion, render_document, render_prompt, render_prompts
from amenable.text.tokenizer import Tokenizer
from amenable.train.forward import Row

T = TypeVar("T")
R = TypeVar("R")
WORRYING = 0.05
"""share of rows left out above which a run warns"""


@dataclass(frozen=True)
class LeftOut:
    """Rows of a split that are longer than the context: they are neither cut nor used, and are no bad rows."""

    split: str
    count: int
    of: int
    what: str
    """a row, in the plural"""
    context: int

    def __str__(self) -> str:
        return f"{self.split}: {self.count} of {self.of} {self.what} left out: longer than {self.context} tokens"


class RejectedRows:
    """Rows that could not be used, of all files that a run reads. InputError above a fraction `max_bad_rows` of a file.

    Rows longer than the context are no bad rows: they are counted in `left_out`.
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


def keep_usable(loaded: sources.Loaded[T], rejected: RejectedRows | None = None) -> list[T]:
    """Return the usable rows, and print the columns that they were read from. Pass a run's `rejected` rows to keep its
    limit; without these unusable rows are only reported."""
    if rejected is not None:
        for line in loaded.plan():
            print(f"data  {line}", file=sys.stderr)
    return (rejected or RejectedRows()).filter(loaded)


def keep_fitting(
    split: str,
    examples: Sequence[T],
    rows: Sequence[R | None],
    what: str,
    context: int,
    rejected: RejectedRows | None = None,
    required: Path | None = None,
) -> tuple[list[T], list[R]]:
    """Examples that have a row, and these rows; a row is None where it is longer than the context.

    How many are left out is said on stderr, with a warning where they are many. Nothing is left: InputError where the
    split is `required` to be there (the file it comes from), else a line on stderr.
    """
    kept = [(example, row) for example, row in zip(examples, rows, strict=True) if row is not None]
    left = LeftOut(split, len(examples) - len(kept), len(examples), what, context)
    if left.count and required and not kept:
        how = (
            "lower the number of new tokens" if what == "prompts" else "shorten them, or take a model with more context"
        )
        raise InputError(f"none of the {left.of} {what} is within {context} tokens", required, how)
    if left.count:
        warning = "warning: " if left.count > WORRYING * left.of else ""
        print(f"data  {warning}{left}", file=sys.stderr)
    if left.count and not kept:
        print(f"data  {split}: nothing is left{' to validate on' if split == 'validation' else ''}", file=sys.stderr)
    if rejected is not None and left.count:
        rejected.left_out.append(left)
    return [example for example, _ in kept], [row for _, row in kept]


def fitting_prompts(
    path: Path,
    tokenizer: Tokenizer,
    room: int,
    limit: int = 0,
    rejected: RejectedRows | None = None,
    split: str = "train",
    required: bool = True,
) -> tuple[list[Prompt], list[list[int]]]:
    """Prompts of at most `room` tokens, with their ids; InputError where there is none and some are required."""
    prompts = keep_usable(sources.read_prompts(path, limit=limit or None), rejected)
    ids = [render_prompt(tokenizer, prompt.messages) for prompt in prompts]
    rows = [row if len(row) <= room else None for row in ids]
    return keep_fitting(split, prompts, rows, "prompts", room, rejected, path if required else None)


def chunk_texts(texts: list[Text], tokenizer: Tokenizer, context: int) -> list[list[int]]:
    """Documents as ids, cut into pieces that fit the context."""
    return chunk_documents([render_document(tokenizer, text.text) for text in texts], context)


def text_row(ids: list[int]) -> Row:
    """A row in which everything is predicted but the first token, which nothing comes before."""
    return ids, [False] + [True] * (len(ids) - 1)


def validation_rows(texts: list[Text], tokenizer: Tokenizer, context: int, tokens: int) -> tuple[list[Row], int]:
    """Whole documents of at most `tokens` tokens together (one at the least), as rows, and how many bytes they are."""
    rows: list[Row] = []
    drawn = byte_count = 0
    for text in texts:
        pieces = chunk_texts([text], tokenizer, context)
        if rows and drawn + sum(map(len, pieces)) > tokens:
            break
        rows += [text_row(piece) for piece in pieces]
        drawn, byte_count = drawn + sum(map(len, pieces)), byte_count + len(text.text.encode())
    return rows, byte_count


def raw_rows(pieces: list[list[int]], tokens: int, seed: int, step: int, update: int) -> list[Row]:
    """Draw different pieces of raw text, at least `tokens` tokens if there are as many, by seed, step and update.

    Only the pieces that are used are drawn, each of at least one token: the cost does not grow with the text.
    """
    rows: list[Row] = []
    drawn = 0
    generator = random.Random(derive_seed(seed, "raw", step, update))
    for i in generator.sample(range(len(pieces)), min(tokens, len(pieces))):
        rows.append(text_row(pieces[i]))
        drawn += len(pieces[i])
        if drawn >= tokens:
            break
    return rows


def ranking_rows(ranking: Ranking, tokenizer: Tokenizer, context: int) -> list[Row] | None:
    """The rows of a ranking's completions. None where the longest is longer than the context: nothing is cut."""
    ended = ranking.meta.get("ended")
    if not isinstance(ended, list) or len(ended) != len(ranking.completions):
        ended = [True] * len(ranking.completions)
    rows = completion_rows(tokenizer, ranking.prompt, ranking.completions, ended)
    return None if max(len(ids) for ids, _ in rows) > context else rows


def completion_rows(
    tokenizer: Tokenizer, prompt: Conversation, completions: Sequence[str], ended: Sequence[bool]
) -> list[Row]:
    """One row a completion: the prompt as context, the completion trained, EOS with it where it ended by itself, or is
    empty."""
    prompts = render_prompts(tokenizer, prompt, completions)
    answers = [render_completion(tokenizer, text, end or not text) for text, end in zip(completions, ended)]
    return [(before + ids, [False] * len(before) + [True] * len(ids)) for before, ids in zip(prompts, answers)]
