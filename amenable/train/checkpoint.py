"""Checkpoints: the state that a run needs to resume exactly, as tensors (safetensors) and facts (JSON), never pickled.

    state.json          facts
    state.safetensors   tensors that every process has, by the first
    shard-<n>-...       of process n: its parts of tensors that are divided among processes (models/sharded_files.py)
    manifest.json       size and hash of every file

Tensors are written one after another, without a copy of the state. A checkpoint folder is written under a temporary
name, synced, then renamed once all processes have written. A torn checkpoint, or one that lacks a part, is recognised
by the manifest, and the one before it is used. Any number of processes goes on from it, each reading what it holds.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from amenable import processes
from amenable.errors import InputError
from amenable.files import (
    MANIFEST,
    disk_errors,
    matches_manifest,
    size_and_hash,
    sync_file,
    sync_folder,
    temporary_path,
    write_text,
)
from amenable.models.sharded_files import ShardedFiles, is_writer, write_parts
from amenable.models.tensor_files import write_tensors
from amenable.ranks import is_first

TENSORS, FACTS = "state.safetensors", "state.json"
TENSOR = "__tensor__"
MAP = "__map__"


class Stateful(Protocol):
    """Object that a checkpoint can hold, such as a module or an optimizer."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


@dataclass(frozen=True)
class Snapshot:
    """State of a step as a process writes it: facts, whole tensors and parts of divided ones, by path."""

    step: int
    facts: Any
    tensors: dict[str, torch.Tensor]

    @classmethod
    def of(cls, step: int, state: dict[str, Any]) -> Snapshot:
        """Return the snapshot of a nested state; its tensors are not copied."""
        tensors: dict[str, torch.Tensor] = {}
        return cls(step, split(state, "", tensors), tensors)


def save(folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write `folder/checkpoint-<step>`; remove checkpoints of later steps and all but the newest `keep`. Of several
    processes each has to call it.

    Raises InputError for a full or read-only disk, without leaving a partial checkpoint or removing another.
    """
    snapshot = Snapshot.of(step, state)
    prepare(folder, step)
    return commit(folder, step, keep, lambda: write(folder, snapshot))


def prepare(folder: Path, step: int) -> None:
    """Create the empty temporary folder of a checkpoint."""
    temporary = temporary_path(folder / f"checkpoint-{step}")

    def create() -> None:
        with writing(folder, step):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)

    processes.from_first(create)


def write(folder: Path, snapshot: Snapshot) -> dict[str, Any]:
    """Write and sync this process's files of a checkpoint; return their entries of the manifest. InputError for a disk
    that is full or read-only."""
    temporary = temporary_path(folder / f"checkpoint-{snapshot.step}")
    own = {name: cast(DTensor, tensor) for name, tensor in snapshot.tensors.items() if is_writer(tensor)}
    with writing(folder, snapshot.step):
        files = [write_parts(temporary, own)] if own else []
        if is_first():
            whole = {name: tensor for name, tensor in snapshot.tensors.items() if not isinstance(tensor, DTensor)}
            write_tensors(temporary / TENSORS, whole)
            (temporary / FACTS).write_text(json.dumps({"step": snapshot.step, "state": snapshot.facts}), "utf-8")
            files += [temporary / TENSORS, temporary / FACTS]
        for file in files:
            sync_file(file)
        return {file.name: size_and_hash(file) for file in files}


def commit(folder: Path, step: int, keep: int, write_files: Callable[[], dict[str, Any]]) -> Path:
    """Write the files of all processes, each by its `write_files`, give the checkpoint its name, and remove older ones.
    InputError where a process could not write, in all of them."""
    target = folder / f"checkpoint-{step}"
    temporary = temporary_path(target)

    def rename(entries: Sequence[Mapping[str, Any]]) -> None:
        with writing(folder, step):
            write_text(temporary / MANIFEST, json.dumps({k: v for own in entries for k, v in own.items()}, indent=1))
            shutil.rmtree(target, ignore_errors=True)
            temporary.rename(target)
            sync_folder(folder)
        drop_others(folder, step, keep)

    try:
        entries = processes.in_each(write_files)
        processes.from_first(lambda: rename(entries))
    except BaseException:
        if is_first():
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def writing(folder: Path, step: int) -> AbstractContextManager[None]:
    """Return the context in which a checkpoint is written: a disk's errors are an InputError."""
    hint = "earlier checkpoints are kept: make room, then repeat the command to resume"
    return disk_errors(folder / f"checkpoint-{step}", hint)


def drop_others(folder: Path, step: int, keep: int) -> None:
    """Remove all checkpoints but the newest `keep` up to a step: later ones are torn, or of a longer run."""
    newest_steps = sorted(other for other in steps(folder) if other <= step)[-keep:]
    for other in set(steps(folder)) - set(newest_steps):
        shutil.rmtree(folder / f"checkpoint-{other}", ignore_errors=True)


def newest(folder: Path) -> tuple[int, dict[str, Any], list[str]] | None:
    """Return step and state of the newest whole checkpoint, and the names of torn ones after it; None without any."""
    step, torn = newest_step(folder)
    return None if step is None else (step, read(folder, step), torn)


def newest_step(folder: Path) -> tuple[int | None, list[str]]:
    """Return the step of the newest whole checkpoint, or None, and the names of torn ones after it."""
    torn: list[str] = []
    for step in sorted(steps(folder), reverse=True):
        name = f"checkpoint-{step}"
        if is_whole(folder / name):
            return step, torn
        torn.append(name)
    return None, torn


def read(folder: Path, step: int) -> dict[str, Any]:
    """Return the state of a step's checkpoint. A tensor that processes divided is a StoredTensor."""
    checkpoint = folder / f"checkpoint-{step}"
    parts = any(checkpoint.glob("shard-*"))
    tensors: dict[str, Any] = dict(ShardedFiles(checkpoint).tensors()) if parts else {}
    # copies: tensors read from a file may be unaligned, and mapped to a file that is removed later
    tensors |= {name: tensor.clone() for name, tensor in load_file(checkpoint / TENSORS).items()}
    facts = json.loads((checkpoint / FACTS).read_text("utf-8"))
    state: dict[str, Any] = join(facts["state"], tensors)
    return state


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


def join(facts: Any, tensors: Mapping[str, Any]) -> Any:
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
