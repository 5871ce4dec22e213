"""Gradients do not depend on how many passes they are computed in."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from amenable.data.batches import Batch
from amenable.models.decoder import Decoder
from amenable.models.layout import Layout
from amenable.train.forward import Row, mean_loss, summed_logprobs
from amenable.train.runtime import Runtime
from amenable.train.step import backward_elements, backward_next_token

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
def test_many_passes_are_one(make_decoder: Callable[..., Decoder], runtime: Runtime, max_tokens: int) -> None:
    decoder = make_decoder()
    loss = backward_next_token(decoder, ROWS, runtime, 1000)
    whole = gradient(decoder)
    assert loss.item() == pytest.approx(mean_loss(decoder, ROWS, runtime, 1000), rel=1e-5)
    again = backward_next_token(decoder, ROWS, runtime, max_tokens)
    assert again.item() == pytest.approx(loss.item(), rel=1e-5)
    assert torch.allclose(gradient(decoder), whole, atol=1e-6) and whole.norm() > 0.1


@pytest.mark.parametrize("tied", [True, False])
def test_the_gradient_is_that_of_the_plain_mean(
    make_decoder: Callable[..., Decoder], runtime: Runtime, tied: bool
) -> None:
    decoder = make_decoder(tie_embeddings=tied)
    loss = backward_next_token(decoder, ROWS, runtime, 13)
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
    make_decoder: Callable[..., Decoder], runtime: Runtime
) -> None:
    decoder = make_decoder()
    loss = backward_next_token(decoder, ROWS, runtime, 7)
    whole = gradient(decoder)
    assert backward_next_token(decoder, ROWS, runtime, 7, weight=0.25).item() == pytest.approx(loss.item(), rel=1e-6)
    assert torch.allclose(gradient(decoder), whole / 4, atol=1e-7)


def test_gradients_are_added_to_what_is_there(make_decoder: Callable[..., Decoder], runtime: Runtime) -> None:
    decoder = make_decoder()
    backward_next_token(decoder, ROWS[:1], runtime, 1000)
    first = gradient(decoder)
    backward_next_token(decoder, ROWS[1:], runtime, 1000)
    second = gradient(decoder)
    backward_next_token(decoder, ROWS[:1], runtime, 1000)
    backward_next_token(decoder, ROWS[1:], runtime, 1000)
    assert torch.allclose(gradient(decoder), first + second, atol=1e-6)


ELEMENTS: list[list[Row]] = [
    [(list(range(40, 60)) + answer, [False] * 20 + [True] * len(answer)) for answer in ([1, 2], [3], [4, 5, 6], [7])],
    [(list(range(40, 70)) + answer, [False] * 30 + [True] * len(answer)) for answer in ([1, 2], [3])],
    ROWS,
]
"""answers to a prompt, answers to one that begins with it, rows with nothing in common"""


def coupled(places: list[int], outputs: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """An element's loss needs all of its rows: the logsumexp of their outputs."""
    parts = outputs.split([len(ELEMENTS[i]) for i in places])
    return torch.stack([part.logsumexp(0) for part in parts]).mean(), {"least": outputs.detach().min()}


@pytest.mark.parametrize("max_tokens", [1, 25, 40, 60])
def test_elements_over_the_budget_have_the_gradient_of_whole_ones(
    make_decoder: Callable[..., Decoder], runtime: Runtime, max_tokens: int
) -> None:
    decoder, sizes = make_decoder(), list[tuple[int, int]]()

    def outputs(batch: Batch) -> torch.Tensor:
        sizes.append((len(batch.ids), len(batch.lengths)))
        return summed_logprobs(decoder, batch)

    whole = backward_elements(ELEMENTS, outputs, coupled, runtime, 1000)
    expected = gradient(decoder)
    assert sizes == [(20 + 7 + 30 + 3 + 17, 9)] and expected.norm() > 0.1
    sizes.clear()
    again = backward_elements(ELEMENTS, outputs, coupled, runtime, max_tokens)
    assert again["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    assert torch.allclose(gradient(decoder), expected, atol=1e-5)
    assert all(tokens <= max_tokens or rows == 1 for tokens, rows in sizes)


def test_without_gradients_elements_over_the_budget_are_computed_once(
    make_decoder: Callable[..., Decoder], runtime: Runtime
) -> None:
    decoder, rows = make_decoder(), list[int]()

    def outputs(batch: Batch) -> torch.Tensor:
        rows.append(len(batch.lengths))
        return summed_logprobs(decoder, batch)

    with torch.no_grad():
        found = backward_elements(ELEMENTS, outputs, coupled, runtime, 1)
    assert rows == [1] * 9 and found["loss"] != 0 and all(p.grad is None for p in decoder.parameters())
    assert backward_elements([], outputs, coupled, runtime, 1) == {}
