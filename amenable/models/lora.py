"""LoRA: frozen linear layers, each with a trained product of two thin matrices beside it (Hu et al., 2021).

    y = W x + s B (A x),    A [r, in], B [out, r],    s = alpha / r,  or alpha / sqrt(r) (rsLoRA; Kalajdzievski, 2023)

B starts at zero, so that nothing changes at first. Layers have their published names: a product of ours that holds
several (queries, keys and values; gate and up) has an adapter for each, as in peft's files (adapter_files.py).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amenable.errors import InputError
from amenable.models.decoder import Decoder
from amenable.models.dropout import dropout
from amenable.models.heads import ScalarModel
from amenable.models.hf_weights import parameters_of
from amenable.models.inference import sharing_copy

ALL = "all-linear"
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

    def __post_init__(self) -> None:
        if not 0 <= self.rank <= MAX_RANK:
            raise InputError(f"lora.rank is {self.rank}", how=f"use 1 to {MAX_RANK:,}, or 0 for no adapters")
        if not 0 < self.alpha <= MAX_ALPHA:
            raise InputError(f"lora.alpha is {self.alpha}", how=f"it must be above 0, and at most {MAX_ALPHA:,.0f}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"lora.dropout is {self.dropout}", how="it must lie in [0, 1)")
        if not self.targets:
            raise InputError("lora.targets is empty", how=f"name layers, or take {ALL}")

    @property
    def scale(self) -> float:
        """Factor of the adapters' product."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


class LoraLinear(nn.Module):
    """Linear layer with adapters on some of the published layers that its rows hold."""

    def __init__(self, base: nn.Linear, parts: Sequence[tuple[str, int, bool]], options: LoraOptions):
        """parts: published name, number of output rows, and True with an adapter, of each layer that `base` holds."""
        super().__init__()
        self.base, self.options, self.parts = base, options, tuple(parts)
        adapted = [size for _, size, has_adapter in parts if has_adapter]
        device, rank = base.weight.device, options.rank
        self.a = nn.Parameter(torch.zeros(rank * len(adapted), base.in_features, device=device))
        self.b = nn.ParameterList([nn.Parameter(torch.zeros(size, rank, device=device)) for size in adapted])

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw A uniformly from +- 1 / sqrt(in) (as peft does); B stays zero."""
        bound = 1 / math.sqrt(self.base.in_features)
        self.a.copy_(torch.empty(self.a.shape).uniform_(-bound, bound, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer and its adapters, [N, in] -> [N, out]."""
        low = F.linear(dropout(x, self.options.dropout, self.training), self.a).split(self.options.rank, dim=-1)
        deltas = iter([F.linear(part, b) for part, b in zip(low, self.b)])
        y = self.base(x)
        if all(has_adapter for _, _, has_adapter in self.parts):
            return y + self.options.scale * torch.cat(list(deltas), dim=-1)
        outputs = y.split([size for _, size, _ in self.parts], dim=-1)
        changed = zip(outputs, self.parts)
        return torch.cat(
            [part + self.options.scale * next(deltas) if has else part for part, (_, _, has) in changed], -1
        )

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return the base layer with the adapters' products added to its weight."""
        a, b, row = iter(self.a.split(self.options.rank)), iter(self.b), 0
        for _, size, has_adapter in self.parts:
            if has_adapter:
                self.base.weight[row : row + size] += self.options.scale * (next(b) @ next(a))
            row += size
        return self.base

    def published(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield published name, A and B of each adapter."""
        names = [name for name, _, has_adapter in self.parts if has_adapter]
        yield from zip(names, self.a.detach().split(self.options.rank), (b.detach() for b in self.b))


def add_adapters(model: Decoder | ScalarModel, options: LoraOptions, seed: int, base: str = "") -> None:
    """Freeze a model and add adapters to its layers; a scalar head stays trained. Rank 0 changes nothing.

    base: name or folder of the model, for the adapter's files. InputError for a target that the model does not have.
    """
    if not options.rank:
        return
    decoder = decoder_of(model)
    decoder.requires_grad_(False)
    layers = published_layers(decoder)
    whole = {name for parts in layers.values() for name, _ in parts}
    known = {short(name) for name in whole}
    if unknown := [target for target in options.targets if target not in known | whole | {ALL}]:
        raise InputError(
            f"no layer is called '{unknown[0]}'", how=f"lora.targets are {', '.join(sorted(known))}, or {ALL}"
        )
    generator = torch.Generator().manual_seed(seed)
    for name, parts in layers.items():
        marked = [(each, size, bool({ALL, each, short(each)} & set(options.targets))) for each, size in parts]
        if any(has_adapter for _, _, has_adapter in marked):
            linear = decoder.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            layer = LoraLinear(linear, marked, options)
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
        if isinstance(module, nn.Linear):
            sizes = entry.sizes or (module.out_features,)
            layers[name] = [(theirs.removesuffix(".weight"), size) for theirs, size in zip(entry.theirs, sizes)]
    return layers


def adapters(model: nn.Module) -> dict[str, LoraLinear]:
    """Return the layers with adapters, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def merge_adapters(model: Decoder | ScalarModel) -> None:
    """Add the adapters' products to the weights, and leave plain layers."""
    decoder = decoder_of(model)
    for name, layer in adapters(decoder).items():
        set_submodule(decoder, name, layer.merged())


def without_adapters(decoder: Decoder) -> Decoder:
    """Return the decoder as it was before its adapters; the weights are shared, not copied."""
    twin = sharing_copy(decoder)
    for name, layer in adapters(twin).items():
        set_submodule(twin, name, layer.base)
    return twin


def decoder_of(model: Decoder | ScalarModel) -> Decoder:
    """Return the decoder of a model."""
    return model.decoder if isinstance(model, ScalarModel) else model


def short(name: str) -> str:
    """Return the last part of a published name."""
    return name.rsplit(".", 1)[-1]


def copy_to_train(model: ScalarModel) -> ScalarModel:
    """Return a copy whose adapters and head are its own, and train; all other weights are shared, and frozen."""
    own = {id(weight) for module in (*adapters(model).values(), model.score) for weight in own_weights(module)}
    twin = copy.deepcopy(model, {id(weight): weight for weight in model.parameters() if id(weight) not in own})
    for module in (*adapters(twin).values(), twin.score):
        for weight in own_weights(module):
            weight.requires_grad_(True)
    return twin


def own_weights(module: nn.Module) -> list[nn.Parameter]:
    """Return the weights of a head, or of a layer's adapters without its base."""
    return [module.a, *module.b] if isinstance(module, LoraLinear) else list(module.parameters())


def set_submodule(module: nn.Module, name: str, value: nn.Module) -> None:
    """Put a module in the place of another."""
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, value)
