"""Models to evaluate, as entries of --models: a name, a folder, and a modifier of how answers are generated.

name=folder                    as it is
name=folder@few-shot           with a prefix, and examples as earlier turns
name=folder@instructed         with an instruction after the user's last words
name=folder@best-of-16         the best of 16 answers, by the reward model
name=folder@temperature-0.6    sampled at this temperature
name=folder@entropy-of-ppo     sampled at the temperature at which its entropy is that of the model `ppo`
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amenable.errors import InputError
from amenable.evaluation.load_answers import TEST

DEFAULT_MODELS = ("base=runs/pretrain", "sft=runs/sft", "ppo=runs/ppo", "dpo=runs/dpo")
"""entries where none are given, those that have finished"""
DEFAULT_PROMPTS = Path("runs/world/prompts/test.jsonl")
MODIFIERS = "@few-shot, @instructed, @best-of-16, @temperature-0.6, @entropy-of-NAME"
EXAMPLE = "write name=folder, as in --models sft=runs/sft ppo=runs/ppo"


@dataclass(frozen=True)
class ModelEntry:
    """One model under one name. Without a modifier its answers are generated as the evaluation's options say."""

    name: str
    folder: Path
    few_shot: bool = False
    instructed: bool = False
    best_of: int = 1
    """answers sampled to each prompt, of which the best is evaluated"""
    temperature: float | None = None
    entropy_of: str | None = None
    """the name of the entry whose entropy is matched"""

    @classmethod
    def parse(cls, entry: str) -> ModelEntry:
        """Parse name=folder or name=folder@modifier. Raises InputError for other texts."""
        name, _, rest = entry.partition("=")
        if not name or not rest:
            raise InputError(f"not a model: '{entry}'", how=EXAMPLE)
        folder, at, modifier = rest.rpartition("@")
        if not at or "/" in modifier:  # the sign belongs to the path
            return cls(name, Path(rest))
        return cls(name, Path(folder), **parse_modifier(modifier, entry))


def parse_modifier(modifier: str, entry: str) -> dict[str, Any]:
    """Return the fields that a modifier sets. Raises InputError for an unknown modifier or an impossible value."""
    kind, _, value = modifier.partition("-")
    if modifier in ("few-shot", "instructed"):
        return {modifier.replace("-", "_"): True}
    if modifier.startswith("entropy-of-") and (name := modifier.removeprefix("entropy-of-")):
        return {"entropy_of": name}
    if modifier.startswith("best-of-") and (count := modifier.removeprefix("best-of-")).isdecimal() and int(count) > 1:
        return {"best_of": int(count)}
    if kind == "temperature" and is_positive(value):
        return {"temperature": float(value)}
    renamed = f"write @entropy-of-{value}" if kind == "like" and value else f"known are {MODIFIERS}"
    raise InputError(f"unknown modifier '@{modifier}' in '{entry}'", how=renamed)


def is_positive(text: str) -> bool:
    """Return True if a text is a finite number above 0."""
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def parse_entries(texts: Sequence[str]) -> tuple[ModelEntry, ...]:
    """Parse all entries of an evaluation. Raises InputError for a name used twice, or an impossible `@entropy-of`."""
    entries = tuple(ModelEntry.parse(text) for text in texts)
    if not entries:
        raise InputError("no models", how=EXAMPLE)
    by_name = {entry.name: entry for entry in entries}
    for name, count in Counter(entry.name for entry in entries).items():
        if count > 1:
            raise InputError(f"two models are called '{name}'", how="give each a name of its own")
    for entry in entries:
        if entry.entropy_of is None:
            continue
        wrong = f"'{entry.name}' cannot have the entropy of '{entry.entropy_of}'"
        target = by_name.get(entry.entropy_of)
        if target is None:
            raise InputError(wrong, how=f"known are {', '.join(by_name)}")
        if target.entropy_of is not None or target.best_of > 1:
            raise InputError(wrong, how="name a model that draws one answer at a known temperature")
    return entries


def require_options(
    entries: Sequence[ModelEntry], reward: object, prompted: bool, instruction: str, tasks: Sequence[str] = ()
) -> None:
    """Raise InputError for an entry whose modifier needs an option that is not given, and for examples or a prefix,
    where they are given (`prompted`), that neither an entry nor a task reads."""
    if prompted and not tasks and not any_few_shot(entries):
        raise InputError("nothing reads --shots and --prefix", how="compare a model @few-shot, or give --tasks")
    for entry in entries:
        if entry.best_of > 1 and not reward:
            raise InputError(f"nobody can tell the best of {entry.best_of}", entry.name, "name a --reward")
        if entry.few_shot and not prompted:
            raise InputError("a model @few-shot needs examples", entry.name, "give --shots FILE, or --prefix")
        if entry.instructed and not instruction.strip():
            raise InputError("a model @instructed needs an instruction", entry.name, 'give --instruction "..."')


def any_few_shot(entries: Sequence[ModelEntry]) -> bool:
    """Return True if an entry is @few-shot."""
    return any(entry.few_shot for entry in entries)


def default_models() -> tuple[str, ...]:
    """Return the default entries whose runs have finished. Raises InputError if there is none."""
    entries = tuple(entry for entry in DEFAULT_MODELS if (Path(entry.partition("=")[2]) / "finished.json").exists())
    if not entries:
        raise InputError("no models to evaluate: none are named, and runs/ holds none", how=EXAMPLE)
    return entries


def reference_folder(reference: str, entries: Sequence[ModelEntry]) -> Path | None:
    """Return the folder of a reference: that of the entry of this name, or the text as a path; None for neither."""
    folders = {entry.name: entry.folder for entry in entries}
    if reference in folders:
        return folders[reference]
    return Path(reference) if "/" in reference or (reference and Path(reference).is_dir()) else None


def parse_suites(data: Path | None, texts: Sequence[str], tasks: Sequence[str] = ()) -> dict[str, Path]:
    """Return the prompts of every suite by its name, `data` as the suite "test"; by default DEFAULT_PROMPTS, and none
    where there are tasks alone. Raises InputError for a text that is not name=path, and for a name used twice."""
    if data is None and tasks and not texts:
        return {}
    suites = {TEST: data or DEFAULT_PROMPTS}
    for text in texts:
        name, _, path = text.partition("=")
        if not name or not path:
            raise InputError(f"not a suite: '{text}'", how="write name=path")
        if name in suites:
            raise InputError(f"two suites are called '{name}'", how="give each a name of its own")
        suites[name] = Path(path)
    return suites
