"""Where a run comes from: the world behind it, and what it read in common with another run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from amenable.claims.stage_folders import read_json
from amenable.errors import InputError

WITHIN = 2
"""a world's files lie so many folders deep"""


def world_behind(folder: Path) -> Path | None:
    """The closed world that a run was made from: found among its inputs, their runs' inputs, and so on; or None."""
    waiting, seen = [folder], set()
    while waiting:
        place = waiting.pop(0)
        if place.resolve() in seen:
            continue
        seen.add(place.resolve())
        for above in (place, *list(place.parents)[:WITHIN]):
            if (above / "world.json").is_file():
                return above
        waiting += inputs_of(place if place.is_dir() else place.parent)
    return None


def inputs_of(run: Path) -> list[Path]:
    """What a run read, by its own account."""
    facts = ((read_json(run / "lineage.json") or {}).get("inputs") or {}).values()
    return [Path(fact["path"]) for fact in facts]


def same_world(folders: Sequence[Path]) -> Path | None:
    """The world behind all of these runs or worlds; None where none is known. InputError where there are several."""
    found = {folder: world for folder in folders if (world := world_behind(folder)) is not None}
    towns = {str((read_json(world / "world.json") or {}).get("fingerprint")) for world in found.values()}
    if len(towns) > 1:
        told = ", ".join(f"{folder} in {world}" for folder, world in found.items() if folder != world)
        raise InputError(
            f"made in different worlds, which share no questions: {told}",
            how="--no-preference compares what they wrote down",
        )
    return next(iter(found.values()), None)


def shared_input(a: Path, b: Path, names: Sequence[str]) -> Path | None:
    """The first of the named inputs that both runs read with the same content and that is still there."""
    one, other = ((read_json(run / "lineage.json") or {}).get("inputs") or {} for run in (a, b))
    same = [
        Path(one[name]["path"]) for name in names if name in one and name in other and alike(one[name], other[name])
    ]
    return next((path for path in same if path.exists()), None)


def alike(one: dict[str, str], other: dict[str, str]) -> bool:
    return one["sha256"] == other["sha256"]
