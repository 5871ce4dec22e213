"""Gradients do not depend on how many passes they are computed in, whatever the objective."""

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from amenable.data.batches import Batch, unique_tokens
from amenable.models.decoder import Decoder
from amenable.models.layout import Layout
from amenable.train.forward import Row, mean_loss, summed_logprobs
from amenable.train.objective import NextToken, Output, Stats, accumulate, mean_stats, require_zero_outputs
from amenable.train.runtime import Runtime

# rows of unequal shares: a mean of means would weigh them alike
ROWS: list[Row] = [
    ([5, 40, 9], [False, False, True]),
    ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [False] + [True] * 9),
    ([11, 12, 13, 14], [False, True, True, False]),
]


def gradient(decoder: Decoder) -> Tensor:
    parts = [p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()) for p in decoder.parameters()]
    decoder.zero_grad(set_to_none=True)
    return torch.cat(parts)


@pytest.mark.parametrize("max_tokens", [1, 5, 13, 14])
def test_many_passes_are_one(make_decoder: Callable[..., Decoder], runtime: Runtime, max_tokens: int) -> None:
    decoder = make_decoder()
    loss = accumulate(NextToken(decoder), ROWS, runtime, 1000)["loss"]
    whole = gradient(decoder)
    assert loss == pytest.approx(mean_loss(decoder, ROWS, runtime, 1000), rel=1e-5)
    again = accumulate(NextToken(decoder), ROWS, runtime, max_tokens)["loss"]
    assert again == pytest.approx(loss, rel=1e-5)
    assert torch.allclose(gradient(decoder), whole, atol=1e-6) and whole.norm() > 0.1


@pytest.mark.parametrize("tied", [True, False])
def test_the_gradient_is_that_of_the_plain_mean(
    make_decoder: Callable[..., Decoder], runtime: Runtime, tied: bool
) -> None:
    decoder = make_decoder(tie_embeddings=tied)
    loss = accumulate(NextToken(decoder), ROWS, runtime, 13)["loss"]
    ours = gradient(decoder)
    losses = []
    for ids, trained in ROWS:
        logits = decoder.logits(decoder(torch.tensor(ids), Layout.of([len(ids)])))
        losses += [F.cross_entropy(logits[i - 1], torch.tensor(ids[i])) for i in range(1, len(ids)) if trained[i]]
    mean = torch.stack(losses).mean()
    mean.backward()
    assert loss == pytest.approx(mean.item(), rel=1e-5)
    assert torch.allclose(ours, gradient(decoder), atol=1e-6)


def test_a_system_prompt_is_computed_once_without_dropout(
    make_decoder: Callable[..., Decoder], runtime: Runtime
) -> None:
    system = list(range(2, 14))
    rows: list[Row] = [([*system, 20 + i % 3, 30, 40 + i], [False] * 13 + [True] * 2) for i in (0, 0, 1, 2)]
    decoder = make_decoder()
    once = NextToken(decoder)
    assert once.share_prefixes and not NextToken(make_decoder(dropout=0.1)).share_prefixes
    assert unique_tokens(rows) == 60 - 12 - 13 - 12 < 60
    each = NextToken(decoder)
    each.share_prefixes = False
    figures, gradients = [], []
    for objective in (once, each):
        figures.append(accumulate(objective, rows, runtime, 1000, sources=["a", "b", "a", "b"]))
        gradients.append(gradient(decoder))
    assert figures[0] == pytest.approx(figures[1], rel=1e-5) and len(figures[0]) == 3
    assert torch.allclose(*gradients, atol=1e-6) and gradients[0].norm() > 0.1


def test_scale_multiplies_the_gradient_and_not_the_statistics(
    make_decoder: Callable[..., Decoder], runtime: Runtime
) -> None:
    decoder = make_decoder()
    loss = accumulate(NextToken(decoder), ROWS, runtime, 7)["loss"]
    whole = gradient(decoder)
    scaled = accumulate(NextToken(decoder, "loss/ptx"), ROWS, runtime, 7, scale=0.25)
    assert scaled == {"loss/ptx": pytest.approx(loss, rel=1e-6)}
    assert torch.allclose(gradient(decoder), whole / 4, atol=1e-7)


def test_gradients_are_added_to_those_before(make_decoder: Callable[..., Decoder], runtime: Runtime) -> None:
    decoder = make_decoder()
    objective = NextToken(decoder)
    accumulate(objective, ROWS[:1], runtime, 1000)
    first = gradient(decoder)
    accumulate(objective, ROWS[1:], runtime, 1000)
    second = gradient(decoder)
    accumulate(objective, ROWS[:1], runtime, 1000)
    accumulate(objective, ROWS[1:], runtime, 1000)
    assert torch.allclose(gradient(decoder), first + second, atol=1e-6)


ELEMENTS: list[list[Row]] = [
    [(list(range(40, 60)) + answer, [False] * 20 + [True] * len(answer)) for answer in ([1, 2], [3], [4, 5, 6], [7])],
    [(list(range(40, 70)) + answer, [False] * 30 + [True] * len(answer)) for answer in ([1, 2], [3])],
    ROWS,
]
"""answers to a prompt, answers to one that begins with it, rows with nothing in common"""


class Coupled:
    """An element's loss needs all of its rows: the logsumexp of their outputs."""

    share_prefixes = True
    couples_elements = False
    output: Output = "logprobs"

    def __init__(self, decoder: Decoder):
        self.decoder, self.sizes = decoder, list[tuple[int, int]]()

    def rows(self, element: list[Row]) -> list[Row]:
        return element

    def weight(self, element: list[Row]) -> float:
        return 1.0

    def outputs(self, batch: Batch) -> Tensor:
        self.sizes.append((len(batch.ids), len(batch.lengths)))
        return summed_logprobs(self.decoder, batch)

    def loss(self, elements: Sequence[list[Row]], outputs: Tensor) -> tuple[Tensor, Stats]:
        parts = outputs.split([len(element) for element in elements])
        loss = torch.stack([part.logsumexp(0) for part in parts]).mean()
        return loss, {"loss": loss.detach(), "least": outputs.detach().min()}


@pytest.mark.parametrize("max_tokens", [1, 25, 40, 60])
def test_elements_over_the_budget_have_the_gradient_of_whole_ones(
    make_decoder: Callable[..., Decoder], runtime: Runtime, max_tokens: int
) -> None:
    objective = Coupled(make_decoder())
    whole = accumulate(objective, ELEMENTS, runtime, 1000)
    expected = gradient(objective.decoder)
    assert objective.sizes == [(20 + 7 + 30 + 3 + 17, 9)] and expected.norm() > 0.1
    objective.sizes.clear()
    again = accumulate(objective, ELEMENTS, runtime, max_tokens)
    assert again["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    assert torch.allclose(gradient(objective.decoder), expected, atol=1e-5)
    assert all(tokens <= max_tokens or rows == 1 for tokens, rows in objective.sizes)


def test_without_gradients_elements_over_the_budget_are_computed_once(
    make_decoder: Callable[..., Decoder], runtime: Runtime
) -> None:
    objective = Coupled(make_decoder())
    with torch.no_grad():
        stats = accumulate(objective, ELEMENTS, runtime, 1)
    assert [rows for _, rows in objective.sizes] == [1] * 9 and stats["loss"] != 0
    assert all(p.grad is None for p in objective.decoder.parameters())
    assert accumulate(objective, [], runtime, 1) == {}


def test_objectives_on_one_batch_are_backpropagated_one_after_the_other(
    make_decoder: Callable[..., Decoder], runtime: Runtime
) -> None:
    """Two models' activations are never held together: the second runs once the first has its gradient."""
    first, second = make_decoder(), make_decoder(seed=1)
    ready: list[bool] = []

    class Watching(NextToken):
        def outputs(self, batch: Batch) -> Tensor:
            ready.append(all(p.grad is not None for p in first.parameters()))
            return super().outputs(batch)

    stats = accumulate([NextToken(first, "first"), Watching(second, "second")], ROWS, runtime, 1000)
    assert ready == [True] and stats["first"] != stats["second"]
    assert torch.allclose(gradient(second), apart(second, runtime)) and gradient(first).norm() > 0.1


def apart(decoder: Decoder, runtime: Runtime) -> Tensor:
    accumulate(NextToken(decoder), ROWS, runtime, 1000)
    return gradient(decoder)


class Scores:
    """One number a row, its square as the loss: the smallest objective with scalar outputs."""

    share_prefixes = False
    couples_elements = False
    output: Output = "scalar"

    def rows(self, row: Row) -> list[Row]:
        return [row]

    def weight(self, row: Row) -> float:
        return float(len(row[0]) > 3)

    def outputs(self, batch: Batch) -> Tensor:
        return torch.ones(len(batch.lengths))

    def loss(self, rows: Sequence[Row], outputs: Tensor) -> tuple[Tensor, Stats]:
        loss = (outputs - 3).square().mean()
        return loss, {"loss": loss}


def test_held_out_elements_have_statistics_and_no_elements_have_none(runtime: Runtime) -> None:
    assert mean_stats(Scores(), ROWS, runtime, 100) == {"loss": 4.0} and mean_stats(Scores(), [], runtime, 100) == {}


def test_the_first_loss_of_a_new_head_is_that_of_outputs_of_zero() -> None:
    require_zero_outputs(Scores(), ROWS, 9.0)
    require_zero_outputs(Scores(), ROWS[:1], 0.0)  # no element counts, so there is no loss
    with pytest.raises(RuntimeError, match="the first loss is 4 and must be 9"):
        require_zero_outputs(Scores(), ROWS, 4.0)
