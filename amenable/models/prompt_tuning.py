"""Prompt and prefix tuning: trained virtual tokens before every row, all weights frozen.

    prompt tuning    hidden states of ids x_1 .. x_n = decoder(p_1 .. p_P, e(x_1) .. e(x_n)),  p [P, D] trained
                     e the token embedding                                           (Lester et al., 2021)
    prefix tuning    in every layer: softmax(q [k_1 .. k_P, K]^T / sqrt(W)) [v_1 .. v_P, V],  k, v [P, K, W] trained
                     k as the layer's keys are after rotation and norm               (Li and Liang, 2021, section 4.2)

They are part of the decoder: whatever calls it has them, and counts the tokens of its own rows alone, which have the
positions after theirs. Li and Liang train k and v as the outputs of an MLP, which is dropped afterwards; here they are
trained as they are, from the keys and values of tokens (their section 7.4). As peft's files: adapter_config.json, and
`prompt_embeddings` in adapter_model.safetensors, as peft gives them to a model: a family that scales its embeddings
does not scale these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amenable.errors import InputError
from amenable.model_folder import PREFIX_TUNING, PROMPT_TUNING, count_virtual_tokens, parent_folder
from amenable.models.cache import Cache
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.models.hf_weights import shortened
from amenable.models.layout import Layout
from amenable.models.lora import decoder_of


@dataclass(frozen=True)
class VirtualTokens:
    """Virtual tokens to train."""

    count: int
    init_ids: Sequence[int] = ()
    """tokens as which they start, repeated or cut to their number; without, tokens are drawn from the vocabulary"""
    every_layer: bool = False
    """train keys and values of every layer (prefix tuning), not embeddings (prompt tuning)"""

    @property
    def option(self) -> str:
        """The option that trains them."""
        return f"--{'prefix' if self.every_layer else 'prompt'}-tuning {self.count}"


def virtual_tokens_of(decoder: Decoder) -> VirtualTokens:
    """Return the number and kind of a decoder's virtual tokens."""
    return VirtualTokens(decoder.num_virtual_tokens, every_layer=decoder.prefix_keys_values is not None)


def add_prompt(model: Decoder | ScalarModel, tokens: VirtualTokens, seed: int, base: str = "") -> None:
    """Freeze a model and put virtual tokens before its rows, which train; a scalar head stays trained.

    base: name or folder of the model, for the files. A model that has virtual tokens already goes on with these.
    InputError for others than these, for a text that they would start as, and where they leave no context.
    """
    decoder = decoder_of(model)
    decoder.requires_grad_(False)
    before = decoder.virtual_tokens
    if before is None:
        ids = torch.tensor(first_ids(tokens, decoder.num_tokens, seed), device=decoder.token_embedding.weight.device)
        start = keys_values(decoder, ids) if tokens.every_layer else decoder.embed(ids).detach().clone()
        decoder.set_virtual_tokens(nn.Parameter(start), tokens.every_layer)
        decoder.adapter_base = base
    elif (own := virtual_tokens_of(decoder)).option != tokens.option or tokens.init_ids:
        problem = f"the model has {own.count} virtual tokens already, which cannot become {tokens.count} or a text"
        if own.every_layer != tokens.every_layer:
            problem = f"the model has virtual tokens already, of {own.option}"
        hint = f"train them with {own.option} alone, or start from {decoder.adapter_base}"
        raise InputError(problem, how=hint)
    else:
        before.requires_grad_(True)


def first_ids(tokens: VirtualTokens, num_tokens: int, seed: int) -> list[int]:
    """Return the id of the token as which each virtual token starts."""
    ids = list(tokens.init_ids)
    if not ids:
        return torch.randint(num_tokens, (tokens.count,), generator=torch.Generator().manual_seed(seed)).tolist()
    return (ids * -(-tokens.count // len(ids)))[: tokens.count]


@torch.no_grad()
def keys_values(decoder: Decoder, ids: Tensor) -> Tensor:
    """Return the keys and values of a row of tokens [P] in every layer, [P, layers * 2 * K * W]: with these before its
    rows a decoder computes what it does with the tokens before them. InputError where they leave no context."""
    if len(ids) >= decoder.config.context_length:
        problem = f"{len(ids)} virtual tokens leave nothing of a context of {decoder.config.context_length}"
        raise InputError(problem, how="take fewer")
    was_training = decoder.training
    cache = Cache(decoder.config, 1, len(ids), ids.device)
    decoder.eval()(ids, Layout.of([len(ids)], ids.device), cache)
    decoder.train(was_training)
    return torch.stack([pair[0] for pair in cache.pairs], dim=1).flatten(1)


def prompt_files(model: Decoder | ScalarModel) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the fields of adapter_config.json and the tensors of adapter_model.safetensors, as peft reads them."""
    decoder, scalar = decoder_of(model), isinstance(model, ScalarModel)
    assert decoder.virtual_tokens is not None
    tensors: dict[str, Tensor] = {"prompt_embeddings": decoder.virtual_tokens}
    config = decoder.config
    kinds: dict[bool, dict[str, Any]] = {
        False: {
            "peft_type": PROMPT_TUNING,
            "token_dim": config.hidden_size,
            "num_attention_heads": config.num_heads,
            "prompt_tuning_init": "RANDOM",
        },
        True: {
            "peft_type": PREFIX_TUNING,
            "token_dim": config.kv_head_count * config.head_size,
            "num_attention_heads": config.kv_head_count,
            "encoder_hidden_size": config.hidden_size,
            "prefix_projection": False,
        },
    }
    fields = {
        **kinds[decoder.prefix_keys_values is not None],
        "task_type": "SEQ_CLS" if scalar else "CAUSAL_LM",
        "base_model_name_or_path": decoder.adapter_base,
        "num_virtual_tokens": decoder.num_virtual_tokens,
        "num_layers": config.num_layers,
        "num_transformer_submodules": 1,
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
    if decoder.virtual_tokens is not None:
        raise InputError("is for a model that has virtual tokens itself", folder, "name the model below as its base")
    if fields.get("num_transformer_submodules") not in (None, 1):
        raise InputError("is for an encoder with a decoder", folder, "language models are read")
    tensors = {name.removeprefix("base_model."): tensor for name, tensor in tensors.items()}
    given = tensors.pop("prompt_embeddings", torch.empty(0))
    config, every_layer = decoder.config, fields["peft_type"] == PREFIX_TUNING
    width = 2 * config.num_layers * config.kv_head_count * config.head_size if every_layer else config.hidden_size
    if given.shape != (count, width):
        shapes = f"{list(given.shape)} where the base needs {[count, width]}"
        raise InputError(f"prompt_embeddings is {shapes}", folder, "is it for another model?")
    try:
        weight = given.to(decoder.token_embedding.weight.device)
        decoder.set_virtual_tokens(nn.Parameter(weight, requires_grad=False), every_layer)
    except InputError as error:
        raise InputError(error.what, folder, "is it for another model?") from None
    decoder.adapter_base = str(parent_folder(folder))
    if isinstance(model, ScalarModel) and "score.weight" in tensors:
        with torch.no_grad():
            model.score.weight.copy_(tensors.pop("score.weight"))
            model.score.bias.fill_(float(fields.get("score_bias", 0.0)))
    if tensors:
        raise InputError(f"holds {shortened(sorted(tensors))}, which is no prompt", folder)
