"""A linear model of words, which tells texts of other words apart."""

import builtins

import pytest

from amenable.data.task_columns import TaskExample
from amenable.errors import InputError
from amenable.evaluation.bag_of_words import bag_of_words_logits, words
from amenable.train.classification import LabeledRows, Labels

CLASSES = Labels(("neg", "pos"), {"0": 0, "1": 1})
NUMBERS = Labels(("score",), {}, 0.0, 1.0)


def element(label, *texts):
    return LabeledRows([], float(label), TaskExample(texts, str(label)))


TRAINING = [element(i % 2, f"It is {('bad', 'good')[i % 2]}, number {i}.") for i in range(20)]


def test_words_tell_texts_apart():
    pytest.importorskip("sklearn")
    held_out = [element(1, "good"), element(0, "so bad"), element(1, "GOOD!")]
    logits = bag_of_words_logits(TRAINING, held_out, CLASSES)
    assert logits.argmax(1).tolist() == [1, 0, 1]
    numbers = bag_of_words_logits(TRAINING, held_out, NUMBERS)
    assert numbers.shape == (3, 1) and numbers[0] > numbers[1]


def test_the_words_of_two_texts_differ():
    assert words(("A rose.", "a")) == ["0 a", "0 rose", "0 .", "1 a"]


def test_without_scikit_learn_one_line_says_so(monkeypatch):
    original = builtins.__import__

    def without(name, *rest):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match="scikit-learn is not installed; pip install scikit-learn"):
        bag_of_words_logits(TRAINING, [], CLASSES)
