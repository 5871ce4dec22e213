"""The tables of an n-gram model, and their folder.

    config.json         model_type "ngram", order, vocab_size, smoothing, and the context that programs may assume
    model.safetensors   keys.2 ..., logprobs.1 ..., backoffs.1 ...: numbers by order, as `counting.py` orders n-grams

Logarithms are natural, in float32.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from amenable.errors import InputError
from amenable.files import write_file, write_text
from amenable.model_folder import CONFIG
from amenable.models.tensor_files import WEIGHTS, write_tensors

MODEL_TYPE = "ngram"
CONTEXT = 1 << 15
"""tokens of a row: an n-gram model has no limit of its own, and programs ask for one"""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class NGramTables:
    """An n-gram model of order n over V tokens."""

    vocab_size: int
    """V"""
    keys: Sequence[Array]
    """[M] sorted keys of the orders 2 ... n: the row of the context in the order below, times V, plus the last token"""
    logprobs: Sequence[Array]
    """[M] log p(last token | the tokens before it), of the orders 1 ... n; order 1 has all V tokens"""
    backoffs: Sequence[Array]
    """[M] log back-off weights of the orders 1 ... n - 1"""
    to_uniform: bool = False
    """True if a context backs off to the uniform distribution (add-k), not to the shorter context"""

    @property
    def order(self) -> int:
        """n"""
        return len(self.logprobs)

    @property
    def sizes(self) -> list[int]:
        """Number of n-grams of each order."""
        return [len(column) for column in self.logprobs]


def save(folder: Path, tables: NGramTables, fields: Mapping[str, Any]) -> None:
    """Write a model's files, config.json last. fields: what else config.json says of it."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {f"keys.{i}": column for i, column in enumerate(tables.keys, 2)}
    names |= {f"logprobs.{i}": column for i, column in enumerate(tables.logprobs, 1)}
    names |= {f"backoffs.{i}": column for i, column in enumerate(tables.backoffs, 1)}
    tensors = {name: torch.from_numpy(column) for name, column in names.items()}
    write_file(folder / WEIGHTS, lambda path: write_tensors(path, tensors))
    shape: dict[str, Any] = {
        "order": tables.order,
        "vocab_size": tables.vocab_size,
        "backs_off_to_uniform": tables.to_uniform,
    }
    shape["num_ngrams"] = tables.sizes
    config = {"model_type": MODEL_TYPE, "max_position_embeddings": CONTEXT, **shape, **fields}
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def is_ngram(folder: Path) -> bool:
    """Return True for the folder of an n-gram model."""
    try:
        fields = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(fields, dict) and fields.get("model_type") == MODEL_TYPE


def count_ngrams(folder: Path) -> int:
    """Return the number of n-grams that config.json says a model has."""
    return sum(json.loads((folder / CONFIG).read_text("utf-8"))["num_ngrams"])


def load(folder: Path) -> NGramTables:
    """Read the tables of a folder as memory maps. InputError for files that are torn or do not belong together."""
    path = folder / WEIGHTS
    try:
        fields = json.loads((folder / CONFIG).read_text("utf-8"))
        order, size, to_uniform = int(fields["order"]), int(fields["vocab_size"]), fields["backs_off_to_uniform"]
        with safe_open(path, framework="pt") as file:
            keys = [file.get_tensor(f"keys.{i}").numpy() for i in range(2, order + 1)]
            logprobs = [file.get_tensor(f"logprobs.{i}").numpy() for i in range(1, order + 1)]
            backoffs = [file.get_tensor(f"backoffs.{i}").numpy() for i in range(1, order)]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"not a whole n-gram model ({error})", path, "count it again with 'amenable ngram'") from None
    tables = NGramTables(size, keys, logprobs, backoffs, bool(to_uniform))
    sizes = [len(column) for column in keys] != tables.sizes[1:] or [len(b) for b in backoffs] != tables.sizes[:-1]
    if sizes or tables.sizes[0] != size:
        raise InputError("tables of different lengths", path, "count it again with 'amenable ngram'")
    return tables
