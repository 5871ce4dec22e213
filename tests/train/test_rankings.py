"""Tokenized rankings and pairs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amenable.data.mixture import Mixed
from amenable.data.rankings import pairs_of
from amenable.models.decoder import Decoder
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.examples import ranking_rows
from amenable.train.rankings import (
    Pair,
    TokenizedRanking,
    add_reference_logps,
    batch_elements,
    describe,
    first_prompts,
    lazy_pairs,
    lazy_rankings,
    margin_statistics,
    split_into_pairs,
    with_rows,
)
from amenable.train.row_cache import RANKINGS, read_examples
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


def ranking_file(folder: Path, *rows: dict[str, Any]) -> Path:
    file = folder / "rankings.jsonl"
    file.write_text("".join(json.dumps({"prompt": "name a rose", **row}) + "\n" for row in rows), "utf-8")
    return file


def test_the_first_prompts_have_all_their_rankings(words: Tokenizer, tmp_path: Path) -> None:
    rows = [{"prompt": text, "completions": ["x", "y"], "ranking": [1, 2]} for text in "abab"]
    rankings = read_examples(ranking_file(tmp_path, *rows), RANKINGS, words)
    assert list(first_prompts(rankings, 1)) == rankings[::2] and list(first_prompts(rankings, 0)) == rankings[:]


def test_elements_are_read_as_they_are_needed(words: Tokenizer, tmp_path: Path) -> None:
    row = {"completions": ["lime", "plum", "sea"], "ranking": [2, 1, 2], "annotator": "b"}
    graded = {"chosen": "a rose", "rejected": "lime", "margin": 1.5}
    examples = read_examples(ranking_file(tmp_path, row, graded), RANKINGS, words)
    rankings, pairs = lazy_rankings(examples), lazy_pairs(examples, "all", 0, 0)
    assert list(rankings) == [with_rows(example, ranking_rows(example, words, 64) or []) for example in examples]
    assert (rankings[0].ranks, rankings[0].lengths, rankings[0].annotator) == ([2.0, 1.0, 2.0], [4, 4, 3], "b")
    assert rankings[0].id == examples[0].id
    for elements in (rankings, pairs, split_into_pairs(rankings)):
        for name in elements.columns.keys() - {"tokens"}:
            assert elements.columns[name].tolist() == [getattr(element, name) for element in elements]
    assert rankings.columns["tokens"].tolist() == [ranking.tokens for ranking in rankings]
    whole = rankings[0].rows
    assert list(pairs)[:2] == [Pair(whole[1], whole[0]), Pair(whole[1], whole[2])]
    assert pairs[2] == Pair(*rankings[1].rows, 1.5) and len(pairs) == 3
    assert [pair.rows for pair in split_into_pairs(rankings)] == [[pair.chosen, pair.rejected] for pair in pairs]
    assert len(lazy_pairs(examples, "random", 1, 0)) == 2


def test_reference_logps_are_sums_over_the_completions(make_decoder: Callable[..., Decoder], runtime: Runtime) -> None:
    pairs = [Pair(([1, 2, 3, 4], [False, False, True, True]), ([1, 2, 9], [False, False, True]))]
    (pair,) = add_reference_logps(make_decoder(), Mixed([""], [pairs]), runtime, 100)
    logps = forward.compute_logprobs(make_decoder(), [pair.chosen, pair.rejected], runtime, 100)
    assert (pair.ref_chosen, pair.ref_rejected) == pytest.approx(tuple(float(part.sum()) for part in logps))
