"""Casts of frozen weights for matrix products, each made once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from amenable.models.quantized_linear import product_dtype


class CastWeight:
    """Weight in the dtype of autocast's products. The cast of a frozen weight is stored until the weight changes; that
    of a weight that trains is left to the product, whose gradient is the weight's. A copy stores nothing."""

    def __init__(self) -> None:
        self.state: tuple[Any, ...] = ()
        self.cast: Tensor | None = None

    def of(self, weight: Tensor) -> Tensor:
        """Return a weight, cast if it is frozen; under autocast a product with either is the same."""
        dtype = product_dtype(weight)
        if weight.requires_grad or weight.is_inference() or dtype == weight.dtype:
            return weight
        state = (id(weight), weight._version, weight.device, dtype)
        if self.cast is None or self.state != state:
            with torch.inference_mode(False), torch.no_grad():  # else a gradient could not go through it
                self.state, self.cast = state, weight.to(dtype)
        return self.cast

    def __deepcopy__(self, memo: dict[int, Any]) -> CastWeight:
        return CastWeight()
