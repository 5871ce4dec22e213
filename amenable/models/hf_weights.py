"""Weights in published files: which of theirs is which of ours, and reading them one by one, checked.

Weights are computed in fp32 whatever they were stored in. Nothing is ever unpickled.
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
from amenable.models.hf_config import CONFIG, read_facts

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""constants that old files carry among their weights"""


@dataclass(frozen=True)
class Entry:
    """One of our parameters: the published tensors it is made of, stacked along dimension 0 or one transposed."""

    ours: str
    theirs: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    transposed: bool = False


def correspondence(config: DecoderConfig, family: str) -> list[Entry]:
    """Our parameter names and theirs."""
    entries = gpt_entries(config, family) if family in ("gpt2", "openai-gpt") else llama_entries(config)
    if not config.tied:
        entries.append(Entry("output.weight", ("lm_head.weight",)))
    return entries


def gpt_entries(config: DecoderConfig, family: str) -> list[Entry]:
    tokens, positions = ("wte", "wpe") if family == "gpt2" else ("tokens_embed", "positions_embed")
    entries = [
        Entry("token_embedding.weight", (f"transformer.{tokens}.weight",)),
        Entry("position_embedding.weight", (f"transformer.{positions}.weight",)),
    ]
    # their linear layers keep weights as [in, out]
    linears = {"attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj", "mlp.up": "mlp.c_fc"}
    linears["mlp.down"] = "mlp.c_proj"
    norms = {"attention_norm": "ln_1", "mlp_norm": "ln_2"}
    for i in range(config.layers):
        for ours, theirs in (linears | norms).items():
            name = f"transformer.h.{i}.{theirs}"
            entries.append(Entry(f"layers.{i}.{ours}.weight", (f"{name}.weight",), transposed=ours in linears))
            entries.append(Entry(f"layers.{i}.{ours}.bias", (f"{name}.bias",)))
    if config.norm_placement == "pre":
        entries += [Entry(f"final_norm.{kind}", (f"transformer.ln_f.{kind}",)) for kind in ("weight", "bias")]
    return entries


def llama_entries(config: DecoderConfig) -> list[Entry]:
    entries = [
        Entry("token_embedding.weight", ("model.embed_tokens.weight",)),
        Entry("final_norm.weight", ("model.norm.weight",)),
    ]
    queries, keys = config.heads * config.head_size, config.kv_head_count * config.head_size
    linears = {
        "attention.qkv": (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), (queries, keys, keys)),
        "attention.out": (("self_attn.o_proj",), ()),
        "mlp.up": (("mlp.gate_proj", "mlp.up_proj"), (config.mlp_size, config.mlp_size)),
        "mlp.down": (("mlp.down_proj",), ()),
    }
    norms = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    if config.qk_norm:
        norms |= {"attention.query_norm": "self_attn.q_norm", "attention.key_norm": "self_attn.k_norm"}
    for i in range(config.layers):
        for ours, (theirs, sizes) in linears.items():
            biased = config.has_qkv_bias if ours == "attention.qkv" else config.bias
            for kind in ("weight", "bias") if biased else ("weight",):
                names = tuple(f"model.layers.{i}.{name}.{kind}" for name in theirs)
                entries.append(Entry(f"layers.{i}.{ours}.{kind}", names, sizes))
        for ours, name in norms.items():
            entries.append(Entry(f"layers.{i}.{ours}.weight", (f"model.layers.{i}.{name}.weight",)))
    return entries


def published_tensors(decoder: Decoder, family: str) -> dict[str, Tensor]:
    """Our weights under their names, each in memory of its own."""
    state = decoder.state_dict()
    tensors: dict[str, Tensor] = {}
    for entry in correspondence(decoder.config, family):
        value = state[entry.ours].detach().cpu()
        parts = value.split(list(entry.sizes)) if entry.sizes else [value.t() if entry.transposed else value]
        for name, part in zip(entry.theirs, parts):
            tensors[name] = part.clone(memory_format=torch.contiguous_format)
    return tensors


def fill(decoder: Decoder, weights: Weights, family: str) -> None:
    """Give a decoder on the meta device its weights; every published tensor is used, and none is missing."""
    shapes = {name: tuple(parameter.shape) for name, parameter in decoder.named_parameters()}
    state = {}
    for entry in correspondence(decoder.config, family):
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
    """The tensors of a folder's safetensors files, taken one by one and checked.

    Names may lack the prefix of the base model ("transformer." or "model."), as openai-community/gpt2's do.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.files: list[Any] = []
        self.places: dict[str, Any] = {}
        self.missing: list[str] = []

    def __enter__(self) -> Weights:
        for path in weight_files(self.folder):
            try:
                file = safe_open(path, framework="pt")
                self.places |= {name: file for name in file.keys() if not name.endswith(BUFFERS)}  # noqa: SIM118
            except FileNotFoundError:
                raise InputError("no such file of weights", path) from None
            except (SafetensorError, OSError) as error:
                raise InputError(f"not a whole safetensors file ({error})", path, "copy or save it again") from None
        return self

    def __exit__(self, *error: object) -> None:
        self.places.clear()

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor of this name in fp32; one that is missing is remembered for `finish` and given as zeros."""
        short = name.split(".", 1)[1] if name.startswith(("transformer.", "model.")) else name
        name = name if name in self.places else short if short in self.places else name
        if name not in self.places:
            self.missing.append(name)
            return torch.zeros(shape)
        file = self.places.pop(name)
        found = tuple(file.get_slice(name).get_shape())
        if found != shape:
            raise InputError(f"{name} is {list(found)} where {CONFIG} says {list(shape)}", self.folder)
        return file.get_tensor(name).to(torch.float32, copy=True)

    def finish(self) -> None:
        """Raise InputError if a tensor was missing or is left. A tied model may hold its embedding a second time."""
        self.places.pop("lm_head.weight", None)
        if self.missing:
            raise InputError(f"lacks {shortened(self.missing)}", self.folder, f"does {CONFIG} belong to these weights?")
        if self.places:
            raise InputError(f"holds {shortened(list(self.places))}, which {CONFIG} has no place for", self.folder)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder: one, or those its index names."""
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if not (folder / INDEX).exists():
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        how = "pickled weights are not read: convert them to safetensors" if pickled else None
        raise InputError(f"has no {WEIGHTS}", folder, how)
    names = set(read_facts(folder / INDEX).get("weight_map", {}).values())
    strange = [name for name in names if Path(str(name)).name != name]
    if strange or not names:
        raise InputError(f"names {shortened(strange)} as its files" if strange else "names no files", folder / INDEX)
    return [folder / name for name in sorted(names)]


def shortened(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
