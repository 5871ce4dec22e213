"""Token cache: the documents of a source as ids, in arrays (`array_cache.py`).

ids           ids of all documents, one after another: uint16, or uint32 for more than 65,536 tokens
ends          int64, the end of each document in ids
byte_counts   int64, the bytes of each document's text
keys          uint64, a hash of each document's text
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from amenable.data import sources
from amenable.data.lazy import Array
from amenable.data.sharded_array import ShardedArray
from amenable.data.types import Text
from amenable.text.bulk import BulkEncoder, id_type
from amenable.text.tokenizer import Tokenizer
from amenable.train.array_cache import read_arrays, tokenizer_key
from amenable.train.array_folder import ArrayFiles, Conversion
from amenable.train.examples import RejectedRows
from amenable.train.log import Progress, silent

VERSION = 2


@dataclass(frozen=True)
class TokenizedTexts:
    """D documents of a source as ids, N in all."""

    ids: Array | ShardedArray
    """[N] ids of all documents, one after another"""
    ends: Array
    """[D] end of each document in ids"""
    byte_counts: Array
    """[D] bytes of each document's text"""
    keys: Array
    """[D] hash of each document's text: equal texts have one key"""

    def starts(self, documents: Array) -> Array:
        """Return the start of some documents in ids. documents: their numbers."""
        return np.where(documents > 0, self.ends[documents - 1], 0)


class Writer:
    """Encodes texts as they are read."""

    def __init__(self, tokenizer: Tokenizer):
        self.encoder = BulkEncoder(tokenizer)
        self.end = 0

    def add(self, text: Text, files: ArrayFiles) -> int:
        """Write a document."""
        content = text.text.encode()
        ids = self.encoder.encode_document(text.text)
        self.end += len(ids) // self.encoder.item_size
        files.write("ids", ids)
        files.write_int("ends", self.end)
        files.write_int("byte_counts", len(content))
        files.write("keys", hashlib.blake2b(content, digest_size=8).digest())
        return len(content)


def conversion(tokenizer: Tokenizer) -> Conversion:
    """Return how texts become arrays."""
    types = {"ids": id_type(tokenizer.vocab_size), "ends": "int64", "byte_counts": "int64", "keys": "uint64"}
    key = ["texts", VERSION, tokenizer_key(tokenizer), tokenizer.eos_id]
    return Conversion(
        sources.read_texts, partial(Writer, tokenizer), types, sources.NOUNS["text"], key, counted={"ends": "ids"}
    )


def read_texts(
    path: Path,
    tokenizer: Tokenizer,
    rejected: RejectedRows | None = None,
    progress: Progress = silent,
    columns: Sequence[str] = (),
) -> TokenizedTexts:
    """Return the documents of a source, tokenized now or before. InputErrors are those of `read_arrays`."""
    return TokenizedTexts(**read_arrays(path, conversion(tokenizer), rejected, progress, columns))
