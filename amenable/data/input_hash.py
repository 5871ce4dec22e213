"""Hashes of what a run reads: files, folders, patterns of files, and files behind URLs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from amenable.data.readers import fixed_root, is_pattern, list_files
from amenable.data.urls import UrlPath, content_hash
from amenable.files import hash_of, visible_files
from amenable.hash_cache import cached_sha256


def hash_of_input(path: Path, hash_file: Callable[[Path], str] = cached_sha256) -> str:
    """Return the hash of an input as `files.hash_of` does; of a pattern, and of files behind a URL, that of the list of
    their names and hashes. InputError where nothing is there."""
    files = listed(path)
    if files is None:
        return hash_of(path, hash_file)
    digest = hashlib.sha256()
    for file in files:
        name = str(file) if isinstance(file, UrlPath) else file.relative_to(fixed_root(path)).as_posix()
        digest.update(f"{name}:{content_hash(file) if isinstance(file, UrlPath) else hash_file(file)}\n".encode())
    return digest.hexdigest()


def input_facts(inputs: Mapping[str, Path], addresses: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return what a run's lineage has of its inputs: "inputs", the path and hash of each, and "files", their number.

    addresses: inputs that are no files, such as a model behind an API.
    """
    facts: dict[str, Any] = {name: {"path": url, "sha256": None} for name, url in addresses.items()}
    facts |= {name: {"path": str(path), "sha256": hash_of_input(path)} for name, path in inputs.items()}
    return {"inputs": facts, "files": {name: count_files(path) for name, path in inputs.items()}}


def count_files(path: Path) -> int:
    """Count the files of an input."""
    if (files := listed(path)) is not None:
        return len(files)
    return sum(1 for _ in visible_files(path)) if path.is_dir() else 1


def listed(path: Path) -> list[Path] | None:
    """List the files of a pattern, and those behind a URL; None for a file or folder of this machine."""
    if not isinstance(path, UrlPath) and not is_pattern(path):
        return None
    return [file for file in list_files(path) if isinstance(file, Path)]


def describe_change(names: Sequence[str], before: Mapping[str, int], now: Mapping[str, int]) -> str:
    """Return in which way inputs of a run have changed since it was begun. before, now: files of each input."""
    for name in names:
        if name in before and name in now and before[name] != now[name]:
            return f"was begun with other files: {name} had {before[name]:,} and has {now[name]:,}"
    return f"was begun with other {', '.join(names)}: the content has changed"
