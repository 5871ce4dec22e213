"""Tokenized rankings and pairs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amenable.data.mixture import Mixed
from amenable.data.rankings import pairs_of
from amenable.data.types import Message, Ranking
from amenable.errors import InputError
from amenable.models.decoder import Decoder
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.rankings import (
    Pair,
    TokenizedRanking,
    add_reference_logps,
    batch_elements,
    describe,
    first_prompts,
    margin_statistics,
    split_into_pairs,
    tokenize_pairs,
    tokenize_ranking,
    tokenize_splits,
)
from amenable.train.runtime import Runtime


@given(st.lists(st.integers(1, 4), max_size=6))
def test_every_pair_is_a_ranking_of_two(ranks: list[int]) -> None:
    whole = TokenizedRanking(
        [([i], [True]) for i in range(len(ranks))], [*map(float, ranks)], [10 * i for i in range(6)], "b"
    )
    pairs = split_into_pairs([whole, replace(whole, margin=0.5)])
    assert [tuple(row[0][0] for row in pair.rows) for pair in pairs] == 2 * pairs_of(ranks)
    assert [pair.margin for pair in pairs] == [0.0] * (len(pairs) // 2) + [0.5] * (len(pairs) // 2)
    for pair in pairs:
        assert pairs_of(pair.ranks) == [(0, 1)] and pair.annotator == "b"
        assert pair.lengths == [10 * row[0][0] for row in pair.rows]


def test_the_mean_margin_is_added_where_the_data_has_margins() -> None:
    ranking = TokenizedRanking([], [], [], "")
    both = [ranking, replace(ranking, margin=1.5)]
    assert margin_statistics(both)(1, both, {"loss": 2.0}) == {"loss": 2.0, "margin/given": 0.75}
    assert margin_statistics([ranking])(1, [ranking], {"loss": 2.0}) == {"loss": 2.0}


def test_a_batch_of_pairs_has_as_many_as_its_prompts_have_on_average() -> None:
    rows = [TokenizedRanking([([1], [True])] * 3, ranks, [1, 1, 1], "") for ranks in ([1, 2, 3], [1, 1, 2])]
    rankings = Mixed(["a", "b"], [rows[:1], rows[1:]])
    assert batch_elements(rankings, "prompts", 8) == (rankings, 8)
    pairs, count = batch_elements(rankings, "pairs", 8)
    assert (pairs.sizes, count) == ([3, 2], 20)  # 2.5 pairs a prompt
    assert describe(rankings) == "2 rankings, 6 completions, 5 pairs"


def test_the_first_prompts_have_all_their_rankings() -> None:
    rankings = [Ranking((Message("user", text),), ("x", "y"), (1.0, 2.0)) for text in "abab"]
    assert first_prompts(rankings, 1) == rankings[::2] and first_prompts(rankings, 0) == rankings


def test_rankings_that_are_too_long_are_left_out_of_each_split(words: Tokenizer, tmp_path: Path) -> None:
    short = Ranking((Message("user", "name a rose"),), ("lime", "plum", "sea"), (2.0, 1.0, 2.0), "a")
    long = replace(short, completions=("lime " * 60, "plum", "sea"))
    splits = {"train": Mixed(["a"], [[short, long]]), "validation": Mixed(["a"], [[long]])}
    sets = tokenize_splits(splits, lambda ranking: tokenize_ranking(ranking, words, 64), 64, tmp_path)
    (only,) = sets["train"]
    assert only.ranks == [2.0, 1.0, 2.0] and only.lengths == [4, 4, 3] and only.margin == 0.0
    assert list(sets["validation"]) == []
    with pytest.raises(InputError, match="none of the 1 rankings is within 64 tokens"):
        tokenize_splits(
            {"train": Mixed(["a"], [[long]])}, lambda ranking: tokenize_ranking(ranking, words, 64), 64, tmp_path
        )
    pairs = tokenize_pairs(short, words, 64, "all", 0, 0) or []
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [(only.rows[1], only.rows[i]) for i in (0, 2)]
    assert tokenize_pairs(long, words, 64, "all", 0, 0) is None


def test_reference_logps_are_sums_over_the_completions(make_decoder: Callable[..., Decoder], runtime: Runtime) -> None:
    pairs = [Pair(([1, 2, 3, 4], [False, False, True, True]), ([1, 2, 9], [False, False, True]))]
    (pair,) = add_reference_logps(make_decoder(), Mixed([""], [pairs]), runtime, 100)
    logps = forward.compute_logprobs(make_decoder(), [pair.chosen, pair.rejected], runtime, 100)
    assert (pair.ref_chosen, pair.ref_rejected) == pytest.approx(tuple(float(part.sum()) for part in logps))
