"""Minibatches, advantages and the policy gradient's step of every agent."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from amenable.control.a2c import A2C
from amenable.control.agent import Agent
from amenable.control.environments import Spaces
from amenable.control.experience import Experience
from amenable.control.options import AgentOptions, fill
from amenable.control.ppo import PPO

SPACES = Spaces("tiny", Box(-1, 1, (2,), np.float32), Discrete(3))


def agent(kind: type[Agent], spaces: Spaces = SPACES, **options: object) -> Agent:
    given = AgentOptions(hidden=(8,), learning_rate=1e-3, max_grad_norm=0.0, **options)  # type: ignore[arg-type]
    return kind(spaces, fill(given, kind.defaults), 0)


def experience(own: Agent, seed: int = 0) -> Experience:
    """Five steps of two copies, with rewards that are 1 for action 0."""
    draw = torch.Generator().manual_seed(seed)
    observations, actions = torch.rand(10, 2, generator=draw), torch.randint(0, 3, (10,), generator=draw)
    if not own.policy.discrete:
        actions = torch.randn(10, 2, generator=draw)
    with torch.no_grad():
        logps, values = own.policy(observations).log_prob(actions), own.critic(observations).view(2, 5)
    rewards, mask = (actions.view(10, -1)[:, 0] <= 0).float().view(2, 5), torch.ones(2, 5, dtype=torch.bool)
    return Experience(rewards, torch.full((2, 5), 0.9), values, torch.zeros(2), mask, observations, actions, logps)


def test_an_epoch_has_every_step_once_and_each_its_own_order() -> None:
    own = agent(PPO, minibatch_size=4, num_epochs=2)
    e = experience(own)
    own.compute_advantages(e)
    batches = list(own.minibatches(e))
    assert [len(batch["actions"]) for batch in batches] == [4, 4, 2] * 2
    epochs = [torch.cat([batch["logps"] for batch in part]) for part in (batches[:3], batches[3:])]
    assert not torch.equal(*epochs) and all(torch.equal(epoch.sort()[0], e.logps.sort()[0]) for epoch in epochs)
    again = list(own.minibatches(e))
    assert torch.equal(again[0]["actions"], batches[0]["actions"]), "a function of the seed and the rollout"
    own.rollouts += 1
    assert not torch.equal(next(iter(own.minibatches(e)))["logps"], batches[0]["logps"])


def test_lambda_0_is_one_step_and_1_the_whole_return() -> None:
    for lam in (0.0, 1.0):
        own = agent(A2C, lam=lam)
        e = experience(own)
        own.compute_advantages(e)
        after = torch.cat([e.values[:, 1:], e.last_values[:, None]], 1)
        one = e.rewards + 0.9 * after
        whole = sum(0.9**t * e.rewards[:, t] for t in range(5))
        assert e.columns["returns"].view(2, 5)[:, 0].tolist() == pytest.approx(
            (one[:, 0] if lam == 0 else whole).tolist()
        )


def test_the_step_is_the_policy_gradients() -> None:
    """Adam's first step is the sign of each gradient, which autograd gives from the definition."""
    own = agent(A2C, entropy_coef=0.01)
    e = experience(own)
    own.compute_advantages(e)
    before = [p.detach().clone() for p in own.policy.parameters()]
    logps = torch.log_softmax(own.policy(e.observations).logits, 1)
    entropy = -(logps.exp() * logps).sum(1).mean()
    chosen = logps[torch.arange(10), e.actions]
    gradients = torch.autograd.grad(
        -(chosen * e.columns["advantages"]).mean() - 0.01 * entropy, own.policy.parameters()
    )
    metrics = own.update(e, 1.0)
    for parameter, old, gradient in zip(own.policy.parameters(), before, gradients):
        large = gradient.abs() > 1e-3
        assert torch.allclose((parameter - old)[large], -1e-3 * gradient.sign()[large], rtol=0.02)
    assert set(metrics) == {"loss", "policy/loss", "policy/entropy", "value/loss"}


def test_learning_makes_a_better_action_likelier_and_returns_better_known() -> None:
    own = agent(PPO, num_epochs=20, entropy_coef=0.0)
    own.optimizers["both"].peaks = [1e-2]
    e = experience(own)
    metrics = own.learn(e, 1.0)
    after = own.policy(e.observations).log_prob(e.actions)
    advantages = e.columns["advantages"] - e.columns["advantages"].mean()
    assert ((after - e.logps).exp() * advantages).mean() > 0.05 * advantages.std() and own.rollouts == 1
    error = (own.critic(e.observations) - e.columns["returns"]).square().mean()
    assert error < (e.flat(e.values) - e.columns["returns"]).square().mean()
    assert metrics["policy/approx_kl"] > 0 and metrics["updates"] == 20


def test_state_is_restored() -> None:
    first, second = agent(PPO), agent(PPO)
    first.learn(experience(first), 1.0)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for own in (first, second):
        own.learn(experience(own, seed=1), 1.0)
    assert all(torch.equal(a, b) for a, b in zip(first.policy.parameters(), second.policy.parameters()))


def test_ppo_stops_at_its_target_and_clips() -> None:
    whole, short, tight = (agent(PPO, num_epochs=30, **o) for o in ({}, {"target_kl": 1e-4}, {"cliprange": 1e-3}))
    for own in (whole, short, tight):
        own.optimizers["both"].peaks = [1e-2]
    metrics = [own.learn(experience(own), 1.0) for own in (whole, short, tight)]
    assert metrics[1]["updates"] < metrics[0]["updates"] == 30
    assert metrics[2]["policy/clip_fraction"] > 0.5 > metrics[2]["policy/approx_kl"]
    clipped = agent(PPO, cliprange_value=1e-6)
    e = experience(clipped)
    clipped.compute_advantages(e)
    batch = replace(e).batch()
    batch["values"] = batch["values"] - 1
    assert clipped.value_loss(batch, 1e-6) >= clipped.value_loss(batch)
