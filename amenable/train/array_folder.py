"""A folder of arrays, written once while rows are read, and memory maps after that.

    NAME.bin          an array, in the machine's order of bytes
    arrays.json       hash of each array, rejected rows and columns used

It appears whole or not at all. One that is torn or altered is not opened.
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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import numpy as np

from amenable.data.lazy import Array
from amenable.data.readers import Source
from amenable.data.record import Usage
from amenable.data.sources import Loaded, Rejected
from amenable.data.urls import state_of
from amenable.errors import InputError
from amenable.files import disk_errors, sync_file, sync_folder, write_text
from amenable.hash_cache import cached_sha256
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
    flat: Sequence[str] = ("ids",)
    """arrays that are read by slices alone, so that those of several shards need not be joined"""
    counted: Mapping[str, str] = field(default_factory=dict)
    """array of ends -> the array in which they are ends"""
    whole: bool = False
    """True where rows of different files are checked against each other: then all files are one shard"""


def convert(
    path: Source, conversion: Conversion, files: ArrayFiles, size: int, progress: Progress, columns: Sequence[str]
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


def build(
    folder: Path,
    files: Sequence[Path],
    conversion: Conversion,
    progress: Progress = silent,
    columns: Sequence[str] = (),
) -> None:
    """Write the arrays of some files into a folder. InputError for files that change while they are read."""
    before = [state_of(file) for file in files]

    def write(arrays: ArrayFiles) -> dict[str, Any]:
        loaded = convert(files, conversion, arrays, sum(state["bytes"] for state in before), progress, columns)
        if [state_of(file) for file in files] != before:
            source = files[0].parent if len(files) > 1 else files[0]
            raise InputError("has changed while it was read", source, "repeat the command once it is whole")
        return facts_of(loaded)

    write_arrays(folder, conversion.types, write)


def write_arrays(folder: Path, names: Sequence[str] | Mapping[str, str], write: Callable[[ArrayFiles], dict]) -> None:
    """Write a folder, which appears whole or not at all, and remove what a killed process left of it.

    write: appends to the arrays, and returns what stands beside their hashes.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.writing")
    try:
        with disk_errors(folder, "make room there, or set AMENABLE_CACHE to a folder on another disk"):
            for left in folder.parent.glob(f".{folder.name}.*.writing"):
                shutil.rmtree(left, ignore_errors=True)
            temporary.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                outputs = {name: stack.enter_context((temporary / f"{name}.bin").open("wb")) for name in names}
                arrays = ArrayFiles(outputs)
                facts = write(arrays)
            for name in names:
                sync_file(temporary / f"{name}.bin")
            hashes = {name: digest.hexdigest() for name, digest in arrays.digests.items()}
            write_text(temporary / FACTS, json.dumps({"sha256": hashes, **facts}))
            if not folder.exists():
                temporary.rename(folder)
                sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_facts(folder: Path, names: Sequence[str] | Mapping[str, str]) -> dict[str, Any] | None:
    """Return what a folder says of its arrays; None if it is missing, torn or altered."""
    try:
        facts = json.loads((folder / FACTS).read_text("utf-8"))
        whole = all(cached_sha256(folder / f"{name}.bin") == facts["sha256"][name] for name in names)
        return dict(facts) if whole else None
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


def loaded_of(facts: Mapping[str, Any], files: Sequence[Path], noun: str) -> Loaded[None]:
    """Return how some files were read, from `facts_of`, with nothing in the place of each row.

    files: their paths now, in the order in which they were read.
    """
    paths = dict(zip(facts["files"], map(str, files)))
    types: dict[type, Callable[[Any], Any]] = {dict: Counter, list: set}
    usages = list[Usage]()
    for usage in facts["columns"]:
        plain = {name: types.get(type(value), lambda same: same)(value) for name, value in usage.items()}
        usages.append(Usage(**{**plain, "file": paths[usage["file"]]}))
    rejected, left_out = (
        [Rejected(**{**row, "file": paths[row["file"]]}) for row in facts[name]] for name in ("rejected", "left_out")
    )
    return Loaded([None] * facts["count"], rejected, tuple(paths.values()), tuple(usages), noun, tuple(left_out))
