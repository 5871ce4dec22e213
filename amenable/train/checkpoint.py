"""Everything a run needs to go on exactly, as tensors (safetensors) and facts (JSON); nothing is pickled.

A checkpoint folder is written under a temporary name, synced, then renamed; `manifest.json` holds the size and hash of
every file, so a torn checkpoint is recognised and the one before it is taken.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file

from amenable.files import MANIFEST, disk_errors, matches_manifest, sync_folder, temporary_path, write_manifest

TENSORS, FACTS = "state.safetensors", "state.json"
TENSOR = "__tensor__"
MAP = "__map__"


class Stateful(Protocol):
    """What a checkpoint can hold: modules, optimizers, and anything of ours with these two methods."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


def save(folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write `folder/checkpoint-<step>` and drop all but the newest `keep`, and those of later steps.

    InputError where the disk refuses; then nothing of it is left, and the checkpoints before it stay.
    """
    target = folder / f"checkpoint-{step}"
    temporary = temporary_path(target)
    tensors: dict[str, torch.Tensor] = {}
    facts = split(state, "", tensors)
    with disk_errors(target, "the checkpoint before it stays: make room, and the same command goes on from there"):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            save_file(tensors, temporary / TENSORS)
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
    """Drop all checkpoints but the newest `keep` up to a step: later ones are torn, or of another past."""
    kept = sorted(one for one in steps(folder) if one <= step)[-keep:]
    for other in set(steps(folder)) - set(kept):
        shutil.rmtree(folder / f"checkpoint-{other}", ignore_errors=True)


def newest(folder: Path) -> tuple[int, dict[str, Any], list[str]] | None:
    """Step and state of the newest whole checkpoint, and the names of torn ones passed over; None if there is none."""
    torn: list[str] = []
    for step in sorted(steps(folder), reverse=True):
        checkpoint = folder / f"checkpoint-{step}"
        if not is_whole(checkpoint):
            torn.append(checkpoint.name)
            continue
        # copies: what is read from a file may lie in memory at odd places, and be gone with it
        tensors = {name: tensor.clone() for name, tensor in load_file(checkpoint / TENSORS).items()}
        facts = json.loads((checkpoint / FACTS).read_text("utf-8"))
        return step, join(facts["state"], tensors), torn
    return None


def fact(folder: Path, name: str) -> Any:
    """One of the facts that a whole checkpoint holds beside its tensors; None where it has none of that name."""
    facts = json.loads((folder / FACTS).read_text("utf-8"))
    return join(dict(facts["state"][MAP]).get(name), {})


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a run directory."""
    names = (re.fullmatch(r"checkpoint-(\d+)", path.name) for path in folder.glob("checkpoint-*"))
    return [int(name[1]) for name in names if name]


def clear(folder: Path, keep: int = 0) -> None:
    """Remove all checkpoints of a run, its work being done, but the one of step `keep`."""
    for step in set(steps(folder)) - {keep}:
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


def is_whole(folder: Path) -> bool:
    """Whether every file is there as the manifest says."""
    try:
        return {TENSORS, FACTS} <= set(json.loads((folder / MANIFEST).read_text("utf-8"))) and matches_manifest(folder)
    except (OSError, ValueError, TypeError):
        return False


def bytes_in(value: Any) -> int:
    """Bytes of the tensors in a nested state."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(bytes_in(item) for item in value.values())
    return sum(bytes_in(item) for item in value) if isinstance(value, (list, tuple)) else 0


def bytes_kept(folder: Path) -> int:
    """Bytes of the checkpoints that lie in a run directory."""
    return sum(path.stat().st_size for path in folder.glob("checkpoint-*/*"))
