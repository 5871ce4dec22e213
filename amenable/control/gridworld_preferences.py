"""The gridworld through the whole method: comparisons of trajectories -> reward of each cell -> policy.

    R(trajectory) = sum_t gamma^t r(s_{t+1})            P(left) = sigma(R(left) - R(right))

The judge compares two trajectories of one start by their discounted return. Reward predictors have a number for each
cell, and learn as those of clips do; the policy is optimal for their mean reward, by value iteration. Trajectories are
the members' own optimal policies', with some moves by chance: those are compared that matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from amenable.control.clip_judges import SyntheticJudge, judge_clips
from amenable.control.clips import Clips
from amenable.control.comparisons import Comparisons
from amenable.control.dynamic_programming import (
    Array,
    MarkovDecisionProcess,
    action_values,
    optimal_actions,
    value_iteration,
)
from amenable.control.reward_ensemble import RewardEnsemble
from amenable.control.reward_learning import RewardLearner
from amenable.feedback.queries import Pool, choose
from amenable.seeds import derive_seed, seeded_generator

MEMBERS, ROUND, CANDIDATES = 4, 10, 100
"""reward predictors; comparisons between two fits; pairs that those of a round are chosen from"""
STEPS = 30
"""longest trajectory"""
CHANCE = 0.4
"""share of the moves of a trajectory that are drawn at random"""
UPDATES, LEARNING_RATE = 200, 0.1


@dataclass(frozen=True)
class LearnedRewards:
    """Rewards learned from comparisons of trajectories in a world of S cells."""

    rewards: Array
    """[S], in the predictors' unit: that of a preference's logit"""
    rounds: list[tuple[int, float]]
    """after each round: comparisons so far, and the share of the cells in which the move is optimal"""
    scaled: Array
    """[S], in the unit in which they are nearest to the world's own, by least squares"""


def learn_rewards(world: MarkovDecisionProcess, gamma: float, num_labels: int, seed: int) -> LearnedRewards:
    """Learn a world's rewards from `num_labels` comparisons by a judge who knows them; the learner knows the moves."""
    cells = len(world.rewards)
    spaces: Any = SimpleNamespace(shape=(cells,), num_actions=1, is_discrete=True, is_image=False, is_vector=False)
    ensemble = RewardEnsemble(spaces, MEMBERS, (), seed, reads_actions=False)
    learner = RewardLearner(ensemble, LEARNING_RATE, 64, 0.0, 0.0, seed)
    comparisons, judge = Comparisons(MEMBERS, 0.0, seed), SyntheticJudge(None, 0.0, 1.0, seed)
    members, rounds = np.zeros((MEMBERS, cells)), list[tuple[int, float]]()
    while len(comparisons) < num_labels:
        number, budget = len(rounds), min(ROUND, num_labels - len(comparisons))
        draw = np.random.default_rng(derive_seed(seed, "trajectories", number))
        policies = [greedy(world, rewards, gamma) for rewards in members]
        clips = [trajectories(world, policies, gamma, draw) for _ in range(CANDIDATES)]
        left, right = (Clips(*map(np.stack, zip(*(pair[i].columns for pair in clips)))) for i in (0, 1))
        scores = torch.stack([ensemble.returns(left), ensemble.returns(right)], dim=2)
        generator = seeded_generator(seed, "queries", number)
        chosen = choose("disagreement" if rounds else "random", Pool(CANDIDATES, scores), budget, generator)
        pair = left[chosen], right[chosen]
        comparisons.answer(judge_clips(judge, comparisons.add(*pair), *pair))
        learner.fit(comparisons, UPDATES)
        members = cell_rewards(ensemble)
        rounds.append((len(comparisons), share_optimal(world, members.mean(0), gamma)))
    rewards = members.mean(0)
    scale = max(0.0, float(rewards @ world.rewards)) / max(float(rewards @ rewards), 1e-12)
    return LearnedRewards(rewards, rounds, scale * rewards)


def cell_rewards(ensemble: RewardEnsemble) -> Array:
    """Return every member's reward of each cell [M, S]: its weight, as the bias is the same in all trajectories."""
    return np.stack([network[0].weight.detach().numpy()[0] for network in ensemble.networks]).astype(np.float64)  # type: ignore[index]


def greedy(world: MarkovDecisionProcess, rewards: Array, gamma: float) -> NDArray[np.int64]:
    """Return a move of each cell [S] that is optimal for these rewards [S]."""
    imagined = MarkovDecisionProcess(world.transitions, rewards, world.terminal, world.start)
    return action_values(imagined, value_iteration(imagined, gamma, 1e-6)[0], gamma).argmax(1)


def share_optimal(world: MarkovDecisionProcess, rewards: Array, gamma: float) -> float:
    """Return the share of the cells that end no episode in which the moves that learned rewards [S] recommend are
    optimal for the world's own."""
    best = optimal_actions(world, value_iteration(world, gamma)[0], gamma)
    right = best[np.arange(len(rewards)), greedy(world, rewards, gamma)]
    return float(right[~world.terminal].mean())


def trajectories(
    world: MarkovDecisionProcess, policies: Sequence[NDArray[np.int64]], gamma: float, draw: np.random.Generator
) -> tuple[Clips, Clips]:
    """Return two trajectories of one start, each as a clip of a single step: the sum of gamma^t over the arrivals in
    each cell, which is all that a predictor linear in it reads. Each follows one of the policies [S], with chance
    moves."""
    start = int(draw.choice(np.nonzero(~world.terminal)[0]))
    pair = []
    for _ in range(2):
        moves = policies[int(draw.integers(len(policies)))]
        arrivals, state = np.zeros(len(world.rewards)), start
        for t in range(STEPS):
            move = draw.integers(world.num_actions) if draw.random() < CHANCE else moves[state]
            state = int(draw.choice(len(world.rewards), p=world.transitions[state, move]))
            arrivals[state] += gamma**t
            if world.terminal[state]:
                break
        returns = (arrivals @ world.rewards)[None]
        pair.append(Clips(arrivals[None].astype(np.float32), np.zeros(1, np.int64), returns, np.zeros((1, 0))))
    return pair[0], pair[1]
