"""Agreement of scores with rankings."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amenable.evaluation.ranking_accuracy import calibration, correct, describe, measure_accuracies, ranking_metrics
from amenable.functional.statistics import wilson
from amenable.models.heads import ScalarModel
from amenable.seeds import seeded_generator
from amenable.train import forward
from amenable.train.log import Log
from amenable.train.rankings import TokenizedRanking
from amenable.train.runtime import Runtime


def item(ranks: list[float], lengths: list[int], annotator: str = "a") -> TokenizedRanking:
    return TokenizedRanking([([1, 2], [False, True])] * len(ranks), ranks, lengths, annotator)


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_summary_by_hand() -> None:
    items = [item([1, 2, 3], [10, 10, 30]), item([2, 1], [40, 20], "b")]
    scores = [torch.tensor([1.0, 2.0, 2.0]), torch.tensor([0.0, 3.0])]
    result = ranking_metrics(items, scores, draw())
    # 0 over 1: 1 against 2 is wrong; 0 over 2 wrong; 1 over 2 level; 1 over 0 right
    assert result["pairs"] == 4
    assert result["accuracy"] == pytest.approx((0 + 0 + 0.5 + 1) / 4)
    terms = [math.log(1 + math.exp(-gap)) for gap in (-1.0, -1.0, 0.0, 3.0)]
    assert result["loss"] == pytest.approx(sum(terms) / 4)
    assert result["by_annotator"] == {
        name: {"accuracy": pytest.approx(share), "low": pytest.approx(low), "high": pytest.approx(high), "pairs": pairs}
        for name, share, pairs in (("a", 0.5 / 3, 3), ("b", 1.0, 1))
        for low, high in (wilson(share, 1),)
    }
    # the better ones have 10:10, 10:30, 10:30 and 20:40 characters
    assert result["longer_wins"] == pytest.approx(0.5 / 4)
    assert result["accuracy_length_matched"] == 0.0
    # the shorter one was preferred in three pairs of different lengths, the longer one in none
    assert result["accuracy_shorter"] == pytest.approx(1.5 / 3) and result["accuracy_longer"] is None
    sigmoids = [1 / (1 + math.exp(-gap)) for gap in (-1.0, -1.0, 0.0, 3.0)]
    assert result["brier"] == pytest.approx(sum((1 - sigmoid) ** 2 for sigmoid in sigmoids) / 4)
    # a bin each: predicted 0.731 and wrong, twice; 0.5 and half right; 0.953 and right
    assert result["ece"] == pytest.approx((2 * (1 - sigmoids[0]) + 0 + (1 - sigmoids[3])) / 4)
    assert result["low"] <= result["accuracy"] <= result["high"]
    assert sum(part["count"] for part in result["calibration"]) == 4


def test_lengths_are_matched_within_the_pair() -> None:
    """10 and 13 characters are not within 10 % of each other, however long a third answer is; 100 and 91 are."""
    result = ranking_metrics([item([1, 2, 3], [10, 13, 90])], [torch.tensor([3.0, 2.0, 1.0])], draw())
    assert result["accuracy"] == 1.0 and result["accuracy_length_matched"] is None
    result = ranking_metrics([item([1, 2, 3], [100, 91, 10])], [torch.tensor([1.0, 2.0, 0.0])], draw())
    assert result["accuracy_length_matched"] == 0.0


def test_the_interval_resamples_prompts() -> None:
    """Within a prompt pairs are not independent: four prompts, all right or all wrong, are four coins, not forty."""
    items = [item([1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2], [5] * 11) for _ in range(4)]
    scores = [torch.tensor([sign, *[0.0] * 10]) for sign in (1.0, 1.0, -1.0, -1.0)]
    result = ranking_metrics(items, scores, draw())
    assert result["accuracy"] == 0.5 and result["pairs"] == 40
    assert (result["low"], result["high"]) == pytest.approx(wilson(2, 4))
    assert result["loss_low"] == pytest.approx(math.log(1 + math.exp(-1)))
    assert result["loss_high"] == pytest.approx(math.log(1 + math.exp(1)))


def test_nothing_to_compare_is_said_and_not_divided() -> None:
    for items in ([], [item([1, 1], [3, 4])]):
        result = ranking_metrics(items, [torch.zeros(2)] * len(items), draw())
        assert (result["accuracy"], result["pairs"], result["low"], result["high"]) == (0.5, 0, 0.0, 1.0)
        assert (result["loss"], result["loss_low"], result["loss_high"]) == (math.log(2), None, None)


@pytest.mark.parametrize(("gap", "hit"), [(0.1, 1.0), (0.0, 0.5), (-2.0, 0.0)])
def test_a_level_pair_is_half_right(gap: float, hit: float) -> None:
    assert float(correct(torch.tensor([gap]))) == hit


def test_calibration_sorts_by_size_and_tells_the_share_that_was_right() -> None:
    result = calibration(torch.tensor([3.0, -0.1, 0.1, -2.0]), bins=2)
    small, large = result
    assert small["count"] == large["count"] == 2
    assert small["predicted"] == pytest.approx(1 / (1 + math.exp(-0.1))) and small["actual"] == 0.5
    assert large["predicted"] == pytest.approx((1 / (1 + math.exp(-2)) + 1 / (1 + math.exp(-3))) / 2)
    assert large["actual"] == 0.5


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=40))
def test_every_gap_is_in_one_bin(gaps: list[float]) -> None:
    bins = calibration(torch.tensor(gaps))
    assert sum(part["count"] for part in bins) == len(gaps) and len(bins) <= 8
    assert all(0.5 <= part["predicted"] <= 1 and 0 <= part["actual"] <= 1 for part in bins)
    total = sum(part["actual"] * part["count"] for part in bins)
    assert total == pytest.approx(float(correct(torch.tensor(gaps)).sum()), abs=1e-4)


def test_a_model_is_measured_on_each_set_that_is_not_empty(
    make_scalar_model: Callable[..., ScalarModel], runtime: Runtime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, rows = make_scalar_model(), [([1, 2, i], [False, False, True]) for i in range(3, 9)]
    sets = {
        name: [TokenizedRanking(part, [1, 2, 3], [5, 5, 5], "a")] for name, part in (("b", rows[:3]), ("c", rows[3:]))
    }
    accuracies = measure_accuracies(model, {"a": [], **sets}, runtime, 6, 0, Log(tmp_path, "stage"))
    scores = [forward.compute_rewards(model, part, runtime, 6) for part in (rows[:3], rows[3:])]
    assert accuracies == {
        name: ranking_metrics(sets[name], [part], seeded_generator(0, "bootstrap")) for name, part in zip("bc", scores)
    }
    assert f"c: {describe(accuracies['c'])}" in " ".join(capsys.readouterr().err.split())


def test_figures_as_a_line() -> None:
    accuracy = {"accuracy": 0.7, "low": 0.6, "high": 0.8, "loss": 0.5, "pairs": 40, "longer_wins": 0.51}
    line = "accuracy 0.700 [0.600, 0.800] and loss 0.500 on 40 pairs; 'the longer answer wins' 0.510"
    assert describe(accuracy) == line
