"""Options of rewards: each has bounds, and they are a command's own flags."""

import math
from typing import Any

import pytest

from amenable import cli
from amenable.errors import InputError
from amenable.rewards.options import RewardOptions
from amenable.stages import annotate, evaluate, ppo, rloo, sft


@pytest.mark.parametrize(
    "wrong",
    [
        {"reward_timeout": 0.0},
        {"reward_timeout": math.inf},
        {"code_timeout": math.nan},
        {"code_workers": -1},
        {"code_memory": 8},
        {"judge_workers": 0},
    ],
)
def test_options_outside_their_bounds(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        RewardOptions(**wrong)


@pytest.mark.parametrize("stage", [annotate, evaluate, ppo, rloo, sft])
def test_they_are_flags_of_every_stage_with_rewards(stage: Any) -> None:
    config = cli.parse(stage.Config, ["--reward-timeout", "5", "--allow-code-execution"], "x", "")
    assert config.scoring == RewardOptions(reward_timeout=5.0, allow_code_execution=True)
