"""Candidates for ranking: prompts with the different answers that one or several models gave to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from amenable.data.samples import Sample, read_samples
from amenable.data.types import Conversation
from amenable.errors import InputError


@dataclass(frozen=True)
class Candidates(Sample):
    """Sample with, for each completion, the models that gave it; () where only one file was read."""

    models: tuple[tuple[str, ...], ...] = ()


def read_candidates(files: Sequence[Path], columns: Sequence[str] = ()) -> list[Candidates]:
    """Read samples and return the prompts that have two or more different completions.

    A later file's completions join those of the same id in earlier files. InputError where an id has two prompts, and
    where fewer than two prompts are left.
    """
    rows: list[Candidates] = []
    prompts: dict[str, Conversation] = {}
    for path in files:
        earlier = {row.id: index for index, row in reversed(list(enumerate(rows)))}
        for number, sample in read_samples(path, columns):
            if prompts.setdefault(sample.id, sample.prompt) != sample.prompt:
                error = f"line {number} has the id '{sample.id}' of another prompt above it"
                raise InputError(error, path, "give every prompt an id of its own")
            row = Candidates(**vars(sample), models=((sample.model or "",),) * len(sample.completions))
            if row.id in earlier:
                rows[earlier[row.id]] = join(rows[earlier[row.id]], row)
            else:
                rows.append(row)
    rows = [row for row in map(drop_repeated, rows) if len(row.completions) > 1]
    if len(rows) < 2:
        raise InputError("fewer than two prompts have different answers", files[0], "sample more, or warmer")
    return rows if len(files) > 1 else [replace(row, models=()) for row in rows]


def join(first: Candidates, second: Candidates) -> Candidates:
    """Return the prompt with the completions of both."""
    return replace(
        first,
        completions=first.completions + second.completions,
        ended=first.ended + second.ended,
        models=first.models + second.models,
    )


def drop_repeated(row: Candidates) -> Candidates:
    """Keep each completion once, with all models that gave it; one of white space alone is the empty one."""
    models: dict[tuple[str, bool], tuple[str, ...]] = {}
    for text, ended, names in zip(row.completions, row.ended, row.models, strict=True):
        answer = (text, ended) if text.strip() else ("", True)
        models[answer] = tuple(dict.fromkeys((*models.get(answer, ()), *names)))
    texts, ends = tuple(text for text, _ in models), tuple(ended for _, ended in models)
    return replace(row, completions=texts, ended=ends, models=tuple(models.values()))


def add_empty(row: Candidates) -> Candidates:
    """Add the empty completion, which no model gave, unless it is there."""
    if "" in row.completions:
        return row
    models = (*row.models, ()) if row.models else ()
    return replace(row, completions=(*row.completions, ""), ended=(*row.ended, True), models=models)
