"""The benchmark of comparisons beside the true reward, on a world that a few steps are enough for."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import control_preferences
from benchmarks.control_preferences import TASKS, Row, compare, untrained_return, ways_of


def test_a_row() -> None:
    row = Row("pendulum", "500 comparisons", [-200.0, -180.0], [0.9, 1.0], [], [0.99])
    assert str(row) == "| pendulum | 500 comparisons | -190.00 (-317.06 to -62.94) | 0.95 (0.31 to 1.59) | – | 0.99 |"


def test_an_untrained_pole_falls() -> None:
    config = replace(TASKS["cartpole"], fixed_length=True)
    value = untrained_return(config)
    assert 10 < value < 40 and untrained_return(config) == value


def test_ways() -> None:
    assert ways_of([700, 1400], False) == {
        "700 comparisons": {"max_labels": 700},
        "1400 comparisons": {"max_labels": 1400},
    }
    assert ways_of([500], True)["no weight decay"] == {"reward_weight_decay": 0.0, "max_labels": 500}


@pytest.mark.slow
def test_shares_are_between_the_untrained_and_the_true_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = replace(TASKS["cartpole"], total_timesteps=2048, num_steps=128, max_labels=8, reward_updates=2)
    monkeypatch.setattr(control_preferences, "TASKS", {"cartpole": tiny})
    ways = {name: ways_of([8], True)[name] for name in ("8 comparisons", "one predictor")}
    untrained, true, ours, single = compare("cartpole", 1, ways, tmp_path)
    share = (ours.returns[0] - untrained.returns[0]) / (true.returns[0] - untrained.returns[0])
    assert ours.shares == [share] and single.way == "one predictor" and len(single.returns) == 1
    again = compare("cartpole", 1, ways, tmp_path)
    assert again == [untrained, true, ours, single]
