"""Steps of a vector are those of its parts."""

import copy

import torch
from torch import nn

from amenable.control.vector_optimizer import VectorOptimizer
from amenable.train.optimizer import Optimizer, OptimizerConfig

CONFIG = OptimizerConfig(learning_rate=1e-2, beta2=0.999, max_grad_norm=0.5)


def networks() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Linear(3, 4), nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1))]


def train(modules: list[nn.Module], optimizer: Optimizer, steps: int) -> list[float]:
    x, norms = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)), []
    for _ in range(steps):
        sum((module(x) - 1).square().mean() for module in modules).backward()
        norms.append(optimizer.step(0.7))
    return norms


def weights(modules: list[nn.Module]) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for module in modules for p in module.parameters()])


def test_it_steps_as_adam_does_on_each_tensor() -> None:
    own, peer = networks(), networks()
    norms = train(own, VectorOptimizer(own, CONFIG), 5), train(peer, Optimizer(peer, CONFIG), 5)
    assert torch.allclose(weights(own), weights(peer), atol=1e-6) and max(norms[1]) > 0.5, "some were clipped"
    assert torch.allclose(*map(torch.tensor, norms), atol=1e-5)
    assert not torch.equal(weights(own), weights(networks()))


def test_loaded_weights_and_moments_go_on() -> None:
    first, second = networks(), networks()
    optimizers = VectorOptimizer(first, CONFIG), VectorOptimizer(second, CONFIG)
    train(first, optimizers[0], 3)
    for module, other in zip(first, second):
        other.load_state_dict(copy.deepcopy(module.state_dict()))
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    train(first, optimizers[0], 2)
    train(second, optimizers[1], 2)
    assert torch.equal(weights(first), weights(second))
