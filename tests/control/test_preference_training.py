"""Acting, labelling and learning in turn: what is asked for, what is learned, what stays hidden."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from amenable.control.clip_judges import Judge, SyntheticJudge
from amenable.control.comparison_options import ComparisonOptions
from amenable.control.environments import Environments
from amenable.control.label_sources import JudgeLabels
from amenable.control.options import AgentOptions, fill
from amenable.control.ppo import PPO
from amenable.control.preference_training import PreferenceTraining, predictors_read_actions
from amenable.control.training import one_thread
from amenable.errors import InputError

PERFECT = SyntheticJudge(None, 0.0, 1.0, 0)
ENV = "Pendulum-v1"


def training(
    judge: Judge = PERFECT, env: str = ENV, total: int = 1200, num_steps: int = 50, **options: object
) -> PreferenceTraining:
    copies = Environments(env, 4, 0, True)
    agent = PPO(
        copies.spaces, fill(AgentOptions(num_envs=4, num_steps=num_steps, num_epochs=2, hidden=(16,)), PPO.defaults), 0
    )
    small = {"max_labels": 40, "reward_hidden": (16,), "reward_updates": 5, "clip_steps": 10, **options}
    comparing = ComparisonOptions(**small)  # type: ignore[arg-type]
    return PreferenceTraining(
        agent, copies, total, comparing, JudgeLabels(judge), lambda seed: Environments(env, 4, seed, True)
    )


def run(own: PreferenceTraining, iterations: int) -> list[dict[str, float]]:
    rows = []
    with one_thread():
        for iteration in range(1, iterations + 1):
            own.wait(iteration, None)  # type: ignore[arg-type]
            rows.append(own.step(iteration)[1])
    return rows


def test_labels_are_asked_for_at_a_falling_rate() -> None:
    own = training()
    rows = run(own, 6)
    labels = [row["labels"] for row in rows]
    assert labels == [own.due(200 * n) for n in range(1, 7)] and own.due(0) == 10 and labels[-1] == 40
    assert np.all(np.diff(np.diff([10, *labels])) <= 1) and labels[0] - 10 > labels[-1] - labels[-2]
    assert rows[-1]["comparisons"] == 40 and own.comparisons.num_open == 0


def test_the_reward_is_learned_and_reported_without_being_trained_on() -> None:
    rows = run(training(max_labels=120, reward_updates=20), 6)
    assert rows[-1]["eval_rm/spearman"] > 0.7
    printed = {*PreferenceTraining.progress_metrics} - {"episode/rotation"}
    assert {*printed, "reward/loss"} <= rows[-1].keys(), "all that is printed is there"


def test_the_true_reward_reaches_the_judge_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that does not read it gives the same agent, whatever the environment's reward is."""

    def by_angle(left: object, right: object) -> float:
        gap = left.observations[:, 0].sum() - right.observations[:, 0].sum()  # type: ignore[attr-defined]
        return float(gap > 0)

    weights = []
    step_one = Environments.step_one
    for factor in (1.0, -7.0):

        def scaled(self: Environments, index: int, action: object, factor: float = factor) -> object:
            observation, reward, *ends = step_one(self, index, action)
            return observation, factor * reward, *ends

        monkeypatch.setattr(Environments, "step_one", scaled)
        own = training(by_angle)
        run(own, 2)
        weights.append(torch.cat([p.flatten() for p in own.agent.policy.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize(
    ("env", "inputs", "expected"),
    [
        ("CartPole-v1", None, True),
        ("CartPole-v1", "observations", False),
        ("Pendulum-v1", None, False),
        ("Pendulum-v1", "observations_and_actions", True),
        ("amenable/MovingDot-v0", "observations_and_actions", True),
    ],
)
def test_predictors_read_discrete_actions_unless_an_option_says_otherwise(
    env: str, inputs: Literal["observations", "observations_and_actions"] | None, expected: bool
) -> None:
    environments = Environments(env, 1, 0, True)
    assert predictors_read_actions(ComparisonOptions(reward_inputs=inputs), environments) is expected


def test_predictors_of_images_do_not_read_continuous_actions() -> None:
    environments = Environments("amenable/MovingDot-v0", 1, 0, True)
    environments.spaces.is_discrete = False
    assert not predictors_read_actions(ComparisonOptions(), environments)
    with pytest.raises(InputError, match=r"MovingDot-v0: a reward predictor of images .*--reward-inputs observations"):
        predictors_read_actions(ComparisonOptions(reward_inputs="observations_and_actions"), environments)


def test_rewards_of_a_rollout_are_the_newest_predictors() -> None:
    own = training()
    own.wait(1, None)  # type: ignore[arg-type]
    rollout, _ = own.step(1)
    fresh = own.ensemble.reward(rollout.observations, rollout.executed)
    own.learner.fit(own.comparisons, 20)
    own.ensemble.normalize_by(own.clips.clips)  # type: ignore[arg-type]
    assert not np.allclose(fresh, own.ensemble.reward(rollout.observations, rollout.executed))
    assert abs(fresh.mean()) < 1.5, "in units of the predictors' deviation"


def test_short_rollouts_still_give_clips() -> None:
    own = training(num_steps=8)
    run(own, 6)
    assert own.cutter.episodes.sum() == 0 and len(own.comparisons) > 10
    assert own.probes.clips is not None and len(own.probes.clips) == 16, "each copy filled four clips of 10 in 48 steps"


@pytest.mark.parametrize("rule", ["random", "information_gain", "uncertainty"])
def test_other_query_strategies(rule: str) -> None:
    assert len(run(training(query_strategy=rule), 1)) == 1


def test_who_cannot_tell_is_asked_about_another_pair() -> None:
    numbers = iter(range(10**6))
    own = training(lambda left, right: None if next(numbers) % 2 else 1.0)
    run(own, 3)
    assert own.comparisons.num_open == 0 and len(own.comparisons) > own.comparisons.num_labels > 10


def test_clips_longer_than_an_episode_and_no_time_limit_are_refused() -> None:
    with pytest.raises(InputError, match="a clip has 300 steps and an episode 200"):
        training(clip_steps=300)


@pytest.mark.parametrize(("env", "steps"), [("CartPole-v1", 50), ("Pendulum-v1", 30), ("amenable/MovingDot-v0", 10)])
def test_a_clip_is_a_second(env: str, steps: int) -> None:
    assert training(env=env, clip_steps=None).length == steps
