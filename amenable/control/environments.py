"""Gymnasium environments by name, several copies side by side, each in an episode of its own.

An episode that ends begins anew in the same step: every step is a transition. An end by `terminated` is one of the
task; one by `truncated` (the time limit) is not, and the observation before the new episode is kept, so that its value
can stand for what would have followed.

A reset is seeded by (seed, copy, episode). So a copy's state is a function of its episode and the actions in it, and a
run that resumes plays the begun episodes again: it needs no state of the simulator, and notices one that does not
repeat itself.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from amenable.errors import InputError
from amenable.seeds import derive_seed

INSTALL = "pip install 'amenable[control]'"
OWN = {
    "amenable/Gridworld-v0": ("amenable.control.gridworld_env:Gridworld", 100),
    "amenable/MovingDot-v0": ("amenable.control.moving_dot:MovingDot", 50),
    "amenable/Backflip-v0": ("amenable.control.backflip:Backflip", 250),
}
"""our environments: class and time limit, in steps"""
MIN_PIXELS = 36
"""least side of an image, which three convolutions of strides 4, 2 and 1 reduce to one position"""


def require_extra() -> None:
    """Raise InputError if gymnasium is not installed."""
    if importlib.util.find_spec("gymnasium") is None:
        raise InputError("gymnasium is not installed", how=INSTALL)


def register() -> None:
    """Register our environments with gymnasium, once."""
    import gymnasium

    for name, (entry_point, limit) in OWN.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=entry_point, max_episode_steps=limit)


def make(name: str, **options: Any) -> Any:
    """Return one environment by its gymnasium id, with the environment's own options. InputError for an unknown id, a
    package that it needs, or options that it does not take."""
    require_extra()
    import gymnasium

    register()
    known = list(gymnasium.registry)
    if ":" not in name and name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else "see gymnasium's list of environments"
        raise InputError(f"there is no environment '{name}'", how=hint)
    try:
        return gymnasium.make(name, disable_env_checker=True, **options)
    except (ModuleNotFoundError, gymnasium.error.DependencyNotInstalled) as error:
        package = "amenable[control]" if "mujoco" in str(error) or "imageio" in str(error) else "gymnasium[box2d]"
        raise InputError(
            f"needs another package: {str(error).partition(',')[0].splitlines()[0]}", name, f"pip install '{package}'"
        ) from None
    except TypeError as error:
        raise InputError(
            f"does not take these options: {str(error).partition(' was raised')[0]}",
            name,
            "leave them out of --env-options",
        ) from None
    except gymnasium.error.Error as error:
        raise InputError(f"cannot be made: {' '.join(str(error).split())}", name) from None


class FixedLength:
    """An environment whose episodes end at the time limit alone: the end of an episode says nothing of the task.

    A state in which the task ends absorbs (Kostrikov et al., 2019): the observation stays as it is, and every reward
    after it is 0. So an episode's return is that of the task, and reward is a function of the state.
    """

    def __init__(self, env: Any):
        self.env = env
        self.observation_space, self.action_space, self.spec = env.observation_space, env.action_space, env.spec
        self.unwrapped = env.unwrapped
        self.steps = 0
        self.absorbed: Any = None
        """the observation at which the task has ended"""

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self.steps, self.absorbed = 0, None
        return self.env.reset(**options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, or stay where the task has ended."""
        self.steps += 1
        is_last = self.steps >= self.spec.max_episode_steps
        if self.absorbed is not None:
            return self.absorbed, 0.0, False, is_last, {}
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.absorbed = observation if terminated else None
        return observation, float(reward), False, truncated or is_last, info


def endless(name: str) -> dict[str, Any]:
    """Return the option by which a MuJoCo environment goes on with a body that has fallen; {} for others."""
    parameters = inspect.signature(type(make(name).unwrapped).__init__).parameters
    return {"terminate_when_unhealthy": False} if "terminate_when_unhealthy" in parameters else {}


class Environments:
    """Copies of one environment that are stepped together. Observations are arrays [E, ...]: float32 vectors, or uint8
    images [channels, height, width]; a discrete one is a one-hot vector."""

    def __init__(self, name: str, num_envs: int, seed: int, fixed_length: bool = False, **options: Any):
        self.name, self.seed = name, seed
        options = {**endless(name), **options} if fixed_length else options
        self.envs = [make(name, **options) for _ in range(num_envs)]
        self.spaces = Spaces(name, self.envs[0].observation_space, self.envs[0].action_space)
        if self.envs[0].spec is None or self.envs[0].spec.max_episode_steps is None:
            hint = "an episode may never end: give one, as in --env-options max_episode_steps=500"
            raise InputError("has no time limit", name, hint)
        if fixed_length:
            self.envs = [FixedLength(env) for env in self.envs]
        self.episodes = [0] * num_envs
        self.played: list[list[Any]] = [[] for _ in range(num_envs)]
        """actions of each copy's running episode"""
        self.returns, self.lengths = np.zeros(num_envs), np.zeros(num_envs, np.int64)
        self.finished: list[tuple[float, int]] = []
        """return and length of episodes that have ended since the caller last emptied this list"""
        self.measures: tuple[str, ...] = getattr(self.envs[0].unwrapped, "episode_measures", ())
        """names in an environment's info of what it measures of an episode, besides its return"""
        self.measured: list[dict[str, float]] = []
        """these of the episodes in `finished`, at their ends"""
        self.infos: list[dict[str, Any]] = [{} for _ in range(num_envs)]
        self.observations = np.stack([self.reset(index) for index in range(num_envs)])

    def __len__(self) -> int:
        return len(self.envs)

    def reset(self, index: int) -> NDArray:
        """Begin a copy's next episode and return its first observation."""
        self.episodes[index] += 1
        self.returns[index], self.lengths[index], self.played[index] = 0.0, 0, []
        seed = derive_seed(self.seed, "episode", index, self.episodes[index])
        return self.spaces.observation(self.envs[index].reset(seed=seed)[0])

    def executed(self, actions: NDArray) -> NDArray:
        """Return the actions [E, ...] that are executed: a policy's, clipped to the space, and 0 where the task has
        ended and its state absorbs: a reward that is learned cannot depend on an action there, which does nothing."""
        executed = self.spaces.executed(actions)
        absorbed = [isinstance(env, FixedLength) and env.absorbed is not None for env in self.envs]
        if any(absorbed):
            executed = executed.copy()
            executed[absorbed] = 0
        return executed

    def step(self, actions: NDArray, active: NDArray) -> tuple[NDArray, NDArray, NDArray, dict[int, NDArray]]:
        """Step the copies that are active [E]: rewards, terminated and truncated [E], and the last observation of each
        episode that ended, by copy. `observations` are those of the next step. actions [E, ...] are executed as they
        are."""
        rewards, terminated, truncated = np.zeros(len(self)), np.zeros(len(self), bool), np.zeros(len(self), bool)
        last: dict[int, NDArray] = {}
        observations = self.observations.copy()
        for index in active.nonzero()[0].tolist():
            observation, *outcome = self.step_one(index, actions[index])
            rewards[index], terminated[index], truncated[index] = outcome
            if terminated[index] or truncated[index]:
                last[index] = observation.copy()
                self.finished.append((float(self.returns[index]), int(self.lengths[index])))
                self.measured.append({name: float(self.infos[index][name]) for name in self.measures})
                observation = self.reset(index)
            observations[index] = observation
        self.observations = observations
        return rewards, terminated, truncated, last

    def step_one(self, index: int, action: Any) -> tuple[NDArray, float, bool, bool]:
        """Step one copy, without beginning its next episode."""
        step = self.envs[index].step(self.spaces.native(action))
        observation, reward, terminated, truncated, self.infos[index] = step
        self.played[index].append(action)
        self.returns[index] += reward
        self.lengths[index] += 1
        return self.spaces.observation(observation), float(reward), terminated, truncated and not terminated

    def state_dict(self) -> dict[str, Any]:
        """Return the number of every copy's episode, the actions in it, and the observation that they led to."""
        actions = [torch.tensor(np.array(played, self.spaces.action_type)) for played in self.played]
        observations = torch.from_numpy(self.observations.copy())
        return {"episodes": list(self.episodes), "actions": actions, "observations": observations}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Play the begun episodes again. InputError if they do not lead to the same observations."""
        for index, (episode, actions) in enumerate(zip(state["episodes"], state["actions"])):
            self.episodes[index] = episode - 1
            observation = self.reset(index)
            for action in actions.numpy():
                observation = self.step_one(index, action)[0]
            if not np.array_equal(observation, state["observations"][index].numpy(), equal_nan=True):
                problem = f"an episode played again with seed and actions of episode {episode} goes another way"
                raise InputError(problem, self.name, "it cannot be resumed exactly: begin the run anew (--out)")
            self.observations[index] = observation
        self.finished, self.measured = [], []


class Spaces:
    """Observation and action space of an environment as arrays. InputError for spaces that no policy here is for."""

    def __init__(self, name: str, observations: Any, actions: Any):
        from gymnasium.spaces import Box, Discrete

        if not isinstance(observations, (Box, Discrete)):
            problem = f"its observations are {type(observations).__name__}"
            hint = "vectors, images and numbers are read: flatten them with gymnasium's FlattenObservation"
            raise InputError(problem, name, hint)
        given: tuple[int, ...] = observations.shape or ()
        self.is_image = observations.dtype == np.uint8 and len(given) == 3
        self.is_one_hot = isinstance(observations, Discrete)
        self.first_state = int(observations.start) if isinstance(observations, Discrete) else 0
        self.size = int(observations.n) if isinstance(observations, Discrete) else int(np.prod(given))
        self.channels_last = self.is_image and given[2] <= given[0]
        image = (given[2], *given[:2]) if self.channels_last else given
        self.shape: tuple[int, ...] = image if self.is_image else (self.size,)
        if self.is_image and min(self.shape[1:]) < MIN_PIXELS:
            problem = f"its images have {self.shape[1]} x {self.shape[2]} pixels"
            raise InputError(problem, name, f"a side has {MIN_PIXELS} or more: resize them")
        self.is_discrete = isinstance(actions, Discrete)
        if not self.is_discrete and not (isinstance(actions, Box) and len(actions.shape) == 1):
            problem = f"its actions are {type(actions).__name__}"
            raise InputError(problem, name, "one discrete action, or a vector of numbers, is taken a step")
        self.first_action = int(actions.start) if self.is_discrete else 0
        self.num_actions = int(actions.n) if self.is_discrete else int(actions.shape[0])
        """actions to choose from, or numbers in one"""
        self.low: NDArray | None = None if self.is_discrete else actions.low
        self.high: NDArray | None = None if self.is_discrete else actions.high
        self.action_type = np.int64 if self.is_discrete else np.float32

    @property
    def is_vector(self) -> bool:
        """True for observations of numbers whose moments mean something: no images, no one-hot vectors."""
        return not self.is_image and not self.is_one_hot

    def __str__(self) -> str:
        kind = "images of" if self.is_image else "one-hot" if self.is_one_hot else "vectors of"
        size = " x ".join(map(str, self.shape))
        return f"{kind} {size}, {self.num_actions} {'actions' if self.is_discrete else 'numbers an action'}"

    def observation(self, observation: Any) -> NDArray:
        """Return a native observation as an array of `shape`."""
        if self.is_one_hot:
            one_hot = np.zeros(self.size, np.float32)
            one_hot[int(observation) - self.first_state] = 1.0
            return one_hot
        if self.is_image:
            return np.ascontiguousarray(observation.transpose(2, 0, 1) if self.channels_last else observation)
        return np.asarray(observation, np.float32).reshape(-1)

    def executed(self, actions: NDArray) -> NDArray:
        """Return the actions [..., A] that are executed: a policy's, clipped to the space; discrete as they are."""
        return actions if self.is_discrete else np.clip(actions, self.low, self.high)

    def native(self, action: Any) -> Any:
        """Return an executed action as the environment takes it."""
        return int(action) + self.first_action if self.is_discrete else action
