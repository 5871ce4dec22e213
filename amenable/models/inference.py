"""Inference copies of models: weight matrices are stored in bf16 instead of being cast by autocast at every use, on a
processor in the layout of its products.

Training needs fp32 weights, since small updates are lost in bf16. A model without updates needs only the cast weights:
half the memory and the same results.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from amenable.models.decoder import Decoder, has_hooks, is_plain
from amenable.models.heads import ScalarModel
from amenable.models.language_model import LanguageModel
from amenable.models.low_rank import HasInferenceLayer
from amenable.models.packed_linear import PackedLinear, can_pack
from amenable.models.sharding import whole

Model = TypeVar("Model", bound=LanguageModel | ScalarModel)


def cast_for_inference(model: Model, dtype: torch.dtype, in_place: bool = False) -> Model:
    """Return the model in evaluation mode with its linear layers and unembedding in `dtype`.

    Embeddings, norms and a scalar head stay in fp32, as under autocast, and are shared with `model`. in_place: convert
    `model` itself. Use the result under autocast of the same dtype, without gradients. A converted model is returned
    unchanged. Adapters are cast too, and their base is shared with `model`; layers with DoRA, a parametrization or a
    hook stay as they are. A model whose weights are divided among processes is gathered first.
    """
    model = whole(model)
    if is_cast(model, dtype) and not adapted_layers(model, dtype):
        return model
    twin = model if in_place else sharing_copy(model)
    for name, layer in adapted_layers(twin, dtype).items():
        twin.set_submodule(name, layer)
    for name in list(linear_layers(twin)):  # one at a time, so that a converted weight is freed before the next
        linear = twin.get_submodule(name)
        if isinstance(linear, nn.Linear) and linear.weight.dtype != dtype and can_pack(linear.weight, dtype):
            twin.set_submodule(name, PackedLinear(linear.weight, linear.bias))
        del linear
    cast_layers(twin, dtype)
    if isinstance(twin, Decoder):
        output = nn.Linear(twin.config.hidden_size, twin.config.vocab_size, bias=False, device="meta")
        output.weight = frozen(twin.padded_unembedding, dtype)
        twin.output, twin.config = output, replace(twin.config, tie_embeddings=False)
    twin.eval()
    return twin


def adapted_layers(model: nn.Module, dtype: torch.dtype) -> dict[str, nn.Module]:
    """Return the inference layers of a model's layers with adapters, by name."""
    layers = {name: module for name, module in model.named_modules() if not has_hooks(module)}
    casts = {name: m.inference_layer(dtype) for name, m in layers.items() if isinstance(m, HasInferenceLayer)}
    return {name: cast for name, cast in casts.items() if cast is not None}


def pack_for_decoding(model: Model) -> Model:
    """Return a model whose plain bf16 layers, such as those below adapters, are packed: their products with few rows
    take two thirds of the time. They are copies; everything else is shared with `model`."""
    plain = {name: linear for name, linear in linear_layers(model).items() if isinstance(linear, nn.Linear)}
    plain = {name: linear for name, linear in plain.items() if can_pack(linear.weight, linear.weight.dtype)}
    twin = sharing_copy(model) if plain else model
    for name, linear in plain.items():
        twin.set_submodule(name, PackedLinear(linear.weight, linear.bias))
    return twin


def is_cast(model: nn.Module, dtype: torch.dtype) -> bool:
    """Return True if a model's linear layers and unembedding are stored in `dtype`."""
    stored = [linear.weight.dtype for linear in linear_layers(model).values()]
    stored += [model.unembedding.dtype] if isinstance(model, Decoder) else []
    return bool(linear_layers(model)) and set(stored) == {dtype}


def cast_layers(model: nn.Module, dtype: torch.dtype) -> None:
    """Store the plain linear layers of a model's blocks in `dtype`, frozen."""
    for linear in linear_layers(model).values():
        if linear.weight.dtype != dtype:
            linear.weight = frozen(linear.weight, dtype)
            linear.bias = None if linear.bias is None else frozen(linear.bias, dtype)


def sharing_copy(model: Model) -> Model:
    """Return a copy of a model whose parameters are the model's own."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def linear_layers(model: nn.Module) -> dict[str, nn.Linear | PackedLinear]:
    """Return the plain and packed linear layers of a model's blocks, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if "layers." in name
        and (isinstance(module, PackedLinear) or (isinstance(module, nn.Linear) and is_plain(module)))
    }


def for_generation(model: LanguageModel) -> tuple[LanguageModel, Callable[[torch.Tensor], torch.Tensor]]:
    """Return a model and its `logits`, states to logits, as they are fastest where rows grow by a token.

    Of a decoder: with the weights, packed, that autocast would cast at every step if it is on, and the unembedding
    packed too, if it can be.
    """
    if not isinstance(model, Decoder):
        return model, model.logits
    kind = model.device.type
    if torch.is_autocast_enabled(kind):
        model = pack_for_decoding(cast_for_inference(model, torch.get_autocast_dtype(kind)))
    weight = model.unembedding
    return model, PackedLinear(weight) if can_pack(weight, weight.dtype) else model.logits


def frozen(parameter: torch.Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
