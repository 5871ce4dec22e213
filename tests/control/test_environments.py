"""Environments by name, side by side: ends, spaces, seeds, and episodes that are played again."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from amenable.control import environments
from amenable.control.environments import Environments, make
from amenable.errors import InputError

EVERY = np.ones(2, bool)


def walk(copies: Environments, steps: int, seed: int = 0) -> list[Any]:
    generator = np.random.default_rng(seed)
    outcomes = []
    for _ in range(steps):
        actions = generator.integers(0, copies.spaces.num_actions, len(copies))
        outcomes.append((copies.step(actions, EVERY)[0].tolist(), copies.observations.tolist()))
    return outcomes


def test_an_end_begins_the_next_episode_in_the_same_step() -> None:
    copies = Environments("amenable/Gridworld-v0", 2, 0, rows=["SBM"])
    right, stay = 1, 0
    assert copies.step(np.array([right, stay]), EVERY)[0].tolist() == [-1, 0]
    rewards, terminated, truncated, last = copies.step(np.array([right, stay]), EVERY)
    assert rewards.tolist() == [100, 0] and terminated.tolist() == [True, False] and not truncated.any()
    assert last[0].tolist() == [0, 0, 1] and copies.observations.tolist() == [[1, 0, 0], [1, 0, 0]]
    assert copies.finished == [(99.0, 2)] and copies.episodes == [2, 1] and list(last) == [0]


def test_the_time_limit_is_a_cut_and_an_end_at_the_limit_is_an_end() -> None:
    copies = Environments("CartPole-v1", 2, 0, max_episode_steps=3)
    cuts = [copies.step(np.array([0, 1]), EVERY)[1:3] for _ in range(3)]
    assert [cut[1].all() for cut in cuts] == [False, False, True] and not any(cut[0].any() for cut in cuts)
    both = Environments("amenable/Gridworld-v0", 1, 0, rows=["SM"], max_episode_steps=1)
    _, terminated, truncated, _ = both.step(np.array([1]), np.ones(1, bool))
    assert terminated[0] and not truncated[0], "the task's end comes first"


def test_copies_that_are_not_active_stand_still() -> None:
    copies = Environments("CartPole-v1", 2, 0)
    before = copies.observations.copy()
    rewards = copies.step(np.array([0, 0]), np.array([True, False]))[0]
    assert rewards.tolist() == [1, 0] and (copies.observations[1] == before[1]).all()
    assert (copies.observations[0] != before[0]).any() and copies.lengths.tolist() == [1, 0]


def test_seeds_decide_and_copies_differ() -> None:
    first, same, other = (Environments("CartPole-v1", 2, seed) for seed in (0, 0, 1))
    assert (first.observations[0] != first.observations[1]).any() and (first.observations != other.observations).any()
    assert walk(first, 40) == walk(same, 40) and max(first.episodes) > 1


@pytest.mark.parametrize(
    ("name", "options"),
    [("CartPole-v1", {}), ("amenable/Gridworld-v0", {"slip": 0.3}), ("Pendulum-v1", {}), ("Hopper-v5", {})],
)
def test_a_begun_episode_is_played_again(name: str, options: dict[str, Any]) -> None:
    def drive(copies: Environments, steps: int) -> None:
        for t in range(steps):
            actions = np.full((2, copies.spaces.num_actions), 0.3, np.float32)
            copies.step(np.array([t % 2, 1]) if copies.spaces.is_discrete else actions, EVERY)

    whole, stopped = (Environments(name, 2, 0, **options) for _ in range(2))
    drive(whole, 40)
    drive(stopped, 25)
    again = Environments(name, 2, 0, **options)
    again.load_state_dict(stopped.state_dict())
    for t in range(25, 40):
        actions = np.full((2, again.spaces.num_actions), 0.3, np.float32)
        again.step(np.array([t % 2, 1]) if again.spaces.is_discrete else actions, EVERY)
    assert (again.observations == whole.observations).all() and again.episodes == whole.episodes
    assert again.returns == pytest.approx(whole.returns) and (again.lengths == whole.lengths).all()


def test_an_episode_that_goes_another_way_is_noticed() -> None:
    copies = Environments("CartPole-v1", 2, 0)
    copies.step(np.array([0, 1]), EVERY)
    state = copies.state_dict()
    state["observations"] = state["observations"] + 1
    with pytest.raises(InputError, match="goes another way"):
        Environments("CartPole-v1", 2, 0).load_state_dict(state)


def test_fixed_length_ends_at_the_limit_alone() -> None:
    copies = Environments("CartPole-v1", 2, 0, fixed_length=True, max_episode_steps=60)
    for _ in range(60):
        _, terminated, truncated, _ = copies.step(np.array([0, 0]), EVERY)
        assert not terminated.any()
    assert truncated.all() and [length for _, length in copies.finished] == [60, 60]


def test_a_state_in_which_the_task_ends_absorbs() -> None:
    task, copies = Environments("CartPole-v1", 1, 0), Environments("CartPole-v1", 1, 0, True, max_episode_steps=60)
    rewards, ended = 0.0, False
    while not ended:
        reward, terminated, _, last = task.step(np.array([0]), EVERY[:1])
        rewards, ended = rewards + reward[0], terminated[0]
    paid = [copies.step(np.array([0]), EVERY[:1])[0][0] for _ in range(59)]
    assert sum(paid) == rewards < 20 and set(paid[20:]) == {0.0}
    assert (copies.observations[0] == last[0]).all()
    copies.step(np.array([0]), EVERY[:1])
    assert (copies.observations[0] != last[0]).any() and copies.finished == [(rewards, 60)]


def test_an_action_in_a_state_that_absorbs_counts_as_none() -> None:
    copies = Environments("CartPole-v1", 2, 0, True, max_episode_steps=60)
    chosen = np.array([1, 1])
    for _ in range(15):
        executed = copies.executed(chosen)
        copies.step(np.array([1, copies.lengths[1] % 2]), EVERY)
    assert executed.tolist() == [0, 1] and chosen.tolist() == [1, 1], "pushed one way it has fallen, to and fro not yet"
    while copies.lengths[0]:
        copies.step(chosen, EVERY)
    assert copies.executed(chosen).tolist() == [1, 1], "the next episode has begun"


def test_bodies_that_have_fallen_go_on() -> None:
    copies = Environments("Hopper-v5", 1, 0, True, max_episode_steps=80)
    rewards = [copies.step(np.full((1, 3), 1.0), EVERY[:1])[0][0] for _ in range(79)]
    assert len(set(rewards[60:])) == 19 and not copies.envs[0].unwrapped.is_healthy


def test_an_environment_without_a_time_limit_needs_one() -> None:
    with pytest.raises(InputError, match="CliffWalking-v1: has no time limit; an episode may never end"):
        Environments("CliffWalking-v1", 1, 0)
    assert Environments("CliffWalking-v1", 1, 0, max_episode_steps=9).spaces.shape == (48,)


def test_spaces() -> None:
    grid = Environments("amenable/Gridworld-v0", 1, 0, rows=["SBM"]).spaces
    assert grid.shape == (3,) and grid.is_discrete and grid.num_actions == 4 and not grid.is_vector
    dot = Environments("amenable/MovingDot-v0", 1, 0)
    assert dot.spaces.shape == (1, 36, 36) and dot.observations.dtype == np.uint8 and dot.spaces.is_image
    pendulum = Environments("Pendulum-v1", 1, 0).spaces
    assert (pendulum.shape, pendulum.num_actions, pendulum.is_discrete) == ((3,), 1, False) and pendulum.is_vector
    assert pendulum.executed(np.array([[5.0], [-1.0]])).tolist() == [[2.0], [-1.0]]
    assert str(pendulum) == "vectors of 3, 1 numbers an action"


def test_an_unknown_name_has_its_nearest() -> None:
    with pytest.raises(InputError, match="no environment 'HalfCheeta-v5'; did you mean 'HalfCheetah-v5'"):
        make("HalfCheeta-v5")
    with pytest.raises(InputError, match="did you mean 'amenable/Gridworld-v0'"):
        make("Gridworld-v0")
    with pytest.raises(InputError, match=r"does not take these options.*'nose'"):
        make("CartPole-v1", nose=1)


def test_mixed_spaces_are_refused() -> None:
    with pytest.raises(InputError, match="observations are Tuple"):
        Environments("Blackjack-v1", 1, 0)
    space = gymnasium.spaces
    with pytest.raises(InputError, match="actions are MultiDiscrete"):
        environments.Spaces("x", space.Box(0, 1, (2,)), space.MultiDiscrete([2, 2]))
    with pytest.raises(InputError, match="20 x 20 pixels"):
        environments.Spaces("x", space.Box(0, 255, (20, 20, 3), np.uint8), space.Discrete(2))
    late = environments.Spaces("x", space.Discrete(3, start=2), space.Discrete(2, start=5))
    assert late.observation(3).tolist() == [0, 1, 0] and late.native(np.int64(1)) == 6


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"gymnasium is not installed; pip install 'amenable\[control\]'"):
        make("CartPole-v1")
