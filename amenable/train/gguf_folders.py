"""GGUF files as model folders in the published format, and model folders as GGUF files."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from amenable.errors import InputError
from amenable.files import disk_errors, sha256, temporary_path
from amenable.models import gguf, pretrained
from amenable.models.decoder import Decoder
from amenable.models.gguf_file import GGUFFile, Kind
from amenable.text.gguf import tokenizer_files, tokenizer_metadata
from amenable.text.tokenizer import Tokenizer
from amenable.train import loading
from amenable.train.origin import Origin


@dataclass(frozen=True)
class Exported:
    """Source that a GGUF file names in its metadata."""

    tokenizer: Tokenizer
    context_length: int
    in_f16: list[str]
    """matrices that are f16 in a q8_0 file, since blocks do not fill their rows"""


def import_gguf(path: Path, out: Path, origin: Origin | None = None) -> Path:
    """Write a GGUF file's model as a folder, all of it or nothing, and return the folder.

    Weights are bfloat16 if that is exact, else float32. origin: where the file is from, if not from its metadata.
    InputError for a torn or foreign file, and for what is not read.
    """
    file = GGUFFile.read(path)
    contents = tokenizer_files(file.metadata, path)
    temporary = temporary_path(out)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with disk_errors(out):
            temporary.mkdir(parents=True)
            for name, content in contents.items():
                (temporary / name).write_bytes(content)
        tokenizer = Tokenizer.load(temporary)
        decoder = gguf.load_decoder(file)
        if tokenizer.vocab_size > decoder.config.vocab_size:
            problem = f"has {tokenizer.vocab_size} tokens and {decoder.config.vocab_size} embeddings"
            raise InputError(problem, path, "such models are not read")
        decoder.num_tokens = tokenizer.vocab_size
        loading.save_model(temporary, decoder, tokenizer, "bfloat16" if is_bfloat16(decoder) else "float32")
        replace(origin or origin_of(file), weights=file.type_names()[0]).write(temporary)
        with disk_errors(out):
            temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def origin_of(file: GGUFFile) -> Origin:
    """Return what a GGUF file's metadata say of where it is from."""
    general = {key.removeprefix("general."): value for key, value in file.metadata.items() if isinstance(value, str)}
    name, organisation = general.get("name", ""), general.get("organization", "")
    link = general.get("repo_url", "").removeprefix("https://huggingface.co/")
    return Origin(
        base_model=link or (f"{organisation}/{name}" if organisation and " " not in name + organisation else name),
        license=general.get("license", ""),
        source=file.path.name,
        sha256=sha256(file.path),
    )


def is_bfloat16(decoder: Decoder) -> bool:
    """Return True if bfloat16 holds every weight exactly."""
    return all(torch.equal(weight, weight.to(torch.bfloat16).float()) for weight in decoder.parameters())


def export_gguf(folder: Path, path: Path, kind: Kind) -> Exported:
    """Write a model folder, or an adapter merged into its base, as a GGUF file. InputError for a reward model, and for
    an architecture or a tokenizer that llama.cpp does not have."""
    tokenizer = Tokenizer.load(folder)
    decoder = loading.fit_vocabulary(pretrained.load_decoder(folder), tokenizer, folder)
    origin = Origin.read(folder) or Origin()
    general: dict[str, Any] = {"general.name": folder.resolve().name, "general.license": origin.license}
    if origin.base_model:
        organisation, _, name = origin.base_model.rpartition("/")
        general |= {"general.base_model.count": 1, "general.base_model.0.name": name}
        if organisation:
            link = f"https://huggingface.co/{origin.base_model}"
            general |= {"general.base_model.0.organization": organisation, "general.base_model.0.repo_url": link}
    try:
        metadata = tokenizer_metadata(tokenizer, decoder.config.vocab_size)
        in_f16 = gguf.save_decoder(
            path, decoder, kind, metadata, {key: value for key, value in general.items() if value}
        )
    except InputError as error:
        raise error if error.where is not None else InputError(error.what, folder, error.how) from None
    return Exported(tokenizer, gguf.without_window(decoder.config).context_length, in_f16)
