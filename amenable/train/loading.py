"""Load and save models with their tokenizers, checking that model, tokenizer and run directory belong together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from amenable import processes
from amenable.errors import InputError
from amenable.files import disk_errors, sha256
from amenable.model_folder import ADAPTER_FOLDER, BASE_FOLDER, adapter_of, base_folder, is_prompt, parent_folder
from amenable.models import adapter_files, lora, pretrained, prompt_tuning
from amenable.models.decoder import Decoder
from amenable.models.heads import Classifier, ScalarModel
from amenable.models.hf_config import is_classifier, model_type_of
from amenable.models.hf_weights import count_stored, parameters_of, published_tensors
from amenable.models.inference import cast_layers, linear_layers, sharing_copy
from amenable.models.language_model import LanguageModel
from amenable.models.new_tokens import merge_new_tokens
from amenable.models.ngram.model import NGramModel
from amenable.models.ngram.tables import is_ngram
from amenable.models.prompt_tuning import VirtualTokens
from amenable.models.sharding import is_sharded, whole
from amenable.models.tensor_files import MAX_SHARD_BYTES
from amenable.processes import local_part
from amenable.ranks import is_first
from amenable.seeds import derive_seed
from amenable.text.tokenizer import Tokenizer
from amenable.train import reference_logits
from amenable.train.known_models import hint_for
from amenable.train.memory_limit import require_room
from amenable.train.runtime import Runtime
from amenable.train.trained_weights import freeze

SaveDtype = Literal["source", "float32", "bfloat16", "float16"]
VOCABULARY_MULTIPLE = 64
"""a vocabulary that grows becomes a multiple of this, for fast matrix products"""


@dataclass(frozen=True)
class Base:
    """A model in memory that stays as it is, whose weights adapters of the same folder may share."""

    folder: Path
    decoder: Decoder
    bits: int = 0
    """in which its matrices are stored, where they are quantized"""

    @classmethod
    def of(cls, folder: Path, decoder: Decoder, bits: int = 0) -> Base:
        """Return the model of a folder; of virtual tokens, the model that they are for."""
        if is_prompt(folder):
            return cls(parent_folder(folder), lora.without_adapters(decoder), bits)
        return cls(folder, decoder, bits)

    def holds(self, adapter: Path) -> bool:
        """Return True if an adapter is on these weights: in the same folder, or in files of the same hashes."""
        if adapter_files.base_bits(adapter) != self.bits:
            return False
        try:
            folder = parent_folder(adapter)
        except InputError:  # a merged model is read without the base of its adapters
            return False
        if folder.resolve() == self.folder.resolve():
            return True
        ours, theirs = (
            [(path.name, path.stat().st_size, path) for path in sorted(each.glob("*.safetensors"))]
            for each in (self.folder, folder)
        )
        alike = bool(ours) and [file[:2] for file in ours] == [file[:2] for file in theirs]
        return alike and all(sha256(a) == sha256(b) for (_, _, a), (_, _, b) in zip(ours, theirs))


def load_policy(
    folder: Path, runtime: Runtime, made_by: str = "amenable sft", dropout: float = 0.0
) -> tuple[Decoder, Tokenizer]:
    """Load a language model, in evaluation mode, and its tokenizer. In training mode the model uses `dropout`."""
    require_model(folder, made_by)
    tokenizer = Tokenizer.load(folder)
    require_room(folder, count_stored(base_folder(folder)), runtime)
    decoder = pretrained.load_decoder(folder, runtime.device, dropout).eval()
    return fit_vocabulary(decoder, tokenizer, folder), tokenizer


def load_language_model(
    folder: Path, runtime: Runtime, made_by: str = "amenable sft"
) -> tuple[LanguageModel, Tokenizer]:
    """Load a language model that will not train, a decoder or an n-gram model, in evaluation mode, and its
    tokenizer."""
    if not is_ngram(folder):
        return load_policy(folder, runtime, made_by)
    require_model(folder, made_by)
    model, tokenizer = NGramModel.load(folder, runtime.device), Tokenizer.load(folder)
    if tokenizer.vocab_size != model.num_tokens:
        problem = f"the tokenizer has {tokenizer.vocab_size} tokens and the model {model.num_tokens}"
        raise InputError(problem, folder, "count the n-grams again with this tokenizer")
    return model, tokenizer


def load_reward_model(
    folder: Path,
    runtime: Runtime,
    tokenizer: Tokenizer,
    label: str | None = None,
    frozen: bool = False,
    base: Base | None = None,
) -> ScalarModel:
    """Load a reward model, or a classifier's `label`, in evaluation mode. InputError unless `tokenizer` is its own.

    frozen: without gradients, its matrices stored in the dtype of their products; not to be saved. It scores a row
    where transformers does, at the last token that is not padding. base: a frozen reward model that is adapters on this
    model shares its weights.
    """
    require_model(folder, "amenable reward")
    require_same_tokenizer(tokenizer, Tokenizer.load(folder), folder)
    adapter, model = adapter_of(folder), None
    if base is not None and frozen and label is None and adapter is not None and base.holds(adapter):
        model = pretrained.scalar_on(base.decoder, folder, adapter)
    if model is None:
        require_room(folder, count_stored(base_folder(folder)), runtime)
        model = pretrained.load_scalar(folder, runtime.device, label=label).eval()
    model.decoder.num_tokens = min(tokenizer.vocab_size, model.decoder.config.vocab_size)
    if not frozen:
        return model
    origin = model.decoder.origin or {}
    model.pad_id = origin.get("pad_token_id") if is_classifier(origin) else None
    # adapters on a shared base stay as they are, since a critic may train a copy of them
    return (model if lora.has_adapters(model) else runtime.to_inference(model)).requires_grad_(False)


def load_classifier(folder: Path, runtime: Runtime) -> tuple[Classifier, Tokenizer]:
    """Load a sequence classifier with all of its labels, in evaluation mode, and its tokenizer."""
    require_model(folder, "amenable classify")
    tokenizer = Tokenizer.load(folder)
    require_room(folder, count_stored(base_folder(folder)), runtime)
    model = pretrained.load_classifier(folder, runtime.device).eval()
    model.decoder.num_tokens = min(tokenizer.vocab_size, model.decoder.config.vocab_size)
    return model, tokenizer


def load_reference(policy: Decoder, folder: Path, runtime: Runtime) -> Decoder:
    """Return the frozen model of the folder: a policy's own weights without their adapters, or the folder's."""
    if lora.has_adapters(policy):
        reference = lora.without_adapters(policy)
        if is_prompt(folder):
            adapter_files.load_adapters(folder, reference)
        return runtime.inference_copy(reference)
    return runtime.to_inference(load_policy(folder, runtime)[0]).requires_grad_(False)


def load_frozen(folder: Path, tokenizer: Tokenizer, runtime: Runtime) -> Decoder:
    """Load a model that will not train. InputError unless `tokenizer` is its own."""
    model, own = load_policy(folder, runtime)
    require_same_tokenizer(tokenizer, own, folder)
    return runtime.to_inference(model).requires_grad_(False)


def add_adapters(
    model: Decoder | ScalarModel,
    options: lora.LoraOptions,
    seed: int,
    folder: Path,
    runtime: Runtime,
    frozen_layers: int = 0,
    new_tokens: int = 0,
    virtual_tokens: VirtualTokens | None = None,
) -> None:
    """Freeze the embeddings and the lowest layers, and with a rank all weights but adapters above, drawn by the seed;
    with virtual tokens all weights but theirs.

    In a bf16 run with adapters the frozen matrices are stored in bf16, in which their products are; `save_model` reads
    them again. InputError for tokens whose embeddings nothing would train, and for a model with virtual tokens where
    other weights would train.
    """
    adapted = bool(options.rank or virtual_tokens)
    if (adapted or frozen_layers) and new_tokens:
        why = "adapters do not train" if adapted else "are frozen"
        problem = f"the chat template adds {new_tokens} tokens, whose embeddings {why}"
        raise InputError(problem, folder, "train all weights, or start from a chat model")
    if (count := lora.decoder_of(model).num_virtual_tokens) and not (virtual_tokens and is_prompt(folder)):
        option = prompt_tuning.virtual_tokens_of(lora.decoder_of(model)).option
        hint = f"train them alone, with {option}, or name the model that they are for"
        hint = hint if is_prompt(folder) else "name a model without any"
        raise InputError(f"has {count} virtual tokens, which other weights cannot be trained with", folder, hint)
    freeze(model, frozen_layers)
    lora.add_adapters(model, options, derive_seed(seed, "adapters"), str(folder), lowest=frozen_layers)
    if virtual_tokens:
        prompt_tuning.add_prompt(model, virtual_tokens, derive_seed(seed, "adapters"), str(folder))
    if adapted and runtime.bf16:
        cast_layers(model, torch.bfloat16)


def save_model(
    folder: Path,
    model: Decoder | ScalarModel,
    tokenizer: Tokenizer,
    dtype: SaveDtype = "source",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a model folder in the published format, with a tokenizer, and reference logits for `amenable verify`; of a
    model with virtual tokens a folder of these alone, as peft's files. Adapters are of no use without the embeddings of
    a classifier's new tokens: it has them merged alone, and below virtual tokens a base of its own, in BASE_FOLDER.

    bos, eos and pad ids in config.json are those of the folder that the model was loaded from, if any, and so is the
    dtype `source`; a new model's is float32. Half precision rounds the weights of `model` itself, so that the reference
    logits are those of the saved weights. Of several processes the first writes: weights that they divide a tensor at a
    time, with adapters from a whole copy. InputError for weights that float16 cannot hold.
    """
    if lora.has_adapters(model) or lora.decoder_of(model).new_embeddings is not None:
        model = whole(model)
    decoder = model.decoder if isinstance(model, ScalarModel) else model
    scalar = decoder is not model
    merge_new_tokens(decoder)
    if isinstance(model, Classifier):
        model.drop_unembedding()
    tokenizer = tokenizer.with_padding() if scalar else tokenizer
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    if decoder.origin is not None:
        original = {name: decoder.origin.get(f"{name}_token_id") for name in ids}
        ids = original | ({"pad": tokenizer.pad_id} if scalar else {})
    if decoder.virtual_tokens is not None:
        restore_matrices(decoder)
        if isinstance(model, Classifier):
            below = sharing_copy(model)
            below.decoder.set_virtual_tokens(None)
            save_model(folder / BASE_FOLDER, below, tokenizer, dtype, max_shard_bytes)
            decoder.adapter_base = str(folder / BASE_FOLDER)
        if is_first():
            with disk_errors(folder):
                tokenizer.save(folder)
                adapter_files.save_adapters(folder, model)
                reference_logits.save(folder, model)
        return
    if lora.adapters(model):
        if is_first() and not isinstance(model, Classifier):
            with disk_errors(folder):
                adapter_files.save_adapters(folder / ADAPTER_FOLDER, model)
                tokenizer.save(folder / ADAPTER_FOLDER)
        restore_matrices(decoder)
        lora.merge_adapters(model)
    saved = pretrained.stored_dtype(decoder) if dtype == "source" else getattr(torch, dtype)
    round_weights(model, saved)
    if not is_first() and not is_sharded(model):
        return
    with disk_errors(folder):
        if is_first():
            tokenizer.save(folder)
        reference_logits.save(folder, model)
        pretrained.save(
            folder,
            model,
            bos_id=ids["bos"],
            eos_id=ids["eos"],
            pad_id=ids["pad"],
            generation=tokenizer.generation_config,
            dtype=saved,
            max_shard_bytes=max_shard_bytes,
        )


def restore_matrices(decoder: Decoder) -> None:
    """Read the matrices again that a bf16 run has rounded, from the folder that adapters are on."""
    layers = [linear for linear in linear_layers(decoder).values() if linear.weight.dtype != torch.float32]
    if not layers:
        return
    whole = pretrained.load_body(Path(decoder.adapter_base), decoder.token_embedding.weight.device)
    originals = {name: module for name, module in whole.named_modules() if isinstance(module, torch.nn.Linear)}
    for name, module in decoder.named_modules():
        if module in layers:
            original = originals[name.removesuffix(".base")]
            module.weight, module.bias = original.weight, original.bias


def require_base(decoder: Decoder) -> None:
    """Raise InputError for a decoder with virtual tokens whose weights are no longer those of the folder that they are
    for: it is saved without them."""
    if decoder.virtual_tokens is None:
        return
    stored = dict(pretrained.load_decoder(Path(decoder.adapter_base), decoder.unembedding.device).named_parameters())
    ours = lora.without_adapters(decoder).named_parameters()
    if any(name not in stored or not torch.equal(weight, stored[name]) for name, weight in ours):
        problem = "other weights than its virtual tokens have changed, and virtual tokens alone are saved"
        raise InputError(problem, decoder.adapter_base, "train these alone, or a model without any")


@torch.no_grad()
def round_weights(model: Decoder | ScalarModel, dtype: torch.dtype) -> None:
    """Round every parameter to the values of `dtype` as its file has it, keeping its own dtype. InputError, with none
    rounded, for numbers beyond those of `dtype`."""
    for name, largest in largest_numbers(model).items():
        if largest > torch.finfo(dtype).max:
            problem = f"{name} holds {largest:,.0f}, and {str(dtype).removeprefix('torch.')} holds no number above"
            hint = "repeat the command with --save-dtype bfloat16, or float32"
            raise InputError(f"{problem} {torch.finfo(dtype).max:,.0f}", how=hint)
    decoder = model.decoder if isinstance(model, ScalarModel) else model
    offsets = {id(decoder.get_parameter(entry.ours)): entry.offset for entry in parameters_of(decoder)}
    for parameter in model.parameters():
        if parameter.dtype != dtype:
            offset, own = offsets.get(id(parameter), 0.0), local_part(parameter)  # files hold the number without it
            own.copy_((own - offset).to(dtype).float() + offset)


def largest_numbers(model: Decoder | ScalarModel) -> dict[str, float]:
    """Return the largest magnitude in each weight by the names of its files; by our names where processes divide
    them."""
    divided = is_sharded(model)
    weights = dict(model.named_parameters()) if divided else weights_by_published_name(model)
    largest = {name: largest_of(local_part(weight.detach())) for name, weight in weights.items()}
    every = processes.gather(largest) if divided else [largest]
    return {name: max(own[name] for own in every) for name in largest}


def largest_of(weight: torch.Tensor) -> float:
    """Return the largest magnitude in a tensor; 0 in an empty one."""
    return max(float(weight.amax()), -float(weight.amin())) if weight.numel() else 0.0


def weights_by_published_name(model: Decoder | ScalarModel) -> dict[str, torch.Tensor]:
    """Return the weights of a decoder, or of one with a head, by the names of its files."""
    decoder = model.decoder if isinstance(model, ScalarModel) else model
    head = (
        {"score.weight": model.score.weight, "score.bias": model.score.bias} if isinstance(model, ScalarModel) else {}
    )
    return {**published_tensors(decoder, model_type_of(decoder.config, decoder.origin)), **head}


def require_model(folder: Path, made_by: str) -> None:
    """Raise InputError for a folder without a model, or of a run that has not finished."""
    if not folder.exists():
        hint = hint_for(folder) or f"make it with '{made_by}', or name another"
        raise InputError("no such model folder", folder, hint)
    unfinished = (folder / "config.yaml").exists() and not (folder / "finished.json").exists()
    if unfinished:
        raise InputError("holds no model yet: its run has not finished", folder, "repeat its command first")
    if not (base_folder(folder) / "config.json").exists():
        raise InputError("holds no model", folder, f"'{made_by}' makes one")


def fit_vocabulary(decoder: Decoder, tokenizer: Tokenizer, folder: Path) -> Decoder:
    """Add rows to the model's vocabulary for special tokens that the tokenizer has gained, up to a multiple of
    VOCABULARY_MULTIPLE; rows beyond the tokenizer's tokens are padding. InputError for a tokenizer of another model."""
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
    """Raise InputError, naming the folder of `theirs`, unless both tokenizers have the same vocabulary."""
    if ours.fingerprint != theirs.fingerprint:
        raise InputError("has another tokenizer than the policy", folder, "train both from the same base model")
