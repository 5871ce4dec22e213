"""Files that are there whole or not at all: written beside, synced to the disk, renamed; and their hashes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from amenable.errors import InputError

MANIFEST = "manifest.json"
WRITING = ".*.writing*"
"""files and folders that are being written, and become visible under their own name once they are whole"""


@contextmanager
def storing(place: Path, how: str = "make room there or allow writing, then repeat the command") -> Iterator[None]:
    """Say in one line what a disk refuses: no room, no permission, a folder that can only be read."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"cannot be written ({why})", place, how) from error


def beside(path: Path) -> Path:
    """Where a file or folder is written before it takes its name."""
    return path.with_name(f".{path.name}.writing")


def write_text(path: Path, text: str) -> None:
    """Write a file whole: beside, synced, renamed."""
    temporary = beside(path)
    with storing(path):
        try:
            temporary.write_bytes(text.encode("utf-8"))
            put(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def put(temporary: Path, path: Path) -> None:
    """Give a file that was written beside its name, once it is on the disk."""
    sync_file(temporary)
    temporary.replace(path)
    sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Remove what a process that was killed left half-written in a folder."""
    for path in folder.glob(WRITING):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def manifest_of(folder: Path, leave_out: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file below a folder, by its path there; some entries at its top are left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    inner = [path for path in files if path.relative_to(folder).parts[0] not in leave_out]
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in inner
    }


def write_manifest(folder: Path, leave_out: Collection[str] = ()) -> None:
    """Sync everything below a folder to the disk and write down its sizes and hashes."""
    facts = manifest_of(folder, {MANIFEST, *leave_out})
    for name in facts:
        sync_file(folder / name)
    for inner in {(folder / name).parent for name in facts}:
        sync_folder(inner)
    write_text(folder / MANIFEST, json.dumps(facts, indent=1))


def is_as_listed(folder: Path) -> bool:
    """Whether every file that a folder's manifest lists is there, with the size and the hash that it says."""
    try:
        facts = json.loads((folder / MANIFEST).read_text("utf-8"))
        return bool(facts) and all(
            (folder / name).stat().st_size == fact["bytes"] and sha256(folder / name) == fact["sha256"]
            for name, fact in facts.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    with path.open("rb+" if sys.platform == "win32" else "rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Sync the names in a folder; Windows has no such thing."""
    if sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
