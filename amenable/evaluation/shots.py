"""Shots, the worked examples before a prompt: which of them, and in which order.

    first      the first N, before every prompt the same
    random     N drawn for each prompt (Brown et al., 2020, section 2.4)
    balanced   drawn for each prompt, from all classes equally often
    similar    the N most similar to the prompt, the most similar last (Liu et al., 2022)

Similarity is the cosine of the texts' words, weighted by TF-IDF:

    w = tf (log((1 + N) / (1 + df)) + 1)
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from amenable.errors import InputError
from amenable.evaluation.tasks.overlap import words_of
from amenable.seeds import seeded_generator

Selection = Literal["first", "random", "balanced", "similar"]


@dataclass(frozen=True)
class ShotSelector:
    """Selection of examples for a prompt."""

    texts: Sequence[str]
    """prompts of the examples"""
    classes: Sequence[str] = ()
    """class of each example, such as its right choice; read where classes are balanced"""
    count: int = 0
    """examples before a prompt; 0 takes all"""
    selection: Selection = "first"
    seed: int = 0

    def require_possible(self, where: str | Path) -> None:
        """Raise InputError for too few examples in the file `where`, and for classes that cannot be balanced."""
        if len(self.texts) < self.count:
            raise InputError(f"{len(self.texts)} examples for {self.count} shots", where, "lower --num-shots")
        if self.selection == "balanced" and not 1 < len(set(self.classes)) < len(self.classes):
            problem = f"{len(self.classes)} examples of {len(set(self.classes))} classes cannot be balanced"
            raise InputError(problem, where, "give examples of two classes or more, several of each")

    def choose(self, prompt: str) -> list[int]:
        """Return the numbers of the examples before a prompt, in order; a function of the seed and the prompt."""
        count = self.count or len(self.texts)
        if self.selection == "first":
            return list(range(count))
        if self.selection == "similar":
            nearest = self._index.similarities(prompt).sort(descending=True, stable=True).indices
            return nearest[:count].flip(0).tolist()
        generator = seeded_generator(self.seed, "shots", prompt)
        order: list[int] = torch.randperm(len(self.texts), generator=generator).tolist()
        if self.selection == "balanced":
            drawn = Counter[str]()
            turn = dict[int, int]()
            for i in order:
                turn[i] = drawn[self.classes[i]]
                drawn[self.classes[i]] += 1
            chosen = set(sorted(order, key=lambda i: turn[i])[:count])
            return [i for i in order if i in chosen]
        return order[:count]

    @cached_property
    def _index(self) -> TfIdf:
        return TfIdf(self.texts)


class TfIdf:
    """Index of texts by their words."""

    def __init__(self, texts: Sequence[str]):
        counts = [Counter(words_of(text)) for text in texts]
        frequency = Counter(word for count in counts for word in count)
        self.size = len(texts)
        self.numbers = {word: i for i, word in enumerate(frequency)}
        self.idf = torch.log((1 + self.size) / (1 + torch.tensor(list(frequency.values()), dtype=torch.float64))) + 1
        cells = [(row, self.numbers[word], tf) for row, count in enumerate(counts) for word, tf in count.items()]
        rows, words, tfs = torch.tensor(cells, dtype=torch.float64).view(-1, 3).unbind(1)
        self.rows, self.words = rows.long(), words.long()
        weights = tfs * self.idf[self.words]
        norms = torch.zeros(self.size, dtype=torch.float64).index_add_(0, self.rows, weights.square()).sqrt()
        self.weights = weights / norms[self.rows]

    def similarities(self, text: str) -> Tensor:
        """Return the cosine of each indexed text with a text, [N]; 0 where they share no word."""
        query = torch.zeros(len(self.numbers), dtype=torch.float64)
        for word, tf in Counter(words_of(text)).items():
            if word in self.numbers:
                query[self.numbers[word]] = tf * self.idf[self.numbers[word]]
        query /= query.norm().clamp(min=1e-12)
        return torch.zeros(self.size, dtype=torch.float64).index_add_(0, self.rows, self.weights * query[self.words])


def digest(text: str) -> bytes:
    """Return a hash of a text in which case and white space do not count."""
    return hashlib.sha256(" ".join(text.casefold().split()).encode()).digest()


def require_no_leak(examples: Sequence[str], prompts: Sequence[str], test: str, where: str | Path) -> None:
    """Raise InputError for an example, of the file `where`, whose prompt is one of those of the test of a name."""
    tested = {digest(prompt) for prompt in prompts}
    for number, example in enumerate(examples, start=1):
        if digest(example) in tested:
            hint = "take examples from another split"
            raise InputError(f"example {number} is a row of the test '{test}'", where, hint)
