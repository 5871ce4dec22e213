"""Published checkpoints in and out: safetensors weights and config.json, as transformers and vLLM read them.

    GPT-1 OpenAIGPTLMHeadModel, GPT-2/3 GPT2LMHeadModel, Llama LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM
    reward models and critics: the same names with ...ForSequenceClassification, one label, weight `score.weight`

transformers gives a sequence classifier's head no bias; ours is the number `score_bias` in config.json, and theirs
differs from ours by that constant. Dropout belongs to a training run, not to a model: it is written, and read as 0.
Weights are computed in fp32 whatever they were stored in. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from amenable.errors import InputError
from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder, normal
from amenable.models.heads import ScalarModel

WEIGHTS, INDEX, CONFIG, GENERATION = (
    "model.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "generation_config.json",
)
LANGUAGE_MODELS = {
    "openai-gpt": "OpenAIGPTLMHeadModel",
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
CLASSIFIERS = {
    "openai-gpt": "OpenAIGPTForSequenceClassification",
    "gpt2": "GPT2ForSequenceClassification",
    "llama": "LlamaForSequenceClassification",
    "qwen2": "Qwen2ForSequenceClassification",
    "qwen3": "Qwen3ForSequenceClassification",
}
TANH_GELUS = ("gelu_new", "gelu_pytorch_tanh")
BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""constants that old files carry among their weights"""


def save(
    folder: Path | str,
    model: Decoder | ScalarModel,
    *,
    eos_id: int | None = None,
    pad_id: int | None = None,
    bos_id: int | None = None,
) -> None:
    """Write a model where transformers' AutoModelForCausalLM or AutoModelForSequenceClassification opens it.

    Each file is written beside its place, synced and renamed, config.json last. A sequence classifier needs `pad_id`:
    transformers reads the score at the last token that is not padding. Raises InputError for a configuration that no
    published architecture has.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    decoder = model.decoder if isinstance(model, ScalarModel) else model
    family = family_of(decoder.config)
    tokens = {"bos_token_id": bos_id, "eos_token_id": eos_id, "pad_token_id": pad_id}
    facts = published_config(decoder.config, family) | tokens
    facts["dtype"] = str(decoder.token_embedding.weight.dtype).removeprefix("torch.")
    tensors = published_tensors(decoder, family)
    if isinstance(model, ScalarModel):
        tensors["score.weight"] = model.score.weight.detach().cpu().contiguous()
        facts |= {
            "architectures": [CLASSIFIERS[family]],
            "id2label": {"0": "score"},
            "label2id": {"score": 0},
            "problem_type": "regression",
            "score_bias": model.score.bias.item(),
        }
    write(folder / WEIGHTS, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    if not isinstance(model, ScalarModel):
        write_json(folder / GENERATION, tokens)
    write_json(folder / CONFIG, facts)


def load_decoder(folder: Path | str, device: torch.device | str = "cpu", dropout: float = 0.0) -> Decoder:
    """A language model from a folder, in fp32. Raises InputError for files that are missing, torn or do not fit."""
    folder = Path(folder)
    facts = read_json(folder / CONFIG)
    if is_classifier(facts):
        raise InputError("holds a reward model, not a language model", folder)
    decoder = Decoder(replace(decoder_config(facts, folder / CONFIG), dropout=dropout), device="meta")
    with Weights(folder) as weights:
        fill(decoder, weights, facts["model_type"])
    return decoder.to(device)


def load_scalar(folder: Path | str, device: torch.device | str = "cpu", dropout: float = 0.0) -> ScalarModel:
    """A reward model or critic from a folder, in fp32. Raises InputError as `load_decoder` does."""
    folder = Path(folder)
    facts = read_json(folder / CONFIG)
    if not is_classifier(facts):
        raise InputError("holds a language model, not a reward model", folder, "'amenable reward' makes one")
    config = replace(decoder_config(facts, folder / CONFIG), dropout=dropout, tied=True)
    model = ScalarModel(Decoder(config, device="meta"))
    with Weights(folder) as weights:
        score = weights.take("score.weight", (1, config.width))
        fill(model.decoder, weights, facts["model_type"])
    bias = torch.tensor([float(facts.get("score_bias", 0.0))])
    model.score.load_state_dict({"weight": score, "bias": bias}, assign=True)
    return model.to(device)


def read_config(folder: Path | str) -> DecoderConfig:
    """The configuration of a saved model, its dropout 0."""
    path = Path(folder) / CONFIG
    return decoder_config(read_json(path), path)


def published(config: DecoderConfig) -> str:
    """The architecture a configuration is saved as. Raises InputError for a mixture that none has."""
    return LANGUAGE_MODELS[family_of(config)]


def resize_vocabulary(decoder: Decoder, vocab_size: int, generator: torch.Generator) -> Decoder:
    """Give a decoder `vocab_size` tokens, in place. New rows are the mean row plus N(0, 0.02): a new token starts as
    an average one, neither likely nor unlikely. Rows beyond `vocab_size` are dropped."""
    matrices = [decoder.token_embedding] + ([decoder.output] if decoder.output is not None else [])
    for module in matrices:
        old = module.weight.detach()
        added = max(vocab_size - old.shape[0], 0)
        noise = normal(torch.Size([added, old.shape[1]]), 0.02, generator).to(old)
        rows = torch.cat([old[:vocab_size], old.mean(0) + noise])
        module.weight = nn.Parameter(rows, requires_grad=module.weight.requires_grad)
    decoder.token_embedding.num_embeddings = vocab_size
    if decoder.output is not None:
        decoder.output.out_features = vocab_size
    decoder.config = replace(decoder.config, vocab_size=vocab_size)
    return decoder


# Configuration


def family_of(config: DecoderConfig) -> str:
    """transformers' model_type for a configuration."""
    plain = config.kv_head_count == config.heads and config.head_size * config.heads == config.width
    gpt = plain and (config.positions, config.norm, config.qk_norm) == ("learned", "layer", False)
    if gpt and config.bias and config.has_qkv_bias and config.activation in ("gelu", "relu"):
        if config.norm_placement == "pre":
            return "gpt2"
        if config.mlp_size == 4 * config.width:
            return "openai-gpt"
    style = (config.positions, config.norm, config.norm_placement, config.activation)
    if style == ("rope", "rms", "pre", "swiglu"):
        if config.qk_norm and not config.bias and not config.has_qkv_bias:
            return "qwen3"
        if not config.qk_norm and config.bias == config.has_qkv_bias and config.width % config.heads == 0:
            return "llama"
        if not config.qk_norm and config.has_qkv_bias and config.head_size * config.heads == config.width:
            return "qwen2"
    names = (
        "positions",
        "norm",
        "norm_placement",
        "activation",
        "bias",
        "qkv_bias",
        "qk_norm",
        "kv_heads",
        "mlp_width",
    )
    mixture = ", ".join(f"{name}={getattr(config, name)}" for name in names)
    raise InputError(f"no published architecture is {mixture}", how="start from a preset, such as nano or gpt2")


def published_config(config: DecoderConfig, family: str) -> dict[str, Any]:
    """config.json of a language model, but for its special tokens and dtype."""
    facts: dict[str, Any] = {
        "architectures": [LANGUAGE_MODELS[family]],
        "model_type": family,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied,
        "initializer_range": 0.02,
    }
    if family in ("gpt2", "openai-gpt"):
        facts |= {
            "n_positions": config.context,
            "n_embd": config.width,
            "n_layer": config.layers,
            "n_head": config.heads,
            "layer_norm_epsilon": config.norm_eps,
            "embd_pdrop": config.dropout,
            "attn_pdrop": 0.0,
            "resid_pdrop": config.dropout,
        }
        if family == "gpt2":
            facts["activation_function"] = "gelu_new" if config.activation == "gelu" else "relu"
            facts["n_inner"] = config.mlp_size
        else:
            facts["afn"] = config.activation
        return facts
    facts |= {
        "max_position_embeddings": config.context,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_head_count,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_dropout": 0.0,
    }
    if family != "qwen2":
        facts |= {"head_dim": config.head_size, "attention_bias": config.bias}
    if family == "llama":
        facts["mlp_bias"] = config.bias
    else:
        facts["use_sliding_window"] = False
    return facts


def decoder_config(facts: Mapping[str, Any], where: Path) -> DecoderConfig:
    """Our configuration from theirs. Raises InputError for an architecture or a setting that we do not have."""
    family = facts.get("model_type")
    if family not in LANGUAGE_MODELS:
        raise InputError(f"model_type is '{family}'", where, "we read " + ", ".join(LANGUAGE_MODELS))
    try:
        return gpt_config(facts, where) if family in ("gpt2", "openai-gpt") else llama_config(facts, where)
    except KeyError as missing:
        raise InputError(f"lacks {missing}", where) from None
    except TypeError as error:
        raise InputError(f"has a value of the wrong type: {error}", where) from None


def gpt_config(facts: Mapping[str, Any], where: Path) -> DecoderConfig:
    first = facts["model_type"] == "openai-gpt"
    activation = facts.get("afn", "gelu") if first else facts.get("activation_function", "gelu_new")
    # GPT-1's files say "gelu" for the tanh form
    known = {"relu": "relu"} | dict.fromkeys(("gelu",) if first else TANH_GELUS, "gelu")
    refuse(where, "activation", activation, tuple(known))
    refuse(where, "scale_attn_weights", facts.get("scale_attn_weights", True), (True,))
    refuse(where, "scale_attn_by_inverse_layer_idx", facts.get("scale_attn_by_inverse_layer_idx", False), (False,))
    return DecoderConfig(
        vocab_size=facts["vocab_size"],
        context=facts["n_positions"],
        layers=facts["n_layer"],
        width=facts["n_embd"],
        heads=facts["n_head"],
        mlp_width=facts.get("n_inner"),
        norm_placement="post" if first else "pre",
        activation="relu" if known[activation] == "relu" else "gelu",
        tied=facts.get("tie_word_embeddings", True),
        norm_eps=facts.get("layer_norm_epsilon", 1e-5),
    )


def llama_config(facts: Mapping[str, Any], where: Path) -> DecoderConfig:
    family = facts["model_type"]
    rope = facts.get("rope_parameters") or facts.get("rope_scaling") or {}
    refuse(where, "hidden_act", facts.get("hidden_act", "silu"), ("silu",))
    refuse(where, "rope type", rope.get("rope_type", rope.get("type", "default")), ("default",))
    refuse(where, "partial_rotary_factor", rope.get("partial_rotary_factor", 1.0), (1.0,))
    refuse(where, "use_sliding_window", facts.get("use_sliding_window", False), (False,))
    bias = facts.get("attention_bias", False) and family != "qwen2"
    refuse(where, "attention_bias", bias, (facts.get("mlp_bias", False) if family == "llama" else False,))
    return DecoderConfig(
        vocab_size=facts["vocab_size"],
        context=facts["max_position_embeddings"],
        layers=facts["num_hidden_layers"],
        width=facts["hidden_size"],
        heads=facts["num_attention_heads"],
        kv_heads=facts.get("num_key_value_heads"),
        head_width=facts.get("head_dim", 128 if family == "qwen3" else None),
        mlp_width=facts["intermediate_size"],
        positions="rope",
        norm="rms",
        activation="swiglu",
        bias=bias,
        qkv_bias=True if family == "qwen2" else bias,
        qk_norm=family == "qwen3",
        tied=facts.get("tie_word_embeddings", False),
        rope_theta=rope.get("rope_theta", facts.get("rope_theta", 10000.0)),
        norm_eps=facts.get("rms_norm_eps", 1e-6),
    )


def refuse(where: Path, name: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known:
        raise InputError(f"{name} is {value!r}", where, "we have only " + " and ".join(repr(k) for k in known))


def is_classifier(facts: Mapping[str, Any]) -> bool:
    return any(str(name).endswith("ForSequenceClassification") for name in facts.get("architectures") or [])


# Weights


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
    names = set(read_json(folder / INDEX).get("weight_map", {}).values())
    strange = [name for name in names if Path(str(name)).name != name]
    if strange or not names:
        raise InputError(f"names {shortened(strange)} as its files" if strange else "names no files", folder / INDEX)
    return [folder / name for name in sorted(names)]


def shortened(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# Files


def read_json(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError("no such file", path, "name a folder that holds a model") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as JSON ({error})", path) from None
    if not isinstance(facts, dict):
        raise InputError("is not a JSON object", path)
    return facts


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    write(path, lambda temporary: temporary.write_text(json.dumps(facts, indent=2) + "\n", "utf-8"))


def write(path: Path, writer: Callable[[Path], object]) -> None:
    """Write under a temporary name beside, sync, rename: the file is there whole, or as it was."""
    temporary = path.with_name(f".{path.name}.writing")
    writer(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
