"""Array cache: the arrays that a source's rows become, written once while they are read, and memory maps after that.

    CACHE/tokens/KEY/     arrays of a shard, a file or several (`array_folder.py`). KEY: of the files' contents, the
                          columns' conventions, the tokenizer, and what is made of them
    CACHE/tokens/KEY/     of a source of several shards, the arrays that are joined; the others stay in the shards
    CACHE/locks/KEY       lock of a folder that is being written

CACHE is AMENABLE_CACHE, or ~/.cache/amenable. It can be removed at any time. A file that changes has another key; a
folder that is torn or altered is made anew. A start after a stop makes the shards that are not there; processes that
start together make different ones, and have the same maps in the end, which the operating system holds once. Sources
below 32 MiB become arrays in memory at each start.
"""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

import amenable
from amenable import hash_cache
from amenable.data.lazy import Array
from amenable.data.readers import list_files
from amenable.data.sharded_array import ShardedArray
from amenable.data.sources import Loaded
from amenable.data.urls import content_hash, size_of
from amenable.errors import InputError
from amenable.hash_cache import cache_folder
from amenable.text.tokenizer import Tokenizer
from amenable.train.array_folder import (
    ArrayFiles,
    Conversion,
    build,
    convert,
    loaded_of,
    map_file,
    read_facts,
    write_arrays,
)
from amenable.train.examples import RejectedRows, keep_usable
from amenable.train.log import Progress, silent
from amenable.train.shared_work import share_work

MAX_SHARDS = 4096
"""shards that a source is divided into at most, about"""


@dataclass(frozen=True)
class Shard:
    """Some files of a source, and the folder of their arrays."""

    folder: Path
    files: Sequence[Path]
    size: int
    """bytes of the files"""


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
) -> dict[str, Any]:
    """Return the arrays of a source, made now or before, by name. InputError as `conversion.read`, for a source that
    changes while it is read, and for a cache without room."""
    files = [file for file in list_files(path) if isinstance(file, Path)]
    sizes = [size_of(file) for file in files]
    if sum(sizes) < hash_cache.LARGE:
        return arrays_in_memory(path, conversion, rejected, progress, columns)
    root = cache_folder() / "tokens"
    parts = [range(len(files))] if conversion.whole else divide(sizes)
    shards = [
        Shard(root / key_of(files[part.start : part.stop], conversion, columns), files[part.start : part.stop], size)
        for part, size in ((part, sum(sizes[part.start : part.stop])) for part in parts)
    ]
    loaded = make_shards(path, shards, conversion, progress, columns)
    arrays = join_shards(path, shards, conversion) if len(shards) > 1 else map_shard(shards[0], conversion)
    keep_usable(loaded, rejected)
    location = f"{len(shards):,} shards in {root}" if len(shards) > 1 else shards[0].folder
    print(f"data  {path}: {len(arrays['ids']):,} tokens from {location}", file=sys.stderr)
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


def divide(sizes: Sequence[int]) -> list[range]:
    """Divide files, by their bytes, into shards of neighbours: a shard ends with the file that makes it as large as a
    source that is kept in the cache, or larger by a power of two where there would be more than MAX_SHARDS.

    A file that is added at the end changes no shard but the last.
    """
    least = hash_cache.LARGE
    while sum(sizes) > MAX_SHARDS * least:
        least *= 2
    shards, start, held = list[range](), 0, 0
    for end, size in enumerate(sizes, start=1):
        held += size
        if held >= least or end == len(sizes):
            shards.append(range(start, end))
            start, held = end, 0
    return shards


def key_of(files: Sequence[Path], conversion: Conversion, columns: Sequence[str]) -> str:
    """Return the name of the folder of some files' arrays."""
    kinds = [amenable.__version__, sys.byteorder, dict(conversion.types), list(conversion.key)]
    return hash_json([*kinds, list(columns), [(file.name, content_hash(file)) for file in files]])


def hash_json(value: Any) -> str:
    """Return the hash of a value of JSON, as a folder's name."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:24]


def make_shards(
    path: Path, shards: Sequence[Shard], conversion: Conversion, progress: Progress, columns: Sequence[str]
) -> Loaded[None]:
    """Write the folders of the shards that have none, beside other processes, and return how all of them were read."""
    names, root, size = conversion.types, shards[0].folder.parent, sum(shard.size for shard in shards)
    facts = {shard.folder: read_facts(shard.folder, names) for shard in shards}
    missing = {shard.folder.name: shard for shard in shards if facts[shard.folder] is None}
    done = size - sum(shard.size for shard in missing.values())

    def make(name: str) -> None:
        nonlocal done
        shard = missing[name]
        if read_facts(shard.folder, names) is None:
            if shard.folder.exists():
                print(f"data  {shard.folder} is torn or altered: tokenizes {path} anew", file=sys.stderr)
                shutil.rmtree(shard.folder)
            build(shard.folder, shard.files, conversion, lambda read, _: progress(done + read, size), columns)
            gc.collect()  # the words of a shard's encoder are in a cycle, and many megabytes
        done += shard.size

    if new := sum(not shard.folder.exists() for shard in missing.values()):
        count = f", {new:,} of {len(shards):,} shards" if len(shards) > 1 else ""
        into = root if len(shards) > 1 else shards[0].folder
        print(f"data  tokenizes {path} ({size / 1e6:,.0f} MB{count}) once, into {into}", file=sys.stderr)
    if missing:
        share_work(missing, locks(), make, lambda owner: say_waits(owner, path))
        progress(size, size)
    parts = []
    for shard in shards:
        if (entry := facts[shard.folder] or read_facts(shard.folder, names)) is None:
            raise InputError("cannot be read again after it was written", shard.folder, "check the disk")
        parts.append(loaded_of(entry, shard.files, conversion.noun))
    return merge(parts)


def locks() -> Path:
    """Return the folder of the locks."""
    return cache_folder() / "locks"


def say_waits(owner: str, path: Path) -> None:
    """Print that another process has the rest of the work."""
    print(f"data  waits for {owner}, which tokenizes {path}", file=sys.stderr)


def merge(parts: Sequence[Loaded[None]]) -> Loaded[None]:
    """Return how a source was read, from how its shards were."""
    if len(parts) == 1:
        return parts[0]
    return Loaded(
        rows=[None] * sum(len(part.rows) for part in parts),
        rejected=list(chain.from_iterable(part.rejected for part in parts)),
        files=tuple(chain.from_iterable(part.files for part in parts)),
        columns=tuple(chain.from_iterable(part.columns for part in parts)),
        noun=parts[0].noun,
        left_out=tuple(chain.from_iterable(part.left_out for part in parts)),
    )


def map_shard(shard: Shard, conversion: Conversion) -> dict[str, Any]:
    """Return the memory maps of a shard's arrays."""
    return {name: map_file(shard.folder / f"{name}.bin", kind) for name, kind in conversion.types.items()}


def join_shards(path: Path, shards: Sequence[Shard], conversion: Conversion) -> dict[str, Any]:
    """Return the arrays of a source, shard after shard: flat ones as they are in the shards, the others joined in a
    folder of the source, with ends counted through all shards."""
    joined = {name: kind for name, kind in conversion.types.items() if name not in conversion.flat}
    folder = shards[0].folder.with_name(hash_json(["joined", [shard.folder.name for shard in shards]]))

    def make(_: str) -> None:
        if read_facts(folder, joined) is None:
            shutil.rmtree(folder, ignore_errors=True)
            write_arrays(folder, joined, write)

    def write(files: ArrayFiles) -> dict[str, Any]:
        before = Counter[str]()
        for shard in shards:
            arrays = map_shard(shard, conversion)
            for name, kind in joined.items():
                start = before[conversion.counted[name]] if name in conversion.counted else 0
                files.write(name, (arrays[name] + start if start else arrays[name]).astype(kind).tobytes())
            before.update({name: len(array) for name, array in arrays.items()})
        return {}

    if read_facts(folder, joined) is None:
        share_work([folder.name], locks(), make, lambda owner: say_waits(owner, path))
    arrays: dict[str, Any] = {name: map_file(folder / f"{name}.bin", kind) for name, kind in joined.items()}
    for name in conversion.flat:
        arrays[name] = ShardedArray([shard.folder / f"{name}.bin" for shard in shards], conversion.types[name])
    return arrays
