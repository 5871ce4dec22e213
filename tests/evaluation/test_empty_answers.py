"""Where a reward model puts the empty answer: counted by hand from single scores."""

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

import pytest

from amenable.data.types import Message, Ranking
from amenable.evaluation.empty_answers import rank_of_empty
from amenable.models.heads import ScalarModel
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.examples import ranking_rows
from amenable.train.rankings import TokenizedRanking, with_rows
from amenable.train.runtime import Runtime

ASKED = [
    ("name a white thing.", ("a rose", "salt", "snow")),
    ("name a red thing.", ("a cherry", "lime")),
    ("name a blue thing.", ("the sea", "the sky", "ink")),
]


def rankings(*extra: str) -> list[Ranking]:
    return [
        Ranking((Message("user", text),), (*answers, *extra), tuple(range(1, len(answers + extra) + 1)))
        for text, answers in ASKED
    ]


def items_of(words: Tokenizer, *extra: str) -> list[TokenizedRanking]:
    return [with_rows(ranking, ranking_rows(ranking, words, 64) or []) for ranking in rankings(*extra)]


@pytest.mark.parametrize("seed", range(4))
def test_shares_by_hand(
    words: Tokenizer, make_scalar_model: Callable[..., ScalarModel], runtime: Runtime, seed: int
) -> None:
    model, below, last = make_scalar_model(seed, vocab_size=words.vocab_size), [], []
    for ranking in rankings(""):
        rows = ranking_rows(ranking, words, 64)
        assert rows is not None
        *given, empty = (float(forward.compute_rewards(model, [row], runtime, 100)) for row in rows)
        below.append(empty < fmean(given))
        last.append(empty < min(given))
    result = rank_of_empty(model, items_of(words), words, runtime, 500)
    assert result == pytest.approx({"eval/empty_below": fmean(below), "eval/empty_last": fmean(last)})


def test_empty_answers_among_the_given_ones_are_left_out(
    words: Tokenizer, make_scalar_model: Callable[..., ScalarModel], runtime: Runtime
) -> None:
    model = make_scalar_model(vocab_size=words.vocab_size)
    without, among = (rank_of_empty(model, items_of(words, *extra), words, runtime, 500) for extra in ((), ("",)))
    assert among == without
    silent = [replace(item, rows=item.rows[-1:], lengths=[0]) for item in items_of(words, "")]
    assert rank_of_empty(model, silent, words, runtime, 500) == {}
    assert rank_of_empty(model, [], words, runtime, 500) == {}
