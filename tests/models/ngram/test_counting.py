"""Counts of n-grams: against a dictionary, in one block and many, in memory and on disk."""

from collections import Counter

import numpy as np

from amenable.models.ngram.counting import Scratch, count_ngrams, look_up, merge_runs
from tests.models.ngram.conftest import VOCABULARY, blocks_of


def as_dictionary(counts):
    tokens = {1: [(token,) for token in range(counts.vocab_size)]}
    for order in range(2, counts.order + 1):
        rows, last = np.divmod(counts.keys[order - 1], counts.vocab_size)
        tokens[order] = [(*tokens[order - 1][row], token) for row, token in zip(rows.tolist(), last.tolist())]
    return {
        ngram: count
        for order in tokens
        for ngram, count in zip(tokens[order], counts.counts[order - 1].tolist())
        if count
    }


def test_counts_are_those_of_a_dictionary(documents, counted):
    expected = Counter(
        tuple(document[end - order + 1 : end + 1])
        for document in documents
        for end in range(1, len(document))
        for order in range(1, min(6, end + 2))
    )
    assert as_dictionary(counted[5]) == expected


def test_blocks_on_disk_count_as_one_in_memory(documents, counted, tmp_path):
    apart = count_ngrams(blocks_of(documents, 7), 5, VOCABULARY, 0, Scratch(tmp_path))
    assert isinstance(apart.keys[-1], np.memmap)
    for ours, theirs in zip(apart.keys + apart.counts, counted[5].keys + counted[5].counts):
        assert ours.tolist() == theirs.tolist()


def test_orders_beyond_every_document_are_empty(documents, tmp_path):
    for scratch in (None, Scratch(tmp_path)):
        counts = count_ngrams(blocks_of(documents[:3], 2), 20, VOCABULARY, 0, scratch)
        assert len(counts.keys[-1]) == len(counts.counts[-1]) == 0


def test_runs_are_merged_by_pieces():
    draw = np.random.default_rng(0)
    runs = [(np.unique(draw.integers(0, 500, 300)),) * 2 for _ in range(5)]
    pieces = list(merge_runs(runs, block=50))
    keys, counts = np.concatenate([piece[0] for piece in pieces]), np.concatenate([piece[1] for piece in pieces])
    together = Counter(np.concatenate([run[0] for run in runs]).tolist())
    assert len(pieces) > 5
    assert keys.tolist() == sorted(together)
    assert counts.tolist() == [key * together[key] for key in sorted(together)]


def test_look_up_says_where_a_key_is_and_that_it_is_not_there():
    assert look_up(np.array([2, 5, 9]), np.array([5, 0, 9, 10, 2])).tolist() == [1, -1, 2, -1, 0]
    assert look_up(np.array([], np.int64), np.array([5])).tolist() == [-1]
