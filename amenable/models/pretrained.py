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
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from amenable.errors import InputError
from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder, normal
from amenable.models.heads import ScalarModel
from amenable.models.hf_config import (
    CLASSIFIERS,
    CONFIG,
    LANGUAGE_MODELS,
    decoder_config,
    family_of,
    is_classifier,
    published_config,
    read_facts,
    training_dropout,
)
from amenable.models.hf_weights import WEIGHTS, Weights, fill, published_tensors

GENERATION = "generation_config.json"
DROPOUTS = ("embd_pdrop", "resid_pdrop")


def save(
    folder: Path | str,
    model: Decoder | ScalarModel,
    *,
    eos_id: int | list[int] | None = None,
    pad_id: int | None = None,
    bos_id: int | None = None,
    generation: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model where transformers' AutoModelForCausalLM or AutoModelForSequenceClassification opens it.

    Each file is written beside its place, synced and renamed, config.json last. A sequence classifier needs `pad_id`:
    transformers reads the score at the last token that is not padding. generation: generation_config.json, if it holds
    more than these ids. Weights are written in `dtype`, or as they are. What else config.json said where the model was
    read from is kept. Raises InputError for a configuration that no published architecture has.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    decoder = model.decoder if isinstance(model, ScalarModel) else model
    family = family_of(decoder.config)
    tokens = {"bos_token_id": bos_id, "eos_token_id": eos_id, "pad_token_id": pad_id}
    dtype = decoder.token_embedding.weight.dtype if dtype is None else dtype
    facts = with_origin(published_config(decoder.config, family), decoder, folder / CONFIG)
    facts |= {name: ids for name, ids in tokens.items() if name in facts or ids is not None or decoder.origin is None}
    facts["torch_dtype" if "torch_dtype" in facts else "dtype"] = str(dtype).removeprefix("torch.")
    tensors = {name: tensor.to(dtype) for name, tensor in published_tensors(decoder, family).items()}
    if isinstance(model, ScalarModel):
        tensors["score.weight"] = model.score.weight.detach().to("cpu", dtype).contiguous()
        facts |= {
            "architectures": [CLASSIFIERS[family]],
            "id2label": {"0": "score"},
            "label2id": {"score": 0},
            "problem_type": "regression",
            "score_bias": model.score.bias.item(),
        }
    write(folder / WEIGHTS, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    if not isinstance(model, ScalarModel):
        write_json(folder / GENERATION, tokens if generation is None else generation)
    write_json(folder / CONFIG, facts)


def with_origin(facts: dict[str, Any], decoder: Decoder, where: Path) -> dict[str, Any]:
    """config.json with what stood in the one that the decoder was read from, if that describes it still."""
    if decoder.origin is None:
        return facts
    config = decoder.config
    was = decoder_config(decoder.origin, where)
    if replace(was, vocab_size=config.vocab_size, tied=config.tied, dropout=config.dropout) != config:
        return facts
    ours = ("architectures", "vocab_size", "tie_word_embeddings") + DROPOUTS * (decoder.config.dropout > 0)
    return {**decoder.origin, **{name: facts[name] for name in ours if name in facts}}


def load_decoder(folder: Path | str, device: torch.device | str = "cpu", dropout: float = 0.0) -> Decoder:
    """A language model from a folder, in fp32. Raises InputError for files that are missing, torn or do not fit."""
    folder = Path(folder)
    facts = read_facts(folder / CONFIG)
    if is_classifier(facts):
        raise InputError("holds a reward model, not a language model", folder)
    decoder = Decoder(replace(decoder_config(facts, folder / CONFIG), dropout=dropout), device="meta")
    decoder.origin = facts
    with Weights(folder) as weights:
        fill(decoder, weights, facts["model_type"])
    return decoder.to(device)


def load_scalar(folder: Path | str, device: torch.device | str = "cpu", dropout: float = 0.0) -> ScalarModel:
    """A reward model or critic from a folder, in fp32. Raises InputError as `load_decoder` does."""
    folder = Path(folder)
    facts = read_facts(folder / CONFIG)
    if not is_classifier(facts):
        raise InputError("holds a language model, not a reward model", folder, "'amenable reward' makes one")
    config = replace(decoder_config(facts, folder / CONFIG), dropout=dropout, tied=True)
    model = ScalarModel(Decoder(config, device="meta"))
    model.decoder.origin = facts
    with Weights(folder) as weights:
        score = weights.take("score.weight", (1, config.width))
        fill(model.decoder, weights, facts["model_type"])
    bias = torch.tensor([float(facts.get("score_bias", 0.0))])
    model.score.load_state_dict({"weight": score, "bias": bias}, assign=True)
    return model.to(device)


def read_config(folder: Path | str) -> DecoderConfig:
    """The configuration of a saved model, its dropout 0."""
    path = Path(folder) / CONFIG
    return decoder_config(read_facts(path), path)


def read_dropout(folder: Path | str) -> float:
    """The dropout that a saved model's config.json states for training."""
    path = Path(folder) / CONFIG
    return training_dropout(read_facts(path), path)


def read_temperature(folder: Path | str) -> float | None:
    """The sampling temperature that a saved model's generation_config.json states; None where it states none, or means
    greedy decoding."""
    path = Path(folder) / GENERATION
    facts = read_facts(path) if path.exists() else {}
    value = facts.get("temperature")
    if not value or facts.get("do_sample") is False:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise InputError(f"temperature is {value!r}", path, "it must be 0 or more")
    return float(value)


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
    decoder.config, decoder.num_tokens = replace(decoder.config, vocab_size=vocab_size), vocab_size
    return decoder


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
