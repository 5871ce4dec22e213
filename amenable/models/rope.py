"""Rotary positions: the angles, and the scalings by which published models read beyond their original context.

    angle = position * f_i,    f_i = theta^(-2i/W) for each pair i of a head of width W        (Su et al., 2021, eq. 15)

linear    f / factor                                                                           (Chen et al., 2023)
llama3    f / factor where less than low_freq_factor turns fit the original context, f where more than high_freq_factor
          do, and a blend between                                                              (Llama 3.1)
yarn      as llama3 with a ramp over pairs, and cosines and sines times an attention factor    (Peng et al., 2023)
dynamic   f, as within the original context, which rows do not leave here
longrope  f / short_factor_i, as within the original context, and cosines and sines times an attention factor
                                                                                               (Ding et al., 2024)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Rotation = tuple[Tensor, Tensor]
"""cosines and sines of the position angles, [N, 1, W / 2] each"""
Kind = Literal["linear", "llama3", "yarn", "dynamic", "longrope"]
FIELDS = {
    "linear": {"factor"},
    "dynamic": {"factor", "original_max_position_embeddings"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
    "yarn": {
        *("factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"),
        *("mscale", "mscale_all_dim", "truncate"),
    },
    "longrope": {
        *("factor", "original_max_position_embeddings", "attention_factor"),
        *("short_factor", "long_factor"),
    },
}
"""fields of transformers' rope_parameters, by rope_type"""


@dataclass(frozen=True)
class RopeScaling:
    """Scaling of rotary frequencies, with the names of transformers' rope_parameters."""

    rope_type: Kind
    factor: float
    original_max_position_embeddings: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()

    @classmethod
    def read(cls, fields: Mapping[str, Any], context_length: int) -> RopeScaling | None:
        """Read rope_parameters; None for unscaled positions. ValueError for an unknown type or missing field."""
        kind = fields.get("rope_type", fields.get("type", "default"))
        if kind == "default":
            return None
        if kind not in FIELDS:
            raise ValueError(f"rope_type is {kind!r}: supported are default, {', '.join(FIELDS)}")
        given = {name: fields[name] for name in FIELDS[kind] if fields.get(name) is not None}
        given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
        if kind == "yarn":
            given.setdefault("original_max_position_embeddings", context_length)
        required = {"factor"} | (FIELDS["llama3"] if kind == "llama3" else set())
        required |= FIELDS["longrope"] - {"attention_factor"} if kind == "longrope" else set()
        if missing := sorted(required - given.keys()):
            raise ValueError(f"rope_type {kind} lacks {missing[0]}")
        return cls(kind, **given)

    def published(self) -> dict[str, Any]:
        """Return the fields of rope_parameters."""
        values = {name: getattr(self, name) for name in sorted(FIELDS[self.rope_type])}
        return {"rope_type": self.rope_type, **{name: value for name, value in values.items() if value is not None}}

    @property
    def amplitude(self) -> float:
        """Factor of the cosines and sines."""
        if self.rope_type not in ("yarn", "longrope"):
            return 1.0
        if self.attention_factor is not None:
            return self.attention_factor
        if self.rope_type == "longrope":
            beyond = math.log(self.factor) / math.log(self.original_max_position_embeddings)
            return 1.0 if self.factor <= 1 else math.sqrt(1 + beyond)
        if self.mscale and self.mscale_all_dim:
            return yarn_amplitude(self.factor, self.mscale) / yarn_amplitude(self.factor, self.mscale_all_dim)
        return yarn_amplitude(self.factor)

    def scale(self, frequencies: Tensor, theta: float) -> Tensor:
        """Return scaled frequencies [W / 2]."""
        if self.rope_type == "dynamic":
            return frequencies
        if self.rope_type == "longrope":
            return frequencies / torch.tensor(self.short_factor, device=frequencies.device)
        slow = frequencies / self.factor
        if self.rope_type == "linear":
            return slow
        keep = self.llama3_share(frequencies) if self.rope_type == "llama3" else self.yarn_share(frequencies, theta)
        return (1 - keep) * slow + keep * frequencies

    def llama3_share(self, frequencies: Tensor) -> Tensor:
        """Return the share [W / 2] of the unscaled frequency, by the turns in the original context."""
        turns = self.original_max_position_embeddings * frequencies / (2 * math.pi)
        return ((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)).clamp(0, 1)

    def yarn_share(self, frequencies: Tensor, theta: float) -> Tensor:
        """Return the share [W / 2] of the unscaled frequency: 1 up to the pair that makes beta_fast turns in the
        original context, 0 from the pair that makes beta_slow."""
        width = 2 * len(frequencies)

        def pair_of(turns: float) -> float:
            return (
                width * math.log(self.original_max_position_embeddings / (turns * 2 * math.pi)) / (2 * math.log(theta))
            )

        low, high = pair_of(self.beta_fast), pair_of(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, width - 1)
        high = high + 0.001 if low == high else high
        pairs = torch.arange(len(frequencies), device=frequencies.device, dtype=torch.float32)
        return 1 - ((pairs - low) / (high - low)).clamp(0, 1)


def yarn_amplitude(factor: float, mscale: float = 1.0) -> float:
    """Return the attention factor 0.1 mscale ln(factor) + 1 (Peng et al., 2023, eq. 22)."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def rotary(positions: Tensor, width: int, theta: float, scaling: RopeScaling | None = None) -> Rotation:
    """Return cosines and sines of the angles of positions [N], for heads of `width`."""
    pairs = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32)
    frequencies = theta ** (-pairs / width)
    if scaling is None:
        angles = torch.outer(positions.float(), frequencies)[:, None]
        return angles.cos(), angles.sin()
    angles = torch.outer(positions.float(), scaling.scale(frequencies, theta))[:, None]
    return angles.cos() * scaling.amplitude, angles.sin() * scaling.amplitude
