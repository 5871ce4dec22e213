"""Figures of a classifier, with intervals, and its predictions."""

import pytest
import torch

from amenable.data.task_columns import TaskExample
from amenable.evaluation.classification import (
    choice_metrics,
    class_metrics,
    confusion_table,
    describe,
    number_metrics,
    predictions,
    task_metrics,
)
from amenable.train.classification import LabeledRows, Labels

CLASSES = Labels(("neg", "pos"), {"0": 0, "1": 1})


def element(label, number, count=1):
    return LabeledRows([([1], [True])] * count, number, TaskExample((f"{number}",), label, f"r{number}"))


def test_classes():
    labels = torch.tensor([0] * 50 + [1] * 50)
    predicted = labels.clone()
    predicted[40:50], predicted[95:] = 1, 0
    figures = class_metrics(predicted, labels, ("neg", "pos"))
    assert figures["confusion"] == [[40, 10], [5, 45]] and figures["majority"] == 0.5
    assert figures["accuracy"]["value"] == 0.85 and figures["f1"]["value"] == pytest.approx(90 / 105)
    for name in ("accuracy", "f1", "f1_macro", "matthews"):
        low, value, high = (figures[name][key] for key in ("low", "value", "high"))
        assert low < value < high and high - low < 0.35, name
    assert "accuracy 0.850 [0.767, 0.907]" in describe(figures) and "majority 0.500" in describe(figures)
    table = confusion_table(figures)
    assert table is not None and table.row_count == 2
    three = class_metrics(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 2, 1]), ("a", "b", "c"))
    assert "f1" not in three, "of two classes only"


def test_numbers_and_choices():
    labels = torch.arange(20).double()
    figures = number_metrics(labels**3, labels)
    assert figures["spearman"]["value"] == pytest.approx(1) and 0.8 < figures["pearson"]["value"] < 1
    assert number_metrics(torch.zeros(20), labels)["pearson"] == {"value": None, "low": None, "high": None}
    figures = choice_metrics(torch.tensor([0, 1]), torch.tensor([0, 2]), [2, 4])
    assert figures["accuracy"]["value"] == 0.5 and figures["chance"] == 0.375
    assert confusion_table(figures) is None and describe({}) == "no held-out examples"


def test_the_worst_predictions_come_first():
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [3.0, 0.0]], dtype=torch.float64)
    rows = [element("0", 0.0), element("0", 0.0), element("1", 1.0)]
    worst, *_, best = predictions(logits, rows, CLASSES)
    assert (worst["label"], worst["predicted"], worst["id"]) == ("pos", "neg", "r1.0")
    assert best["loss"] == pytest.approx(0.1269, abs=1e-4) and best["probabilities"] == [0.8808, 0.1192]
    assert task_metrics(logits, rows, "classification", CLASSES)["accuracy"]["value"] == pytest.approx(1 / 3)


def test_predictions_of_numbers_and_choices():
    numbers = Labels(("score",), {}, 10.0, 2.0)
    (row,) = predictions(torch.tensor([[1.0]]), [element(14.0, 2.0)], numbers)
    assert row["predicted"] == 12.0 and row["label"] == 14.0 and row["loss"] == 1.0
    scores, choices = torch.tensor([[0.0, 1.0, -torch.inf]]), Labels(("score",), {})
    (row,) = predictions(scores, [element(1.0, 1.0, 2)], choices)
    assert row["predicted"] == 1 and len(row["probabilities"]) == 2
    assert task_metrics(scores, [element(1.0, 1.0, 2)], "multiple-choice", choices)["chance"] == 0.5
