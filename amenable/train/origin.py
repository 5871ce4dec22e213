"""Origin of a model's weights, origin.json in its folder: the published model, its licence, the form in which it came.

A folder that `amenable get` writes has one, and a run that trains the model hands it on.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from amenable.errors import InputError
from amenable.files import write_text
from amenable.model_folder import base_folder

ORIGIN = "origin.json"


@dataclass(frozen=True)
class Origin:
    """Source of a model's weights; empty where it is not known."""

    base_model: str = ""
    """the published model, as the Hub names it"""
    license: str = ""
    source: str = ""
    """the file, package or repository that was read"""
    sha256: str = ""
    """of that file, if it is one"""
    weights: str = ""
    """the numbers that they were in, such as Q4_1"""

    @classmethod
    def read(cls, folder: Path) -> Origin | None:
        """Read a model folder's origin, of an adapter that of its base; None where there is none."""
        try:
            stored: Any = json.loads((base_folder(folder) / ORIGIN).read_text("utf-8"))
            return cls(**{field.name: str(stored.get(field.name, "")) for field in fields(cls)})
        except (OSError, ValueError, AttributeError, InputError):
            return None

    def write(self, folder: Path) -> None:
        """Write it into a folder."""
        write_text(folder / ORIGIN, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    def remark(self) -> str:
        """Return what quantised weights mean, in words; empty for weights as they were published."""
        bits = bits_of(self.weights)
        if not bits:
            return ""
        return f"its weights were rounded to about {bits} bits ({self.weights}), a little off the published ones"


def bits_of(kind: str) -> int:
    """Return the bits of a quantised GGUF type: 4 of Q4_1; 0 for one that is not quantised."""
    digits = "".join(letter for letter in kind.partition("_")[0] if letter.isdigit())
    return int(digits) if digits and kind.startswith(("Q", "IQ", "TQ", "MXFP", "NVFP")) else 0
