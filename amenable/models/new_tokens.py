"""New tokens at the end of a vocabulary: their first embeddings, and their training while the other rows are frozen.

Adapters, and frozen layers, leave the embedding matrix as it is; tokens that a task brings with it have no meaning yet,
so their rows alone train, as `new_embeddings` of the decoder, until `merge_new_tokens` writes them into the matrix.
"""

from __future__ import annotations

import torch
from torch import nn

from amenable.models.decoder import Decoder, normal


@torch.no_grad()
def init_new_tokens(decoder: Decoder, count: int, generator: torch.Generator) -> None:
    """Draw the embeddings of the last `count` tokens: the mean of the others, and noise of their standard deviation."""
    if not count:
        return
    first = decoder.num_tokens - count
    others, new = decoder.token_embedding.weight[:first], decoder.token_embedding.weight[first : decoder.num_tokens]
    new.copy_(others.mean(0) + normal(new.shape, float(others.std()), generator).to(others))


def train_new_tokens(decoder: Decoder, count: int) -> None:
    """Make the embeddings of the last `count` tokens train, if the matrix does not."""
    if count and not decoder.token_embedding.weight.requires_grad:
        rows = decoder.token_embedding.weight[decoder.num_tokens - count : decoder.num_tokens]
        decoder.new_embeddings = nn.Parameter(rows.detach().clone())


@torch.no_grad()
def merge_new_tokens(decoder: Decoder) -> None:
    """Write the embeddings that `train_new_tokens` made into the matrix."""
    if decoder.new_embeddings is not None:
        first = decoder.num_tokens - len(decoder.new_embeddings)
        decoder.token_embedding.weight[first : decoder.num_tokens] = decoder.new_embeddings
        decoder.new_embeddings = None
