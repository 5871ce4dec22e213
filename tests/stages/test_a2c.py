"""`amenable a2c`: one update a rollout, and a critic that learns. More in test_online.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amenable.errors import InputError
from amenable.stages import a2c


def test_each_rollout_is_one_update_and_the_critic_learns(
    online: Callable[..., Any], rows_of: Callable[[Path], Any]
) -> None:
    rows = rows_of(a2c.run(online(a2c, max_steps=8, critic_learning_rate=5e-3)))
    assert [row["updates"] for row in rows] == [1] * 8 and "policy/clipfrac_avg" not in rows[0]
    assert rows[-1]["loss/value_avg"] < rows[0]["loss/value_avg"]


@pytest.mark.parametrize("options", [{"num_mini_batches": 2}, {"num_ppo_epochs": 2}])
def test_several_updates_a_rollout_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"one update a rollout.*amenable ppo"):
        a2c.Config(**options)
