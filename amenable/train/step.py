"""From rows to gradients: the mean over all trained tokens, however many passes it is computed in."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from amenable.data.batches import collate, microbatches
from amenable.models.decoder import Decoder
from amenable.train.passes import Row, trained_nll
from amenable.train.runtime import Runtime


def backward_next_token(
    decoder: Decoder, rows: Sequence[Row], runtime: Runtime, max_tokens: int, weight: float = 1.0
) -> torch.Tensor:
    """Add the gradient of weight * (mean next-token loss over the rows' trained tokens). Returns that mean.

    A pass holds at most `max_tokens` tokens and counts by its share of the trained tokens, so that the result does not
    depend on how the rows are divided.
    """
    total = sum(sum(trained) for _, trained in rows)
    loss = torch.zeros(())
    for part in microbatches([len(ids) for ids, _ in rows], max_tokens):
        batch = collate([rows[i] for i in part]).to(runtime.device)
        with runtime.autocast():
            share = trained_nll(decoder, batch, 1 / total)
        (weight * share).backward()
        loss += share.detach().cpu()
    return loss
