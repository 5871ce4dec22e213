"""Logits of choices, and metrics of classification by their confusion matrix.

Letters: E examples, K classes, R scores of all choices of all examples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def choice_logits(scores: Tensor, counts: Sequence[int]) -> Tensor:
    """Arrange scores [R] of choices, `counts` of each example in order, as logits [E, max(counts)]; -inf where an
    example has fewer choices."""
    return torch.nn.utils.rnn.pad_sequence(list(scores.split(list(counts))), True, -torch.inf)


def log_odds(logits: Tensor, label: int) -> Tensor:
    """Log-odds of a class against all others, log p / (1 - p) with p = softmax(logits)[label]. logits [E, K] -> [E]."""
    others = torch.cat([logits[:, :label], logits[:, label + 1 :]], dim=1)
    return logits[:, label] - others.logsumexp(dim=1)


def confusion_matrix(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count examples by label and predicted class, [E] and [E] -> [K, K]: rows are labels."""
    return torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).view(num_classes, num_classes)


def f1_scores(confusion: Tensor) -> Tensor:
    """F1 of each class, 2 TP / (2 TP + FP + FN), [K, K] -> [K]; 0 for a class without examples or predictions."""
    confusion = confusion.double()
    both = confusion.sum(0) + confusion.sum(1)
    return 2 * confusion.diagonal() / both.clamp(min=1)


def matthews(confusion: Tensor) -> float:
    """Matthews' correlation coefficient, of K classes by Gorodkin (2004, eq. 8); 0 where it is not defined.

    (n sum_k C_kk - t . p) / sqrt((n^2 - p . p) (n^2 - t . t)),    t, p: examples of each label, of each prediction
    """
    confusion = confusion.double()
    labels, predicted, n = confusion.sum(1), confusion.sum(0), confusion.sum()
    covariance = n * confusion.trace() - labels @ predicted
    norms = ((n**2 - predicted @ predicted) * (n**2 - labels @ labels)).sqrt()
    return float(covariance / norms) if norms > 0 else 0.0
