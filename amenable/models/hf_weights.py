"""Conversion between our parameters and the tensors of published safetensors files.

Weights are loaded as fp32 from any dtype. Nothing is ever unpickled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from amenable.errors import InputError
from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder
from amenable.models.hf_config import CONFIG, read_json_object

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""suffixes of constants that old files store among the weights"""


@dataclass(frozen=True)
class ParameterMap:
    """One of our parameters and its published tensors: several stacked along dimension 0, or one transposed."""

    ours: str
    theirs: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    transposed: bool = False


def parameter_map(config: DecoderConfig, model_type: str) -> list[ParameterMap]:
    """Map our parameter names to the published ones."""
    entries = gpt_parameters(config, model_type) if model_type in ("gpt2", "openai-gpt") else llama_parameters(config)
    if not config.tie_embeddings:
        entries.append(ParameterMap("output.weight", ("lm_head.weight",)))
    return entries


def gpt_parameters(config: DecoderConfig, model_type: str) -> list[ParameterMap]:
    tokens, positions = ("wte", "wpe") if model_type == "gpt2" else ("tokens_embed", "positions_embed")
    entries = [
        ParameterMap("token_embedding.weight", (f"transformer.{tokens}.weight",)),
        ParameterMap("position_embedding.weight", (f"transformer.{positions}.weight",)),
    ]
    # published linear layers store weights as [in, out]
    linears = {"attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj", "mlp.up": "mlp.c_fc"}
    linears["mlp.down"] = "mlp.c_proj"
    norms = {"attention_norm": "ln_1", "mlp_norm": "ln_2"}
    for i in range(config.num_layers):
        for ours, theirs in (linears | norms).items():
            name = f"transformer.h.{i}.{theirs}"
            entries.append(ParameterMap(f"layers.{i}.{ours}.weight", (f"{name}.weight",), transposed=ours in linears))
            entries.append(ParameterMap(f"layers.{i}.{ours}.bias", (f"{name}.bias",)))
    if config.norm_placement == "pre":
        entries += [ParameterMap(f"final_norm.{kind}", (f"transformer.ln_f.{kind}",)) for kind in ("weight", "bias")]
    return entries


def llama_parameters(config: DecoderConfig) -> list[ParameterMap]:
    entries = [
        ParameterMap("token_embedding.weight", ("model.embed_tokens.weight",)),
        ParameterMap("final_norm.weight", ("model.norm.weight",)),
    ]
    queries, keys = config.num_heads * config.head_size, config.kv_head_count * config.head_size
    linears = {
        "attention.qkv": (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), (queries, keys, keys)),
        "attention.out": (("self_attn.o_proj",), ()),
        "mlp.up": (("mlp.gate_proj", "mlp.up_proj"), (config.mlp_size, config.mlp_size)),
        "mlp.down": (("mlp.down_proj",), ()),
    }
    norms = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    if config.qk_norm:
        norms |= {"attention.query_norm": "self_attn.q_norm", "attention.key_norm": "self_attn.k_norm"}
    for i in range(config.num_layers):
        for ours, (theirs, sizes) in linears.items():
            biased = config.has_qkv_bias if ours == "attention.qkv" else config.bias
            for kind in ("weight", "bias") if biased else ("weight",):
                names = tuple(f"model.layers.{i}.{name}.{kind}" for name in theirs)
                entries.append(ParameterMap(f"layers.{i}.{ours}.{kind}", names, sizes))
        for ours, name in norms.items():
            entries.append(ParameterMap(f"layers.{i}.{ours}.weight", (f"model.layers.{i}.{name}.weight",)))
    return entries


def published_tensors(decoder: Decoder, model_type: str) -> dict[str, Tensor]:
    """Return copies of the weights under their published names. ValueError for weights that have none, as adapters."""
    state = decoder.state_dict()
    tensors: dict[str, Tensor] = {}
    entries = parameter_map(decoder.config, model_type)
    if unknown := sorted(state.keys() - {entry.ours for entry in entries}):
        raise ValueError(f"no published name for {shortened(unknown)}: merge adapters into the weights they change")
    for entry in entries:
        value = state[entry.ours].detach().cpu()
        parts = value.split(list(entry.sizes)) if entry.sizes else [value.t() if entry.transposed else value]
        for name, part in zip(entry.theirs, parts):
            tensors[name] = part.clone(memory_format=torch.contiguous_format)
    return tensors


def load_weights(decoder: Decoder, weights: Weights, model_type: str) -> None:
    """Load weights into a decoder on the meta device. InputError for missing or unused tensors."""
    shapes = {name: tuple(parameter.shape) for name, parameter in decoder.named_parameters()}
    state = {}
    for entry in parameter_map(decoder.config, model_type):
        shape = shapes[entry.ours]
        if entry.sizes:
            parts = [weights.take(name, (size, *shape[1:])) for name, size in zip(entry.theirs, entry.sizes)]
            state[entry.ours] = torch.cat(parts)
        elif entry.transposed:
            state[entry.ours] = weights.take(entry.theirs[0], shape[::-1]).t().contiguous()
        else:
            state[entry.ours] = weights.take(entry.theirs[0], shape)
    weights.finish()
    decoder.load_state_dict(state, assign=True)


class Weights:
    """Tensors of a folder's safetensors files, taken one by one with their shape checked.

    Names may lack the base model's prefix ("transformer." or "model."), as in openai-community/gpt2.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.tensors: dict[str, Any] = {}
        """name -> open file"""
        self.missing: list[str] = []

    def __enter__(self) -> Weights:
        for path in weight_files(self.folder):
            try:
                file = safe_open(path, framework="pt")
                self.tensors |= {name: file for name in file.keys() if not name.endswith(BUFFERS)}  # noqa: SIM118
            except FileNotFoundError:
                raise InputError("no such file of weights", path) from None
            except (SafetensorError, OSError) as error:
                raise InputError(f"not a whole safetensors file ({error})", path, "copy or save it again") from None
        return self

    def __exit__(self, *error: object) -> None:
        self.tensors.clear()

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return the tensor called `name` in fp32. A missing one is zeros, and an error in `finish`."""
        short = name.split(".", 1)[1] if name.startswith(("transformer.", "model.")) else name
        name = name if name in self.tensors else short if short in self.tensors else name
        if name not in self.tensors:
            self.missing.append(name)
            return torch.zeros(shape)
        file = self.tensors.pop(name)
        stored = tuple(file.get_slice(name).get_shape())
        if stored != shape:
            raise InputError(f"{name} is {list(stored)} where {CONFIG} says {list(shape)}", self.folder)
        return file.get_tensor(name).to(torch.float32, copy=True)

    def finish(self) -> None:
        """Raise InputError for missing and unused tensors. A tied model's file may repeat the embedding as lm_head."""
        self.tensors.pop("lm_head.weight", None)
        if self.missing:
            raise InputError(f"lacks {shortened(self.missing)}", self.folder, f"does {CONFIG} belong to these weights?")
        if self.tensors:
            raise InputError(f"holds {shortened(list(self.tensors))}, which {CONFIG} does not describe", self.folder)


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors files of a model folder: one, or those in its index."""
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if not (folder / INDEX).exists():
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        hint = "pickled weights are not read: convert them to safetensors" if pickled else None
        raise InputError(f"has no {WEIGHTS}", folder, hint)
    names = set(read_json_object(folder / INDEX).get("weight_map", {}).values())
    strange = [name for name in names if Path(str(name)).name != name]
    if strange or not names:
        raise InputError(f"names {shortened(strange)} as its files" if strange else "names no files", folder / INDEX)
    return [folder / name for name in sorted(names)]


def shortened(names: list[str]) -> str:
    """Return the first three names and the number of others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
