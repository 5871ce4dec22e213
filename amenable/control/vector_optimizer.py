"""Adam on all parameters of small networks as one vector: a step is a few operations, however many layers there are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from amenable.functional.natural_gradient import flatten
from amenable.train.optimizer import Optimizer, OptimizerConfig


class ParameterVector(nn.Module):
    """The parameters of some modules, made views of one vector, and their gradients of its gradient."""

    def __init__(self, modules: Sequence[nn.Module]):
        super().__init__()
        parameters = [p for module in modules for p in module.parameters()]
        self.vector = nn.Parameter(flatten(parameters, parameters))
        self.gradient = torch.zeros_like(self.vector)
        self.vector.grad = self.gradient
        sizes = [p.numel() for p in parameters]
        for p, part, slope in zip(parameters, self.vector.data.split(sizes), self.gradient.split(sizes)):
            p.data, p.grad = part.view_as(p), slope.view_as(p)


class VectorOptimizer(Optimizer):
    """Adam without weight decay on the parameters of some modules; gradients are added up in place."""

    def __init__(self, modules: Sequence[nn.Module], config: OptimizerConfig):
        self.parameters_of = ParameterVector(modules)
        super().__init__([self.parameters_of], config)

    def zero_grad(self) -> None:
        """Set the gradient to zero, where it is."""
        self.parameters_of.gradient.zero_()
