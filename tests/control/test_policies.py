"""Distributions beside torch's own; draws from noise; networks for vectors and images."""

import numpy as np
import pytest
import torch
from torch import distributions

from amenable.control.policies import Categorical, Critic, DiagonalNormal, Policy

DRAW = torch.Generator().manual_seed(0)
LOGITS, OTHER = torch.randn(5, 3, generator=DRAW), torch.randn(5, 3, generator=DRAW)


def test_categorical_is_that_of_torch() -> None:
    own, peer, actions = Categorical(LOGITS), distributions.Categorical(logits=LOGITS), torch.tensor([0, 1, 2, 0, 1])
    assert torch.allclose(own.log_prob(actions), peer.log_prob(actions))
    assert torch.allclose(own.entropy(), peer.entropy())
    kl = distributions.kl_divergence(peer, distributions.Categorical(logits=OTHER))
    assert torch.allclose(own.kl(Categorical(OTHER)), kl, atol=1e-6)


def test_the_normal_is_that_of_torch() -> None:
    log_std, other_std = torch.tensor([0.2, -0.5, 0.0]), torch.tensor([-0.1, 0.3, 0.4])
    own, peer = DiagonalNormal(LOGITS, log_std), distributions.Normal(LOGITS, log_std.exp())
    assert torch.allclose(own.log_prob(OTHER), peer.log_prob(OTHER).sum(-1), atol=1e-6)
    assert torch.allclose(own.entropy(), peer.entropy().sum(-1))
    kl = distributions.kl_divergence(peer, distributions.Normal(OTHER, other_std.exp())).sum(-1)
    assert torch.allclose(own.kl(DiagonalNormal(OTHER, other_std)), kl, atol=1e-5)


def test_actions_are_draws_from_the_distribution() -> None:
    policy = Policy([2], 3, True, (8,), generator=torch.Generator().manual_seed(0))
    torch.nn.init.normal_(policy.network[-1].weight, generator=torch.Generator().manual_seed(1))
    observations = np.tile(np.array([0.5, -1.0], np.float32), (4000, 1))
    actions = policy.act(observations, policy.noise((4000,), DRAW))
    shares = torch.softmax(policy(torch.from_numpy(observations[:1])).logits, -1)[0].detach().numpy()
    assert np.bincount(actions, minlength=3) / 4000 == pytest.approx(shares, abs=4 * 0.5 / np.sqrt(4000))
    assert policy.act(observations[:1], 0.0) == shares.argmax()
    normal = Policy([2], 2, False, (8,), generator=torch.Generator().manual_seed(0))
    normal.log_std.data[:] = torch.tensor([0.0, 1.0])
    drawn = normal.act(observations, normal.noise((4000,), DRAW))
    mean = normal(torch.from_numpy(observations[:1])).mean[0].detach().numpy()
    assert drawn.mean(0) == pytest.approx(mean, abs=0.2) and drawn.std(0) == pytest.approx([1, np.e], rel=0.1)
    assert normal.act(observations[:1], 0.0)[0] == pytest.approx(mean, abs=1e-6) and drawn.dtype == np.float32


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_numpy_computes_what_torch_does(activation: str) -> None:
    policy = Policy([4], 3, True, (16, 8), activation, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(policy.network[-1].weight, generator=DRAW)
    observations = torch.randn(50, 4, generator=DRAW)
    logits, noise = policy(observations).logits.detach().numpy(), policy.noise((50,), DRAW)
    assert (policy.act(observations.numpy(), noise) == (logits + noise).argmax(-1)).all() and np.ptp(logits) > 0.1


def test_first_policies_are_nearly_uniform_and_seeds_decide() -> None:
    first, same, other = (Policy([4], 2, True, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    weights = [policy.network[0].weight for policy in (first, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert torch.allclose(weights[0].t() @ weights[0], 2 * torch.eye(4), atol=1e-5), "orthogonal, gain sqrt 2"
    assert first(torch.randn(9, 4, generator=DRAW)).entropy().min() > 0.69


def test_images_have_convolutions() -> None:
    policy, critic = Policy([1, 36, 36], 5, True), Critic([1, 36, 36])
    images = np.random.default_rng(0).integers(0, 255, (2, 1, 36, 36)).astype(np.uint8)
    assert policy(torch.from_numpy(images)).logits.shape == (2, 5) and critic(torch.from_numpy(images)).shape == (2,)
    assert policy.act(images, policy.noise((2,), DRAW)).shape == (2,)
