"""The environment walks as the decision process says."""

import numpy as np
from gymnasium.utils.env_checker import check_env

from amenable.control.gridworld_env import Gridworld


def test_gymnasium_accepts_it() -> None:
    check_env(Gridworld(), skip_render_check=True)


def test_steps_are_drawn_from_the_dynamics() -> None:
    env = Gridworld(["SB", "TM"], slip=0.4)
    env.reset(seed=0)
    counts = np.zeros(4)
    for _ in range(1000):
        env.state = 0
        state, reward, ended, _, _ = env.step(1)
        counts[state] += 1
        assert reward == env.world.rewards[state] and ended == env.world.terminal[state]
    shares = env.world.transitions[0, 1]
    assert (np.abs(counts / 1000 - shares) <= 4 * np.sqrt(shares * (1 - shares) / 1000)).all()
    assert counts[3] == 0


def test_a_random_start_is_any_cell_that_ends_nothing() -> None:
    env = Gridworld(["S.", "TB"], random_start=True)
    assert {int(env.reset(seed=seed)[0]) for seed in range(40)} == {0, 1, 3}
    assert {int(Gridworld(["S.", "TB"]).reset(seed=seed)[0]) for seed in range(9)} == {0}
