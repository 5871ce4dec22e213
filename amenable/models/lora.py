"""LoRA: frozen linear layers, each with a trained product of two thin matrices beside it (Hu et al., 2021).

    y = W x + s B (A x),    A [r, in], B [out, r],    s = alpha / r,  or alpha / sqrt(r) (rsLoRA; Kalajdzievski, 2023)
    y = m (W + s B A) x / |W + s B A|,    m [out] and the norm of each row (DoRA; Liu et al., 2024)

B starts at zero, so that nothing changes at first. Layers have their published names: a product of ours that holds
several (queries, keys and values; gate and up) has an adapter for each, as in peft's files (adapter_files.py).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amenable.errors import InputError
from amenable.models.decoder import Decoder
from amenable.models.dropout import dropout
from amenable.models.heads import ScalarModel
from amenable.models.hf_weights import parameters_of
from amenable.models.inference import sharing_copy
from amenable.models.low_rank import FrozenLinear, LowRankLinear, LowRankProduct, block_diagonal, scaled
from amenable.models.packed_linear import PackedLinear
from amenable.models.quantized_linear import QuantizedLinear, product_dtype

ALL = "all-linear"
LINEAR = (nn.Linear, PackedLinear, QuantizedLinear)
MAX_RANK, MAX_ALPHA = 65_536, 1e6


@dataclass(frozen=True)
class LoraOptions:
    """Train low-rank adapters in place of the weights."""

    rank: int = 0
    """r, of the adapters; 0 trains the weights themselves"""
    alpha: float = 32.0
    """the adapters' product is scaled by alpha / rank"""
    targets: tuple[str, ...] = (ALL,)
    """published names of the layers that get one, such as q_proj v_proj, or all-linear"""
    dropout: float = 0.0
    """of the adapters' input in training"""
    rslora: bool = False
    """scale by alpha / sqrt(rank) instead"""
    dora: bool = False
    """train the length of each row of a weight apart from its direction, which adapters change (DoRA)"""
    bits: int = 0
    """4 or 8: store the frozen matrices in so many bits a number (QLoRA); 0 leaves them"""

    def __post_init__(self) -> None:
        if not 0 <= self.rank <= MAX_RANK:
            raise InputError(f"lora.rank is {self.rank}", how=f"use 1 to {MAX_RANK:,}, or 0 for no adapters")
        if not 0 < self.alpha <= MAX_ALPHA:
            raise InputError(f"lora.alpha is {self.alpha}", how=f"it must be above 0, and at most {MAX_ALPHA:,.0f}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"lora.dropout is {self.dropout}", how="it must lie in [0, 1)")
        if self.bits not in (0, 4, 8) or (self.bits and not self.rank):
            problem = f"lora.bits is {self.bits}" + (" without adapters" if self.bits in (4, 8) else "")
            raise InputError(problem, how="use 4 or 8 with --lora.rank, or 0 to leave the weights as they are")
        if not self.targets:
            raise InputError("lora.targets is empty", how=f"name layers, or take {ALL}")

    @property
    def scale(self) -> float:
        """Factor of the adapters' product."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


@dataclass(frozen=True)
class Part:
    """A published layer among the output rows of a linear layer."""

    name: str
    size: int
    """output rows"""
    options: LoraOptions | None = None
    """of its adapter; None where it has none"""


class LoraLinear(nn.Module):
    """Linear layer with adapters on some of the published layers that its rows hold."""

    def __init__(self, base: FrozenLinear, parts: Sequence[Part]):
        super().__init__()
        self.base, self.parts = base, tuple(parts)
        self.adapted = [(part, part.options) for part in parts if part.options is not None]
        self.options, self.ranks = self.adapted[0][1], [options.rank for _, options in self.adapted]
        self.scales, self.rows = [options.scale for _, options in self.adapted], list(self.slices())
        device = base.weight.device
        self.a = nn.Parameter(torch.zeros(sum(self.ranks), base.weight.shape[1], device=device))
        pairs = [(part.size, options.rank) for part, options in self.adapted]
        self.b = nn.ParameterList([nn.Parameter(torch.zeros(size, rank, device=device)) for size, rank in pairs])
        lengths = [weight.norm(dim=1) for weight in self.weights()] if self.options.dora else []
        self.m = nn.ParameterList([nn.Parameter(length) for length in lengths])
        self.lengths: tuple[Any, list[Tensor]] = ((), [])
        """of the rows of W + s B A, and the state of the weights that they are of"""

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw A uniformly from +- 1 / sqrt(in) (as peft does); B stays zero."""
        bound = 1 / math.sqrt(self.a.shape[1])
        self.a.copy_(torch.empty(self.a.shape).uniform_(-bound, bound, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer and its adapters, [N, in] -> [N, out]."""
        x = x.to(product_dtype(x))
        dropped = dropout(x, self.options.dropout, self.training)
        z = None if dropped is x else dropped
        if self.options.dora:
            return self.with_lengths(x, z)
        return LowRankProduct.apply(x, z, self.base, self.rows, self.scales, self.a, *self.b)

    def inference_layer(self, dtype: torch.dtype) -> LowRankLinear | None:
        """Return the layer for products in `dtype` without gradients; None for DoRA, which reads W itself."""
        if self.options.dora:
            return None
        b = block_diagonal(scaled([*self.b], self.scales), self.rows, self.base.weight.shape[0], dtype)
        return LowRankLinear(self.base, self.a.detach().to(dtype), b.detach())

    def with_lengths(self, x: Tensor, dropped: Tensor | None) -> Tensor:
        """Apply the layer as DoRA: W x + b + (g - 1) W z + g s B A z, with g = m / |W + s B A|. z is `dropped`, or x
        where that is None."""
        y = self.base(x)
        low = F.linear(x if dropped is None else dropped, self.a).split(self.ranks, dim=-1)
        deltas = [scale * F.linear(part, b) for part, b, scale in zip(low, self.b, self.scales)]
        product = y
        if dropped is not None:
            product = F.linear(dropped, self.base.weight)
        elif self.base.bias is not None:
            product = y - self.base.bias
        gains = [m / length for m, length in zip(self.m, self.row_lengths())]
        changes = iter([(g - 1) * product[:, rows] + g * d for g, rows, d in zip(gains, self.rows, deltas)])
        whole = zip(y.split([part.size for part in self.parts], dim=-1), self.parts)
        return torch.cat([y + next(changes) if part.options else y for y, part in whole], dim=-1)

    def row_lengths(self) -> list[Tensor]:
        """Return |W + s B A| of each adapter's rows, without a gradient (Liu et al., 2024, section 4.3).

        Without gradients they are computed again only where a weight has changed: to read W twice takes twice as long.
        """
        weights = (self.a, *self.b, self.base.weight)
        if torch.is_grad_enabled() or any(each.is_inference() for each in weights):
            self.lengths = (), []
            return self.compute_lengths()
        state = [(id(each), each._version, each.device) for each in weights]
        if self.lengths[0] != state:
            self.lengths = state, self.compute_lengths()
        return self.lengths[1]

    @torch.no_grad()
    def compute_lengths(self) -> list[Tensor]:
        with torch.autocast(self.a.device.type, enabled=False):
            changes = zip(self.weights(), self.b, self.a.split(self.ranks), self.adapted)
            return [(w + options.scale * (b @ a)).norm(dim=1) for w, b, a, (_, options) in changes]

    def slices(self) -> Iterator[slice]:
        """Yield the rows of each part with an adapter."""
        row = 0
        for part in self.parts:
            if part.options is not None:
                yield slice(row, row + part.size)
            row += part.size

    def weights(self) -> Iterator[Tensor]:
        """Yield the base weight of each part with an adapter, in fp32."""
        weight = self.base.weight.detach()
        weight = weight.to_dense() if weight.is_mkldnn else weight
        return (weight[rows].float() for rows in self.slices())

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return the base layer, its weight changed to what the adapters make of it."""
        self.base = self.base.dense() if isinstance(self.base, QuantizedLinear) else self.base
        assert isinstance(self.base, nn.Linear)
        lengths = iter([*self.m])
        for rows, b, a, (_, options) in zip(self.slices(), self.b, self.a.split(self.ranks), self.adapted):
            weight = self.base.weight[rows]
            weight += options.scale * (b @ a)
            if options.dora:
                weight *= (next(lengths) / weight.norm(dim=1))[:, None]
        return self.base

    def published(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Yield published name, and tensors by their names in peft's files, of each adapter."""
        tensors = zip(self.adapted, self.a.detach().split(self.ranks), self.b)
        for i, ((part, _), a, b) in enumerate(tensors):
            lengths = {"lora_magnitude_vector": self.m[i].detach()} if self.options.dora else {}
            yield part.name, {"lora_A.weight": a, "lora_B.weight": b.detach(), **lengths}


def add_adapters(
    model: Decoder | ScalarModel,
    options: LoraOptions,
    seed: int,
    base: str = "",
    options_of: Callable[[str], LoraOptions] | None = None,
    lowest: int = 0,
) -> None:
    """Freeze a model and add adapters to its layers; a scalar head stays trained. Rank 0 changes nothing.

    base: name or folder of the model, for the adapter's files. options_of: options by a layer's published name, where
    they differ. lowest: the first layer with adapters. InputError for a target that the model does not have.
    """
    if not options.rank:
        return
    decoder = decoder_of(model)
    decoder.requires_grad_(False)
    if options.bits:
        quantize(decoder, options.bits)
    layers = published_layers(decoder)
    whole = {name for parts in layers.values() for name, _ in parts}
    known = {short(name) for name in whole}
    if unknown := [target for target in options.targets if target not in known | whole | {ALL}]:
        raise InputError(
            f"no layer is called '{unknown[0]}'", how=f"lora.targets are {', '.join(sorted(known))}, or {ALL}"
        )
    generator, targets = torch.Generator().manual_seed(seed), set(options.targets)

    def part(name: str, size: int) -> Part:
        own = options if options_of is None else options_of(name)
        return Part(name, size, own if {ALL, name, short(name)} & targets else None)

    for name, published in layers.items():
        if layer_number(name) < lowest:
            continue
        parts = [part(*each) for each in published]
        if any(part.options for part in parts):
            linear = decoder.get_submodule(name)
            assert isinstance(linear, LINEAR)
            layer = LoraLinear(linear, parts)
            layer.init_weights(generator)
            layer.train(decoder.training)
            set_submodule(decoder, name, layer)
    decoder.adapter_base = base


def published_layers(decoder: Decoder) -> dict[str, list[tuple[str, int]]]:
    """Return, for each linear layer of the blocks, the published layers that it holds, with their output rows."""
    layers: dict[str, list[tuple[str, int]]] = {}
    for entry in parameters_of(decoder):
        name = entry.ours.removesuffix(".weight")
        if name == entry.ours or not name.startswith("layers."):
            continue
        module = decoder.get_submodule(name)
        if isinstance(module, LINEAR):
            sizes = entry.sizes or (module.weight.shape[0],)
            layers[name] = [(theirs.removesuffix(".weight"), size) for theirs, size in zip(entry.theirs, sizes)]
    return layers


def quantize(decoder: Decoder, bits: int) -> None:
    """Store the matrices of the blocks in 4 or 8 bits."""
    for name in published_layers(decoder):
        linear = decoder.get_submodule(name)
        if isinstance(linear, nn.Linear):
            set_submodule(decoder, name, QuantizedLinear(linear, bits))


def adapters(model: nn.Module) -> dict[str, LoraLinear]:
    """Return the layers with adapters, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def has_adapters(model: Decoder | ScalarModel) -> bool:
    """Return True for a model with adapters in its layers, or with virtual tokens before its rows."""
    return bool(adapters(model)) or decoder_of(model).virtual_tokens is not None


def merge_adapters(model: Decoder | ScalarModel) -> None:
    """Add the adapters' products to the weights, quantized ones as what they stand for, and leave plain layers."""
    decoder = decoder_of(model)
    for name, layer in adapters(decoder).items():
        set_submodule(decoder, name, layer.merged())
    for name, module in list(decoder.named_modules()):
        if isinstance(module, QuantizedLinear):
            set_submodule(decoder, name, module.dense())


def without_adapters(decoder: Decoder) -> Decoder:
    """Return the decoder without its adapters and virtual tokens; the weights are shared, not copied."""
    twin = sharing_copy(decoder)
    twin.set_virtual_tokens(None)
    for name, layer in adapters(twin).items():
        set_submodule(twin, name, layer.base)
    return twin


def decoder_of(model: Decoder | ScalarModel) -> Decoder:
    """Return the decoder of a model."""
    return model.decoder if isinstance(model, ScalarModel) else model


def layer_number(name: str) -> int:
    """Return the layer of a module of ours, from 0."""
    return int(name.split(".")[1])


def short(name: str) -> str:
    """Return the last part of a published name."""
    return name.rsplit(".", 1)[-1]


def copy_to_train(model: ScalarModel) -> ScalarModel:
    """Return a copy whose adapters and head are its own, and train; all other weights are shared, and frozen."""
    own = {id(weight) for weight in own_weights(model)}
    twin = copy.deepcopy(model, {id(weight): weight for weight in model.parameters() if id(weight) not in own})
    for weight in own_weights(twin):
        weight.requires_grad_(True)
    return twin


def own_weights(model: ScalarModel) -> list[nn.Parameter]:
    """Return the weights of a model's head, of its layers' adapters, and of its virtual tokens."""
    tokens = [] if model.decoder.virtual_tokens is None else [model.decoder.virtual_tokens]
    layers = (weight for layer in adapters(model).values() for weight in (layer.a, *layer.b, *layer.m))
    return [*model.score.parameters(), *layers, *tokens]


def set_submodule(module: nn.Module, name: str, value: nn.Module) -> None:
    """Put a module in the place of another."""
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, value)
