"""Shares of preferences: the better answer's, half where nothing tells, and the same whichever model is named first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from amenable.data.types import Prompt
from amenable.evaluation.preference import (
    GoldCache,
    by_reward,
    half_width,
    length_controlled,
    mean_win_rate,
    outcomes,
    preferences,
)
from amenable.feedback.ratings import LENGTH_SCALE
from amenable.functional.statistics import wilson
from amenable.world.closed_world import ClosedWorld

IDS = ["p0", "p1", "p2"]


def reply(*texts: str, rewards: Sequence[float | None] = (None, None, None)) -> list[dict[str, Any]]:
    return [{"text": text, "ended": True, "reward": reward} for text, reward in zip(texts, rewards)]


@dataclass
class Letters:
    """A world whose gold is a number of the first letter; its panel of three is noisy. It counts what it reads."""

    read: int = 0

    def gold(self, prompt_id: str, text: str, ended: bool) -> float:
        self.read += 1
        return float(ord(text[0]) * 11 % 26) if ended else -1.0

    def votes(self, first: list[float], second: list[float], generator: torch.Generator, held_out: bool) -> Any:
        gaps = torch.tensor(first, dtype=torch.float64) - torch.tensor(second, dtype=torch.float64)
        noise = (torch.rand(3, len(gaps), generator=generator, dtype=torch.float64) - 0.5) * (1 if held_out else 50)
        return (gaps > noise).double().mean(0)


def test_the_better_answer_is_preferred() -> None:
    a, b = reply("z", "a", "m"), reply("a", "z", "m")
    assert outcomes(Letters(), IDS, a, b, "heldout", 0).tolist() == [1.0, 0.0, 0.5]  # type: ignore[arg-type]


def test_an_answer_that_ended_is_another_than_one_cut_off() -> None:
    a, b = reply("m"), [{"text": "m", "ended": False}]
    assert outcomes(Letters(), IDS[:1], a, b, "heldout", 0).tolist() == [1.0]  # type: ignore[arg-type]


def test_who_is_named_first_makes_no_difference_to_the_bit() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    generator = torch.Generator().manual_seed(1)
    a, b = ([{"text": letters[i], "ended": True} for i in torch.randint(26, (99,), generator=generator)] for _ in "ab")
    ids = [str(i) for i in range(99)]
    forth, back = (outcomes(Letters(), ids, *pair, "training", 5) for pair in ((a, b), (b, a)))  # type: ignore[arg-type]
    assert torch.equal(back, 1 - forth) and torch.equal(forth, 1 - back)
    assert 0 < ((forth > 0) & (forth < 1)).sum() < 99
    again, other = (outcomes(Letters(), ids, a, b, "training", seed) for seed in (5, 6))  # type: ignore[arg-type]
    assert torch.equal(forth, again) and not torch.equal(forth, other)


def test_annotators_of_a_world(small_world: ClosedWorld, prompts: list[Prompt]) -> None:
    ids = [prompt.id for prompt in prompts]
    best = [{"text": small_world.best_answer(name), "ended": True} for name in ids]
    bad = [{"text": "You fool.", "ended": True} for _ in ids]
    for judges in ("heldout", "training"):
        forth = outcomes(small_world, ids, best, bad, judges, 0)
        assert forth.mean() > 0.8 and torch.equal(outcomes(small_world, ids, bad, best, judges, 0), 1 - forth)
        assert outcomes(small_world, ids, best, best, judges, 0).tolist() == [0.5] * len(ids)


def test_gold_is_computed_once_for_each_answer() -> None:
    world = Letters()
    gold = GoldCache(world)  # type: ignore[arg-type]
    models = {name: {"sampled": reply(*letters), "greedy": None} for name, letters in zip("abc", ("xyz", "ayz", "xbz"))}
    table = preferences(models, IDS, gold, False, 0)
    assert world.read == 5 and len(table) == 6


def test_the_table_counts_pairs_on_the_prompts_that_both_answered() -> None:
    models = {
        "a": {"sampled": reply("x", "y", "z", rewards=(1, 2, 3)), "greedy": reply("x", "y", "z", rewards=(1, 2, 3))},
        "b": {"sampled": reply("u", "v", "z", rewards=(2, 1, 3)), "greedy": reply("x", "v", "w", rewards=(9, 9, 9))},
        "best": {"sampled": reply("k", "l", rewards=(5, 5)), "greedy": None},
    }
    table = preferences(models, IDS, None, True, 0)
    assert [(row["a"], row["b"], row["decoding"], row["wins"], row["n"]) for row in table] == [
        ("a", "b", "sampled", 0.5, 3),
        ("a", "best", "sampled", 0.0, 2),
        ("b", "best", "sampled", 0.0, 2),
        ("a", "b", "greedy", pytest.approx(0.5 / 3), 3),
    ]
    assert {row["judges"] for row in table} == {"reward"}
    assert (table[1]["low"], table[1]["high"]) == wilson(0, 2)
    assert preferences(models, IDS, None, False, 0) == []


def test_the_reward_model_decides_where_the_answers_differ() -> None:
    a, b = reply("x", "y", "z", rewards=(1.0, 2.0, 0.0)), reply("u", "v", "z", rewards=(2.0, 1.0, 5.0))
    assert by_reward(a, b).tolist() == [0.0, 1.0, 0.5]


def test_a_judge_of_length_prefers_nobody_at_equal_length() -> None:
    """The longer answer wins nine times of ten, and those of `a` are longer three times of four."""
    a, b = ([{"text": "x" * n} for n in own * 50] for own in ([30, 30, 30, 10], [20, 20, 20, 20]))
    shares = torch.tensor([0.9, 0.9, 0.9, 0.1] * 50, dtype=torch.float64)
    figures = length_controlled(shares, a, b)
    assert mean_win_rate(shares)["wins"] == pytest.approx(0.7) and figures is not None
    assert figures["wins"] == pytest.approx(0.5, abs=0.02) and figures["low"] < 0.5 < figures["high"]
    assert figures["length_effect"] == pytest.approx(LENGTH_SCALE * math.log(9) / math.tanh(1), rel=0.03)
    back = length_controlled(1 - shares, b, a)
    assert back is not None and back["wins"] == pytest.approx(1 - figures["wins"])
    assert (back["low"], back["high"]) == pytest.approx((1 - figures["high"], 1 - figures["low"]))


def test_the_regression_on_length_is_at_its_maximum() -> None:
    """Both derivatives of the likelihood with the prior's ties, of theta / 2, -theta / 2 and phi with 0, are zero."""
    lengths, shares = [3, 9, 1, 4, 12, 7], torch.tensor([1.0, 0.5, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    a, b = ([{"text": "x" * n} for n in own] for own in (lengths, [6] * 6))
    figures = length_controlled(shares, a, b)
    assert figures is not None
    theta, phi = math.log(figures["wins"] / (1 - figures["wins"])), figures["length_effect"] / LENGTH_SCALE
    gaps = torch.tensor(lengths, dtype=torch.float64) - 6
    term = torch.tanh(gaps / gaps.square().mean().sqrt())
    rest = shares - torch.sigmoid(theta + phi * term)
    half, own = torch.sigmoid(torch.tensor([theta / 2, phi], dtype=torch.float64)).tolist()
    assert float(rest.sum()) + (0.5 - half) == pytest.approx(0, abs=1e-6)
    assert float((rest * term).sum()) + (0.5 - own) == pytest.approx(0, abs=1e-6)


def test_equal_lengths_need_no_control() -> None:
    assert length_controlled(torch.tensor([1.0, 0.0]), [{"text": "ab"}] * 2, [{"text": "cd"}] * 2) is None
    table = preferences(
        {n: {"sampled": reply(t, rewards=(1.0,))} for n, t in (("a", "xyz"), ("b", "u"))}, IDS, None, True, 0
    )
    assert table[0]["length_controlled"]["low"] < table[0]["length_controlled"]["high"]


def test_intervals() -> None:
    assert mean_win_rate(torch.tensor([1.0, 0.5, 0.0, 1.0])) == {
        "wins": 0.625,
        "low": wilson(2.5, 4)[0],
        "high": wilson(2.5, 4)[1],
        "n": 4,
    }
    assert half_width(600) == pytest.approx(1.959964 * math.sqrt(0.25 / 600))
