"""Export a model for other programs: a GGUF file for llama.cpp and Ollama, or a plain folder with adapters merged.

    amenable export runs/sft --gguf q8_0          exports/sft/sft-q8_0.gguf, a Modelfile for Ollama, and a model card
    amenable export runs/sft/adapter --out FOLDER the base model with the adapter merged into its weights

Reads a model folder, a run or an adapter.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from amenable.errors import InputError
from amenable.files import disk_errors, write_text
from amenable.model_folder import base_folder, count_virtual_tokens, is_adapter
from amenable.models import pretrained
from amenable.models.gguf_file import Kind
from amenable.models.hf_config import CONFIG
from amenable.models.hf_weights import shortened
from amenable.recipes import modelfile
from amenable.recipes.model_summary import is_reward_model
from amenable.text.tokenizer import Tokenizer
from amenable.train import loading, model_card
from amenable.train.gguf_folders import export_gguf
from amenable.train.loading import SaveDtype
from amenable.train.origin import Origin

EXPORTS = Path("exports")
DEFAULT_TEMPERATURE = 0.7
"""of a Modelfile, where the model names none; that of `amenable chat`"""


@dataclass(frozen=True)
class Config:
    """Export a model as a GGUF file, or as a folder."""

    model: tyro.conf.Positional[Path] = Path("runs/sft")
    """model folder, run directory, or adapter"""
    gguf: Literal["f16", "bf16", "q8_0", "f32"] | None = None
    """write a GGUF file with the matrices in this type; without it a folder is written"""
    out: Path | None = None
    """file (.gguf) or folder to write; by default in exports/"""
    dtype: SaveDtype = "source"
    """of a folder's weights; source is the model's own"""


def run(config: Config) -> Path:
    """Export the model and return the file or folder."""
    loading.require_model(config.model, "amenable sft")
    if count := count_virtual_tokens(config.model):
        problem = f"has {count} virtual tokens, which neither a GGUF file nor a model's own folder can hold"
        raise InputError(problem, config.model, "it is peft's adapter already: copy the folder as it is")
    name = model_name(config.model)
    if config.gguf is None:
        return export_folder(config, config.out or EXPORTS / name)
    if config.dtype != "source":
        raise InputError("--dtype is for folders", how="leave it out: --gguf names the type of the weights")
    if is_reward_model(config.model):
        raise InputError("is a reward model, and llama.cpp has no such heads", config.model, "export it without --gguf")
    return export_file(config.model, config.out or EXPORTS / name / f"{name}-{config.gguf}.gguf", config.gguf)


def model_name(folder: Path) -> str:
    """Return a model's name: that of its folder, or of the run whose adapter it is."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "adapter" else folder.name


def export_file(folder: Path, path: Path, kind: Kind) -> Path:
    """Write a GGUF file, and beside it a Modelfile."""
    if path.suffix != ".gguf":
        raise InputError("is not a name of a GGUF file", path, "give --out FILE.gguf")
    exported = export_gguf(folder, path, kind)
    size = path.stat().st_size / 1e6
    print(f"{path}: {size:,.0f} MB in {kind}, for llama.cpp and what is built on it")
    if exported.in_f16:
        print(f"f16 in place of q8_0, since rows are no multiple of 32: {shortened(exported.in_f16)}")
    temperature = pretrained.read_temperature(folder) or DEFAULT_TEMPERATURE
    card = model_card.gguf_card(model_name(folder), path.name, kind, model_card.origin_of(folder))
    write_own(path.with_name(model_card.CARD), card, model_card.MARK)
    text = modelfile.modelfile(exported.tokenizer, path.name, exported.context_length, temperature)
    write_own(path.with_name("Modelfile"), text, modelfile.FIRST_LINE)
    print(f"next: llama-cli -m {path}, or in {path.parent} ollama create {model_name(folder)} -f Modelfile")
    return path


def write_own(path: Path, text: str, mark: str) -> None:
    """Write a file, unless one is there that is not ours: one without `mark`."""
    if path.exists() and mark not in path.read_text("utf-8", errors="replace"):
        print(f"{path} is your own, and stays as it is")
        return
    write_text(path, text)
    print(path)


def export_folder(config: Config, out: Path) -> Path:
    """Write a folder in the published format, an adapter merged into its base."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("holds something already", out, "give --out a new folder")
    folder, tokenizer = config.model, Tokenizer.load(config.model)
    if is_reward_model(folder):
        loading.save_model(out, pretrained.load_scalar(folder), tokenizer, config.dtype)
    else:
        decoder = loading.fit_vocabulary(pretrained.load_decoder(folder), tokenizer, folder)
        loading.save_model(out, decoder, tokenizer, config.dtype)
    if (origin := Origin.read(folder)) is not None:
        with disk_errors(out):
            origin.write(out)
    for file in (*folder.glob(model_card.CARD), *folder.glob("LICENSE*")):
        shutil.copy2(file, out / file.name)
    merged = f", merged into {base_folder(folder)}" if is_adapter(folder) else ""
    print(f"{out}: {folder}{merged}, as transformers and vLLM read it ({CONFIG}, safetensors, tokenizer)")
    return out
