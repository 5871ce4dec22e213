"""A2C reaches the optimum of a small gridworld, known exactly (test_agent.py has its parts)."""

import pytest

from amenable.control.a2c import A2C
from tests.control.test_training import is_optimal, trained


@pytest.mark.parametrize("seed", [0, 1])
def test_it_finds_the_optimal_policy(seed: int) -> None:
    assert is_optimal(trained(A2C, seed))
