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


def lean(model: Model, dtype: torch.dtype) -> Model:
    """The model in evaluation mode with the matrices of its layers, and its unembedding, in `dtype`.

    Embeddings, norms and the head of a scalar model, which autocast leaves in fp32, are shared with the model that is
    handed over. To be asked under autocast of the same type, without gradients. A lean model comes back as it is.
    """
    decoder = model.decoder if isinstance(model, ScalarModel) else model
    linears = [part for part in decoder.layers.modules() if isinstance(part, nn.Linear)]
    if all(part.weight.dtype == dtype for part in linears):
        return model
    held = {id(parameter): frozen(parameter) for parameter in model.parameters()}
    held |= {id(parameter): frozen(parameter, dtype) for part in linears for parameter in part.parameters()}
    twin = copy.deepcopy(model, held).eval()
    if isinstance(twin, Decoder):
        twin.output = nn.Linear(twin.config.width, twin.config.vocab_size, bias=False, device="meta")
        twin.output.weight = frozen(decoder.unembedding, dtype)
        twin.config = replace(twin.config, tied=False)
    return twin


def frozen(parameter: torch.Tensor, dtype: torch.dtype | None = None) -> nn.Parameter:
    return nn.Parameter(parameter.detach().to(dtype or parameter.dtype), requires_grad=False)
