"""Families of published models: the files in models/families/, each named as the model_type in config.json.

A family's file says how config.json and tensors are named; the decoder itself knows of no family. To add a family is to
add a file; a family describes a configuration if writing its fields and reading them gives the same configuration.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from amenable.errors import InputError
from amenable.models.config import DecoderConfig

FOLDER = Path(__file__).parent / "families"


@dataclass(frozen=True)
class ParameterMap:
    """One of our parameters and its published tensors: several stacked along dimension 0, or one transposed."""

    ours: str
    theirs: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    transposed: bool = False
    offset: float = 0.0
    """added to the published numbers: 1 for gains that are stored as 1 less"""


class Family(Protocol):
    """Module of a family."""

    LANGUAGE_MODEL: str
    """transformers' class of its language models"""
    CLASSIFIER: str
    """transformers' class of its sequence classifiers"""

    def read(self, fields: Mapping[str, Any], where: Path) -> DecoderConfig:
        """Read config.json's fields. KeyError, TypeError or InputError for those that the decoder does not cover."""

    def write(self, config: DecoderConfig) -> dict[str, Any]:
        """Return config.json's fields of a configuration, except those that all families have."""

    def parameters(self, config: DecoderConfig) -> list[ParameterMap]:
        """Map our parameter names to the published ones."""


@functools.cache
def model_types() -> tuple[str, ...]:
    """Return the model types of all families, in alphabetical order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("[a-z]*.py")))


def stem(model_type: str) -> str:
    """Return the file name of a model_type: an underscore where it has a hyphen."""
    return model_type.replace("-", "_")


def family(model_type: str) -> Family:
    """Return the family of a model_type."""
    return cast(Family, importlib.import_module(f"amenable.models.families.{stem(model_type)}"))


def unembedding(config: DecoderConfig, theirs: str = "lm_head.weight") -> list[ParameterMap]:
    """Map the unembedding, where it is not the token embedding."""
    return [] if config.tie_embeddings else [ParameterMap("output.weight", (theirs,))]


def require_known(where: Path, name: str, value: object, known: tuple[object, ...]) -> None:
    """Raise InputError for a value of config.json that is not `known`."""
    if value not in known:
        raise InputError(f"{name} is {value!r}", where, "supported: " + " and ".join(map(repr, known)))
