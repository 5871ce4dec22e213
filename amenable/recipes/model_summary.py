"""A model folder in a few lines: architecture, size, tokenizer, chat template, licence; all of it is opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.files import MODEL_FILES
from amenable.model_folder import ADAPTER_CONFIG, base_folder, is_adapter
from amenable.models import pretrained
from amenable.models.decoder import Decoder
from amenable.models.hf_config import CONFIG, is_classifier, model_type_of, read_json_object
from amenable.text import chat
from amenable.text.tokenizer import Tokenizer
from amenable.train import loading
from amenable.train.origin import Origin


def summary(folder: Path) -> Iterator[str]:
    """Yield the lines of a model folder. InputError unless its model and tokenizer open and belong together."""
    loading.require_model(folder, "amenable get")
    tokenizer = Tokenizer.load(folder)
    scalar = is_reward_model(folder)
    decoder = pretrained.load_scalar(folder).decoder if scalar else pretrained.load_decoder(folder)
    require_finite(decoder, folder)
    loading.fit_vocabulary(decoder, tokenizer, folder)
    yield f"{folder}: {architecture_line(folder, decoder, scalar)}"
    yield f"tokenizer: {tokenizer.vocab_size:,} tokens; {template_line(tokenizer)}"
    origin = Origin.read(folder) or Origin()
    licence = origin.license or "not stated"
    yield f"licence: {licence}" + (f"; from {origin.base_model}" if origin.base_model else "")
    if origin.remark():
        yield f"note: {origin.remark()}"
    if scalar:
        yield f"next: amenable ppo --model POLICY --reward {folder}"
    elif tokenizer.chat_template is not None:
        yield f"next: amenable chat --model {folder}"
    else:
        yield f"next: amenable sft --model {folder} --data demonstrations.jsonl"


def is_reward_model(folder: Path) -> bool:
    """Return True for a folder of a classifier, or of a classifier's adapter."""
    own = is_adapter(folder) and read_json_object(folder / ADAPTER_CONFIG).get("task_type") == "SEQ_CLS"
    return own or is_classifier(read_json_object(base_folder(folder) / CONFIG))


def architecture_line(folder: Path, decoder: Decoder, scalar: bool) -> str:
    """Return a model's architecture and sizes in words."""
    config = decoder.config
    count = sum(parameter.numel() for parameter in decoder.parameters())
    size = sum(file.stat().st_size for pattern in MODEL_FILES for file in folder.glob(pattern))
    kind = "reward model, " if scalar else "adapter on " if is_adapter(folder) else ""
    name = model_type_of(config, decoder.origin)
    return (
        f"{kind}{name}, {count / 1e6:,.1f} M parameters ({config.num_layers} layers of width {config.hidden_size}), "
        f"{config.context_length:,} tokens of context, {size / 1e6:,.0f} MB"
    )


def template_line(tokenizer: Tokenizer) -> str:
    """Return what the chat template does, in words. InputError for a template that fails."""
    if tokenizer.chat_template is None:
        return "no chat template: a base model"
    chat.render_prompt(tokenizer, [Message("user", "Hello")])
    return f"chat template, turns end with {tokenizer.end_of_turn}"


def require_finite(decoder: torch.nn.Module, folder: Path) -> None:
    """Raise InputError for weights that are no numbers."""
    for name, weight in decoder.named_parameters():
        if not torch.isfinite(weight).all():
            raise InputError(f"{name} holds values that are no numbers", folder, "fetch it again")
