"""Casts of frozen weights: made once, made again after a change, never of a weight that trains."""

import copy

import torch
from torch import nn

from amenable.models.cast_weight import CastWeight


def test_a_frozen_weight_is_cast_once_and_again_when_it_changes():
    weight, held = nn.Parameter(torch.randn(3, 4), requires_grad=False), CastWeight()
    assert held.of(weight) is weight  # no autocast
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.inference_mode():
            first = held.of(weight)
        assert first.dtype == torch.bfloat16 and torch.equal(first, weight.bfloat16()) and not first.is_inference()
        assert held.of(weight) is first
        weight.mul_(2)
        assert torch.equal(held.of(weight), weight.bfloat16())
        other = nn.Parameter(torch.ones(3, 4), requires_grad=False)
        assert torch.equal(held.of(other), other.bfloat16())
    assert copy.deepcopy(held).cast is None


def test_a_weight_that_trains_is_left_as_it_is():
    weight = nn.Parameter(torch.randn(3, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert CastWeight().of(weight) is weight
