"""Bag of words: a linear model on the words of a task's texts, the baseline of a classifier (needs scikit-learn).

Classes: logistic regression on the presence of words (Pang et al., 2002), with L2 of strength 1; numbers: ridge
regression. The words of a second text are others than those of the first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from amenable.errors import InputError
from amenable.train.classification import LabeledRows, Labels

WORD = re.compile(r"\w+|[^\w\s]")
HINT = "pip install scikit-learn, or leave the bag of words out with --no-bag-of-words"


def bag_of_words_logits(training: Sequence[LabeledRows], held_out: Sequence[LabeledRows], labels: Labels) -> Tensor:
    """Return the logits [E, K] of held-out examples, or their numbers [E, 1] in deviations from the training's mean, by
    a linear model of the training's words. InputError without scikit-learn."""
    try:
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression, Ridge
    except ImportError:
        raise InputError("scikit-learn is not installed", how=HINT) from None
    vectorizer = CountVectorizer(analyzer=words, binary=True)
    features = vectorizer.fit_transform(element.example.texts for element in training)
    held_out_features = vectorizer.transform(element.example.texts for element in held_out)
    targets = [element.label for element in training]
    if not labels.values:
        predicted = Ridge().fit(features, targets).predict(held_out_features)
        return torch.tensor(predicted, dtype=torch.float64)[:, None]
    model: Any = LogisticRegression(max_iter=1000).fit(features, [int(target) for target in targets])
    return torch.tensor(model.predict_log_proba(held_out_features), dtype=torch.float64)


def words(texts: Sequence[str]) -> list[str]:
    """Return the words and signs of texts in lower case, each with the number of its text."""
    return [f"{number} {word}" for number, text in enumerate(texts) for word in WORD.findall(text.lower())]
