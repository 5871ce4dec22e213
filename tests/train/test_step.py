"""Gradients do not depend on how many passes they are computed in."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from amenable.models.decoder import Decoder
from amenable.models.layout import Layout
from amenable.train.passes import Row, mean_loss
from amenable.train.runtime import Runtime
from amenable.train.step import backward_next_token

# rows of unequal shares: a mean of means would weigh them alike
ROWS: list[Row] = [
    ([5, 40, 9], [False, False, True]),
    ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [False] + [True] * 9),
    ([11, 12, 13, 14], [False, True, True, False]),
]


def gradient(decoder: Decoder) -> torch.Tensor:
    parts = [p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()) for p in decoder.parameters()]
    decoder.zero_grad(set_to_none=True)
    return torch.cat(parts)


@pytest.mark.parametrize("max_tokens", [1, 5, 13, 14])
def test_many_passes_are_one(make_decoder: Callable[..., Decoder], machine: Runtime, max_tokens: int) -> None:
    decoder = make_decoder()
    loss = backward_next_token(decoder, ROWS, machine, 1000)
    whole = gradient(decoder)
    assert loss.item() == pytest.approx(mean_loss(decoder, ROWS, machine, 1000), rel=1e-5)
    again = backward_next_token(decoder, ROWS, machine, max_tokens)
    assert again.item() == pytest.approx(loss.item(), rel=1e-5)
    assert torch.allclose(gradient(decoder), whole, atol=1e-6) and whole.norm() > 0.1


@pytest.mark.parametrize("tied", [True, False])
def test_the_gradient_is_that_of_the_plain_mean(
    make_decoder: Callable[..., Decoder], machine: Runtime, tied: bool
) -> None:
    decoder = make_decoder(tied=tied)
    loss = backward_next_token(decoder, ROWS, machine, 13)
    ours = gradient(decoder)
    losses = []
    for ids, trained in ROWS:
        logits = decoder.logits(decoder(torch.tensor(ids), Layout.of([len(ids)])))
        losses += [F.cross_entropy(logits[i - 1], torch.tensor(ids[i])) for i in range(1, len(ids)) if trained[i]]
    mean = torch.stack(losses).mean()
    mean.backward()
    assert loss.item() == pytest.approx(mean.item(), rel=1e-5)
    assert torch.allclose(ours, gradient(decoder), atol=1e-6)


def test_a_weight_scales_the_gradient_and_not_what_is_told(
    make_decoder: Callable[..., Decoder], machine: Runtime
) -> None:
    decoder = make_decoder()
    loss = backward_next_token(decoder, ROWS, machine, 7)
    whole = gradient(decoder)
    assert backward_next_token(decoder, ROWS, machine, 7, weight=0.25).item() == pytest.approx(loss.item(), rel=1e-6)
    assert torch.allclose(gradient(decoder), whole / 4, atol=1e-7)


def test_gradients_are_added_to_what_is_there(make_decoder: Callable[..., Decoder], machine: Runtime) -> None:
    decoder = make_decoder()
    backward_next_token(decoder, ROWS[:1], machine, 1000)
    first = gradient(decoder)
    backward_next_token(decoder, ROWS[1:], machine, 1000)
    second = gradient(decoder)
    backward_next_token(decoder, ROWS[:1], machine, 1000)
    backward_next_token(decoder, ROWS[1:], machine, 1000)
    assert torch.allclose(gradient(decoder), first + second, atol=1e-6)
