"""A hopper without rewards, whose backward turns are counted."""

import numpy as np
import pytest

pytest.importorskip("mujoco")

from amenable.control.backflip import PITCH, Backflip


def test_there_is_no_reward_and_no_end() -> None:
    env = Backflip()
    observation, info = env.reset(seed=0)
    assert observation.shape == env.observation_space.shape == (12,) and info["rotation"] == 0
    for _ in range(40):
        observation, reward, ended, cut, info = env.step(np.ones(3))
        assert (reward, ended, cut) == (0.0, False, False)
    assert abs(info["rotation"]) > 0.01


def test_leaning_backward_counts_as_rotation_and_a_turn_looks_like_none() -> None:
    env = Backflip()
    env.reset(seed=0)
    positions, still = env.data.qpos.copy(), env.data.qvel * 0
    positions[1] += 5
    positions[PITCH] -= np.pi / 2
    env.set_state(positions, still)
    head = env.data.geom("torso_geom").xmat.reshape(3, 3)[:, 2]
    assert head[0] < -0.9, "a quarter turn backward: its head points away from where it hops to"
    assert env.step(np.zeros(3))[4]["rotation"] == pytest.approx(0.25, abs=0.01)
    before = env._get_obs()
    positions = env.data.qpos.copy()
    positions[PITCH] -= 2 * np.pi
    env.set_state(positions, env.data.qvel.copy())
    assert env._get_obs() == pytest.approx(before), "the observation does not count turns"
    assert env.step(np.zeros(3))[4]["full_turn"] == 1
    positions[PITCH] += 2 * np.pi
    env.set_state(positions, still)
    info = env.step(np.zeros(3))[4]
    assert info["rotation"] < 1 and info["full_turn"] == 1, "a turn that was taken back was one"
    assert env.reset()[1]["full_turn"] == 0
