"""Folder of a run: its files, and whether one has begun or finished there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from amenable.errors import InputError
from amenable.files import WRITING
from amenable.train.lock import NAME as LOCK

OPTIONS, LINEAGE, FINISHED, STOPPED = "config.yaml", "lineage.json", "finished.json", "stopped.json"
REJECTED = "rejected.jsonl"
HELD = ("fsdp", "fsdp_offload")
"""options of the optimizer that say where weights are held, not what they become"""
BEFORE_OPTIONS = (LOCK, LINEAGE, REJECTED)
"""files that a run writes before its options: a folder with only these is of a run that never began"""


def is_empty_run(folder: Path) -> bool:
    """Return True if no run has begun in a folder: it does not exist, is empty, or has only files written before."""
    if not folder.exists():
        return True
    files = {path for path in folder.iterdir() if path.name not in BEFORE_OPTIONS}
    return not files - set(folder.glob(WRITING))


def require_no_overlap(out: Path, inputs: Mapping[str, Path]) -> None:
    """Raise InputError if the output folder is inside an input, or an input inside it."""
    target = out.resolve()
    for name, path in inputs.items():
        source = path.resolve()
        if target == source or source in target.parents:
            raise InputError(f"lies inside the {name} that is read", out, "give --out a folder of its own")
        if target in source.parents:
            raise InputError(f"holds the {name} that is read ({path})", out, "give --out a folder of its own")


def require_finished(path: Path, name: str) -> None:
    """Raise InputError for an input in the directory of a run that has not finished: it may be incomplete."""
    for folder in (path.absolute(), *path.absolute().parents):
        if (folder / OPTIONS).exists() and (folder / LINEAGE).exists() and not (folder / FINISHED).exists():
            raise InputError(f"the run that makes this {name} has not finished", folder, "repeat its command first")


def is_same(old: Any, new: Any) -> bool:
    """Return True for equal values of an option; a list of one item is that item."""
    return old == new or [old] == new or old == [new]


def read_begun(out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of an existing run and its lineage. InputError if they cannot be read."""
    try:
        options = yaml.safe_load((out / OPTIONS).read_text("utf-8"))
        lineage = json.loads((out / LINEAGE).read_text("utf-8"))
        if isinstance(options, dict) and isinstance(lineage["inputs"], dict):
            return options, lineage
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        pass
    raise InputError("holds something that is not a run", out, "give --out another folder")


def comparable(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's options without those that say where weights are held."""
    optimizer = options.get("optimizer")
    if not isinstance(optimizer, dict):
        return dict(options)
    return {**options, "optimizer": {name: value for name, value in optimizer.items() if name not in HELD}}
