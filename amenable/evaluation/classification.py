"""Figures of a classifier on held-out examples, each with its 95 % interval, and its predictions one by one.

    classes    accuracy (Wilson's interval), F1 of the second of two classes, mean F1 of all classes, Matthews'
               correlation, the confusion matrix; beside them the share of the most frequent class
    numbers    Pearson's and Spearman's correlation
    choices    accuracy; beside it that of chance

Intervals other than Wilson's are percentiles over resampled examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from amenable.functional.classification import confusion_matrix, f1_scores, matthews
from amenable.functional.statistics import bootstrap, pearson, spearman, wilson
from amenable.models.heads import Classifier
from amenable.seeds import seeded_generator
from amenable.text.task_inputs import Task
from amenable.train.classification import LabeledRows, Labels, example_logits
from amenable.train.forward import compute_rewards
from amenable.train.log import Progress, silent
from amenable.train.runtime import Runtime

Figure = dict[str, float | None]


def measure(
    model: Classifier,
    elements: Sequence[LabeledRows],
    task: Task,
    labels: Labels,
    runtime: Runtime,
    max_tokens: int,
    progress: Progress = silent,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the figures of a classifier on examples, and its predictions; empty without any."""
    if not elements:
        return {}, []
    rows = [row for element in elements for row in element.rows]
    outputs = compute_rewards(model, rows, runtime, max_tokens, progress).view(len(rows), -1).double()
    logits = example_logits(task, outputs, [len(element.rows) for element in elements])
    return task_metrics(logits, elements, task, labels), predictions(logits, elements, labels)


def class_metrics(predicted: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Return the figures of predicted classes [E] against labels [E]; names: of the K classes."""
    count, counts = len(names), labels.bincount(minlength=len(names))

    def of_confusion(statistic: Callable[[Tensor], float]) -> Figure:
        return estimate(lambda rows: statistic(confusion_matrix(predicted[rows], labels[rows], count)), len(labels))

    metrics: dict[str, Any] = {"n": len(labels), "accuracy": share(predicted == labels)}
    if count == 2:
        metrics["f1"] = of_confusion(lambda confusion: float(f1_scores(confusion)[1]))
    metrics["f1_macro"] = of_confusion(lambda confusion: float(f1_scores(confusion).mean()))
    metrics["matthews"] = of_confusion(matthews)
    metrics["majority"] = float(counts.max() / len(labels))
    return {**metrics, "labels": list(names), "confusion": confusion_matrix(predicted, labels, count).tolist()}


def number_metrics(predicted: Tensor, labels: Tensor) -> dict[str, Any]:
    """Return the figures of predicted numbers [E] against labels [E]."""

    def of_pairs(statistic: Callable[[Tensor, Tensor], float]) -> Figure:
        return estimate(lambda rows: statistic(predicted[rows], labels[rows]), len(labels))

    return {"n": len(labels), "pearson": of_pairs(pearson), "spearman": of_pairs(spearman)}


def choice_metrics(predicted: Tensor, right: Tensor, counts: Sequence[int]) -> dict[str, Any]:
    """Return the figures of chosen choices [E] against the right ones [E], of `counts` each."""
    chance = sum(1 / count for count in counts) / len(counts)
    return {"n": len(right), "accuracy": share(predicted == right), "chance": chance}


def task_metrics(logits: Tensor, elements: Sequence[LabeledRows], task: Task, labels: Labels) -> dict[str, Any]:
    """Return the figures of a classifier's logits [E, K] on examples."""
    truth = torch.tensor([element.label for element in elements], dtype=torch.float64)
    if labels.values:
        return class_metrics(logits.argmax(1), truth.long(), labels.names)
    if task == "multiple-choice":
        return choice_metrics(logits.argmax(1), truth.long(), [len(element.rows) for element in elements])
    return number_metrics(logits[:, 0], truth)


def predictions(logits: Tensor, elements: Sequence[LabeledRows], labels: Labels) -> list[dict[str, Any]]:
    """Return a row for each example: its label, what is predicted, its texts, and the probability of each class or
    choice; the worst first."""
    rows = []
    for scores, element in zip(logits, elements):
        if len(scores) == 1:
            predicted: Any = float(scores[0]) * labels.deviation + labels.mean
            rows.append({"loss": abs(float(scores[0]) - element.label), "predicted": predicted})
        else:
            logps = scores.log_softmax(0)
            best, own = int(scores.argmax()), scores.isfinite()
            predicted = labels.names[best] if labels.values else best
            probabilities = [round(each, 4) for each in logps[own].exp().tolist()]
            rows.append({"loss": -float(logps[int(element.label)]), "predicted": predicted})
            rows[-1]["probabilities"] = probabilities
        named = labels.names[int(element.label)] if labels.values else element.example.label
        rows[-1] |= {"id": element.example.id, "label": named, "texts": list(element.example.texts)}
    return sorted(rows, key=lambda row: -row["loss"])


def describe(metrics: dict[str, Any]) -> str:
    """Return the figures with an interval as a line."""
    if not metrics:
        return "no held-out examples"
    figures = {name: value for name, value in metrics.items() if isinstance(value, dict)}
    parts = [f"{name} {figure['value']:.3f} {interval(figure)}" for name, figure in figures.items()]
    references = [f"{name} {metrics[name]:.3f}" for name in ("majority", "chance") if name in metrics]
    return f"{metrics['n']} held-out examples: {', '.join([*parts, *references])}"


def confusion_table(metrics: dict[str, Any]) -> Table | None:
    """Return the confusion matrix as a table, a row a label; None for a task without classes, or with more than 20."""
    names = metrics.get("labels", ())
    if not 0 < len(names) <= 20:
        return None
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("label \\ predicted", *names):
        table.add_column(name, justify="right")
    for name, counts in zip(names, metrics["confusion"]):
        table.add_row(name, *map(str, counts))
    return table


def interval(figure: Figure) -> str:
    """Return the interval of a figure as text; empty without one."""
    return "" if figure["low"] is None else f"[{figure['low']:.3f}, {figure['high']:.3f}]"


def share(hits: Tensor) -> Figure:
    """Return the share of True [E] with Wilson's interval."""
    low, high = wilson(int(hits.sum()), len(hits))
    return {"value": float(hits.double().mean()), "low": low, "high": high}


def estimate(statistic: Callable[[Tensor], float], count: int) -> Figure:
    """Return a statistic of `count` rows with its bootstrap interval; None for what does not exist."""
    value, low, high = bootstrap(statistic, count, seeded_generator(0, "classification"))
    names = zip(("value", "low", "high"), (value, low, high))
    return {name: each if math.isfinite(each) else None for name, each in names}
