"""Adapters as peft's files: adapter_model.safetensors and adapter_config.json, written and read."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from amenable.errors import InputError
from amenable.files import write_file, write_text
from amenable.model_folder import (
    ADAPTER,
    ADAPTER_CONFIG,
    PREFIX_TUNING,
    adapter_fields,
    count_virtual_tokens,
    is_prompt,
)
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.models.hf_config import read_json_object
from amenable.models.hf_weights import parameters_of, shortened
from amenable.models.lora import (
    ALL,
    LoraOptions,
    adapters,
    add_adapters,
    decoder_of,
    layer_number,
    published_layers,
    short,
)
from amenable.models.prompt_tuning import load_prompt, prompt_files

NOT_READ = (
    *("layer_replication", "megatron_config", "trainable_token_indices", "target_parameters", "lora_bias"),
    *("alora_invocation_tokens", "use_qalora", "use_bdlora", "arrow_config", "kasa_config", "monteclora_config"),
    "velora_config",
)
"""fields of adapter_config.json that make an adapter compute something else"""
CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""starts of peft whose adapters are for a base that is changed, which is not in their folder"""


def save_adapters(folder: Path, model: Decoder | ScalarModel) -> None:
    """Write adapter_model.safetensors and adapter_config.json, as peft reads them."""
    has_prompt = decoder_of(model).virtual_tokens is not None
    fields, tensors = prompt_files(model) if has_prompt else lora_files(model)
    if isinstance(model, ScalarModel) and model.score.bias.numel() == 1:
        fields["score_bias"] = model.score.bias.item()  # ours: peft's heads have none
    folder.mkdir(parents=True, exist_ok=True)
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_file(folder / ADAPTER, lambda path: save_file(whole, path, metadata={"format": "pt"}))
    write_text(folder / ADAPTER_CONFIG, json.dumps(fields, indent=2))


def lora_files(model: Decoder | ScalarModel) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the fields of adapter_config.json and the tensors of adapter_model.safetensors of adapters in layers."""
    decoder, layers = decoder_of(model), list(adapters(model).values())
    options, scalar = layers[0].options, isinstance(model, ScalarModel)
    numbers = sorted({layer_number(name) for name in adapters(decoder)})
    prefix = "base_model.model."
    tensors: dict[str, Tensor] = {}
    for layer in layers:
        for name, own in layer.published():
            tensors |= {f"{prefix}{name}.{kind}": tensor for kind, tensor in own.items()}
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
        "use_dora": options.dora,
        "target_modules": sorted({short(part.name) for layer in layers for part, _ in layer.adapted}),
        "layers_to_transform": None if len(numbers) == decoder.config.num_layers else numbers,
        "modules_to_save": ["score"] if scalar else None,
        "fan_in_fan_out": any(entry.transposed for entry in parameters_of(decoder)),
        "bias": "none",
        "inference_mode": True,
    }
    if options.bits:
        fields["base_bits"] = options.bits  # ours: to peft the base is as its folder has it
    return fields, tensors


def load_adapters(folder: Path, model: Decoder | ScalarModel) -> None:
    """Put the adapters of peft's files on the model that they are for.

    InputError for another kind of adapter, and for one that fits other layers.
    """
    if is_prompt(folder):
        load_prompt(folder, model, adapter_fields(folder), read_tensors(folder))
        return
    fields, options = read_json_object(folder / ADAPTER_CONFIG), read_options(folder / ADAPTER_CONFIG)
    tensors = {name.removeprefix("base_model.model."): tensor for name, tensor in read_tensors(folder).items()}
    names = {name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")}
    known = {name for parts in published_layers(decoder_of(model)).values() for name, _ in parts}
    if not names or names - known:
        problem = f"adapts {min(names - known)}" if names - known else "adapts nothing"
        raise InputError(f"{problem}, which its base model does not have", folder, "is it for another model?")
    add_adapters(
        model, replace(options, targets=tuple(sorted(names))), 0, options_of=partial(options_of, fields, options)
    )
    with torch.no_grad():
        for layer in adapters(model).values():
            for name, own in layer.published():
                for kind, ours in own.items():
                    theirs = tensors.pop(f"{name}.{kind}", torch.empty(0))
                    if ours.shape != theirs.shape:
                        shapes = f"{list(theirs.shape)} where the base needs {list(ours.shape)}"
                        raise InputError(f"{name}.{kind} is {shapes}", folder, "is it for another model?")
                    ours.copy_(theirs)
        load_embeddings(decoder_of(model), tensors, folder)
        if isinstance(model, ScalarModel) and "score.weight" in tensors:
            model.score.weight.copy_(tensors.pop("score.weight"))
            model.score.bias.fill_(float(fields.get("score_bias", 0.0)))
    if tensors:
        raise InputError(f"holds {shortened(sorted(tensors))}, which is no LoRA of a layer", folder)


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read adapter_model.safetensors, in fp32. InputError for a file that is torn or missing."""
    try:
        return {name: tensor.float() for name, tensor in load_file(folder / ADAPTER).items()}
    except (OSError, SafetensorError) as error:
        raise InputError(f"not a whole safetensors file ({error})", folder / ADAPTER, "copy or save it again") from None


def describe_adapter(folder: Path) -> str:
    """Return a line on an adapter: rank, scale and layers, or virtual tokens; and base."""
    if is_prompt(folder):
        fields, count = adapter_fields(folder), count_virtual_tokens(folder)
        kind = "prefix tuning" if fields["peft_type"] == PREFIX_TUNING else "prompt tuning"
        return f"{kind}: {count} virtual tokens before every row of {fields.get('base_model_name_or_path')}"
    fields, options = read_json_object(folder / ADAPTER_CONFIG), read_options(folder / ADAPTER_CONFIG)
    targets = fields.get("target_modules") or ALL
    names = targets if isinstance(targets, str) else " ".join(sorted(targets))
    scale = f"alpha {options.alpha:g}{' by the root of the rank' if options.rslora else ''}"
    kind = ("DoRA" if options.dora else "LoRA") + (f" over {options.bits} bits" if options.bits else "")
    return f"{kind} of rank {options.rank}, {scale}, on {names} of {fields.get('base_model_name_or_path')}"


def load_embeddings(decoder: Decoder, tensors: dict[str, Tensor], folder: Path) -> None:
    """Take embedding and unembedding out of `tensors`, as far as they are saved whole (modules_to_save); tied ones that
    are no longer equal are untied. InputError for a shape that does not fit."""
    inputs = next(entry.theirs[0] for entry in parameters_of(decoder) if entry.ours == "token_embedding.weight")
    given = {name: tensors.pop(name) for name in (inputs, "lm_head.weight") if name in tensors}
    if not given:
        return
    before, after = decoder.token_embedding.weight, decoder.padded_unembedding
    embedding = given.get(inputs, before.detach()).to(before)
    unembedding = given.get("lm_head.weight", after.detach()).to(after)
    if embedding.shape != unembedding.shape or embedding.shape[1] != decoder.config.hidden_size:
        shapes = f"{list(embedding.shape)} and {list(unembedding.shape)}"
        raise InputError(f"embedding and unembedding are {shapes}", folder, "is it for another model?")
    rows, tied = len(embedding), decoder.output is None and torch.equal(embedding, unembedding)
    decoder.token_embedding.weight = nn.Parameter(embedding, requires_grad=False)
    decoder.token_embedding.num_embeddings = rows
    if not tied:
        decoder.output = nn.Linear(decoder.config.hidden_size, rows, bias=False, device="meta")
        decoder.output.weight = nn.Parameter(unembedding, requires_grad=False)
    decoder.config, decoder.num_tokens = replace(decoder.config, vocab_size=rows, tie_embeddings=tied), rows


def options_of(fields: dict[str, Any], options: LoraOptions, name: str) -> LoraOptions:
    """Return the options of a layer by its published name: rank_pattern and alpha_pattern hold exceptions."""

    def exception(pattern: str) -> Any:
        keys = dict(fields.get(pattern) or {})
        return next((value for key, value in keys.items() if re.match(rf"(.*\.)?({key})$", name)), None)

    rank, alpha = exception("rank_pattern"), exception("alpha_pattern")
    return replace(
        options,
        rank=options.rank if rank is None else int(rank),
        alpha=options.alpha if alpha is None else float(alpha),
    )


def base_bits(folder: Path) -> int:
    """Return the bits in which an adapter of ours has its base's matrices; 0 for a base as its folder has it."""
    return 0 if is_prompt(folder) else read_options(folder / ADAPTER_CONFIG).bits


def read_options(file: Path) -> LoraOptions:
    """Read adapter_config.json; InputError for kinds of adapters that are not read."""
    fields = read_json_object(file)
    if fields.get("peft_type") != "LORA":
        raise InputError(f"is {fields.get('peft_type')}", file, "LoRA, DoRA, prompt and prefix tuning are read")
    strange = [name for name in NOT_READ if fields.get(name)]
    if fields.get("bias", "none") != "none":
        strange.append("bias")
    if str(fields.get("init_lora_weights")).lower().startswith(CHANGED_BASE):
        strange.append("init_lora_weights")  # such a start takes part of the base's weights into the adapter
    if strange:
        raise InputError(f"has {strange[0]} {fields[strange[0]]!r}", file, "LoRA and DoRA of linear layers are read")
    try:
        rank, alpha, dropout = int(fields["r"]), float(fields["lora_alpha"]), float(fields.get("lora_dropout", 0.0))
        kinds = bool(fields.get("use_rslora")), bool(fields.get("use_dora"))
        return LoraOptions(rank, alpha, (ALL,), dropout, *kinds, int(fields.get("base_bits", 0)))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"lacks a number: {error}", file) from None
