"""Scores of RewardBench's sections by hand; other subsets by what stands before a slash."""

import math

import pytest

from amenable.evaluation.reward_bench import REWARD_BENCH, combine, sections
from amenable.functional.statistics import wilson


def row(accuracy: float, pairs: int) -> dict[str, float]:
    return {"accuracy": accuracy, "low": 0.0, "high": 1.0, "pairs": pairs}


def test_the_sections_have_the_published_sizes() -> None:
    assert {name: sum(own.values()) for name, own in REWARD_BENCH.items()} == {
        **{"Chat": 358, "Chat Hard": 456, "Safety": 740},
        "Reasoning": 1431 - 447 + 984,  # math weighs as much as code
    }


def test_subsets_weigh_as_on_the_leaderboard() -> None:
    groups = {
        **{"alpacaeval-easy": row(0.9, 10), "mt-bench-med": row(0.5, 40)},
        **{"llmbar-natural": row(0.6, 100), "donotanswer": row(1.0, 9)},
        **{"math-prm": row(0.25, 447), "hep-cpp": row(0.75, 164)},
    }
    figures = sections(groups)
    assert {name: each["accuracy"] for name, each in figures.items()} == pytest.approx(
        {
            "Chat": (100 * 0.9 + 40 * 0.5) / 140,
            "Chat Hard": 0.6,
            "Safety": 1.0,
            "Reasoning": (984 * 0.25 + 164 * 0.75) / 1148,
            "score": (110 / 140 + 0.6 + 1.0 + (984 * 0.25 + 164 * 0.75) / 1148) / 4,
        }
    )
    assert figures["Chat"]["pairs"] == 50 and figures["score"]["pairs"] == 770
    assert "score" not in sections({name: groups[name] for name in ("alpacaeval-easy", "donotanswer")})


def test_other_subsets_are_sections_by_their_first_name() -> None:
    groups = {"natural": row(0.8, 64), "adversarial/manual": row(0.4, 33), "adversarial/neighbor": row(0.2, 107)}
    figures = sections(groups)
    assert {name: each["accuracy"] for name, each in figures.items()} == pytest.approx(
        {"natural": 0.8, "adversarial": 0.3}
    )
    assert sections({"north": row(0.5, 4), "south": row(0.5, 4)}) == sections({}) == {}
    mixed = {"alpacaeval-easy": row(0.5, 4), "other": row(0.5, 4)}
    assert sections(mixed) == {}


def test_intervals_are_those_of_the_effective_size() -> None:
    single = combine({"a": (3.0, row(0.6, 50))})
    assert (single["low"], single["high"]) == pytest.approx(wilson(30, 50))
    two = combine({"a": (1.0, row(0.5, 100)), "b": (1.0, row(0.5, 100))})
    assert (two["low"], two["high"]) == pytest.approx(wilson(100, 200))
    uneven = combine({"a": (0.9, row(0.5, 100)), "b": (0.1, row(0.5, 1000))})
    assert (uneven["high"] - uneven["low"]) / 2 == pytest.approx(
        1.96 * math.sqrt(0.25 * (0.81 / 100 + 0.01 / 1000)), rel=0.03
    )
    sure = combine({"a": (1.0, row(1.0, 30)), "b": (1.0, row(1.0, 30))})
    assert sure["accuracy"] == 1.0 and (sure["low"], sure["high"]) == pytest.approx(wilson(60, 60))
