"""Completions with a label, desirable or not, as rows: the elements of KTO's batches."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from amenable.data.mixture import Mixed, Sources
from amenable.data.types import LabeledCompletion
from amenable.errors import InputError
from amenable.models.decoder import Decoder
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.examples import RejectedRows, completion_rows, fit_sources, keep_fitting
from amenable.train.forward import Row
from amenable.train.log import Progress, silent
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


def tokenize_splits(
    splits: Mapping[str, Mixed[LabeledCompletion]],
    tokenizer: Tokenizer,
    context: int,
    required: Sources,
    rejected: RejectedRows | None = None,
) -> dict[str, Mixed[LabeledRow]]:
    """Return the rows of each split, those longer than the context left out, with mismatched completions.

    InputError, naming the source of `required`, if nothing of it is left in the split "train". Held-out rows that are
    all of one prompt have no mismatched completions and are left out, with a line on stderr.
    """

    def fitting(
        split: str, part: Sequence[LabeledCompletion], required: Path | None
    ) -> tuple[list[LabeledCompletion], list[LabeledRow]]:
        rows = [tokenize(example, tokenizer, context) for example in part]
        examples, fits = keep_fitting(split, part, rows, "completions", context, rejected, required)
        if required is None and len({tuple(split_prompt(each.row)[0]) for each in fits}) == 1:
            print(f"data  {split}: all of one prompt, so that the KL has no estimate: not used", file=sys.stderr)
            return [], []
        return examples, mismatch(fits, context, required)

    return {
        name: fit_sources(name, examples, fitting, required if name == "train" else None)[1]
        for name, examples in splits.items()
    }


def tokenize(example: LabeledCompletion, tokenizer: Tokenizer, context: int) -> LabeledRow | None:
    """Tokenize a completion with its prompt; None if they are longer than the context."""
    ended = bool(example.meta.get("ended", True))
    (row,) = completion_rows(tokenizer, example.prompt, (example.completion,), [ended])
    return LabeledRow(row, example.label) if len(row[0]) <= context else None


def mismatch(rows: Sequence[LabeledRow], context: int, file: Path | None = None) -> list[LabeledRow]:
    """Return the rows, each with the next row's completion, in a circle, that is of another prompt and fits the
    context. InputError, naming the file, where a row has none."""
    parts = [split_prompt(each.row) for each in rows]
    several = len({tuple(prompt) for prompt, _ in parts}) > 1
    mismatched = []
    for i, (prompt, _) in enumerate(parts):
        others = (parts[(i + step) % len(parts)] for step in range(1, len(parts) if several else 0))
        completion = next((own for other, own in others if other != prompt and len(prompt) + len(own) <= context), None)
        if completion is None:
            raise InputError(
                "no completion of another prompt fits after a prompt, to estimate the KL with",
                file,
                "give completions of two prompts or more, or shorter ones",
            )
        row = [*prompt, *completion], [False] * len(prompt) + [True] * len(completion)
        mismatched.append(replace(rows[i], mismatched=row))
    return mismatched


def split_prompt(row: Row) -> tuple[list[int], list[int]]:
    """Return the ids before the first trained token, and the rest."""
    ids, loss_mask = row
    start = loss_mask.index(True)
    return ids[:start], ids[start:]


def add_reference_logps(
    reference: Decoder, rows: Mixed[LabeledRow], runtime: Runtime, max_tokens: int, progress: Progress = silent
) -> Mixed[LabeledRow]:
    """Return the rows with the reference's log-probabilities of both completions. max_tokens: tokens of a pass."""
    both = [row for each in rows for row in (each.row, each.mismatched)]
    logps = forward.compute_logprobs(reference, both, runtime, max_tokens, progress=progress)
    sums = [float(part.sum()) for part in logps]
    own, mismatched = iter(sums[::2]), iter(sums[1::2])
    return rows.map(lambda part: [replace(each, ref_logp=next(own), ref_mismatched=next(mismatched)) for each in part])


def label_balance(rows: Sequence[LabeledRow], desirable_weight: float, undesirable_weight: float) -> str:
    """Return a line on the labels and their weights; Ethayarajh et al. (2024) want the weighted ratio in [1, 1.5]."""
    desirable = sum(each.label for each in rows)
    undesirable = len(rows) - desirable
    line = f"{desirable} desirable and {undesirable} undesirable completions"
    if not (desirable and undesirable):
        return line
    ratio = desirable_weight * desirable / (undesirable_weight * undesirable)
    hint = "" if 1 <= ratio <= 1.5 else " (best in 1 to 1.5: --desirable-weight, --undesirable-weight)"
    return f"{line}, weighted {ratio:.2f} to 1{hint}"
