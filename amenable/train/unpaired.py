"""Completions with a label, desirable or not, as rows: the elements of KTO's batches."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from amenable.data.lazy import Array, Lazy, changed, column
from amenable.data.mixture import Mixed, Sources, parse_sources
from amenable.data.types import LabeledCompletion
from amenable.errors import InputError
from amenable.models.decoder import Decoder
from amenable.train import forward
from amenable.train.forward import Row
from amenable.train.log import Progress, silent
from amenable.train.row_cache import Examples
from amenable.train.runtime import Runtime


@dataclass(frozen=True)
class LabeledRow:
    """A completion with its label, a mismatched one after the same prompt, and the reference's log-probabilities."""

    row: Row
    label: bool
    """True for a desirable completion"""
    mismatched: Row = ([], [])
    """the prompt with the completion of another prompt"""
    ref_logp: float = 0.0
    """log-probability of the completion under the reference, summed over its tokens"""
    ref_mismatched: float = 0.0


def lazy_splits(
    splits: Mapping[str, Mixed[LabeledCompletion]], context: int, required: Sources
) -> tuple[Mixed[LabeledRow], Mixed[LabeledRow]]:
    """Return the rows of the splits "train" and "validation". InputErrors name the sources of `required`."""
    training, held_out = splits["train"], splits["validation"]
    paths = [source.path for source in parse_sources(required)]
    rows = [lazy_rows("train", part, context, path) for part, path in zip(training.parts, paths)]
    return Mixed(training.names, rows), held_out.map(lambda part: lazy_rows("validation", part, context))


def lazy_rows(
    split: str, part: Examples[LabeledCompletion], context: int, required: Path | None = None
) -> Lazy[LabeledRow]:
    """Return the rows of a source with mismatched completions, read as they are needed.

    required: file that an InputError names if a row has no mismatched completion. Without it rows that are all of one
    prompt are left out, with a line on stderr.
    """
    prompts = part.column("prompts")
    if required is None and len(np.unique(prompts)) == 1:
        print(f"data  {split}: all of one prompt, so that the KL has no estimate: not used", file=sys.stderr)
        part = part.select(np.empty(0, int))
        prompts = part.column("prompts")
    prompt_lengths, lengths = part.column("prompt_lengths"), part.sum_of_rows()
    others = mismatch(prompts, prompt_lengths, lengths - prompt_lengths, context, required)
    labels = np.array([part.targets(index)[0] > 0 for index in range(len(part))], bool)

    def make(index: int) -> LabeledRow:
        (row,), (other,) = part.rows(index), part.rows(others[index])
        (prompt, _), (_, completion) = split_prompt(row), split_prompt(other)
        mismatched = [*prompt, *completion], [False] * len(prompt) + [True] * len(completion)
        return LabeledRow(row, bool(labels[index]), mismatched)

    of_others = np.array(others, int)
    return Lazy(make, lengths + prompt_lengths + (lengths - prompt_lengths)[of_others], label=labels)


def mismatch(
    prompts: Array, prompt_lengths: Array, completion_lengths: Array, context: int, file: Path | None = None
) -> list[int]:
    """Return for each row the index of the next one, in a circle, that is of another prompt and whose completion fits
    the context after the row's prompt. InputError, naming the file, where there is none.

    prompts [n]: a hash of each row's prompt. prompt_lengths, completion_lengths [n]: tokens.
    """
    keys, before, after = prompts.tolist(), prompt_lengths.tolist(), completion_lengths.tolist()
    count, several = len(keys), len(set(keys)) > 1
    partners = list[int]()
    for i in range(count):
        others = ((i + step) % count for step in range(1, count if several else 0))
        fitting = (j for j in others if keys[j] != keys[i] and before[i] + after[j] <= context)
        if (other := next(fitting, None)) is None:
            raise InputError(
                "no completion of another prompt fits after a prompt, to estimate the KL with",
                file,
                "give completions of two prompts or more, or shorter ones",
            )
        partners.append(other)
    return partners


def split_prompt(row: Row) -> tuple[list[int], list[int]]:
    """Return the ids before the first trained token, and the rest."""
    ids, loss_mask = row
    start = loss_mask.index(True)
    return ids[:start], ids[start:]


def add_reference_logps(
    reference: Decoder, rows: Mixed[LabeledRow], runtime: Runtime, max_tokens: int, progress: Progress = silent
) -> Mixed[LabeledRow]:
    """Return the rows with the reference's log-probabilities of both completions. max_tokens: tokens of a pass."""
    sums = forward.element_logprobs(
        reference, rows, lambda each: (each.row, each.mismatched), runtime, max_tokens, progress
    )
    return changed(rows, lambda each, i: replace(each, ref_logp=sums[i][0], ref_mismatched=sums[i][1]))


def label_balance(rows: Sequence[LabeledRow], desirable_weight: float, undesirable_weight: float) -> str:
    """Return a line on the labels and their weights; Ethayarajh et al. (2024) want the weighted ratio in [1, 1.5]."""
    desirable = int(column(rows, "label").sum())
    undesirable = len(rows) - desirable
    line = f"{desirable} desirable and {undesirable} undesirable completions"
    if not (desirable and undesirable):
        return line
    ratio = desirable_weight * desirable / (undesirable_weight * undesirable)
    hint = "" if 1 <= ratio <= 1.5 else " (best in 1 to 1.5: --desirable-weight, --undesirable-weight)"
    return f"{line}, weighted {ratio:.2f} to 1{hint}"
