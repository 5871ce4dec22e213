"""Natural gradient and trust region: conjugate gradient on products with a matrix, and the step of TRPO.

    x = (F + damping I)^-1 g        s = sqrt(2 delta / x^T (F + damping I) x) x        s^T F s / 2 <= delta

F is the Fisher matrix, the second derivative of KL(old || new) at the old parameters; only products F v are needed.
Schulman et al. (2015, TRPO, section 6 and appendix C). Vectors are flat, [P].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""v [P] -> A v [P], for a symmetric positive semi-definite A"""


def conjugate_gradient(product: Product, b: Tensor, iterations: int = 10, tolerance: float = 1e-10) -> Tensor:
    """Solve A x = b for x [P] by conjugate gradient; at most `iterations` products, one each.

    It ends before where the squared norm of the residual is below tolerance * |b|^2, or where A has no curvature along
    the direction, up to rounding.
    """
    x, residual = torch.zeros_like(b), b.clone()
    direction, square = residual.clone(), residual.dot(residual)
    smallest = tolerance * square
    for _ in range(iterations):
        if square <= smallest:
            break
        along = product(direction)
        curvature = direction.dot(along)
        if curvature <= 0:
            break
        x += square / curvature * direction
        residual -= square / curvature * along
        before, square = square, residual.dot(residual)
        direction = residual + square / before * direction
    return x


def trust_region_step(
    product: Product, gradient: Tensor, delta: float, damping: float = 0.1, iterations: int = 10
) -> Tensor:
    """Return the step [P] that lowers a loss of this gradient most where (1/2) s^T (F + damping I) s = delta.

    product: v -> F v. The step is 0 for a gradient of 0.
    """

    def damped(vector: Tensor) -> Tensor:
        return product(vector) + damping * vector

    x = conjugate_gradient(damped, gradient, iterations)
    length = x.dot(damped(x))
    return torch.zeros_like(x) if length <= 0 else -(2 * delta / length).sqrt() * x


class LineSearch(NamedTuple):
    """Step that a line search has taken: its KL and the fall of the loss, 0 for none, and the times it was halved."""

    kl: float
    fall: float
    halvings: int


@torch.no_grad()
def line_search(
    parameters: Sequence[Tensor],
    step: Tensor,
    loss: float,
    measure: Callable[[], tuple[float, float]],
    limit: float,
    halvings: int,
) -> LineSearch:
    """Add to the parameters the longest of step, step / 2, ... that lowers the loss with a KL of at most `limit`.

    step [P]. loss: before the step. measure: () -> (loss, KL from where it began) at the parameters as they are. If
    none does after `halvings` halvings the parameters are as before, and the result has halvings + 1.
    """
    start = [p.clone() for p in parameters]
    for halved in range(halvings + 1):
        for parameter, origin, change in zip(parameters, start, unflatten(step, parameters)):
            parameter.copy_(origin + change / 2**halved)
        torch.autograd.graph.increment_version(parameters)
        after, kl = measure()
        if after < loss and kl <= limit:
            return LineSearch(kl, loss - after, halved)
    for parameter, origin in zip(parameters, start):
        parameter.copy_(origin)
    torch.autograd.graph.increment_version(parameters)
    return LineSearch(0.0, 0.0, halvings + 1)


def flatten(tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensor:
    """Return the numbers of some tensors as one vector [P], fp32; None is zeros, as many as `like` has there."""
    parts = [torch.zeros_like(x) if tensor is None else tensor for tensor, x in zip(tensors, like)]
    return torch.cat([part.detach().flatten().float() for part in parts])


def unflatten(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return a vector [P] as tensors of the shapes of `like`."""
    return [part.view_as(x) for part, x in zip(vector.split([x.numel() for x in like]), like)]
