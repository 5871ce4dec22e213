"""Everything a run needs to go on exactly, as tensors (safetensors) and facts (JSON); nothing is pickled.

A checkpoint folder is written under a temporary name, synced, then renamed; `manifest.json` holds the size and hash of
every file, so a torn checkpoint is recognised and the one before it is taken.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

TENSOR = "__tensor__"
MAP = "__map__"


class Stateful(Protocol):
    """What a checkpoint can hold: modules, optimizers, and anything of ours with these two methods."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


def save(folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write `folder/checkpoint-<step>` and drop all but the newest `keep`."""
    target = folder / f"checkpoint-{step}"
    temporary = folder / f".checkpoint-{step}.writing"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors: dict[str, torch.Tensor] = {}
    facts = split(state, "", tensors)
    save_file(tensors, temporary / "state.safetensors")
    (temporary / "state.json").write_text(json.dumps({"step": step, "state": facts}), "utf-8")
    write_manifest(temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    sync_folder(folder)
    for old in sorted(steps(folder))[:-keep]:
        shutil.rmtree(folder / f"checkpoint-{old}", ignore_errors=True)
    return target


def newest(folder: Path) -> tuple[int, dict[str, Any], list[str]] | None:
    """Step and state of the newest whole checkpoint, and the names of torn ones passed over; None if there is none."""
    torn: list[str] = []
    for step in sorted(steps(folder), reverse=True):
        checkpoint = folder / f"checkpoint-{step}"
        if not is_whole(checkpoint):
            torn.append(checkpoint.name)
            continue
        tensors = load_file(checkpoint / "state.safetensors")
        facts = json.loads((checkpoint / "state.json").read_text("utf-8"))
        return step, join(facts["state"], tensors), torn
    return None


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a run directory."""
    names = (re.fullmatch(r"checkpoint-(\d+)", path.name) for path in folder.glob("checkpoint-*"))
    return [int(name[1]) for name in names if name]


def clear(folder: Path) -> None:
    """Remove all checkpoints of a run, its work being done."""
    for step in steps(folder):
        shutil.rmtree(folder / f"checkpoint-{step}", ignore_errors=True)


def split(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """A nested state as plain JSON, its tensors moved to `tensors` under their path."""
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {TENSOR: path}
    if isinstance(value, dict):
        return {MAP: [[key, split(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [split(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint can't hold {type(value).__name__} at {path}")


def join(facts: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The nested state again, from JSON and tensors."""
    if isinstance(facts, dict):
        if TENSOR in facts:
            return tensors[facts[TENSOR]]
        return {key: join(item, tensors) for key, item in facts[MAP]}
    if isinstance(facts, list):
        return [join(item, tensors) for item in facts]
    return facts


def write_manifest(folder: Path) -> None:
    """Sync every file of a folder to disk and write down its size and hash."""
    files = {}
    for path in sorted(folder.iterdir()):
        sync_file(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(files, indent=1), "utf-8")
    sync_file(manifest)
    sync_folder(folder)


def is_whole(folder: Path) -> bool:
    """Whether every file is there as the manifest says."""
    try:
        files = json.loads((folder / "manifest.json").read_text("utf-8"))
        return all(
            (folder / name).stat().st_size == fact["bytes"] and sha256(folder / name) == fact["sha256"]
            for name, fact in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return False


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
