"""A classifier of `amenable classify` as a reward function of texts, such as of sentiment or toxicity.

    classification              the completion is the text
    entailment, similarity      the prompt's last turn is the first text, the completion the second
    multiple-choice             the prompt's last turn is the context, the completion a choice

The score is the log-odds of a label, log p / (1 - p); of labels that are numbers it is the number, of multiple choice
the score of the choice, whose softmax over the choices is their probability. A text that is longer than the context is
cut at its end, and counted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amenable.data.types import Conversation
from amenable.functional.classification import log_odds
from amenable.models.heads import Classifier
from amenable.models.pretrained import label_index
from amenable.text.task_inputs import Task, task_rows
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.classification import example_logits, task_of
from amenable.train.run_folder import FINISHED, LINEAGE
from amenable.train.runtime import Runtime


class ClassifierReward:
    """A frozen classifier with its tokenizer. Calling it scores texts."""

    def __init__(
        self, model: Classifier, tokenizer: Tokenizer, task: Task, label: int, runtime: Runtime, max_tokens: int
    ):
        """label: number of the class whose log-odds are the score. max_tokens: ids of one pass."""
        self.model, self.tokenizer, self.task, self.label = model, tokenizer, task, label
        self.runtime, self.max_tokens = runtime, max_tokens
        self.cut = 0
        """texts that were cut since `take_counts`"""
        self.note = ""
        """line on its training"""

    @classmethod
    def load(cls, folder: Path, runtime: Runtime, label: str | None, max_tokens: int = 8192) -> ClassifierReward:
        """Load a folder's classifier. InputError for a label that it does not have, and for none among several."""
        model, tokenizer = loading.load_classifier(folder, runtime)
        task = task_of(folder)
        assert task is not None
        number = label_index(list(model.labels), label, folder)
        model = runtime.to_inference(model).requires_grad_(False)
        reward = cls(model, tokenizer, task, number, runtime, max_tokens)
        reward.note = describe_training(folder)
        return reward

    def __call__(
        self, prompts: Sequence[Conversation], completions: Sequence[str], **columns: Sequence[Any]
    ) -> list[float]:
        """Return the score of each completion."""
        single = self.task == "classification"
        texts = [(text,) if single else (prompt[-1].content, text) for prompt, text in zip(prompts, completions)]
        of_examples = [task_rows(self.tokenizer, self.task, own) for own in texts]
        rows = [self.row(ids) for own in of_examples for ids in own]
        outputs = forward.compute_rewards(self.model, rows, self.runtime, self.max_tokens).view(len(rows), -1)
        logits = example_logits(self.task, outputs, [len(own) for own in of_examples])
        return (log_odds(logits, self.label) if len(self.model.labels) > 1 else logits[:, 0]).tolist()

    def row(self, ids: list[int]) -> forward.Row:
        """Return a row within the context: a longer one without the end of its text."""
        context = self.model.decoder.config.context_length
        if len(ids) > context:
            self.cut += 1
            ids = [*ids[: context - 1], ids[-1]]
        return ids, [False] * (len(ids) - 1) + [True]

    def take_counts(self) -> dict[str, float]:
        """Return the number of texts that were cut since the last call."""
        counts, self.cut = {"cut": float(self.cut)}, 0
        return counts


def describe_training(folder: Path) -> str:
    """Return what a classifier was trained on, and its accuracy or correlation on held-out rows, as a line; empty for a
    folder without the record of its run."""
    if not (folder / LINEAGE).exists() or not (folder / FINISHED).exists():
        return ""
    lineage, finished = (json.loads((folder / name).read_text("utf-8")) for name in (LINEAGE, FINISHED))
    paths = [entry["path"] for name, entry in lineage["inputs"].items() if name.split()[0] == "data"]
    figures = finished.get("validation") or {}
    known = {name: (figures.get(name) or {}).get("value") for name in ("accuracy", "pearson")}
    held_out = [f"; held-out {name} {value:.3f}" for name, value in known.items() if value is not None]
    return f"{folder} was trained on {', '.join(paths)}{''.join(held_out)}"
