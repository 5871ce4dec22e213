"""Whole models: every distribution sums to one, and nltk gives the same numbers."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.models.layout import Layout
from amenable.models.ngram import estimate as module
from amenable.models.ngram.counting import Scratch, count_ngrams
from amenable.models.ngram.estimate import adjusted_counts, estimate, suffix_rows, whole_contexts
from amenable.models.ngram.model import NGramModel
from amenable.models.ngram.smoothing import NAMES
from tests.models.ngram.conftest import VOCABULARY, blocks_of, flat

lm = pytest.importorskip("nltk.lm")


def log_distributions(model, rows):
    """Return the log-probabilities [rows, V] of the token after each row."""
    layout = Layout.of([len(row) for row in rows])
    return model.logits(model(torch.tensor(flat(rows)), layout, at=layout.last_tokens)).double()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None)
@given(st.data())
def test_every_context_has_a_distribution(name, data):
    token = st.integers(2, 6)
    documents = data.draw(st.lists(st.lists(token, max_size=5), min_size=1, max_size=6))
    order = data.draw(st.integers(1, 4))
    counts = count_ngrams(blocks_of([[0, *words, 1] for words in documents]), order, 8, 0)
    model = NGramModel(estimate(counts, name, k=0.3)[0])
    rows = data.draw(st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=5), min_size=1, max_size=8))
    probabilities = log_distributions(model, rows).exp()
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(len(rows)).double(), rtol=0, atol=2e-6)
    assert (probabilities[:, 0] == 0).all(), "a document begins once"


@pytest.mark.parametrize("name", NAMES)
def test_parts_and_disk_change_nothing(name, documents, counted, tmp_path, monkeypatch):
    whole, _ = estimate(counted[5], name)
    monkeypatch.setattr(module, "BLOCK", 10)
    apart, _ = estimate(counted[5], name, scratch=Scratch(tmp_path))
    for ours, theirs in zip([*apart.logprobs, *apart.backoffs], [*whole.logprobs, *whole.backoffs]):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_parts_hold_whole_contexts(counted):
    keys = counted[3].keys[2]
    parts = list(whole_contexts(keys, VOCABULARY, 5))
    assert [part.stop for part in parts[:-1]] == [part.start for part in parts[1:]]
    assert parts[-1].stop == len(keys)
    contexts = [set((keys[part] // VOCABULARY).tolist()) for part in parts]
    assert len(parts) > 5 and all(before.isdisjoint(after) for before, after in pairwise(contexts))


def test_adjusted_counts_are_tokens_before(documents, counted):
    """Of what begins a document, where nothing can be before, the count."""
    counts = counted[3]
    adjusted = adjusted_counts(counts, suffix_rows(counts, Scratch()), Scratch())
    row = {tuple(divmod(key, VOCABULARY)): i for i, key in enumerate(counts.keys[1].tolist())}
    text = [tuple(document[i : i + 3]) for document in documents for i in range(len(document) - 2)]
    assert adjusted[1][row[2, 3]] == len({a for a, b, c in text if (b, c) == (2, 3)})
    assert adjusted[1][row[0, 2]] == sum(document[1] == 2 for document in documents)
    pairs = {pair for document in documents for pair in pairwise(document)}
    assert adjusted[0][1] == len({a for a, b in pairs if b == 1})


def nltk_model(kind, documents, order, **options):
    """Return nltk's model of the same n-grams: one beginning a document, which is never predicted."""
    words = [list(map(str, document)) for document in documents]
    everything = [
        [
            tuple(row[end - size + 1 : end + 1])
            for end in range(1, len(row))
            for size in range(1, min(order, end + 1) + 1)
        ]
        for row in words
    ]
    # 12 words and nltk's own for unknown ones: as many outcomes as here
    model = kind(order=order, vocabulary=lm.Vocabulary(map(str, range(1, VOCABULARY - 1))), **options)
    model.counts.update(everything)
    return model


@pytest.mark.parametrize(
    ("name", "kind", "options", "ours"),
    [
        ("mle", lm.MLE, {}, {}),
        ("add-k", lm.Laplace, {}, {}),
        ("add-k", lm.Lidstone, {"gamma": 0.2}, {"k": 0.2}),
        ("stupid-backoff", lm.StupidBackoff, {}, {}),
        ("kneser-ney", lm.KneserNeyInterpolated, {"discount": 0.3}, {"discounts": 0.3}),
    ],
)
def test_numbers_are_those_of_nltk(name, kind, options, ours, documents, counted):
    """Every n-gram of the text, and every token after contexts that were counted. nltk has no uniform distribution
    below unigrams, so that order 1 is not discounted here; it counts what begins a document as Kneser and Ney do, KenLM
    and this package by occurrences, so that such contexts are left out; its stupid scores are
    not divided by their sum."""
    order = 3
    if "discounts" in ours:
        ours = {"discounts": [np.zeros(4), *[np.array([0, *[ours["discounts"]] * 3])] * (order - 1)]}
    tables, _ = estimate(counted[order], name, **ours)
    model, theirs = NGramModel(tables), nltk_model(kind, documents, order, **options)
    contexts = {tuple(document[max(i - 2, 0) : i]) for document in documents for i in range(1, len(document))}
    contexts = sorted(context for context in contexts if name != "kneser-ney" or 0 not in context)
    probabilities = log_distributions(model, [list(context) for context in contexts]).exp()
    compared = 0
    for context, row in zip(contexts, probabilities.tolist()):
        scores = [theirs.unmasked_score(str(token), tuple(map(str, context))) for token in range(1, VOCABULARY - 2)]
        if name == "stupid-backoff":  # unigrams that were not counted have 0.4 / V here and 0 there
            scores = [score or 0.4 ** (len(context) + 1) / (VOCABULARY - 1) for score in scores]
            total = sum(scores) + 2 * 0.4 ** (len(context) + 1) / (VOCABULARY - 1)
            scores = [score / total for score in scores]
        assert row[1 : VOCABULARY - 2] == pytest.approx(scores, abs=1e-6, rel=1e-6)
        compared += len(scores)
    assert compared > 300


def test_a_text_without_a_bos_begins_with_the_eos(documents):
    """The token is an outcome then: as the end of a document."""
    own = [[1, *document[1:]] for document in documents]
    tables, _ = estimate(count_ngrams(blocks_of(own), 3, VOCABULARY, 1), "modified-kneser-ney")
    probabilities = log_distributions(NGramModel(tables), [[1], [1, 2], [5]]).exp()
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(3).double(), rtol=0, atol=1e-6)
    assert (probabilities[:, 1] > 0).all() and math.isfinite(float(tables.logprobs[0][1]))
