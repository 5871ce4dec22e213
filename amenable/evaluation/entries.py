"""Who is evaluated: a model, and how it is asked.

name=folder                    as it is
name=folder@few-shot           with demonstrations as earlier turns
name=folder@best-of-16         the best of 16 answers, by the reward model
name=folder@temperature-0.6    drawn at this temperature
name=folder@like-ppo           drawn at the temperature at which its entropy is that of the model `ppo`
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amenable.errors import InputError

MODIFIERS = "@few-shot, @best-of-16, @temperature-0.6, @like-NAME"


@dataclass(frozen=True)
class Contestant:
    """One model under one name. Without a modifier it is asked as the evaluation says."""

    name: str
    folder: Path
    few_shot: bool = False
    best_of: int = 1
    """answers drawn for each one that is kept"""
    temperature: float | None = None
    like: str | None = None
    """the contestant whose entropy it is given"""

    @classmethod
    def parse(cls, entry: str) -> Contestant:
        """The contestant that an entry of --models means."""
        name, _, rest = entry.partition("=")
        if not name or not rest:
            raise InputError(
                f"'{entry}' is no model", how="write name=folder, as in --models sft=runs/sft ppo=runs/ppo"
            )
        folder, at, modifier = rest.rpartition("@")
        if not at or "/" in modifier:  # the sign belongs to the path
            return cls(name, Path(rest))
        return cls(name, Path(folder), **manner(modifier, entry))


def manner(modifier: str, entry: str) -> dict[str, Any]:
    """The fields that a modifier sets; InputError for one that is unknown or makes no sense."""
    kind, _, value = modifier.partition("-")
    if modifier == "few-shot":
        return {"few_shot": True}
    if kind == "like" and value:
        return {"like": value}
    if modifier.startswith("best-of-") and (count := modifier.removeprefix("best-of-")).isdecimal() and int(count) > 1:
        return {"best_of": int(count)}
    if kind == "temperature" and is_positive(value):
        return {"temperature": float(value)}
    raise InputError(f"'@{modifier}' in '{entry}' is no way to ask a model", how=f"known are {MODIFIERS}")


def is_positive(text: str) -> bool:
    """Whether a text is a finite number above 0."""
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def roster(entries: Sequence[str]) -> tuple[Contestant, ...]:
    """All contestants of an evaluation; InputError where a name is taken twice, or `like` names none that will do."""
    found = tuple(Contestant.parse(entry) for entry in entries)
    if not found:
        raise InputError("no models", how="write name=folder, as in --models sft=runs/sft ppo=runs/ppo")
    by_name = {one.name: one for one in found}
    for one in found:
        if sum(other.name == one.name for other in found) > 1:
            raise InputError(f"two models are called '{one.name}'", how="give each a name of its own")
        model = by_name.get(one.like or one.name)
        if model is None:
            raise InputError(f"'{one.name}' is to be like '{one.like}'", how=f"known are {', '.join(by_name)}")
        if one.like is not None and (model.like is not None or model.best_of > 1):
            raise InputError(
                f"'{one.name}' is to be like '{one.like}'",
                how="name a model that draws one answer at a known temperature",
            )
    return found
