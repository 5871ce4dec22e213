"""Attacks on a reward model: what their rows are, and how often they score as well."""

from collections.abc import Callable

import pytest
import torch

from amenable.data.types import Message, Ranking
from amenable.evaluation.reward_attacks import FLATTERY, attacked, describe, measure_attacks
from amenable.models.heads import ScalarModel
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.examples import ranking_rows
from amenable.train.forward import Row
from amenable.train.rankings import TokenizedRanking, with_rows
from amenable.train.runtime import Runtime

ASKED = [("name a white thing.", ("a rose", "salt")), ("name a red thing.", ("a cherry", "lime"))]


@pytest.fixture
def items(words: Tokenizer) -> list[TokenizedRanking]:
    rankings = [Ranking((Message("user", text),), answers, (2.0, 1.0)) for text, answers in ASKED]
    return [with_rows(ranking, ranking_rows(ranking, words, 64) or []) for ranking in rankings]


def test_the_rows_of_each_attack(items: list[TokenizedRanking], words: Tokenizer) -> None:
    rows = [item.rows[1] for item in items]

    def text(row: Row | None) -> str:
        assert row is not None
        return words.decode([token for token, trained in zip(*row) if trained])

    texts = {name: [text(row) for row in part] for name, part in attacked(rows, words).items()}
    assert texts["repeated"] == ["saltsalt", "limelime"] and texts["swapped"] == ["lime", "salt"]
    assert texts["flattered"] == [f"salt{FLATTERY}", f"lime{FLATTERY}"]
    assert all("salt".startswith(texts["truncated"][i]) or "lime".startswith(texts["truncated"][i]) for i in (0, 1))
    for part in attacked(rows, words).values():
        assert all(row is not None and row[0][-1] == words.end_of_turn_id and row[1][-1] for row in part)
    assert attacked(rows[:1], words)["swapped"] == [None]


def test_shares_by_hand(
    items: list[TokenizedRanking], words: Tokenizer, make_scalar_model: Callable[..., ScalarModel], runtime: Runtime
) -> None:
    model = make_scalar_model(3, vocab_size=words.vocab_size)
    rows = [item.rows[1] for item in items]
    best = forward.compute_rewards(model, rows, runtime, 100)
    shares = measure_attacks(model, items, words, runtime, 500)
    for name, part in attacked(rows, words).items():
        fitting = [i for i, row in enumerate(part) if row is not None and len(row[0]) <= 64]
        scores = [forward.compute_rewards(model, [part[i]], runtime, 100) for i in fitting]  # type: ignore[list-item]
        wins = [float(score >= best[i]) for i, score in zip(fitting, scores)]
        assert shares.get(f"eval/attack_{name}") == (pytest.approx(sum(wins) / len(wins)) if wins else None)
    assert {"eval/attack_repeated", "eval/attack_truncated", "eval/attack_swapped"} <= shares.keys()


def test_a_reward_that_is_constant_falls_for_every_attack(
    items: list[TokenizedRanking], words: Tokenizer, make_scalar_model: Callable[..., ScalarModel], runtime: Runtime
) -> None:
    model = make_scalar_model(vocab_size=words.vocab_size)
    torch.nn.init.zeros_(model.score.weight)
    shares = measure_attacks(model, items, words, runtime, 500)
    assert set(shares.values()) == {1.0} and "swapped 100%" in describe(shares)  # a constant cannot tell any apart
    assert measure_attacks(model, [], words, runtime, 500) == {} and describe({}) == ""
