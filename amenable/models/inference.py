"""Inference copies of models: weight matrices are stored in bf16 instead of being cast by autocast at every use.

Training needs fp32 weights, since small updates are lost in bf16. A model without updates needs only the cast weights:
half the memory and the same results.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from amenable.models.decoder import Decoder, is_plain
from amenable.models.heads import ScalarModel

Model = TypeVar("Model", Decoder, ScalarModel)


def cast_for_inference(model: Model, dtype: torch.dtype, in_place: bool = False) -> Model:
    """Return the model in evaluation mode with its linear layers and unembedding in `dtype`.

    Embeddings, norms and a scalar head stay in fp32, as under autocast, and are shared with `model`. in_place: convert
    `model` itself. Use the result under autocast of the same dtype, without gradients. A converted model is returned
    unchanged. Layers with an adapter, a parametrization or a hook stay as they are.
    """
    layers = linear_layers(model)
    stored = [linear.weight for linear in layers] + ([model.unembedding] if isinstance(model, Decoder) else [])
    if layers and all(weight.dtype == dtype for weight in stored):
        return model
    twin = model if in_place else sharing_copy(model)
    cast_layers(twin, dtype)
    if isinstance(twin, Decoder):
        output = nn.Linear(twin.config.hidden_size, twin.config.vocab_size, bias=False, device="meta")
        output.weight = frozen(twin.padded_unembedding, dtype)
        twin.output, twin.config = output, replace(twin.config, tie_embeddings=False)
    return twin.eval()


def cast_layers(model: Decoder | ScalarModel, dtype: torch.dtype) -> None:
    """Store the plain linear layers of a model's blocks in `dtype`, frozen."""
    for linear in linear_layers(model):
        if linear.weight.dtype != dtype:
            linear.weight = frozen(linear.weight, dtype)
            linear.bias = None if linear.bias is None else frozen(linear.bias, dtype)


def sharing_copy(model: Model) -> Model:
    """Return a copy of a model whose parameters are the model's own."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def linear_layers(model: Decoder | ScalarModel) -> list[nn.Linear]:
    """Return the plain linear layers of a model's blocks."""
    decoder = model.decoder if isinstance(model, ScalarModel) else model
    return [module for module in decoder.layers.modules() if isinstance(module, nn.Linear) and is_plain(module)]


def frozen(parameter: torch.Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
