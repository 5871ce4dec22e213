"""Conjugate gradient and the trust region's step: by hand, and in other coordinates."""

import pytest
import torch

from amenable.functional.natural_gradient import conjugate_gradient, flatten, line_search, trust_region_step, unflatten

F = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
GRADIENT = torch.tensor([1.0, -1.0])


def test_conjugate_gradient_by_hand() -> None:
    """x = F^-1 g in as many products as there are dimensions."""
    calls = []
    x = conjugate_gradient(lambda v: calls.append(1) or F @ v, GRADIENT, 10)
    assert x.tolist() == pytest.approx([0.857143, -1.428571], abs=1e-5) and len(calls) == 2
    assert conjugate_gradient(lambda v: F @ v, GRADIENT, 1).tolist() == pytest.approx([1.0, -1.0])
    assert conjugate_gradient(lambda v: F @ v, torch.zeros(2)).tolist() == [0.0, 0.0]


def test_conjugate_gradient_solves_larger_systems() -> None:
    draw = torch.Generator().manual_seed(0)
    root, b = torch.randn(12, 12, generator=draw, dtype=torch.float64), torch.randn(12, generator=draw).double()
    matrix = root @ root.t() + 0.1 * torch.eye(12, dtype=torch.float64)
    x = conjugate_gradient(lambda v: matrix @ v, b, 30, tolerance=1e-20)
    assert torch.allclose(x, torch.linalg.solve(matrix, b), rtol=1e-5, atol=1e-7)


def test_the_step_by_hand() -> None:
    step = trust_region_step(lambda v: F @ v, GRADIENT, 0.01, damping=0.0)
    assert step.tolist() == pytest.approx([-0.080178, 0.133631], abs=1e-5)
    assert float(step @ F @ step) / 2 == pytest.approx(0.01, rel=1e-4)
    assert float(GRADIENT @ step) == pytest.approx(-0.213809, abs=1e-5)
    damped = trust_region_step(lambda v: F @ v, GRADIENT, 0.01, damping=0.5)
    own = F + 0.5 * torch.eye(2)
    assert float(damped @ own @ damped) / 2 == pytest.approx(0.01, rel=1e-4)
    assert torch.allclose(damped / damped[0], torch.linalg.solve(own, GRADIENT) / torch.linalg.solve(own, GRADIENT)[0])
    assert trust_region_step(lambda v: F @ v, torch.zeros(2), 0.01).tolist() == [0.0, 0.0]


def test_the_step_does_not_depend_on_the_parametrisation() -> None:
    """Logits A phi of a policy: the gradient and the Fisher matrix by differentiation, the same change for every A."""
    draw = torch.Generator().manual_seed(1)
    logits, advantages = torch.randn(2, 4, generator=draw, dtype=torch.float64)
    changes = []
    for seed in range(3):
        a = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        phi = torch.linalg.solve(a, logits).requires_grad_()
        old = logits.log_softmax(0)
        loss = -((a @ phi).log_softmax(0).exp() * advantages).sum()
        (gradient,) = torch.autograd.grad(loss, phi)
        kl = (old.exp() * (old - (a @ phi).log_softmax(0))).sum()
        (slope,) = torch.autograd.grad(kl, phi, create_graph=True)
        fisher = torch.stack([torch.autograd.grad(part, phi, retain_graph=True)[0] for part in slope])
        step = trust_region_step(lambda v, fisher=fisher: fisher @ v, gradient, 0.01, 0.0, iterations=3)
        changes.append((a @ (phi + step)).softmax(0).detach())
    assert torch.allclose(changes[0], changes[1], atol=1e-4) and torch.allclose(changes[0], changes[2], atol=1e-4)
    assert (changes[0] - logits.softmax(0)).abs().max() > 0.02


def test_vectors_come_back_as_tensors() -> None:
    like = [torch.zeros(2, 3), torch.zeros(4)]
    vector = flatten([torch.arange(6.0).view(2, 3), None], like)
    assert vector.tolist() == [0, 1, 2, 3, 4, 5, 0, 0, 0, 0]
    first, second = unflatten(vector, like)
    assert first.tolist() == [[0, 1, 2], [3, 4, 5]] and second.tolist() == [0] * 4


@pytest.mark.parametrize(("limit", "halvings", "end"), [(100.0, 1, 2.0), (1.5, 2, 1.0), (0.1, 4, 0.0)])
def test_the_line_search_takes_the_longest_step_that_is_better_and_allowed(
    limit: float, halvings: int, end: float
) -> None:
    """x^2 - 2.5 x at 0, step 4: 6 at 4, -1 at 2, -1.5 at 1; the KL is x. None of four is allowed by a limit of .1."""
    x = torch.zeros(1)
    taken = line_search([x], torch.tensor([4.0]), 0.0, lambda: (float(x**2 - 2.5 * x), float(x)), limit, 3)
    assert x.item() == end and taken == (end, 2.5 * end - end**2, halvings)
