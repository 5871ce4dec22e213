"""Save and load models in the published format: safetensors weights and config.json, as transformers and vLLM read.

    language models: the class of their family in models/families/, such as LlamaForCausalLM
    reward models and critics: its ...ForSequenceClassification, one label, weight `score.weight`
    classifiers: the same, a row of `score.weight` for each label

transformers gives a sequence classifier's head no bias; that of one label is `score_bias` in config.json, and
transformers' scores differ by that constant. Dropout is written, and read as 0. Weights are loaded as fp32. Nothing is
ever unpickled.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from amenable.errors import InputError
from amenable.files import write_text
from amenable.model_folder import ADAPTER_CONFIG, base_folder, count_virtual_tokens, is_adapter, parent_folder
from amenable.models import adapter_files, lora
from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder, normal
from amenable.models.family import family
from amenable.models.heads import Classifier, ScalarModel
from amenable.models.hf_config import (
    CONFIG,
    decoder_config,
    is_classifier,
    model_type_of,
    published_config,
    read_json_object,
    training_dropout,
)
from amenable.models.hf_weights import (
    VALUE_BIAS,
    VALUE_WEIGHT,
    Weights,
    gather_by_name,
    load_weights,
    published_tensors,
)
from amenable.models.inference import sharing_copy
from amenable.models.ngram.tables import CONTEXT, is_ngram
from amenable.models.sharding import is_sharded
from amenable.models.tensor_files import MAX_SHARD_BYTES, write_weights
from amenable.ranks import is_first

GENERATION = "generation_config.json"
DROPOUTS = ("embd_pdrop", "resid_pdrop", "hidden_dropout")


def save(
    folder: Path | str,
    model: Decoder | ScalarModel,
    *,
    eos_id: int | list[int] | None = None,
    pad_id: int | None = None,
    bos_id: int | None = None,
    generation: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a model folder for transformers' AutoModelForCausalLM or AutoModelForSequenceClassification.

    Each file is written atomically, config.json last. A sequence classifier needs `pad_id`: transformers reads the
    score at the last token that is not padding. generation: contents of generation_config.json, if more than these ids.
    Weights are written in `dtype`, or in their own, in several files above `max_shard_bytes`. Further fields of the
    config.json that the model was loaded from stay. Where several processes divide the weights each has to call this:
    the first writes, a tensor at a time. InputError for a configuration that no published architecture has.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    decoder = model.decoder if isinstance(model, ScalarModel) else model
    model_type = model_type_of(decoder.config, decoder.origin)
    tokens = {"bos_token_id": bos_id, "eos_token_id": eos_id, "pad_token_id": pad_id}
    dtype = decoder.token_embedding.weight.dtype if dtype is None else dtype
    fields = with_origin(published_config(decoder.config, model_type), decoder, folder / CONFIG)
    fields |= {name: ids for name, ids in tokens.items() if name in fields or ids is not None or decoder.origin is None}
    fields = with_dtype(fields, dtype)
    divided = is_sharded(decoder)
    tensors, read = gather_by_name(decoder, model_type) if divided else (published_tensors(decoder, model_type), None)
    if isinstance(model, ScalarModel):
        tensors["score.weight"] = model.score.weight.detach()
        fields |= {"architectures": [family(model_type).CLASSIFIER], **label_fields(model)}
    write_weights(folder, tensors, dtype, max_shard_bytes, read)
    if divided and not is_first():
        return
    if not isinstance(model, ScalarModel):
        write_json(folder / GENERATION, tokens if generation is None else generation)
    write_json(folder / CONFIG, fields)


def label_fields(model: ScalarModel) -> dict[str, Any]:
    """Return the fields of config.json on a model's labels."""
    labels = model.labels if isinstance(model, Classifier) else ("score",)
    fields: dict[str, Any] = {"id2label": {str(i): label for i, label in enumerate(labels)}}
    fields["label2id"] = {label: i for i, label in enumerate(labels)}
    if len(labels) > 1:
        return {**fields, "problem_type": "single_label_classification"}
    return {**fields, "problem_type": "regression", "score_bias": model.score.bias.item()}


def with_dtype(fields: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Return config.json's fields with the dtype of the weights."""
    return {**fields, "torch_dtype" if "torch_dtype" in fields else "dtype": str(dtype).removeprefix("torch.")}


def stored_dtype(decoder: Decoder) -> torch.dtype:
    """Return the dtype of the files that a decoder was loaded from; float32 for a new one."""
    fields = decoder.origin or {}
    name = fields.get("torch_dtype", fields.get("dtype"))
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(str(name), torch.float32)


def with_origin(fields: dict[str, Any], decoder: Decoder, where: Path) -> dict[str, Any]:
    """Merge config.json's fields into those that the decoder was loaded from, if these still describe it."""
    if decoder.origin is None:
        return fields
    config = decoder.config
    may_change = ("vocab_size", "tie_embeddings", "dropout")
    original = decoder_config(decoder.origin, where)
    if replace(original, **{name: getattr(config, name) for name in may_change}) != config:
        return fields
    ours = ("architectures", "vocab_size", "tie_word_embeddings") + DROPOUTS * (decoder.config.dropout > 0)
    return {**decoder.origin, **{name: fields[name] for name in ours if name in fields}}


def load_decoder(folder: Path | str, device: torch.device | str = "cpu", dropout: float = 0.0) -> Decoder:
    """Load a language model from a folder, in fp32. Raises InputError for missing, torn or inconsistent files."""
    if is_adapter(Path(folder)):
        if is_reward_folder(Path(folder)):
            raise InputError("holds a reward model, not a language model", folder)
        decoder = load_decoder(parent_folder(Path(folder)), device, dropout)
        adapter_files.load_adapters(Path(folder), decoder)
        lora.merge_adapters(decoder)
        return decoder.requires_grad_(True)
    folder = Path(folder)
    fields = read_json_object(folder / CONFIG)
    if is_classifier(fields):
        raise InputError("holds a reward model, not a language model", folder)
    refuse_ngram(folder)
    decoder = Decoder(replace(decoder_config(fields, folder / CONFIG), dropout=dropout), device="meta")
    with Weights(folder, device) as weights:
        load_weights(decoder, weights, fields["model_type"])
        decoder.origin = with_dtype(fields, weights.dtype)
    return decoder


def load_body(folder: Path, device: torch.device | str = "cpu") -> Decoder:
    """Load the decoder of any model: a language model, a reward model or a classifier. Errors are those of
    `load_decoder`."""
    if not is_reward_folder(folder):
        return load_decoder(folder, device)
    has_own_head = is_adapter(folder) and not is_reward_folder(parent_folder(folder))
    return load_scalar(folder, device).decoder if has_own_head else load_classifier(folder, device).decoder


def load_scalar(
    folder: Path | str, device: torch.device | str = "cpu", dropout: float = 0.0, label: str | None = None
) -> ScalarModel:
    """Load a reward model or critic from a folder, in fp32. Of a classifier with several labels the scalar is the
    logit of `label`; of a language model with TRL's value head it is the value. Raises InputError as `load_decoder`
    does, and for a label that config.json does not name."""
    if is_adapter(Path(folder)):
        return load_scalar_adapter(Path(folder), label, device)
    folder = Path(folder)
    fields = read_json_object(folder / CONFIG)
    config = replace(decoder_config(fields, folder / CONFIG), dropout=dropout, tie_embeddings=True)
    with Weights(folder, device) as weights:
        head = read_head(fields, weights, label, config.hidden_size)
        return fill(ScalarModel(Decoder(config, device="meta")), head, weights, fields).to(device)


def load_classifier(folder: Path | str, device: torch.device | str = "cpu") -> Classifier:
    """Load a sequence classifier with all of its labels from a folder, in fp32; errors are those of `load_decoder`."""
    folder = Path(folder)
    if is_adapter(folder):
        model = load_classifier(parent_folder(folder), device)
        adapter_files.load_adapters(folder, model)
        lora.merge_adapters(model)
        return model.requires_grad_(True)
    fields = read_json_object(folder / CONFIG)
    if not is_classifier(fields):
        raise InputError("holds no classifier", folder, "'amenable classify' makes one")
    config, names = replace(decoder_config(fields, folder / CONFIG), tie_embeddings=True), label_names(fields)
    with Weights(folder, device) as weights:
        score = weights.take("score.weight", (len(names), config.hidden_size))
        head = score, torch.full((len(names),), float(fields.get("score_bias", 0.0)))
        return fill(Classifier(Decoder(config, device="meta"), names), head, weights, fields).to(device)


S = TypeVar("S", bound=ScalarModel)


def fill(model: S, head: tuple[Tensor, Tensor], weights: Weights, fields: Mapping[str, Any]) -> S:
    """Load the weights of a folder, and weight and bias of the head, into a model on the meta device."""
    load_weights(model.decoder, weights, fields["model_type"])
    model.decoder.origin = with_dtype(fields, weights.dtype)
    model.score.load_state_dict({"weight": head[0], "bias": head[1]}, assign=True)
    return model


def read_head(fields: Mapping[str, Any], weights: Weights, label: str | None, width: int) -> tuple[Tensor, Tensor]:
    """Read the weight [1, D] and bias [1] of a classifier's `label`, or of a value head."""
    if is_classifier(fields):
        row, count = label_row(fields, label, weights.folder)
        score = weights.take("score.weight", (count, width))[row : row + 1].clone()
        return score, torch.tensor([float(fields.get("score_bias", 0.0))])
    if VALUE_WEIGHT not in weights.tensors:
        raise InputError("holds a language model, not a reward model", weights.folder, "'amenable reward' makes one")
    if label is not None:
        raise InputError("has a value head, and no labels", weights.folder, "name the folder alone")
    return weights.take(VALUE_WEIGHT, (1, width)), weights.take(VALUE_BIAS, (1,))


def load_scalar_adapter(folder: Path, label: str | None, device: torch.device | str) -> ScalarModel:
    """Load a reward model from an adapter: on a reward model, or on a language model with the adapter's own head."""
    base = parent_folder(folder)
    if is_reward_folder(base):
        model = load_scalar(base, device, label=label)
    elif not is_reward_folder(folder):
        raise InputError("holds a language model, not a reward model", folder, "'amenable reward' makes one")
    else:
        model = ScalarModel.from_decoder(load_decoder(base, device))
    adapter_files.load_adapters(folder, model)
    lora.merge_adapters(model)
    return model.requires_grad_(True)


def decoder_on(base: Decoder, adapter: Path) -> Decoder:
    """Return the language model of an adapter on the weights of `base`, which are shared."""
    decoder = sharing_copy(base)
    adapter_files.load_adapters(adapter, decoder)
    return decoder.requires_grad_(False).eval()


def scalar_on(base: Decoder, folder: Path, adapter: Path) -> ScalarModel | None:
    """Return the reward model of a folder as its adapter and head on the weights of `base`, which are shared.

    None where the folder's own head is not the adapter's: then they are of different runs.
    """
    model = ScalarModel.from_decoder(sharing_copy(base))
    adapter_files.load_adapters(adapter, model)
    if folder != adapter:
        fields = read_json_object(folder / CONFIG)
        with Weights(folder) as weights, torch.no_grad():
            head = weights.take("score.weight", (1, base.config.hidden_size))
            ours = model.score.weight.cpu()
            if not any(torch.equal(head, ours.to(dtype).float()) for dtype in (torch.float32, torch.bfloat16)):
                return None
            model.score.bias.fill_(float(fields.get("score_bias", 0.0)))
    return model.requires_grad_(False).eval()


def is_reward_folder(folder: Path) -> bool:
    """Return True for the folder of a reward model: a sequence classifier, or an adapter of one."""
    if is_adapter(folder):
        fields = read_json_object(folder / ADAPTER_CONFIG)
        return fields.get("task_type") == "SEQ_CLS" or is_reward_folder(parent_folder(folder))
    return is_classifier(read_json_object(folder / CONFIG))


def label_row(fields: Mapping[str, Any], label: str | None, folder: Path) -> tuple[int, int]:
    """Return a label's row in a classifier's head, and the number of rows. Without a label the head has one row."""
    if label is None and len(dict(fields.get("id2label") or {})) <= 1:
        return 0, 1
    names = label_names(fields)
    return label_index(names, label, folder), len(names)


def label_index(names: Sequence[str], label: str | None, folder: Path) -> int:
    """Return the number of a label among the names of a classifier's; of a single one without a name 0. InputError for
    an unknown label, with the nearest, and for none among several."""
    if label is None and len(names) == 1:
        return 0
    if label not in names:
        problem = f"has {len(names)} labels" if label is None else f"has no label '{label}'"
        near = difflib.get_close_matches(label or "", names, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise InputError(problem, folder, f"{hint}name one as {folder}:LABEL; its labels are {', '.join(names)}")
    return names.index(label)


def label_names(fields: Mapping[str, Any]) -> list[str]:
    """Return the names of a classifier's labels, in the order of its head's rows."""
    names = [str(name) for _, name in sorted(dict(fields.get("id2label") or {}).items(), key=lambda item: int(item[0]))]
    return names or ["LABEL_0", "LABEL_1"]  # transformers writes no names where they are these


def refuse_ngram(folder: Path) -> None:
    """Raise InputError for an n-gram model where a transformer is needed."""
    if is_ngram(folder):
        hint = "name a transformer's folder; sample, evaluate, chat and serve take n-gram models"
        raise InputError("holds an n-gram model, which is counted, not trained", folder, hint)


def read_context(folder: Path) -> int:
    """Read the context of any language model: the most tokens of a row."""
    return CONTEXT if is_ngram(folder) else read_config(folder).context_length


def read_config(folder: Path | str) -> DecoderConfig:
    """Read the configuration of a saved model, with dropout 0. Its context is what virtual tokens leave."""
    refuse_ngram(Path(folder))
    path = base_folder(Path(folder)) / CONFIG
    config = decoder_config(read_json_object(path), path)
    virtual = count_virtual_tokens(Path(folder))
    return replace(config, context_length=config.context_length - virtual) if virtual else config


def read_dropout(folder: Path | str) -> float:
    """Read the training dropout in a saved model's config.json."""
    path = base_folder(Path(folder)) / CONFIG
    return training_dropout(read_json_object(path), path)


def read_temperature(folder: Path | str) -> float | None:
    """Read the sampling temperature in a saved model's generation_config.json; None if absent or greedy."""
    path = base_folder(Path(folder)) / GENERATION
    fields = read_json_object(path) if path.exists() else {}
    value = fields.get("temperature")
    if not value or fields.get("do_sample") is False:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise InputError(f"temperature is {value!r}", path, "it must be 0 or more")
    return float(value)


def resize_vocabulary(decoder: Decoder, vocab_size: int, generator: torch.Generator) -> Decoder:
    """Resize a decoder's vocabulary in place. New rows are the mean row plus N(0, 0.02): a new token starts neither
    likely nor unlikely. Rows beyond `vocab_size` are dropped."""
    matrices = [decoder.token_embedding] + ([decoder.output] if decoder.output is not None else [])
    for module in matrices:
        old = module.weight.detach()
        added = max(vocab_size - old.shape[0], 0)
        noise = normal(torch.Size([added, old.shape[1]]), 0.02, generator).to(old)
        rows = with_rows(old, vocab_size)
        rows[len(old) :] = old.mean(0) + noise
        module.weight = nn.Parameter(rows, requires_grad=module.weight.requires_grad)
    decoder.token_embedding.num_embeddings = vocab_size
    if decoder.output is not None:
        decoder.output.out_features = vocab_size
    decoder.config, decoder.num_tokens = replace(decoder.config, vocab_size=vocab_size), vocab_size
    return decoder


def with_rows(matrix: Tensor, count: int) -> Tensor:
    """Return a matrix with `count` rows, the first of them its own: in its memory if that has room for them."""
    width = matrix.shape[1]
    room = matrix.untyped_storage().nbytes() // (matrix.element_size() * width)
    if matrix.is_contiguous() and matrix.storage_offset() == 0 and count <= room:
        return matrix.as_strided((count, width), (width, 1))
    return torch.cat([matrix[:count], matrix.new_empty(max(count - len(matrix), 0), width)])


def write_json(path: Path, fields: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(fields, indent=2) + "\n")
