"""Importance weights: by hand, and the policy gradient that they bring back to the trainer's distribution."""

import math

import pytest
import torch

from amenable.functional.importance_sampling import importance_weights

ANSWERS = torch.tensor([0, 0, 1, 1])
LOGP = torch.tensor([0.5, 0.4, -1.0, 0.1])
"""of the trainer, where the sampler's is 0"""


@pytest.mark.parametrize(
    ("beyond", "level", "expected", "bounded"),
    [
        ("truncate", "token", [math.exp(0.5), math.exp(0.4), math.exp(-1.0), math.exp(0.1)], [0, 0, 0, 0]),
        ("mask", "token", [math.exp(0.5), math.exp(0.4), 0.0, math.exp(0.1)], [0, 0, 1, 0]),
        ("truncate", "sequence", [2.0, 2.0, math.exp(-0.9), math.exp(-0.9)], [1, 1, 0, 0]),
        ("mask", "sequence", [0.0, 0.0, 0.0, 0.0], [1, 1, 1, 1]),
    ],
)
def test_weights_by_hand(beyond, level, expected, bounded):
    logp = LOGP.clone().requires_grad_()
    weights, outside = importance_weights(logp, torch.zeros(4), ANSWERS, 2, 2.0, beyond, level)
    assert weights.tolist() == pytest.approx(expected)
    assert outside.tolist() == [bool(x) for x in bounded] and not weights.requires_grad


def test_the_cap_bounds_each_token():
    weights, outside = importance_weights(LOGP, torch.zeros(4), ANSWERS, 2, 1.5)
    assert weights.tolist() == pytest.approx([1.5, math.exp(0.4), math.exp(-1.0), math.exp(0.1)])
    assert outside.tolist() == [True, False, False, False]


def test_the_weighted_gradient_of_the_samplers_tokens_is_that_of_the_trainers():
    """In expectation, over a vocabulary of five: sum_v q w A grad log p = sum_v p A grad log p."""
    draw = torch.Generator().manual_seed(0)
    logits, sampler = torch.randn(2, 5, generator=draw, dtype=torch.float64)
    logits.requires_grad_()
    logp, sampler_logp = logits.log_softmax(0), sampler.log_softmax(0)
    advantages = torch.randn(5, generator=draw, dtype=torch.float64)
    weights, _ = importance_weights(logp, sampler_logp, torch.arange(5), 5, cap=1e6)
    (theirs,) = torch.autograd.grad((sampler_logp.exp() * weights * advantages * logp).sum(), logits, retain_graph=True)
    (ours,) = torch.autograd.grad((logp.exp() * advantages).sum(), logits)
    assert torch.allclose(theirs, ours) and ours.abs().max() > 0.05
