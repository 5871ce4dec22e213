"""Checkpoints: the state that a run needs to resume exactly, as tensors (safetensors) and facts (JSON), never pickled.

Tensors are written one after another, without a copy of the state. A checkpoint folder is written under a temporary
name, synced, then renamed. `manifest.json` holds the size and hash of every file, so that a torn checkpoint is
recognised and the one before it is used.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file

from amenable.errors import InputError
from amenable.files import MANIFEST, disk_errors, matches_manifest, sync_folder, temporary_path, write_manifest
from amenable.models.tensor_files import write_tensors

TENSORS, FACTS = "state.safetensors", "state.json"
TENSOR = "__tensor__"
MAP = "__map__"


class Stateful(Protocol):
    """Object that a checkpoint can hold, such as a module or an optimizer."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


def save(folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write `folder/checkpoint-<step>`; remove checkpoints of later steps and all but the newest `keep`.

    Raises InputError for a full or read-only disk, without leaving a partial checkpoint or removing another.
    """
    target = folder / f"checkpoint-{step}"
    temporary = temporary_path(target)
    tensors: dict[str, torch.Tensor] = {}
    facts = split(state, "", tensors)
    with disk_errors(target, "earlier checkpoints are kept: make room, then repeat the command to resume"):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            write_tensors(temporary / TENSORS, tensors)
            (temporary / FACTS).write_text(json.dumps({"step": step, "state": facts}), "utf-8")
            write_manifest(temporary)
            shutil.rmtree(target, ignore_errors=True)
            temporary.rename(target)
            sync_folder(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    drop_others(folder, step, keep)
    return target


def drop_others(folder: Path, step: int, keep: int) -> None:
    """Remove all checkpoints but the newest `keep` up to a step: later ones are torn, or of a longer run."""
    newest_steps = sorted(other for other in steps(folder) if other <= step)[-keep:]
    for other in set(steps(folder)) - set(newest_steps):
        shutil.rmtree(folder / f"checkpoint-{other}", ignore_errors=True)


def newest(folder: Path) -> tuple[int, dict[str, Any], list[str]] | None:
    """Return step and state of the newest whole checkpoint, and the names of torn ones after it; None without any."""
    torn: list[str] = []
    for step in sorted(steps(folder), reverse=True):
        checkpoint = folder / f"checkpoint-{step}"
        if not is_whole(checkpoint):
            torn.append(checkpoint.name)
            continue
        # copies: tensors read from a file may be unaligned, and mapped to a file that is removed later
        tensors = {name: tensor.clone() for name, tensor in load_file(checkpoint / TENSORS).items()}
        facts = json.loads((checkpoint / FACTS).read_text("utf-8"))
        return step, join(facts["state"], tensors), torn
    return None


def load(holders: Mapping[str, Stateful], saved: Mapping[str, Any], folder: Path) -> None:
    """Load a checkpoint's state into its holders. InputError where a holder's state is missing, unless it may be."""
    for key, holder in holders.items():
        if key in saved:
            holder.load_state_dict(saved[key])
        elif not getattr(holder, "optional", False):
            raise InputError(f"its checkpoint lacks '{key}': another version wrote it", folder, "give another --out")


def fact(folder: Path, name: str) -> Any:
    """Return one fact of a whole checkpoint by name, or None."""
    facts = json.loads((folder / FACTS).read_text("utf-8"))
    return join(dict(facts["state"][MAP]).get(name), {})


def steps(folder: Path) -> list[int]:
    """Return the steps of the checkpoints in a run directory."""
    names = (re.fullmatch(r"checkpoint-(\d+)", path.name) for path in folder.glob("checkpoint-*"))
    return [int(name[1]) for name in names if name]


def clear(folder: Path, keep: int = 0) -> None:
    """Remove all checkpoints of a run but that of step `keep`, if it is above 0."""
    for step in set(steps(folder)) - ({keep} if keep else set()):
        shutil.rmtree(folder / f"checkpoint-{step}", ignore_errors=True)


def split(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Convert a nested state to plain JSON; its tensors are moved to `tensors`, by path."""
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach()
        return {TENSOR: path}
    if isinstance(value, dict):
        return {MAP: [[key, split(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [split(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint can't hold {type(value).__name__} at {path}")


def join(facts: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Rebuild the nested state that `split` took apart."""
    if isinstance(facts, dict):
        if TENSOR in facts:
            return tensors[facts[TENSOR]]
        return {key: join(item, tensors) for key, item in facts[MAP]}
    if isinstance(facts, list):
        return [join(item, tensors) for item in facts]
    return facts


def is_whole(folder: Path) -> bool:
    """Return True if a checkpoint has all files, each with the size and hash in the manifest."""
    try:
        return {TENSORS, FACTS} <= set(json.loads((folder / MANIFEST).read_text("utf-8"))) and matches_manifest(folder)
    except (OSError, ValueError, TypeError):
        return False


def bytes_in(value: Any) -> int:
    """Count the bytes of the tensors in a nested state."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(bytes_in(item) for item in value.values())
    return sum(bytes_in(item) for item in value) if isinstance(value, (list, tuple)) else 0


def bytes_on_disk(folder: Path) -> int:
    """Count the bytes of the checkpoints in a run directory."""
    return sum(path.stat().st_size for path in folder.glob("checkpoint-*/*"))
