"""Tasks of labelled texts: their examples as rows of tokens, labels, and the loss of a classifier on them.

L = L_task + lambda L_lm        (Radford et al., 2018, eq. 5)

L_task   -log softmax(h W)[label] of the state h at the extract token; of similarity h is the sum of both orders'
         states; of multiple choice softmax is over the choices' scores h w; of numbers the squared error of h w
         from the label, in standard deviations of the labels
L_lm     mean loss of a row's tokens, mean over rows
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from amenable.data import sources
from amenable.data.batches import Batch, targets
from amenable.data.mixture import Mixed, Sources
from amenable.data.task_columns import TaskExample
from amenable.errors import InputError
from amenable.files import write_text
from amenable.functional.classification import choice_logits
from amenable.models.heads import Classifier, scalars
from amenable.models.hf_config import read_json_object
from amenable.text.task_inputs import TASK_TOKENS, Task, task_rows
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.examples import RejectedRows, SplitOptions, fit_sources, keep_fitting, keep_usable, read_splits
from amenable.train.first_batch import BatchCheck, Example, check_rows
from amenable.train.forward import Row
from amenable.train.objective import Output, Stats

TASK_FILE = "task.json"
"""file of a classifier's folder: the task whose rows it reads"""


@dataclass(frozen=True)
class LabeledRows:
    """Rows of an example: one, one for each order of two texts, or one for each choice; and its label."""

    rows: list[Row]
    label: float
    """number of the class, or of the right choice; a number in standard deviations from the mean of the training's"""
    example: TaskExample

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(len(ids) for ids, _ in self.rows)


@dataclass(frozen=True)
class Labels:
    """Classes of a task in the order of the head's rows; or mean and standard deviation of labels that are numbers."""

    names: tuple[str, ...]
    values: dict[str, int]
    """class in the data -> its number; empty for numbers and choices"""
    mean: float = 0.0
    deviation: float = 1.0

    def encode(self, label: str | float) -> float:
        """Return the number that the loss reads."""
        return self.values[str(label)] if self.values else (float(label) - self.mean) / self.deviation


class TaskOptions(SplitOptions, Protocol):
    """Options that decide the examples of a task, and how they are rows: see `stages/classify.py`."""

    @property
    def task(self) -> Task: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def lm_coef(self) -> float: ...


def read_examples(options: TaskOptions, rejected: RejectedRows | None = None) -> dict[str, Mixed[TaskExample]]:
    """Read the examples to train on, "train", and held-out ones, "validation", by source; held-out ones have another
    first text than all others."""
    return read_splits(
        lambda path: keep_usable(sources.read_task(path, options.task, columns=options.columns), rejected),
        lambda part: np.frombuffer(b"".join(text_key(example) for example in part), np.uint64),
        lambda part, chosen: [example for example, is_chosen in zip(part, chosen) if is_chosen],
        options,
    )


def text_key(example: TaskExample) -> bytes:
    """Return a hash, 8 bytes, of an example's first text."""
    return hashlib.blake2b(example.texts[0].encode(), digest_size=8).digest()


def find_labels(splits: dict[str, Mixed[TaskExample]], task: Task, names: Sequence[str] = ()) -> Labels:
    """Return the labels of a task. names: of the classes, in the order of their labels in the data.

    InputError for labels of which some are numbers with decimals and some are no numbers, for a single class, for
    another number of names, and for a held-out class that nothing trains.
    """
    if task == "multiple-choice":
        return Labels(("score",), {})
    training, every = splits["train"], [*splits["train"], *splits["validation"]]
    if any(isinstance(example.label, float) for example in every):
        values = torch.tensor([number(example) for example in every], dtype=torch.float64)[: len(training)]
        if (deviation := float(values.std())) > 0:
            return Labels(("score",), {}, float(values.mean()), deviation)
        raise InputError(f"all labels are {values[0]:g}", training[0].id, "there is nothing to learn: give other rows")
    classes = sorted({str(example.label) for example in training}, key=class_order)
    if len(classes) < 2:
        hint = "there is nothing to tell apart: give rows of another class"
        raise InputError(f"all {len(training)} training rows have the label '{classes[0]}'", training[0].id, hint)
    unknown = next((each for each in splits["validation"] if str(each.label) not in classes), None)
    if unknown is not None:
        problem = f"the held-out label '{unknown.label}' is no training row's"
        raise InputError(problem, unknown.id, f"labels of the training rows are {shortened(classes)}")
    if names and len(names) != len(classes):
        problem = f"{len(names)} names for {len(classes)} labels"
        raise InputError(problem, "--labels", f"name each of {shortened(classes)}, in this order")
    if set(names) == set(classes):
        classes = list(names)
    return Labels(tuple(names or classes), {label: i for i, label in enumerate(classes)})


def number(example: TaskExample) -> float:
    """Return a label as a number, among others that have decimals. InputError for one that is none."""
    try:
        return float(example.label)
    except ValueError:
        problem = f"the label is '{example.label}', and those of other rows are numbers with decimals"
        raise InputError(problem, example.id, "give numbers, or classes, in all rows") from None


def class_order(label: str) -> tuple[bool, int, str]:
    """Return the key by which labels are sorted: numbers by size, before names."""
    digits = label.removeprefix("-").isdecimal()
    return not digits, int(label) if digits else 0, label


def shortened(labels: Sequence[str]) -> str:
    """Return the first labels, and the number of others."""
    return ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")


def tokenize(
    splits: dict[str, Mixed[TaskExample]],
    options: TaskOptions,
    labels: Labels,
    tokenizer: Tokenizer,
    context: int,
    data: Sources,
    rejected: RejectedRows | None = None,
) -> tuple[Mixed[LabeledRows], Mixed[LabeledRows]]:
    """Return the training and held-out examples whose rows are all within the context: nothing is cut. InputError,
    naming the source, where none to train on is."""

    def fitting(
        split: str, part: list[TaskExample], required: Path | None
    ) -> tuple[list[TaskExample], list[LabeledRows]]:
        rows = [labeled_rows(example, options, labels, tokenizer) for example in part]
        fits = [each if max(len(ids) for ids, _ in each.rows) <= context else None for each in rows]
        return keep_fitting(split, part, fits, "examples", context, rejected, required)

    training, validation = (
        fit_sources(name, splits[name], fitting, data if name == "train" else None)[1]
        for name in ("train", "validation")
    )
    return training, validation


def labeled_rows(example: TaskExample, options: TaskOptions, labels: Labels, tokenizer: Tokenizer) -> LabeledRows:
    """Return the rows of an example. The loss mask is True on all tokens but the first, or without an auxiliary loss on
    the last alone, which the label is read at."""
    rows = task_rows(tokenizer, options.task, example.texts)
    untrained = [1 if options.lm_coef else len(ids) - 1 for ids in rows]
    masked = [(ids, [False] * first + [True] * (len(ids) - first)) for ids, first in zip(rows, untrained)]
    return LabeledRows(masked, labels.encode(example.label), example)


def require_whole(elements: Sequence[LabeledRows], limit: int, dropout: float) -> None:
    """Raise InputError for an example of several rows that a pass cannot hold, where dropout differs between passes."""
    longest = max(
        (element for element in elements if len(element.rows) > 1), key=lambda each: each.tokens, default=None
    )
    if longest is not None and dropout and longest.tokens > limit:
        problem = f"its {len(longest.rows)} rows have {longest.tokens:,} tokens, and dropout needs all in one pass"
        raise InputError(problem, longest.example.id, f"raise --max-tokens-per-pass {limit}, or give --dropout 0")


def describe(elements: Sequence[LabeledRows], labels: Labels, task: Task) -> list[str]:
    """Return lines of a plan on the labels of training examples, or on their numbers of choices."""
    if labels.values:
        counts = Counter(labels.names[int(element.label)] for element in elements)
        return [f"labels: {shortened([f'{name} {counts[name]:,}' for name in labels.names])}"]
    if task == "multiple-choice":
        sizes = Counter(len(element.rows) for element in elements).most_common()
        others = "".join(f"; {size} in {count:,} rows" for size, count in sizes[1:])
        return [f"choices: {sizes[0][0]}{others}"]
    return [f"labels: numbers around {labels.mean:.3g}, standard deviation {labels.deviation:.3g}"]


def check(elements: Sequence[LabeledRows], tokenizer: Tokenizer) -> BatchCheck:
    """Check the rows of the first step."""
    rows = chain.from_iterable(element.rows for element in elements)
    examples = [
        Example(ids, mask, ["text" if trained else "context" for trained in mask], None, opened=False)
        for ids, mask in rows
    ]
    return check_rows(examples, tokenizer, "rows")


def write_task(folder: Path, task: Task) -> None:
    """Write the task of a classifier into its folder."""
    write_text(folder / TASK_FILE, json.dumps({"task": task, "tokens": TASK_TOKENS}, indent=1))


def task_of(folder: Path) -> Task | None:
    """Return the task of a folder's classifier; None for any other folder."""
    path = folder / TASK_FILE
    return cast(Task, read_json_object(path)["task"]) if path.is_file() else None


def example_logits(task: Task, outputs: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the logits [E, K] of examples from the outputs [R, K] of their rows, `counts` of each: the sum of both
    orders, or the scores of the choices beside one another."""
    if task == "similarity":
        return outputs[0::2] + outputs[1::2]
    return choice_logits(outputs[:, 0], counts) if task == "multiple-choice" else outputs


class TaskObjective:
    """Mean loss over examples; an element is an example with its rows."""

    couples_elements = False

    def __init__(self, model: Classifier, task: Task, labels: Labels, lm_coef: float):
        self.model, self.task, self.labels, self.lm_coef = model, task, labels, lm_coef
        self.share_prefixes = not lm_coef
        self.output: Output = "logprobs" if lm_coef else "scalar"

    def rows(self, element: LabeledRows) -> list[Row]:
        return element.rows

    def weight(self, element: LabeledRows) -> float:
        return 1.0

    @property
    def width(self) -> int:
        """Numbers that `outputs` has for a row: its logits, and the mean loss of its tokens."""
        return len(self.model.labels) + bool(self.lm_coef)

    def outputs(self, batch: Batch) -> Tensor:
        size = len(batch.lengths)
        if not self.lm_coef:
            return forward.rewards(self.model, batch).view(size, -1)
        layout, (index, tokens), decoder = forward.layout_of(batch), targets(batch), self.model.decoder
        states = decoder(batch.ids, layout, at=torch.cat([layout.last_tokens, index]))
        logps, _ = decoder.logprobs(states[size:], tokens)
        owner = layout.rows[batch.loss_mask]
        losses = torch.zeros(size, device=logps.device).index_add(0, owner, -logps) / owner.bincount(minlength=size)
        return torch.cat([scalars(self.model.score, states[:size]).view(size, -1), losses[:, None]], dim=1)

    def loss(self, elements: Sequence[LabeledRows], outputs: Tensor) -> tuple[Tensor, Stats]:
        """Return loss and statistics; outputs [R, width]: those of all rows of the elements."""
        counts = [len(element.rows) for element in elements]
        logits = example_logits(self.task, outputs[:, : len(self.model.labels)], counts)
        labels = torch.tensor([element.label for element in elements], device=outputs.device)
        stats = Stats()
        if self.task == "multiple-choice" or self.labels.values:
            loss = F.cross_entropy(logits, labels.long())
            stats["accuracy"] = (logits.detach().argmax(1) == labels).float().mean()
        else:
            loss = F.mse_loss(logits[:, 0], labels)
        stats["task_loss"] = loss.detach()
        if self.lm_coef:
            lm_loss = torch.stack([part.mean() for part in outputs[:, -1].split(counts)]).mean()
            loss, stats["lm_loss"] = loss + self.lm_coef * lm_loss, lm_loss.detach()
        return loss, {"loss": loss.detach(), **stats}
