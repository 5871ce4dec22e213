"""The cache folder, and hashes of large files that are kept there, so that a start reads no ten gigabytes again.

A hash is taken from the cache if size, time of change, inode and a sample of the file's content are those that it was
computed for. A program that writes to a file changes its ctime, which no program can set back; the sample guards
against file systems and clocks that do not keep it. A file that was changed within two seconds before it was hashed is
not kept, since a later change could have the same time. `amenable lineage` and `verify` read files anew all the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from amenable.errors import InputError
from amenable.files import hash_of, sha256, write_text
from amenable.model_folder import bases_of

LARGE = 1 << 25
"""bytes from which the tokens of a source are kept"""
HASHED = 1 << 22
"""bytes from which a file's hash is kept"""
SAMPLES, SAMPLE_BYTES = 64, 4096
SETTLED_SECONDS = 2.0


def cache_folder() -> Path:
    """Return the folder of what can be made or fetched anew: AMENABLE_CACHE, else XDG_CACHE_HOME/amenable, or
    ~/.cache/amenable."""
    if own := os.environ.get("AMENABLE_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "amenable"


def file_state(path: Path) -> dict[str, Any]:
    """Return what tells that a file has not changed: size, times, inode, and a hash of blocks spread over it."""
    facts, digest = path.stat(), hashlib.sha256()
    with path.open("rb") as file:
        for number in range(SAMPLES):
            file.seek(max(0, facts.st_size - SAMPLE_BYTES) * number // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    times = {"mtime": facts.st_mtime_ns, "ctime": facts.st_ctime_ns}
    return {"bytes": facts.st_size, "inode": facts.st_ino, **times, "sample": digest.hexdigest()}


def cached_sha256(path: Path) -> str:
    """Return the sha256 of a file; of a large one out of the cache, if the file has not changed since."""
    if path.stat().st_size < HASHED:
        return sha256(path)
    resolved = path.resolve()
    entry = cache_folder() / "hashes" / f"{hashlib.sha256(str(resolved).encode()).hexdigest()[:32]}.json"
    state, begun = file_state(resolved), time.time()
    if (known := read_entry(entry)) is not None and known["state"] == state:
        return str(known["sha256"])
    value = sha256(resolved)
    changed = max(state["mtime"], state["ctime"]) / 1e9
    if file_state(resolved) == state and changed < begun - SETTLED_SECONDS:
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            write_text(entry, json.dumps({"path": str(resolved), "state": state, "sha256": value}))
        except (OSError, InputError):
            pass  # a cache that cannot be written, or that another process writes now, only costs time
    return value


def model_hash(folder: Path) -> str:
    """Return the hash of a model: its folder's weights, configuration and tokenizer, and those of the folders that an
    adapter is on."""
    hashes = [hash_of(each, cached_sha256) for each in (folder, *bases_of("model", folder).values())]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def read_entry(file: Path) -> dict[str, Any] | None:
    """Return an entry of the cache, or None where there is none that can be read."""
    try:
        entry = json.loads(file.read_text("utf-8"))
        return entry if isinstance(entry["state"], dict) and isinstance(entry["sha256"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
