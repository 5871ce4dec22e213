"""TRPO's step: within the constraint, better by the surrogate, and the natural gradient's direction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from amenable.control.environments import Spaces
from amenable.control.trpo import TRPO
from amenable.functional.natural_gradient import flatten
from tests.control.test_agent import SPACES, agent, experience
from tests.control.test_training import is_optimal, trained

NUMBERS = Spaces("tiny", Box(-1, 1, (2,), np.float32), Box(-1, 1, (2,), np.float32))


def test_the_constraint_holds_and_the_loss_falls() -> None:
    own = agent(TRPO)
    e = experience(own)
    with torch.no_grad():
        old = own.policy(e.observations)
    metrics = own.learn(e, 1.0)
    kl = float(old.kl(own.policy(e.observations)).mean().detach())
    assert 0 < kl == pytest.approx(metrics["policy/approx_kl"], rel=1e-3) and kl <= 0.01
    assert metrics["policy/loss_fall"] > 0 and metrics["value/loss"] > 0
    half = agent(TRPO)
    assert half.learn(experience(half), 0.5)["policy/approx_kl"] < 0.3 * metrics["policy/approx_kl"]


@pytest.mark.parametrize("spaces", [SPACES, NUMBERS], ids=["discrete", "numbers"])
def test_the_step_is_the_natural_gradient_by_the_explicit_fisher_matrix(spaces: Spaces) -> None:
    """F = mean over actions drawn of grad log pi (grad log pi)^T, here as the Hessian of the KL by differences."""
    own = agent(TRPO, spaces, cg_damping=0.1, trust_region=1e-4, cg_iterations=200)
    e = experience(own)
    own.compute_advantages(e)
    parameters = list(own.policy.parameters())
    start = flatten(parameters, parameters)
    with torch.no_grad():
        old = own.policy(e.observations)
    kl = old.kl(own.policy(e.observations)).mean()
    slope = torch.cat([g.flatten() for g in torch.autograd.grad(kl, parameters, create_graph=True)])
    rows = [torch.autograd.grad(s, parameters, retain_graph=True, allow_unused=True) for s in slope]
    fisher = torch.stack([flatten(row, parameters) for row in rows]).double()
    advantages = e.columns["advantages"]
    standard = (advantages - advantages.mean()) / advantages.std(correction=0)
    loss = -(own.policy(e.observations).log_prob(e.actions).sub(e.logps).exp() * standard).mean()
    gradient = flatten(torch.autograd.grad(loss, parameters), parameters).double()
    direction = -torch.linalg.solve(fisher + 0.1 * torch.eye(len(fisher)), gradient)
    own.step_policy(e, 1e-4)
    step = (flatten(parameters, parameters) - start).double()
    assert torch.nn.functional.cosine_similarity(step, direction, dim=0) > 0.999


def test_no_step_is_taken_where_none_is_better() -> None:
    own = agent(TRPO)
    e = experience(own)
    e.rewards = torch.zeros(2, 5)
    e.values, e.discounts = torch.zeros(2, 5), torch.zeros(2, 5)
    before = flatten(list(own.policy.parameters()), list(own.policy.parameters()))
    own.compute_advantages(e)
    assert own.step_policy(e, 0.01)["policy/approx_kl"] == 0
    assert torch.equal(flatten(list(own.policy.parameters()), list(own.policy.parameters())), before)


@pytest.mark.parametrize("seed", [0, 1])
def test_it_finds_the_optimal_policy(seed: int) -> None:
    assert is_optimal(trained(TRPO, seed))
