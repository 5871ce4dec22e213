"""From rows to gradients: the mean over all trained tokens, or over elements, however many passes it is computed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import torch
from torch import Tensor

from amenable.data.batches import Batch, loss_groups
from amenable.models.decoder import Decoder
from amenable.train.forward import Row, in_order, load, trained_nll
from amenable.train.log import Progress, silent, tracked
from amenable.train.runtime import Runtime


def backward_next_token(
    decoder: Decoder, rows: Sequence[Row], runtime: Runtime, max_tokens: int, weight: float = 1.0
) -> Tensor:
    """Add the gradient of weight * (mean next-token loss over the rows' trained tokens). Returns that mean.

    A pass holds at most `max_tokens` tokens and counts by its share of the trained tokens, so that the result does not
    depend on how the rows are divided.
    """
    total = sum(sum(trained) for _, trained in rows)
    loss = torch.zeros(())
    for _, batch in in_order(rows, runtime, max_tokens, share=False):
        with runtime.autocast():
            share = trained_nll(decoder, batch, 1 / total)
        (weight * share).backward()
        loss += share.detach().cpu()
    return loss


def backward_elements(
    elements: Sequence[Sequence[Row]],
    outputs: Callable[[Batch], Tensor],
    loss_of: Callable[[list[int], Tensor], tuple[Tensor, dict[str, Tensor]]],
    runtime: Runtime,
    max_tokens: int,
    progress: Progress = silent,
) -> dict[str, float]:
    """Add the gradient of the mean over elements of a loss that couples an element's rows; with gradients off, none.

    outputs(batch) -> one number [B] a row. loss_of(places, outputs) -> the mean loss of the elements at these places,
    of their rows' outputs one after another, and statistics. Returns the mean of the loss and of each statistic.

    An element over the budget is computed in parts p, exactly as long as outputs do not depend on chance (dropout is
    off): o = (o_p)_p without gradients; then g = dL/do; then for each part again the gradient of sum(g_p o_p).
    """
    rows, stats = list(chain.from_iterable(elements)), dict[str, float]()

    def compute(part: Batch) -> Tensor:
        with runtime.autocast():
            return outputs(part)

    for group in tracked(loss_groups(elements, max_tokens, share=True), progress):
        parts = [load(rows, part, runtime, max_tokens) for part in group.microbatches]
        if len(parts) == 1:
            found = compute(parts[0])
        else:
            with torch.no_grad():
                found = torch.cat([compute(part) for part in parts])
            found.requires_grad_(torch.is_grad_enabled())
        share = len(group.elements) / len(elements)
        loss, seen = loss_of(group.elements, found)
        if loss.requires_grad:
            (share * loss).backward()
        if len(parts) > 1 and found.grad is not None:
            for part, slope in zip(parts, found.grad.split([len(part.lengths) for part in parts])):
                (compute(part) * slope).sum().backward()
        for name, value in {"loss": loss.detach(), **seen}.items():
            stats[name] = stats.get(name, 0.0) + share * float(value)
    return stats
