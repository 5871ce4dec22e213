"""Prompt tuning: trained embeddings of virtual tokens before every row, all weights frozen (Lester et al., 2021).

    hidden states of ids x_1 .. x_n = decoder(p_1 .. p_P, e(x_1) .. e(x_n)),    p [P, D] trained, e the token embedding

They are part of the decoder: whatever calls it has them, and counts the tokens of its own rows alone. As peft's files:
adapter_config.json, and `prompt_embeddings` in adapter_model.safetensors, as peft gives them to a model: a family that
scales its embeddings does not scale these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amenable.errors import InputError
from amenable.model_folder import PROMPT_TUNING, count_virtual_tokens, parent_folder
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.models.hf_weights import shortened
from amenable.models.lora import decoder_of


@dataclass(frozen=True)
class VirtualTokens:
    """Virtual tokens to train."""

    count: int
    init_ids: Sequence[int] = ()
    """tokens as which they start, repeated or cut to their number; without, tokens are drawn from the vocabulary"""


def add_prompt(model: Decoder | ScalarModel, tokens: VirtualTokens, seed: int, base: str = "") -> None:
    """Freeze a model and put virtual tokens before its rows, which train; a scalar head stays trained.

    base: name or folder of the model, for the files. A model that has virtual tokens already goes on with these.
    InputError for another number of them, for a text that they would start as, and where they leave no context.
    """
    decoder = decoder_of(model)
    decoder.requires_grad_(False)
    before = decoder.prompt_embeddings
    if before is None:
        ids = torch.tensor(first_ids(tokens, decoder.num_tokens, seed), device=decoder.token_embedding.weight.device)
        decoder.set_prompt(nn.Parameter(decoder.embed(ids).detach().clone()))
        decoder.adapter_base = base
    elif len(before) != tokens.count or tokens.init_ids:
        problem = f"the model has {len(before)} virtual tokens already, which cannot become {tokens.count} or a text"
        hint = f"train them with --prompt-tuning {len(before)} alone, or start from {decoder.adapter_base}"
        raise InputError(problem, how=hint)
    else:
        before.requires_grad_(True)


def first_ids(tokens: VirtualTokens, num_tokens: int, seed: int) -> list[int]:
    """Return the id of the token as which each virtual token starts."""
    ids = list(tokens.init_ids)
    if not ids:
        return torch.randint(num_tokens, (tokens.count,), generator=torch.Generator().manual_seed(seed)).tolist()
    return (ids * -(-tokens.count // len(ids)))[: tokens.count]


def prompt_files(model: Decoder | ScalarModel) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the fields of adapter_config.json and the tensors of adapter_model.safetensors, as peft reads them."""
    decoder, scalar = decoder_of(model), isinstance(model, ScalarModel)
    assert decoder.prompt_embeddings is not None
    tensors: dict[str, Tensor] = {"prompt_embeddings": decoder.prompt_embeddings}
    fields: dict[str, Any] = {
        "peft_type": PROMPT_TUNING,
        "task_type": "SEQ_CLS" if scalar else "CAUSAL_LM",
        "base_model_name_or_path": decoder.adapter_base,
        "num_virtual_tokens": decoder.num_virtual_tokens,
        "token_dim": decoder.config.hidden_size,
        "num_layers": decoder.config.num_layers,
        "num_attention_heads": decoder.config.num_heads,
        "num_transformer_submodules": 1,
        "prompt_tuning_init": "RANDOM",
        "modules_to_save": ["score"] if scalar else None,
        "inference_mode": True,
    }
    if isinstance(model, ScalarModel):
        tensors["base_model.score.weight"] = model.score.weight
    return fields, tensors


def load_prompt(folder: Path, model: Decoder | ScalarModel, fields: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Put the virtual tokens of peft's files before the rows of the model that they are for.

    fields, tensors: what the two files hold. InputError for those of another model, or of more than one transformer.
    """
    decoder, count = decoder_of(model), count_virtual_tokens(folder)
    if decoder.prompt_embeddings is not None:
        raise InputError("is for a model that has virtual tokens itself", folder, "name the model below as its base")
    if fields.get("num_transformer_submodules") not in (None, 1):
        raise InputError("is for an encoder with a decoder", folder, "language models are read")
    tensors = {name.removeprefix("base_model."): tensor for name, tensor in tensors.items()}
    embeddings = tensors.pop("prompt_embeddings", torch.empty(0))
    if embeddings.shape != (count, decoder.config.hidden_size):
        shapes = f"{list(embeddings.shape)} where the base needs {[count, decoder.config.hidden_size]}"
        raise InputError(f"prompt_embeddings is {shapes}", folder, "is it for another model?")
    try:
        weight = embeddings.to(decoder.token_embedding.weight.device)
        decoder.set_prompt(nn.Parameter(weight, requires_grad=False))
    except InputError as error:
        raise InputError(error.what, folder, "is it for another model?") from None
    decoder.adapter_base = str(parent_folder(folder))
    if isinstance(model, ScalarModel) and "score.weight" in tensors:
        with torch.no_grad():
            model.score.weight.copy_(tensors.pop("score.weight"))
            model.score.bias.fill_(float(fields.get("score_bias", 0.0)))
    if tensors:
        raise InputError(f"holds {shortened(sorted(tensors))}, which is no prompt", folder)
