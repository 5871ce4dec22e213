"""Atomic file writes (temporary name, sync, rename), and manifests of sizes and hashes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from amenable.errors import InputError

MANIFEST = "manifest.json"
WRITING = ".*.writing*"
"""temporary names of files and folders that are being written"""
MODEL_FILES = (
    *("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "adapter_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("vocab.json", "merges.txt", "tokenizer.model", "ensemble.json", "member-*/*.safetensors"),
)
"""files of a model or tokenizer folder that decide what the model computes: weights, configuration, tokenizer"""


@contextmanager
def disk_errors(path: Path, hint: str = "make room there or allow writing, then repeat the command") -> Iterator[None]:
    """Turn a disk's errors into an InputError: no room, no permission, a read-only folder."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"cannot be written ({why})", path, hint) from error


def temporary_path(path: Path) -> Path:
    """Return the path under which a file or folder is written before it takes its name."""
    return path.with_name(f".{path.name}.writing")


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically."""
    write_file(path, lambda temporary: temporary.write_bytes(text.encode("utf-8")))


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file atomically: `write` gets a temporary path; what it writes there is synced, then renamed."""
    temporary = temporary_path(path)
    with disk_errors(path):
        try:
            write(temporary)
            commit_file(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def commit_file(temporary: Path, path: Path) -> None:
    """Sync a temporary file to the disk and rename it to its path."""
    sync_file(temporary)
    temporary.replace(path)
    sync_folder(path.parent)


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files and folders that a killed process left in a folder."""
    for path in folder.glob(WRITING):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def manifest_of(folder: Path, leave_out: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """Return the size and sha256 of every file below a folder by relative path, without the top entries `leave_out`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    inner = [path for path in files if path.relative_to(folder).parts[0] not in leave_out]
    return {path.relative_to(folder).as_posix(): size_and_hash(path) for path in inner}


def size_and_hash(path: Path) -> dict[str, Any]:
    """Return what a manifest says of a file."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def write_manifest(folder: Path, leave_out: Collection[str] = ()) -> None:
    """Sync all files below a folder to the disk and write their sizes and hashes to its manifest.json."""
    manifest = manifest_of(folder, {MANIFEST, *leave_out})
    for name in manifest:
        sync_file(folder / name)
    for inner in {(folder / name).parent for name in manifest}:
        sync_folder(inner)
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1))


def matches_manifest(folder: Path) -> bool:
    """Return True if every file in a folder's manifest exists with the listed size and hash."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        return bool(manifest) and all(
            (folder / name).stat().st_size == entry["bytes"] and sha256(folder / name) == entry["sha256"]
            for name, entry in manifest.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    """Sync a file's content to the disk."""
    with path.open("rb+" if sys.platform == "win32" else "rb") as file:
        sync_handle(file.fileno())


def sync_handle(handle: int) -> None:
    """Sync what an open file or folder has; on macOS also the disk's own cache, which fsync leaves."""
    if sys.platform == "darwin":
        import fcntl

        with suppress(OSError):  # a disk that cannot
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
            return
    os.fsync(handle)


def sync_folder(path: Path) -> None:
    """Sync a folder's entries to the disk; Windows cannot."""
    if sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        sync_handle(handle)
    finally:
        os.close(handle)


def hash_of(path: Path, hash_file: Callable[[Path], str] = sha256) -> str:
    """Return the hash of a file; of a model folder that of its MODEL_FILES; of another folder that of all its files."""
    if path.is_file():
        return hash_file(path)
    if not path.exists():
        raise InputError("no such file or folder", path, "check the path")
    model = {file for pattern in MODEL_FILES for file in path.glob(pattern)}
    digest = hashlib.sha256()
    inner = (file.relative_to(path) for file in model or visible_files(path))
    for name in sorted(inner, key=lambda name: name.parts):  # the same on every system
        digest.update(f"{name.as_posix()}:{hash_file(path / name)}\n".encode())
    return digest.hexdigest()


def visible_files(folder: Path) -> Iterator[Path]:
    """List the files below a folder without hidden ones, such as a lock, which are no part of its content."""
    return (file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
