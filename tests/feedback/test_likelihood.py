import math

import pytest
import torch

from amenable.feedback.likelihood import DROP95, Likelihood, maximize, profile_interval


def gaussian(mean, precision):
    """A quadratic log-likelihood: its profile intervals are mean +- 1.96 standard deviations, exactly."""
    mean, precision = torch.tensor(mean, dtype=torch.float64), torch.tensor(precision, dtype=torch.float64)
    return Likelihood(
        lambda w: -(w - mean) @ precision @ (w - mean) / 2, lambda w: (-precision @ (w - mean), precision)
    )


def of_counts(won, lost, prior):
    """A binomial with log-odds w, and `prior` ties."""

    def value(w):
        return (
            won * torch.nn.functional.logsigmoid(w[0])
            + lost * torch.nn.functional.logsigmoid(-w[0])
            + prior / 2 * (torch.nn.functional.logsigmoid(w[0]) + torch.nn.functional.logsigmoid(-w[0]))
        )

    def slopes(w):
        p, n = torch.sigmoid(w), won + lost + prior
        return won + prior / 2 - n * p, (n * p * (1 - p))[None]

    return Likelihood(value, slopes, won + lost)


def test_the_maximum_of_a_quadratic_and_of_a_part_of_it():
    likelihood = gaussian([1.0, -2.0], [[2.0, 0.5], [0.5, 1.0]])
    assert maximize(likelihood, torch.zeros(2, dtype=torch.float64)).tolist() == pytest.approx([1, -2])
    held = torch.tensor([1.0, 0.0], dtype=torch.float64)
    # with the first at 0 the second moves to -2 + 0.5 * 1
    assert maximize(likelihood, torch.zeros(2, dtype=torch.float64), held).tolist() == pytest.approx([0, -1.5])


def test_intervals_of_a_quadratic_are_normal():
    precision = [[2.0, 0.5], [0.5, 1.0]]
    likelihood, best = gaussian([1.0, -2.0], precision), torch.tensor([1.0, -2.0], dtype=torch.float64)
    covariance = torch.linalg.inv(torch.tensor(precision, dtype=torch.float64))
    for contrast in ([1.0, 0.0], [1.0, -1.0], [0.3, 2.0]):
        c = torch.tensor(contrast, dtype=torch.float64)
        reach = 1.959964 * float((c @ covariance @ c).sqrt())
        center = float(c @ best)
        assert profile_interval(likelihood, best, c) == pytest.approx((center - reach, center + reach), abs=1e-5)


@pytest.mark.parametrize(("won", "lost"), [(1, 0), (20, 0), (0, 3), (7, 3)])
@pytest.mark.parametrize("prior", [1e-3, 1.0, 50.0])
def test_both_ends_lie_so_far_below_the_maximum(won, lost, prior):
    likelihood = of_counts(won, lost, prior)
    best = maximize(likelihood, torch.zeros(1, dtype=torch.float64))
    assert math.tanh(float(best) / 2) == pytest.approx((won - lost) / (won + lost + prior))
    low, high = profile_interval(likelihood, best, torch.ones(1, dtype=torch.float64))
    assert low < float(best) < high
    for end in (low, high):
        below = likelihood.value(best) - likelihood.value(torch.tensor([end], dtype=torch.float64))
        assert float(below) == pytest.approx(DROP95, abs=1e-5)
