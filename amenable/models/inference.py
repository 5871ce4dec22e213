"""Models that are only asked, never trained: their matrices in the type of their products.

A model whose products are bf16 has fp32 weights, since small updates would be lost in bf16, and autocast casts each at
every use. A model that takes no updates needs the cast ones alone: half the memory, nothing cast again, and the same
results.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel

Model = TypeVar("Model", Decoder, ScalarModel)


def lean(model: Model, dtype: torch.dtype, in_place: bool = False) -> Model:
    """The model in evaluation mode with the matrices of its layers, and its unembedding, in `dtype`.

    Embeddings, norms and the head of a scalar model, which autocast leaves in fp32, are shared with the model that is
    handed over. in_place: that model itself is changed, and never holds both. To be asked under autocast of the same
    type, without gradients. A lean model comes back as it is.
    """
    if all(part.weight.dtype == dtype for part in products(model)):
        return model
    twin = model if in_place else copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    for part in products(twin):
        part.weight = frozen(part.weight, dtype)
        part.bias = None if part.bias is None else frozen(part.bias, dtype)
    if isinstance(twin, Decoder):
        output = nn.Linear(twin.config.width, twin.config.vocab_size, bias=False, device="meta")
        output.weight = frozen(twin.padded_unembedding, dtype)
        twin.output, twin.config = output, replace(twin.config, tied=False)
    return twin.eval()


def products(model: Decoder | ScalarModel) -> list[nn.Linear]:
    """The linear layers inside a model's layers."""
    decoder = model.decoder if isinstance(model, ScalarModel) else model
    return [part for part in decoder.layers.modules() if isinstance(part, nn.Linear)]


def frozen(parameter: torch.Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
