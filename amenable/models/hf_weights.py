"""Conversion between our parameters and the tensors of published safetensors files.

Weights are loaded as fp32 from any dtype, each straight into its parameter. Nothing is ever unpickled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from amenable.errors import InputError
from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder
from amenable.models.family import ParameterMap, family
from amenable.models.hf_config import CONFIG, model_type_of, read_json_object
from amenable.models.sharding import gathered
from amenable.models.tensor_files import DTYPES, INDEX, WEIGHTS, TensorFile

BUFFERS = (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
"""suffixes of constants that old files store among the weights"""
VALUE_WEIGHT, VALUE_BIAS = "v_head.summary.weight", "v_head.summary.bias"
"""of the value head that TRL puts beside a language model's weights"""
PREFIXES = ("transformer.", "model.", "gpt_neox.")
"""of the base model's names, which files may lack"""

SPARE_ROWS = 128
"""room after an embedding's rows, for tokens that a chat template adds: a larger vocabulary needs no second matrix"""


def parameter_map(config: DecoderConfig, model_type: str) -> list[ParameterMap]:
    """Map our parameter names to the published ones."""
    return family(model_type).parameters(config)


def parameters_of(decoder: Decoder) -> list[ParameterMap]:
    """Map a decoder's parameters to the published ones of its family."""
    return parameter_map(decoder.config, model_type_of(decoder.config, decoder.origin))


def published_tensors(decoder: Decoder, model_type: str) -> dict[str, Tensor]:
    """Return the weights under their published names, as views. ValueError for weights that have none, as adapters."""
    state = decoder.state_dict()
    tensors: dict[str, Tensor] = {}
    entries = parameter_map(decoder.config, model_type)
    if unknown := sorted(state.keys() - {entry.ours for entry in entries}):
        raise ValueError(f"no published name for {shortened(unknown)}: merge adapters into the weights they change")
    for entry in entries:
        tensors |= published_parts(entry, state[entry.ours].detach())
    return tensors


def published_parts(entry: ParameterMap, value: Tensor) -> dict[str, Tensor]:
    """Return the published tensors of one of our weights, by name, as views."""
    value = value - entry.offset if entry.offset else value
    parts = value.split(list(entry.sizes)) if entry.sizes else [value.t() if entry.transposed else value]
    return dict(zip(entry.theirs, parts))


def gather_by_name(decoder: Decoder, model_type: str) -> tuple[dict[str, Tensor], Callable[[str], Tensor]]:
    """Return the weights of a decoder that several processes divide under their published names, as tensors without
    numbers, and a function that gathers one of them: every process has to call it with the same names in turn."""
    state, shapes = dict(decoder.named_parameters()), dict[str, Tensor]()
    owners: dict[str, ParameterMap] = {}
    for entry in parameter_map(decoder.config, model_type):
        value = torch.empty(state[entry.ours].shape, dtype=state[entry.ours].dtype, device="meta")
        parts = published_parts(entry, value)
        shapes |= parts
        owners |= dict.fromkeys(parts, entry)

    @lru_cache(maxsize=2)  # names of one weight are near each other in a file
    def whole(ours: str) -> Tensor:
        return gathered(state[ours]).detach()

    return shapes, lambda name: published_parts(owners[name], whole(owners[name].ours))[name]


def load_weights(decoder: Decoder, weights: Weights, model_type: str) -> None:
    """Load weights into a decoder on the meta device. InputError for missing or unused tensors."""
    shapes = {name: tuple(parameter.shape) for name, parameter in decoder.named_parameters()}
    state = {}
    for entry in parameter_map(decoder.config, model_type):
        shape = shapes[entry.ours]
        if entry.transposed:
            state[entry.ours] = weights.take(entry.theirs[0], shape[::-1]).t().contiguous()
            continue
        spare = SPARE_ROWS if entry.ours in ("token_embedding.weight", "output.weight") else 0
        state[entry.ours] = weights.empty((shape[0] + spare, *shape[1:]))[: shape[0]]
        parts = state[entry.ours].split(list(entry.sizes) or [shape[0]])
        for name, part in zip(entry.theirs, parts):
            weights.read(name, part)
        if entry.offset:
            state[entry.ours] += entry.offset
    weights.finish()
    decoder.load_state_dict(state, assign=True)


class Weights:
    """Tensors of a folder's safetensors files, read one by one as fp32 with their shape checked.

    Names may lack the base model's prefix, as in openai-community/gpt2.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu"):
        self.folder, self.device = folder, device
        self.tensors: dict[str, TensorFile] = {}
        """name -> open file"""
        self.missing: list[str] = []
        self.dtype = torch.float32
        """that most numbers of the files have"""

    def __enter__(self) -> Weights:
        files, numbers = [], dict.fromkeys(DTYPES, 0)
        for path, names in weight_files(self.folder).items():
            files.append(file := TensorFile(path))
            if names and (absent := sorted(names - file.shapes.keys())):
                raise InputError(f"lacks {shortened(absent)}, which {INDEX} says it has", path, "copy it again")
            self.tensors |= {name: file for name in file.shapes if not name.endswith(BUFFERS)}
        for name, file in self.tensors.items():
            numbers[file.dtypes[name]] = numbers.get(file.dtypes[name], 0) + math.prod(file.shapes[name])
        self.files = files
        self.dtype = DTYPES.get(max(numbers, key=lambda dtype: numbers[dtype]), torch.float32)
        return self

    def __exit__(self, *error: object) -> None:
        self.tensors.clear()
        for file in self.files:
            file.close()

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """Return memory for a tensor, on the device."""
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return the tensor called `name` in fp32 (see `read`)."""
        out = self.empty(shape)
        self.read(name, out)
        return out

    def read(self, name: str, out: Tensor) -> None:
        """Fill `out`, contiguous, with the tensor called `name`. A missing one is an error in `finish`."""
        short = name.split(".", 1)[1] if name.startswith(PREFIXES) else name
        name = name if name in self.tensors else short if short in self.tensors else name
        if name not in self.tensors:
            self.missing.append(name)
            return
        file = self.tensors.pop(name)
        if file.shapes[name] != out.shape:
            stored = list(file.shapes[name])
            raise InputError(f"{name} is {stored} where {CONFIG} says {list(out.shape)}", self.folder)
        file.read(name, out)

    def finish(self) -> None:
        """Raise InputError for missing and unused tensors. A tied model's file may repeat the embedding as lm_head; a
        language model's may have a value head."""
        for name in ("lm_head.weight", "embed_out.weight", VALUE_WEIGHT, VALUE_BIAS):
            self.tensors.pop(name, None)
        if self.missing:
            raise InputError(f"lacks {shortened(self.missing)}", self.folder, f"does {CONFIG} belong to these weights?")
        if self.tensors:
            raise InputError(f"holds {shortened(list(self.tensors))}, which {CONFIG} does not describe", self.folder)


def count_stored(folder: Path) -> int:
    """Return the number of numbers in a folder's weights, from the headers of their files."""
    with Weights(folder) as weights:
        return sum(math.prod(file.shapes[name]) for name, file in weights.tensors.items())


def weight_files(folder: Path) -> dict[Path, set[str]]:
    """Return the safetensors files of a model folder with the tensors that its index says they have: one file, of which
    nothing is said, or those in its index."""
    if (folder / WEIGHTS).exists():
        return {folder / WEIGHTS: set()}
    if not (folder / INDEX).exists():
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        hint = "pickled weights are not read: convert them to safetensors" if pickled else None
        raise InputError(f"has no {WEIGHTS}", folder, hint)
    weight_map = read_json_object(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError("names no files", folder / INDEX)
    strange = [str(name) for name in weight_map.values() if Path(str(name)).name != name]
    if strange:
        raise InputError(f"names {shortened(strange)} as its files", folder / INDEX)
    return {
        folder / file: {name for name, where in weight_map.items() if where == file}
        for file in sorted(set(weight_map.values()))
    }


def shortened(names: list[str]) -> str:
    """Return the first three names and the number of others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
