"""Folders of models: a model itself (config.json), or an adapter (adapter_config.json) that names its base model."""

from __future__ import annotations

import json
from pathlib import Path

from amenable.errors import InputError

CONFIG, ADAPTER_CONFIG, ADAPTER = "config.json", "adapter_config.json", "adapter_model.safetensors"
ADAPTER_FOLDER = "adapter"
"""in a run's folder: its adapters as peft's files; the model itself has them merged"""
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

    InputError if adapter_config.json names no such folder, by its path or beside the adapter.
    """
    try:
        name = json.loads((folder / ADAPTER_CONFIG).read_text("utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"cannot be read as JSON ({error})", folder / ADAPTER_CONFIG) from None
    for base in (Path(str(name)), folder / str(name)):
        if name and ((base / CONFIG).is_file() or is_adapter(base)):
            return base
    raise InputError(f"its base model '{name}' is no folder here", folder / ADAPTER_CONFIG, NAME_BASE)


def bases_of(name: str, folder: Path) -> dict[str, Path]:
    """Return the folders that an adapter's folder is on, as "NAME's base", "NAME's base's base" ...; {} for others."""
    base_folder(folder)  # refuses a circle
    bases: dict[str, Path] = {}
    while is_adapter(folder):
        name, folder = f"{name}'s base", parent_folder(folder)
        bases[name] = folder
    return bases
