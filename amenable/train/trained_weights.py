"""Weights that train: all of a model, or what is left where layers are frozen or adapters train in their place."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from amenable.errors import InputError
from amenable.models.sharding import load_weights, portable


def trained_state(module: nn.Module) -> dict[str, Any]:
    """Return the weights that train, by name; where they are divided, this process's parts."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


class TrainedWeights:
    """The part of a module that a checkpoint holds: frozen weights are those of the model's folder."""

    def __init__(self, module: nn.Module):
        self.module = module

    def state_dict(self) -> dict[str, Any]:
        return {name: portable(value, value).detach() for name, value in trained_state(self.module).items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if differing := sorted(trained_state(self.module).keys() ^ state.keys()):
            raise ValueError(f"a checkpoint of other weights: {', '.join(differing[:3])}")
        load_weights(self.module, state)


def freeze(module: nn.Module, layers: int) -> int:
    """Freeze the embeddings and the lowest `layers` layers of a decoder; return the number of trainable parameters."""
    depth = 1 + max(layer_of(name) for name, _ in module.named_parameters())
    if layers > depth:
        raise InputError(f"frozen_layers is {layers} and the model has {depth} layers", how="freeze fewer layers")
    if layers:
        for name, parameter in module.named_parameters():
            if "embedding" in name or 0 <= layer_of(name) < layers:
                parameter.requires_grad_(False)
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def layer_of(name: str) -> int:
    """Return the layer of a parameter, from 0; -1 if it is in none."""
    match = re.search(r"layers\.(\d+)", name)
    return int(match[1]) if match else -1
