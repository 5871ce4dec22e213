"""Options that the commands with a web page share: address, database, tokens, and the limits of a server of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from amenable.errors import InputError
from amenable.serve.security import LOCAL
from amenable.train.runtime import Device, DeviceOptions


@dataclass(frozen=True)
class PageOptions:
    """Options of every command with a web page."""

    labels_db: Path = Path("runs/labels.db")
    """database for labels, votes and thumbs"""
    host: str = "127.0.0.1"
    """0.0.0.0 to be reached by others, with tokens"""
    port: int = 8017
    """0 takes any free port"""
    require_tokens: bool = False
    """require tokens on 127.0.0.1 too, as behind a proxy"""
    device: Device = field(default_factory=DeviceOptions)

    def __post_init__(self) -> None:
        require_bounds(self, port=(0, 65535))

    @property
    def needs_tokens(self) -> bool:
        return self.require_tokens or self.host not in LOCAL


@dataclass(frozen=True)
class ServerOptions(PageOptions):
    """Options of a server of models."""

    models: tuple[str, ...] = ()
    """NAME=FOLDER or FOLDER; by default those that `amenable demo` makes"""
    sampler: Literal["amenable", "vllm"] = "amenable"
    """engine that samples the answers: ours, or vLLM's in this process"""
    max_batch_size: int = 32
    """answers of a model decoded at once"""
    max_queue: int = 64
    """answers that may wait beyond those; more are refused with a time to retry"""
    secure_cookies: bool = False
    """send cookies over https alone: for a server behind an https proxy"""
    rate_limit_per_minute: int = 600
    """requests of one address or token"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_bounds(self, max_batch_size=(1, 1024), max_queue=(0, 10**5), rate_limit_per_minute=(1, 10**6))
        parse_models(self.models)


def require_bounds(options: object, **bounds: tuple[float, float]) -> None:
    """Raise InputError for the first of these options that lies outside its (lowest, highest)."""
    for name, (low, high) in bounds.items():
        if not low <= getattr(options, name) <= high:
            raise InputError(f"{name} is {getattr(options, name)}", how=f"it must lie between {low} and {high}")


def parse_models(models: Sequence[str]) -> list[tuple[str, Path]]:
    """Return (name, folder) of each NAME=FOLDER; a FOLDER alone is named as itself.

    Raises InputError for other texts, and for two models of one name.
    """
    parsed = []
    for text in models:
        name, _, folder = text.rpartition("=")
        if not folder or text.startswith("="):
            raise InputError(f"'{text}' names no model", how="write NAME=FOLDER, as in assistant=runs/ppo")
        parsed.append((name or Path(folder).resolve().name, Path(folder)))
    if len(dict(parsed)) != len(parsed):
        raise InputError("two models have one name", how="name them apart, as in --models a=runs/x b=runs/y")
    return parsed
