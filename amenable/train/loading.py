"""Models and their tokenizers, out of run directories and into them, with the checks that belong to each meeting."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from amenable.errors import InputError
from amenable.files import disk_errors
from amenable.models import pretrained
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.text.tokenizer import Tokenizer
from amenable.train import reference_logits
from amenable.train.runtime import Runtime

SaveDtype = Literal["float32", "bfloat16"]
VOCABULARY_MULTIPLE = 64
"""a vocabulary that grows becomes a multiple of this, which matrix products are quick at"""


def load_policy(
    folder: Path, runtime: Runtime, made_by: str = "amenable sft", dropout: float = 0.0
) -> tuple[Decoder, Tokenizer]:
    """A language model and its tokenizer. The model comes in evaluation mode; in training mode it uses `dropout`."""
    require_model(folder, made_by)
    tokenizer = Tokenizer.load(folder)
    decoder = pretrained.load_decoder(folder, dropout=dropout).to(runtime.device).eval()
    return fit_vocabulary(decoder, tokenizer, folder), tokenizer


def load_reward_model(
    folder: Path, runtime: Runtime, tokenizer: Tokenizer, label: str | None = None, frozen: bool = False
) -> ScalarModel:
    """Load a reward model, or a classifier's `label`, in evaluation mode. InputError unless `tokenizer` is its own.

    frozen: without gradients, its matrices stored in the dtype of their products; not to be saved.
    """
    require_model(folder, "amenable reward")
    require_same_tokenizer(tokenizer, Tokenizer.load(folder), folder)
    model = pretrained.load_scalar(folder, label=label).to(runtime.device).eval()
    model.decoder.num_tokens = min(tokenizer.vocab_size, model.decoder.config.vocab_size)
    return runtime.to_inference(model).requires_grad_(False) if frozen else model


def save_model(folder: Path, model: Decoder | ScalarModel, tokenizer: Tokenizer, dtype: SaveDtype = "float32") -> None:
    """A published-format model directory: weights, configuration, tokenizer, chat template; and what it says to a few
    ids, for `amenable verify`.

    Where the model was read from a folder, bos, eos and pad in config.json are that folder's. bfloat16 rounds the
    weights of the model itself, so that the probe is of what was saved.
    """
    decoder = model.decoder if isinstance(model, ScalarModel) else model
    scalar = decoder is not model
    tokenizer = tokenizer.with_padding() if scalar else tokenizer
    origin = decoder.origin
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    if origin is not None:
        kept = {name: origin.get(f"{name}_token_id") for name in ids}
        ids = kept | ({"pad": tokenizer.pad_id} if scalar else {})
    if dtype == "bfloat16":
        round_weights(model, torch.bfloat16)
    with disk_errors(folder):
        tokenizer.save(folder)
        reference_logits.save(folder, model)
        pretrained.save(
            folder,
            model,
            bos_id=ids["bos"],
            eos_id=ids["eos"],
            pad_id=ids["pad"],
            generation=tokenizer.generation_config,
            dtype=torch.bfloat16 if dtype == "bfloat16" else None,
        )


@torch.no_grad()
def round_weights(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Give every parameter the nearest value that `dtype` has; it stays in its own type."""
    for parameter in model.parameters():
        parameter.copy_(parameter.to(dtype))


def require_model(folder: Path, made_by: str) -> None:
    """Refuse a folder without a model; what lies in the folder of a run that has not finished is none yet."""
    if not folder.exists():
        raise InputError("no such model folder", folder, f"make it with '{made_by}', or name another")
    unfinished = (folder / "config.yaml").exists() and not (folder / "finished.json").exists()
    if unfinished:
        raise InputError("holds no model yet: its run has not finished", folder, "repeat its command first")
    if not (folder / "config.json").exists():
        raise InputError("holds no model", folder, f"'{made_by}' makes one")


def fit_vocabulary(decoder: Decoder, tokenizer: Tokenizer, folder: Path) -> Decoder:
    """Give the model rows for special tokens that the tokenizer has gained, VOCABULARY_MULTIPLE or more at a time;
    refuse one that it was not made with. Rows beyond the tokenizer's tokens are padding from now on."""
    missing = tokenizer.vocab_size - decoder.config.vocab_size
    if missing > len(tokenizer.special_ids):
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the model {decoder.config.vocab_size}",
            folder,
            "use the tokenizer that the model was trained with",
        )
    if missing > 0:
        device = decoder.unembedding.device
        rows = -(-tokenizer.vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
        pretrained.resize_vocabulary(decoder, rows, torch.Generator().manual_seed(0)).to(device)
    decoder.num_tokens = tokenizer.vocab_size
    return decoder


def require_same_tokenizer(ours: Tokenizer, theirs: Tokenizer, folder: Path) -> None:
    """Two models that read the same ids must have the same vocabulary."""
    if ours.fingerprint != theirs.fingerprint:
        raise InputError("has another tokenizer than the policy", folder, "train both from the same base model")
