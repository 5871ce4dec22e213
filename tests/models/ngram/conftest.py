"""A small corpus of ids: 0 begins a document, 1 ends it."""

import random

import numpy as np
import pytest

from amenable.models.ngram.counting import count_ngrams

VOCABULARY = 14


def make_documents() -> list[list[int]]:
    draw = random.Random(0)
    weights = [8, 5, 3, 3, 2, 2, 1, 1, 1, 1]
    return [[0, *draw.choices(range(2, 12), weights, k=draw.randint(0, 9)), 1] for _ in range(80)]


def flat(rows):
    return [token for row in rows for token in row]


def blocks_of(documents, parts=1):
    """Return the documents as blocks, divided among `parts` of them."""

    def blocks():
        for i in range(parts):
            own = documents[i::parts]
            yield np.concatenate(own), np.concatenate([np.arange(len(document)) for document in own])

    return blocks


@pytest.fixture(scope="package")
def documents():
    return make_documents()


@pytest.fixture(scope="package")
def counted(documents):
    return {order: count_ngrams(blocks_of(documents), order, VOCABULARY, 0) for order in (1, 2, 3, 5, 13)}
