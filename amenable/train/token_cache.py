"""Token cache: the ids of a source's texts, written once as they are read, and memory maps from then on.

    CACHE/tokens/KEY/     KEY: of the files' contents, the columns' conventions and the tokenizer
        ids.bin           ids of all documents, one after another: uint16, or uint32 for more than 65,536 tokens
        ends.bin          int64, the end of each document in ids.bin
        byte_counts.bin   int64, the bytes of each document's text
        keys.bin          uint64, a hash of each document's text
        texts.json        type of ids, hash of each file above, rejected rows and columns used

CACHE is AMENABLE_CACHE, or ~/.cache/amenable. It can be removed at any time. A source that changes has another key; a
folder that is torn or altered is made anew; two runs that make the same folder do not disturb each other. Sources below
32 MiB are tokenized in memory at each start.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from amenable import hash_cache
from amenable.data import sources
from amenable.data.readers import list_files
from amenable.data.record import Usage
from amenable.data.sources import Loaded, Rejected
from amenable.data.types import Text
from amenable.errors import InputError
from amenable.files import disk_errors, sync_file, sync_folder, write_text
from amenable.hash_cache import cache_folder, cached_sha256
from amenable.text.bulk import BulkEncoder
from amenable.text.tokenizer import Tokenizer
from amenable.train.examples import RejectedRows, keep_usable
from amenable.train.log import Progress, silent

VERSION = 1
FACTS = "texts.json"
TYPES = {"ends": "int64", "byte_counts": "int64", "keys": "uint64"}
"""type of each array but ids"""


@dataclass(frozen=True)
class TokenizedTexts:
    """D documents of a source as ids, N in all."""

    ids: np.ndarray[Any, Any]
    """[N] ids of all documents, one after another"""
    ends: np.ndarray[Any, Any]
    """[D] end of each document in ids"""
    byte_counts: np.ndarray[Any, Any]
    """[D] bytes of each document's text"""
    keys: np.ndarray[Any, Any]
    """[D] hash of each document's text: equal texts have one key"""

    @property
    def starts(self) -> np.ndarray[Any, Any]:
        """[D] start of each document in ids."""
        return np.concatenate([[0], self.ends[:-1]])


class Writer:
    """Encodes texts as they are read, and writes them to a file an array."""

    def __init__(self, tokenizer: Tokenizer, files: Mapping[str, BinaryIO], total: int, progress: Progress = silent):
        """total: bytes of the source, for the progress."""
        self.encoder, self.files, self.total, self.progress = BulkEncoder(tokenizer), files, total, progress
        self.item_size = np.dtype(self.encoder.dtype).itemsize
        self.count = self.end = self.read = 0
        self.digests = {name: hashlib.sha256() for name in files}

    def add(self, text: Text) -> None:
        """Write a document."""
        content = text.text.encode()
        ids = self.encoder.encode_document(text.text)
        self.end += len(ids) // self.item_size
        self.write("ids", ids)
        self.write("ends", self.end.to_bytes(8, sys.byteorder))
        self.write("byte_counts", len(content).to_bytes(8, sys.byteorder))
        self.write("keys", hashlib.blake2b(content, digest_size=8).digest())
        self.count, self.read = self.count + 1, self.read + len(content)
        if self.count % 256 == 0:
            self.progress(min(self.read, self.total), self.total)

    def write(self, name: str, content: bytes) -> None:
        """Append to an array."""
        self.files[name].write(content)
        self.digests[name].update(content)


def read_texts(
    path: Path,
    tokenizer: Tokenizer,
    rejected: RejectedRows | None = None,
    progress: Progress = silent,
    columns: Sequence[str] = (),
) -> TokenizedTexts:
    """Return the documents of a source, tokenized now or before. InputError as `sources.read_texts`, for a source that
    changes while it is read, and for a cache without room."""
    read = partial(sources.read_texts, path, columns=columns)
    files = [file for file in list_files(path) if isinstance(file, Path)]
    size = sum(file.stat().st_size for file in files)
    if size < hash_cache.LARGE:
        return tokenize_in_memory(read, tokenizer, rejected, size, progress)
    folder = cache_folder() / "tokens" / key_of(files, tokenizer, columns)
    texts, loaded = open_texts(folder) or (None, None)
    if texts is None:
        if folder.exists():
            print(f"data  {folder} is torn or altered: tokenizes {path} anew", file=sys.stderr)
            shutil.rmtree(folder)
        else:
            print(f"data  tokenizes {path} ({size / 1e6:,.0f} MB) once, into {folder}", file=sys.stderr)
        build(folder, read, files, tokenizer, progress)
        texts, loaded = open_texts(folder) or (None, None)
    if texts is None or loaded is None:
        raise InputError("cannot be read again after it was written", folder, "check the disk")
    keep_usable(loaded, rejected)
    print(f"data  {path}: {len(texts.ids):,} tokens from {folder}", file=sys.stderr)
    return texts


def tokenize_in_memory(
    read: Callable[..., Loaded[Any]],
    tokenizer: Tokenizer,
    rejected: RejectedRows | None = None,
    size: int = 0,
    progress: Progress = silent,
) -> TokenizedTexts:
    """Return the documents of a source as arrays in memory."""
    buffers = {name: BytesIO() for name in ("ids", *TYPES)}
    writer = Writer(tokenizer, buffers, size, progress)
    loaded = read(convert=writer.add)
    progress(size, size)
    keep_usable(loaded, rejected)
    types = {"ids": writer.encoder.dtype, **TYPES}
    return TokenizedTexts(**{name: np.frombuffer(buffers[name].getbuffer(), types[name]) for name in buffers})


def key_of(files: list[Path], tokenizer: Tokenizer, columns: Sequence[str]) -> str:
    """Return the name of the folder for some files' contents, a mapping of columns and a tokenizer."""
    special = [tokenizer.fingerprint, tokenizer.opening_ids, tokenizer.eos_id]
    facts = [VERSION, sys.byteorder, special, list(columns), [(file.name, cached_sha256(file)) for file in files]]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


def build(
    folder: Path, read: Callable[..., Loaded[Any]], files: list[Path], tokenizer: Tokenizer, progress: Progress
) -> None:
    """Tokenize a source into a folder, which appears whole or not at all."""
    before = [hash_cache.file_state(file) for file in files]
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.writing")
    try:
        with disk_errors(folder, "make room there, or set AMENABLE_CACHE to a folder on another disk"):
            temporary.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                names = ("ids", *TYPES)
                outputs = {name: stack.enter_context((temporary / f"{name}.bin").open("wb")) for name in names}
                writer = Writer(tokenizer, outputs, sum(state["bytes"] for state in before), progress)
                loaded = read(convert=writer.add)
                progress(writer.total, writer.total)
            for name in names:
                sync_file(temporary / f"{name}.bin")
            if [hash_cache.file_state(file) for file in files] != before:
                source = files[0].parent if len(files) > 1 else files[0]
                raise InputError("has changed while it was read", source, "repeat the command once it is whole")
            hashes = {name: digest.hexdigest() for name, digest in writer.digests.items()}
            facts = {"dtype": writer.encoder.dtype, "count": writer.count, "sha256": hashes}
            write_text(temporary / FACTS, json.dumps({**facts, **facts_of(loaded)}))
            if not folder.exists():
                temporary.rename(folder)
                sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def open_texts(folder: Path) -> tuple[TokenizedTexts, Loaded[None]] | None:
    """Return the memory maps of a folder, and how its source was read; None if it is missing, torn or altered."""
    try:
        facts = json.loads((folder / FACTS).read_text("utf-8"))
        types = {"ids": facts["dtype"], **TYPES}
        files = {name: folder / f"{name}.bin" for name in types}
        if any(cached_sha256(file) != facts["sha256"][name] for name, file in files.items()):
            return None
        arrays = {name: np.memmap(file, types[name], "r") for name, file in files.items()}
        return TokenizedTexts(**arrays), loaded_of(facts)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def facts_of(loaded: Loaded[None]) -> dict[str, Any]:
    """Return how a source was read, without its rows, as values of JSON."""
    usages = [
        {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(usage).items()}
        for usage in loaded.columns
    ]
    return {"files": loaded.files, "rejected": [asdict(row) for row in loaded.rejected], "columns": usages}


def loaded_of(facts: Mapping[str, Any]) -> Loaded[None]:
    """Return how a source was read, from `facts_of`, with nothing in the place of each row."""
    usages = []
    for row in facts["columns"]:
        values: dict[str, Any] = {
            key: Counter(value) if isinstance(value, dict) else value for key, value in row.items()
        }
        usages.append(Usage(**values))
    rejected = [Rejected(**row) for row in facts["rejected"]]
    return Loaded([None] * facts["count"], rejected, tuple(facts["files"]), tuple(usages), sources.NOUNS["text"])
