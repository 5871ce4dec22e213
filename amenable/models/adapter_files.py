"""Adapters as peft's files: adapter_model.safetensors and adapter_config.json, written and read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from amenable.errors import InputError
from amenable.files import write_file, write_text
from amenable.model_folder import ADAPTER, ADAPTER_CONFIG
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.models.hf_config import read_json_object
from amenable.models.hf_weights import parameters_of, shortened
from amenable.models.lora import ALL, LoraOptions, adapters, add_adapters, decoder_of, published_layers, short


def save_adapters(folder: Path, model: Decoder | ScalarModel) -> None:
    """Write adapter_model.safetensors and adapter_config.json, as peft reads them."""
    decoder, layers = decoder_of(model), list(adapters(model).values())
    options, scalar = layers[0].options, isinstance(model, ScalarModel)
    prefix = "base_model.model."
    tensors: dict[str, Tensor] = {}
    for layer in layers:
        for name, a, b in layer.published():
            tensors |= {f"{prefix}{name}.lora_A.weight": a, f"{prefix}{name}.lora_B.weight": b}
    if isinstance(model, ScalarModel):
        tensors[f"{prefix}score.weight"] = model.score.weight.detach()
    fields: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if scalar else "CAUSAL_LM",
        "base_model_name_or_path": decoder.adapter_base,
        "r": options.rank,
        "lora_alpha": options.alpha,
        "lora_dropout": options.dropout,
        "use_rslora": options.rslora,
        "use_dora": False,
        "target_modules": sorted({short(name) for layer in layers for name, _, has in layer.parts if has}),
        "modules_to_save": ["score"] if scalar else None,
        "fan_in_fan_out": any(entry.transposed for entry in parameters_of(decoder)),
        "bias": "none",
        "inference_mode": True,
    }
    if isinstance(model, ScalarModel):
        fields["score_bias"] = model.score.bias.item()  # ours: peft's heads have none
    folder.mkdir(parents=True, exist_ok=True)
    whole = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_file(folder / ADAPTER, lambda path: save_file(whole, path, metadata={"format": "pt"}))
    write_text(folder / ADAPTER_CONFIG, json.dumps(fields, indent=2))


def load_adapters(folder: Path, model: Decoder | ScalarModel) -> None:
    """Put the adapters of peft's files on the model that they are for.

    InputError for another kind of adapter, and for one that fits other layers.
    """
    options = read_options(folder / ADAPTER_CONFIG)
    try:
        tensors = load_file(folder / ADAPTER)
    except (OSError, SafetensorError) as error:
        raise InputError(f"not a whole safetensors file ({error})", folder / ADAPTER, "copy or save it again") from None
    tensors = {name.removeprefix("base_model.model."): tensor.float() for name, tensor in tensors.items()}
    names = {name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")}
    known = {name for parts in published_layers(decoder_of(model)).values() for name, _ in parts}
    if not names or names - known:
        problem = f"adapts {min(names - known)}" if names - known else "adapts nothing"
        raise InputError(f"{problem}, which its base model does not have", folder, "is it for another model?")
    add_adapters(model, replace(options, targets=tuple(sorted(names))), seed=0)
    with torch.no_grad():
        for layer in adapters(model).values():
            for name, a, b in layer.published():
                for ours, kind in ((a, "A"), (b, "B")):
                    theirs = tensors.pop(f"{name}.lora_{kind}.weight", torch.empty(0))
                    if ours.shape != theirs.shape:
                        problem = f"{name}.lora_{kind} is {list(theirs.shape)} where the base needs {list(ours.shape)}"
                        raise InputError(problem, folder, "is it for another model?")
                    ours.copy_(theirs)
        if isinstance(model, ScalarModel) and "score.weight" in tensors:
            model.score.weight.copy_(tensors.pop("score.weight"))
            model.score.bias.fill_(float(read_json_object(folder / ADAPTER_CONFIG).get("score_bias", 0.0)))
    if tensors:
        raise InputError(f"holds {shortened(sorted(tensors))}, which is no LoRA of a layer", folder)


def describe_adapter(folder: Path) -> str:
    """Return a line on an adapter: rank, scale, layers and base."""
    fields, options = read_json_object(folder / ADAPTER_CONFIG), read_options(folder / ADAPTER_CONFIG)
    targets = fields.get("target_modules") or ALL
    names = targets if isinstance(targets, str) else " ".join(sorted(targets))
    scale = f"alpha {options.alpha:g}{' by the root of the rank' if options.rslora else ''}"
    return f"LoRA of rank {options.rank}, {scale}, on {names} of {fields.get('base_model_name_or_path')}"


def read_options(file: Path) -> LoraOptions:
    """Read adapter_config.json; InputError for what is more than LoRA with one rank and scale."""
    fields = read_json_object(file)
    if fields.get("peft_type") != "LORA" or fields.get("use_dora"):
        kind = "DoRA" if fields.get("use_dora") else fields.get("peft_type")
        raise InputError(f"is {kind}", file, "LoRA alone is read")
    more = (
        "rank_pattern",
        "alpha_pattern",
        "layers_to_transform",
        "layer_replication",
        "megatron_config",
        "eva_config",
    )
    if strange := [name for name in more if fields.get(name)] + (
        ["bias"] if fields.get("bias", "none") != "none" else []
    ):
        raise InputError(f"has {strange[0]} {fields[strange[0]]!r}", file, "one rank and scale for all layers is read")
    try:
        rank, alpha = int(fields["r"]), float(fields["lora_alpha"])
        return LoraOptions(rank, alpha, (ALL,), float(fields.get("lora_dropout", 0.0)), bool(fields.get("use_rslora")))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"lacks a number: {error}", file) from None
