"""Weights that train: all of a model, or what is left where layers are frozen or adapters train in their place."""

from __future__ import annotations

from typing import Any

from torch import nn


def trained_state(module: nn.Module) -> dict[str, Any]:
    """Return the weights that train, by name."""
    names = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    return {name: value for name, value in module.state_dict().items() if name in names}


class TrainedWeights:
    """The part of a module that a checkpoint holds: frozen weights are those of the model's folder."""

    def __init__(self, module: nn.Module):
        self.module = module

    def state_dict(self) -> dict[str, Any]:
        return trained_state(self.module)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if differing := sorted(trained_state(self.module).keys() ^ state.keys()):
            raise ValueError(f"a checkpoint of other weights: {', '.join(differing[:3])}")
        self.module.load_state_dict(state, strict=False)
