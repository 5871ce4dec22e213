"""Policies and critics: networks for vectors and images, categorical and normal distributions over actions.

Weights are orthogonal, biases 0; the last layer's gain is .01 for a policy and 1 for a critic (Andrychowicz et al.,
2021, choices of PPO's reference code). Letters: B rows, D size of an observation, A actions, or numbers in one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from amenable.functional.kl import exact_kl

Activation = Literal["tanh", "relu"]


@dataclass(frozen=True)
class Categorical:
    """Distribution over A discrete actions, by their logits [B, A]."""

    logits: Tensor

    @cached_property
    def logps(self) -> Tensor:
        """Log-probabilities [B, A]."""
        return F.log_softmax(self.logits, -1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-probability [B] of actions [B]."""
        return self.logps.gather(-1, actions[..., None])[..., 0]

    def entropy(self) -> Tensor:
        """Return the entropy [B], in nats."""
        return -(self.logps.exp() * self.logps).sum(-1)

    def kl(self, other: Categorical) -> Tensor:
        """Return KL(self || other) [B]."""
        return exact_kl(self.logits, other.logits)


@dataclass(frozen=True)
class DiagonalNormal:
    """Normal distribution over A independent numbers: means [B, A], log standard deviations [A]."""

    mean: Tensor
    log_std: Tensor

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-density [B] of actions [B, A]."""
        z = (actions - self.mean) * torch.exp(-self.log_std)
        return -(z.square() / 2 + self.log_std + math.log(2 * math.pi) / 2).sum(-1)

    def entropy(self) -> Tensor:
        """Return the differential entropy [B], in nats."""
        entropy = (self.log_std + math.log(2 * math.pi * math.e) / 2).sum()
        return entropy.expand(self.mean.shape[:-1])

    def kl(self, other: DiagonalNormal) -> Tensor:
        """Return KL(self || other) [B]."""
        gap, variance = (self.mean - other.mean).square(), torch.exp(2 * (self.log_std - other.log_std))
        terms = other.log_std - self.log_std + (variance + gap * torch.exp(-2 * other.log_std) - 1) / 2
        return terms.sum(-1)


Distribution = Categorical | DiagonalNormal


class Policy(nn.Module):
    """A network from observations to a distribution over actions."""

    def __init__(
        self,
        shape: Sequence[int],
        num_actions: int,
        discrete: bool,
        hidden: Sequence[int] = (64, 64),
        activation: Activation = "tanh",
        generator: torch.Generator | None = None,
    ):
        """shape: of an observation, [D] or that of an image [channels, height, width]."""
        super().__init__()
        self.num_actions, self.discrete = num_actions, discrete
        self.network = make_network(shape, num_actions, 0.01, hidden, activation, generator)
        self.log_std = None if discrete else nn.Parameter(torch.zeros(num_actions))

    def forward(self, observations: Tensor) -> Distribution:
        """Return the distributions of observations [B, ...]."""
        outputs = self.network(observations)
        return Categorical(outputs) if self.log_std is None else DiagonalNormal(outputs, self.log_std)

    def noise(self, shape: Sequence[int], generator: torch.Generator) -> NDArray:
        """Return the random numbers [*shape, A] that actions are drawn with: Gumbel, or normal."""
        size = (*shape, self.num_actions)
        if not self.discrete:
            return torch.randn(size, generator=generator).numpy()
        uniform = torch.rand(size, generator=generator).clamp(min=torch.finfo(torch.float32).tiny)
        return -torch.log(-torch.log(uniform)).numpy()

    def act(self, observations: NDArray, noise: NDArray | float) -> NDArray:
        """Return the actions [B] or [B, A] of observations [B, ...]; with noise 0 the likeliest.

        argmax of logits + Gumbel noise is a draw from their softmax; mean + std x normal noise one from the normal.
        """
        outputs = run(self.network, observations)
        if self.log_std is None:
            return (outputs + noise).argmax(-1)
        return (outputs + np.exp(self.log_std.detach().numpy()) * noise).astype(np.float32)


class Critic(nn.Module):
    """A network from observations to their values, apart from the policy's."""

    def __init__(
        self,
        shape: Sequence[int],
        hidden: Sequence[int] = (64, 64),
        activation: Activation = "tanh",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.network = make_network(shape, 1, 1.0, hidden, activation, generator)

    def forward(self, observations: Tensor) -> Tensor:
        """Return the values [B] of observations [B, ...]."""
        return self.network(observations)[..., 0]


class PixelScale(nn.Module):
    """Images of bytes as numbers from 0 to 1."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float() / 255


def make_network(
    shape: Sequence[int],
    outputs: int,
    gain: float,
    hidden: Sequence[int],
    activation: Activation,
    generator: torch.Generator | None,
) -> nn.Sequential:
    """Return an MLP for vectors, or the network of Mnih et al. (2015) for images, with a last layer of this gain."""
    act: Callable[[], nn.Module] = {"tanh": nn.Tanh, "relu": nn.ReLU}[activation]
    parts: list[nn.Module] = []
    size = shape[0]
    if len(shape) == 3:
        convolutions = [nn.Conv2d(shape[0], 32, 8, 4), nn.Conv2d(32, 64, 4, 2), nn.Conv2d(64, 64, 3, 1)]
        trunk = nn.Sequential(
            PixelScale(), *(part for layer in convolutions for part in (layer, nn.ReLU())), nn.Flatten()
        )
        size = trunk(torch.zeros(1, *shape)).shape[1]
        parts, hidden, act = list(trunk), (512,), nn.ReLU
    for width in hidden:
        parts += [nn.Linear(size, width), act()]
        size = width
    parts.append(nn.Linear(size, outputs))
    for part in parts:
        if isinstance(part, (nn.Linear, nn.Conv2d)) and part.bias is not None:
            nn.init.orthogonal_(part.weight, math.sqrt(2) if part is not parts[-1] else gain, generator)
            part.bias.data.zero_()
    return nn.Sequential(*parts)


def run(network: nn.Sequential, observations: NDArray) -> NDArray:
    """Return a network's outputs without gradients; an MLP's by numpy, which has less overhead on a few rows."""
    if any(isinstance(part, nn.Conv2d) for part in network):
        with torch.inference_mode():
            return network(torch.from_numpy(observations)).numpy()
    x = observations
    for part in network:
        if isinstance(part, nn.Linear):
            x = x @ part.weight.detach().numpy().T + part.bias.detach().numpy()
        else:
            x = np.tanh(x) if isinstance(part, nn.Tanh) else np.maximum(x, 0)
    return x
