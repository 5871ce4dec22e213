"""Array cache: the arrays that a source's rows become, written once while they are read, and memory maps after that.

    CACHE/tokens/KEY/     KEY: of the files' contents, the columns' conventions, the tokenizer, and what is made of them
        NAME.bin          an array, in the machine's order of bytes
        arrays.json       type and hash of each array, rejected rows and columns used

CACHE is AMENABLE_CACHE, or ~/.cache/amenable. It can be removed at any time. A source that changes has another key; a
folder that is torn or altered is made anew; two runs that make the same folder do not disturb each other. Sources below
32 MiB become arrays in memory at each start.
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
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import numpy as np

import amenable
from amenable import hash_cache
from amenable.data.lazy import Array
from amenable.data.readers import list_files
from amenable.data.record import Usage
from amenable.data.sources import Loaded, Rejected
from amenable.errors import InputError
from amenable.files import disk_errors, sync_file, sync_folder, write_text
from amenable.hash_cache import cache_folder, cached_sha256
from amenable.text.tokenizer import Tokenizer
from amenable.train.examples import RejectedRows, keep_usable
from amenable.train.log import Progress, silent

T_contra = TypeVar("T_contra", contravariant=True)
FACTS = "arrays.json"


class ArrayFiles:
    """Files that arrays are appended to, with a hash of each."""

    def __init__(self, files: Mapping[str, BinaryIO]):
        self.files = files
        self.digests = {name: hashlib.sha256() for name in files}

    def write(self, name: str, content: bytes) -> None:
        """Append to an array."""
        self.files[name].write(content)
        self.digests[name].update(content)

    def write_int(self, name: str, number: int) -> None:
        """Append to an array of type int64."""
        self.write(name, number.to_bytes(8, sys.byteorder, signed=True))


class Converter(Protocol[T_contra]):
    """Makes entries of arrays from examples."""

    def add(self, example: T_contra, files: ArrayFiles) -> int:
        """Append an example's entries; return the bytes that it takes in its source, about."""
        ...


@dataclass(frozen=True)
class Conversion:
    """Conversion of a source's rows into arrays: how they are read and written, and the arrays' types."""

    read: Callable[..., Loaded[Any]]
    """reads the examples of a path: a function of `data.sources`"""
    converter: Callable[[], Converter[Any]]
    """makes a converter, once a source is read"""
    types: Mapping[str, str]
    """type of each array, as numpy names it"""
    noun: str
    """plural of the examples"""
    key: Sequence[Any]
    """values of JSON that decide the arrays, beside the files and the columns' mapping"""


def tokenizer_key(tokenizer: Tokenizer) -> list[Any]:
    """Return what decides the ids of conversations and texts."""
    special = tokenizer.special_tokens_map
    return [tokenizer.fingerprint, tokenizer.opening_ids, tokenizer.stop_ids, special, tokenizer.chat_template]


def read_arrays(
    path: Path,
    conversion: Conversion,
    rejected: RejectedRows | None = None,
    progress: Progress = silent,
    columns: Sequence[str] = (),
) -> dict[str, Array]:
    """Return the arrays of a source, made now or before, by name. InputError as `conversion.read`, for a source that
    changes while it is read, and for a cache without room."""
    files = [file for file in list_files(path) if isinstance(file, Path)]
    size = sum(file.stat().st_size for file in files)
    if size < hash_cache.LARGE:
        return arrays_in_memory(path, conversion, rejected, progress, columns)
    folder = cache_folder() / "tokens" / key_of(files, conversion, columns)
    arrays, loaded = open_arrays(folder, conversion) or (None, None)
    if arrays is None:
        if folder.exists():
            print(f"data  {folder} is torn or altered: tokenizes {path} anew", file=sys.stderr)
            shutil.rmtree(folder)
        else:
            print(f"data  tokenizes {path} ({size / 1e6:,.0f} MB) once, into {folder}", file=sys.stderr)
        build(folder, path, conversion, files, progress, columns)
        arrays, loaded = open_arrays(folder, conversion) or (None, None)
    if arrays is None or loaded is None:
        raise InputError("cannot be read again after it was written", folder, "check the disk")
    keep_usable(loaded, rejected)
    print(f"data  {path}: {len(arrays['ids']):,} tokens from {folder}", file=sys.stderr)
    return arrays


def arrays_in_memory(
    path: Path,
    conversion: Conversion,
    rejected: RejectedRows | None = None,
    progress: Progress = silent,
    columns: Sequence[str] = (),
) -> dict[str, Array]:
    """Return the arrays of a source, in memory."""
    buffers = {name: BytesIO() for name in conversion.types}
    loaded = convert(path, conversion, ArrayFiles(buffers), 0, progress, columns)
    keep_usable(loaded, rejected)
    return {name: np.frombuffer(buffers[name].getbuffer(), kind) for name, kind in conversion.types.items()}


def convert(
    path: Path, conversion: Conversion, files: ArrayFiles, size: int, progress: Progress, columns: Sequence[str]
) -> Loaded[None]:
    """Write the arrays of a source while it is read. size: its bytes, for the progress."""
    converter, count, read = conversion.converter(), 0, 0

    def add(example: Any) -> None:
        nonlocal count, read
        read += converter.add(example, files)
        count += 1
        if count % 256 == 0:
            progress(min(read, size), size)

    loaded = conversion.read(path, columns=columns, convert=add)
    progress(size, size)
    return loaded


def key_of(files: list[Path], conversion: Conversion, columns: Sequence[str]) -> str:
    """Return the name of the folder of some files' arrays."""
    kinds = [amenable.__version__, sys.byteorder, dict(conversion.types), list(conversion.key)]
    facts = [*kinds, list(columns), [(file.name, cached_sha256(file)) for file in files]]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


def build(
    folder: Path,
    path: Path,
    conversion: Conversion,
    files: list[Path],
    progress: Progress = silent,
    columns: Sequence[str] = (),
) -> None:
    """Write the arrays of a source into a folder, which appears whole or not at all."""
    before = [hash_cache.file_state(file) for file in files]
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.writing")
    try:
        with disk_errors(folder, "make room there, or set AMENABLE_CACHE to a folder on another disk"):
            temporary.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                names = conversion.types
                outputs = {name: stack.enter_context((temporary / f"{name}.bin").open("wb")) for name in names}
                arrays = ArrayFiles(outputs)
                loaded = convert(path, conversion, arrays, sum(state["bytes"] for state in before), progress, columns)
            for name in names:
                sync_file(temporary / f"{name}.bin")
            if [hash_cache.file_state(file) for file in files] != before:
                source = files[0].parent if len(files) > 1 else files[0]
                raise InputError("has changed while it was read", source, "repeat the command once it is whole")
            hashes = {name: digest.hexdigest() for name, digest in arrays.digests.items()}
            write_text(temporary / FACTS, json.dumps({"sha256": hashes, **facts_of(loaded)}))
            if not folder.exists():
                temporary.rename(folder)
                sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def open_arrays(folder: Path, conversion: Conversion) -> tuple[dict[str, Array], Loaded[None]] | None:
    """Return the memory maps of a folder, and how its source was read; None if it is missing, torn or altered."""
    try:
        facts = json.loads((folder / FACTS).read_text("utf-8"))
        files = {name: folder / f"{name}.bin" for name in conversion.types}
        if any(cached_sha256(file) != facts["sha256"][name] for name, file in files.items()):
            return None
        return {name: map_file(file, conversion.types[name]) for name, file in files.items()}, loaded_of(
            facts, conversion
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def map_file(file: Path, kind: str) -> Array:
    """Return the memory map of an array; an empty file, which cannot be mapped, is an empty array."""
    return np.memmap(file, kind, "r") if file.stat().st_size else np.empty(0, kind)


def facts_of(loaded: Loaded[None]) -> dict[str, Any]:
    """Return how a source was read, without its rows, as values of JSON."""
    plain: dict[type, Callable[[Any], Any]] = {Counter: dict, set: sorted}
    usages = [
        {name: plain.get(type(value), lambda same: same)(value) for name, value in vars(usage).items()}
        for usage in loaded.columns
    ]
    rows = {name: [asdict(row) for row in getattr(loaded, name)] for name in ("rejected", "left_out")}
    return {"count": len(loaded.rows), "files": loaded.files, "columns": usages, **rows}


def loaded_of(facts: Mapping[str, Any], conversion: Conversion) -> Loaded[None]:
    """Return how a source was read, from `facts_of`, with nothing in the place of each row."""
    types: dict[type, Callable[[Any], Any]] = {dict: Counter, list: set}
    usages = [
        Usage(**{name: types.get(type(value), lambda same: same)(value) for name, value in usage.items()})
        for usage in facts["columns"]
    ]
    rejected, left_out = ([Rejected(**row) for row in facts[name]] for name in ("rejected", "left_out"))
    files, rows = tuple(facts["files"]), [None] * facts["count"]
    return Loaded(rows, rejected, files, tuple(usages), conversion.noun, tuple(left_out))
