"""`amenable trpo`: each step is within its constraint, and the critic alone goes on. More in test_online.py."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.errors import InputError
from amenable.stages import trpo

RowsOf = Callable[[Path], list[dict[str, Any]]]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_step_keeps_the_constraint_and_lowers_the_loss(
    online: Callable[..., Any], rows_of: RowsOf, precision: str
) -> None:
    config = online(trpo, trust_region=0.003, cg_iterations=4, critic_learning_rate=5e-3, num_ppo_epochs=2)
    rows = rows_of(trpo.run(precise(config, precision)))
    for row in rows:
        assert 0 <= row["policy/kl"] <= row["policy/kl_limit"] <= 0.003 and row["updates"] == 2
        assert (row["policy/loss_fall"] > 0) == (row["policy/kl"] > 0) == (row["policy/halvings"] <= 10)
        assert row["policy/approxkl_avg"] < 0.01 and "lr" not in row and row["critic_lr"] > 0
    assert max(row["policy/kl"] for row in rows) > 1e-4


def precise(config: trpo.Config, precision: str) -> trpo.Config:
    return replace(config, device=replace(config.device, precision=precision))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_mini_batches": 2}, "one of a whole rollout.*amenable ppo"),
        ({"ptx_coef": 0.5, "ptx_data": Path("text")}, "no other loss"),
        ({"trust_region": 0.0}, "trust_region is 0"),
        ({"cg_damping": -0.1}, "cg_damping is -0.1"),
        ({"line_search_steps": 0}, "line_search_steps is 0"),
    ],
)
def test_options_that_a_step_has_not_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        trpo.Config(**options)
