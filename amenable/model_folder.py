"""Folders of models: a model itself (config.json), or an adapter (adapter_config.json) that names its base model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from amenable.errors import InputError

CONFIG, ADAPTER_CONFIG, ADAPTER = "config.json", "adapter_config.json", "adapter_model.safetensors"
ADAPTER_FOLDER = "adapter"
"""in a run's folder: its adapters as peft's files; the model itself has them merged"""
BASE_FOLDER = "base"
"""in the folder of a classifier with virtual tokens: the classifier without them, which they are for"""
PROMPT_TUNING, PREFIX_TUNING = "PROMPT_TUNING", "PREFIX_TUNING"
"""peft_type of adapters that are virtual tokens before every row: as embeddings, or keys and values of every layer"""
NAME_BASE = "write the folder of its base model there as base_model_name_or_path"


def is_adapter(folder: Path) -> bool:
    """Return True for a folder that holds an adapter and no model of its own."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / CONFIG).exists()


def adapter_of(folder: Path) -> Path | None:
    """Return the folder of the adapter that a model's folder is, or holds beside the merged model; None without one."""
    if is_adapter(folder):
        return folder
    inner = folder / ADAPTER_FOLDER
    return inner if is_adapter(inner) else None


def base_folder(folder: Path) -> Path:
    """Return the folder of the model that an adapter's folder is for, through adapters on adapters, or a model's folder
    itself. InputError if there is none."""
    passed: set[Path] = set()
    while is_adapter(folder):
        if folder.resolve() in passed:
            raise InputError("is an adapter on itself", folder / ADAPTER_CONFIG, NAME_BASE)
        passed.add(folder.resolve())
        folder = parent_folder(folder)
    return folder


def parent_folder(folder: Path) -> Path:
    """Return the folder that an adapter is on: a model's, or another adapter's.

    InputError if adapter_config.json names no such folder, by its path or relative to the adapter or a folder above it.
    """
    name = adapter_fields(folder).get("base_model_name_or_path")
    for base in (Path(str(name)), *(above / str(name) for above in (folder.resolve(), *folder.resolve().parents))):
        if name and ((base / CONFIG).is_file() or is_adapter(base)):
            return base
    raise InputError(f"its base model '{name}' is no folder here", folder / ADAPTER_CONFIG, NAME_BASE)


def adapter_fields(folder: Path) -> dict[str, Any]:
    """Return the fields of an adapter's adapter_config.json. InputError for a file that holds none."""
    try:
        return dict(json.loads((folder / ADAPTER_CONFIG).read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"cannot be read as JSON ({error})", folder / ADAPTER_CONFIG) from None


def is_prompt(folder: Path) -> bool:
    """Return True for an adapter that is virtual tokens before every row (prompt or prefix tuning)."""
    return is_adapter(folder) and adapter_fields(folder).get("peft_type") in (PROMPT_TUNING, PREFIX_TUNING)


def count_virtual_tokens(folder: Path) -> int:
    """Return the number of virtual tokens of a folder's model, or of one that its adapters are on; 0 without."""
    base_folder(folder)  # refuses a circle
    while is_adapter(folder):
        if is_prompt(folder):
            count = adapter_fields(folder).get("num_virtual_tokens")
            if not isinstance(count, int) or count < 1:
                raise InputError(f"num_virtual_tokens is {count!r}", folder / ADAPTER_CONFIG, "it must be 1 or more")
            return count
        folder = parent_folder(folder)
    return 0


def bases_of(name: str, folder: Path) -> dict[str, Path]:
    """Return the folders that an adapter's folder is on, as "NAME's base", "NAME's base's base" ...; {} for others."""
    base_folder(folder)  # refuses a circle
    bases: dict[str, Path] = {}
    while is_adapter(folder):
        name, folder = f"{name}'s base", parent_folder(folder)
        bases[name] = folder
    return bases
