"""The loop of control: rollout -> rewards -> experience -> updates, with metrics, checkpoints and exact resume.

Rewards are the environment's, or those of a function of (observations, executed actions), such as one learned from
comparisons. Returns of episodes are always the environment's, and nothing is trained on them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from numpy.typing import NDArray

from amenable.control.agent import Agent
from amenable.control.environments import Environments
from amenable.control.experience import prepare
from amenable.control.normalization import ObservationNormalizer, RewardScaler
from amenable.control.policies import Policy
from amenable.control.recorded_episodes import EpisodeRecorder, Moment
from amenable.control.rollout import RewardFunction, Rollout, collect
from amenable.functional.statistics import mean_interval
from amenable.seeds import seeded_generator
from amenable.train.log import plain_number
from amenable.train.run import Run

RECENT = 100
"""last episodes whose mean is the return that is shown"""


class Training:
    """An agent in its environments: one `step` is a rollout and the updates on it. A checkpoint holds its parts."""

    progress_metrics: tuple[str, ...] = ("episode/return", "policy/entropy")
    """metrics that are printed while it runs"""

    def __init__(
        self, agent: Agent, environments: Environments, total_timesteps: int, reward: RewardFunction | None = None
    ):
        options, spaces = agent.options, environments.spaces
        self.agent, self.environments, self.reward = agent, environments, reward
        self.normalizer = ObservationNormalizer(spaces.shape, options.normalize_observations and spaces.is_vector)
        self.scaler = RewardScaler(len(environments), options.gamma, options.scale_rewards)
        self.progress = Progress(total_timesteps)
        self.num_steps = options.num_steps or 1
        self.iterations = math.ceil(total_timesteps / (self.num_steps * len(environments)))

    @property
    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint holds, by name."""
        parts = {"agent": self.agent, "environments": self.environments, "progress": self.progress}
        return {**parts, "normalizer": self.normalizer, "scaler": self.scaler}

    def step(self, iteration: int) -> tuple[Rollout, dict[str, Any]]:
        """Collect a rollout, learn from it, and return it with metrics. iteration: from 1."""
        agent = self.agent
        generator = seeded_generator(agent.seed, "actions", iteration)
        policy, normalizer = agent.policy, self.normalizer
        rollout = collect(self.environments, policy, normalizer, self.num_steps, generator, agent.whole_episodes)
        rewards, facts = self.rewards_of(rollout, iteration)
        scaled = torch.from_numpy(self.scaler.scale(rewards, rollout.ended, rollout.mask))
        experience = prepare(rollout, scaled, policy, agent.critic, normalizer, agent.options.gamma)
        metrics = agent.learn(experience, self.multiplier(iteration))
        normalizer.update(rollout.observations[rollout.mask])
        return rollout, {**self.progress.add(rollout, self.environments), **facts, **metrics}

    def rewards_of(self, rollout: Rollout, iteration: int) -> tuple[NDArray, dict[str, Any]]:
        """Return the rewards [T, E] that a rollout is learned from, and metrics of them."""
        return rollout.rewards if self.reward is None else self.reward(rollout.observations, rollout.executed), {}

    def wait(self, iteration: int, run: Run) -> None:
        """Wait for what an iteration needs from outside; nothing, unless people are in the loop."""

    def multiplier(self, iteration: int) -> float:
        """Return the share of the learning rate in an iteration: it falls in a straight line."""
        floor = self.agent.options.final_lr_frac
        return floor + (1 - floor) * (1 - (iteration - 1) / self.iterations)


class Progress:
    """Steps taken, and the last episodes' returns, lengths and other measures."""

    def __init__(self, total_timesteps: int):
        self.total, self.timesteps, self.episodes = total_timesteps, 0, 0
        self.recent: list[tuple[float, int]] = []
        self.measured: list[dict[str, float]] = []

    def add(self, rollout: Rollout, environments: Environments) -> dict[str, Any]:
        """Count a rollout's steps and the episodes that have ended; return metrics."""
        self.timesteps += rollout.num_steps
        self.episodes += len(environments.finished)
        self.recent = [*self.recent, *environments.finished][-RECENT:]
        self.measured = [*self.measured, *environments.measured][-RECENT:]
        environments.finished, environments.measured = [], []
        counts: dict[str, Any] = {"timesteps": self.timesteps, "episodes": self.episodes}
        if not self.recent:
            return counts
        returns, lengths = zip(*self.recent)
        means = {"return": sum(returns) / len(returns), "length": sum(lengths) / len(lengths)}
        means |= mean_measures(self.measured)
        return {**counts, **{f"episode/{name}": value for name, value in means.items()}}

    def state_dict(self) -> dict[str, Any]:
        counts = {"timesteps": self.timesteps, "episodes": self.episodes}
        return {**counts, "recent": [list(pair) for pair in self.recent], "measured": self.measured}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.timesteps, self.episodes = state["timesteps"], state["episodes"]
        self.recent = [(value, length) for value, length in state["recent"]]
        self.measured = state.get("measured", [])


def mean_measures(measured: list[dict[str, float]]) -> dict[str, float]:
    """Return the means over episodes of what their environment measures, by name."""
    names = measured[0] if measured else {}
    return {name: sum(row[name] for row in measured) / len(measured) for name in names}


def train(training: Training, run: Run, save_steps: int, recorder: EpisodeRecorder | None = None) -> dict[str, Any]:
    """Train to the end, or resume; return the last metrics. recorder: of episodes before, midway and after."""
    run.log.unit = "steps"

    def record(moment: Moment) -> None:
        if recorder is not None:
            recorder.record(moment, training.progress.timesteps, training.agent.policy, training.normalizer)

    moments: dict[int, Moment] = {training.iterations // 2 + 1: "midway", 1: "before"}
    for optimizer in training.agent.optimizers.values():
        optimizer.on_nonfinite = run.stop
    with one_thread():
        for iteration in run.steps(training.iterations, training.state, save_steps):
            if iteration in moments:
                record(moments[iteration])
            training.wait(iteration, run)
            rollout, metrics = training.step(iteration)
            run.record(iteration, rollout.num_steps, training.progress_metrics, **metrics)
            if training.progress.timesteps >= training.progress.total and iteration < training.iterations:
                run.end(f"{training.progress.timesteps:,} steps are taken")
        record("after")
    return run.metrics


def evaluate(environments: Environments, policy: Policy, normalizer: ObservationNormalizer) -> dict[str, Any]:
    """Play one episode in every environment by the likeliest actions: mean, 95 % interval and standard deviation of the
    returns, the mean length, and the means of what the environment measures."""
    environments.finished, environments.measured = [], []
    collect(environments, policy, normalizer, 0, None, whole_episodes=True)
    returns = torch.tensor([value for value, _ in environments.finished], dtype=torch.float64)
    lengths = [length for _, length in environments.finished]
    mean, low, high = mean_interval(returns)
    facts = {"return": mean, "return_low": low, "return_high": high, "return_std": float(returns.std(correction=0))}
    facts |= {"length": sum(lengths) / len(lengths), **mean_measures(environments.measured)}
    return {f"eval/{name}": plain_number(value) for name, value in facts.items()}


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: on networks this small a second one costs more than it does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
