"""Metrics of classification: by hand, and against scikit-learn where it is installed."""

import math

import pytest
import torch

from amenable.functional.classification import choice_logits, confusion_matrix, f1_scores, log_odds, matthews


def test_choices_by_hand():
    logits = choice_logits(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), [2, 3])
    assert logits.tolist() == [[1.0, 2.0, -math.inf], [3.0, 4.0, 5.0]]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([1, 0]))
    assert loss.item() == pytest.approx((math.log(1 + math.exp(-1)) + math.log(1 + math.e + math.e**2)) / 2)


def test_log_odds_are_those_of_the_softmax():
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 0.0]])
    p = logits.softmax(1)[:, 1]
    torch.testing.assert_close(log_odds(logits, 1), (p / (1 - p)).log())
    assert log_odds(logits[:, :2], 1)[0].item() == pytest.approx(1.0), "of two classes the difference of the logits"


def test_f1_and_matthews_by_hand():
    """Of the second class 2 hits, 1 false alarm, 1 miss; and 4 rows rightly of the first."""
    labels, predicted = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 0, 0, 1, 1, 1, 0])
    confusion = confusion_matrix(predicted, labels, 2)
    assert confusion.tolist() == [[4, 1], [1, 2]]
    assert f1_scores(confusion).tolist() == pytest.approx([8 / 10, 4 / 6])
    assert matthews(confusion) == pytest.approx((2 * 4 - 1 * 1) / math.sqrt(3 * 3 * 5 * 5))
    assert matthews(confusion_matrix(torch.zeros(4, dtype=torch.long), labels[4:], 2)) == 0.0


def test_they_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    draw = torch.Generator().manual_seed(0)
    labels, predicted = (torch.randint(4, (200,), generator=draw) for _ in range(2))
    predicted = torch.where(torch.rand(200, generator=draw) < 0.5, labels, predicted)
    confusion = confusion_matrix(predicted, labels, 4)
    assert confusion.tolist() == metrics.confusion_matrix(labels, predicted).tolist()
    assert f1_scores(confusion).tolist() == pytest.approx(metrics.f1_score(labels, predicted, average=None).tolist())
    assert matthews(confusion) == pytest.approx(metrics.matthews_corrcoef(labels, predicted))
