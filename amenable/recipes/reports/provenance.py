"""Provenance of runs: the closed world behind a run, and the inputs that runs have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from amenable.claims.stage_folders import read_json
from amenable.errors import InputError

DEPTH = 2
"""folders between a world's file and its root, at most"""


def world_behind(folder: Path) -> Path | None:
    """Return the closed world that a run was made from, searched among its inputs, their inputs and so on; or None."""
    waiting, visited = [folder], set()
    while waiting:
        path = waiting.pop(0)
        if path.resolve() in visited:
            continue
        visited.add(path.resolve())
        for above in (path, *list(path.parents)[:DEPTH]):
            if (above / "world.json").is_file():
                return above
        run = path if path.is_dir() else path.parent
        waiting += [Path(fact["path"]) for fact in inputs_of(run).values()]
    return None


def inputs_of(run: Path) -> dict[str, dict[str, str]]:
    """Return path and hash of a run's inputs, by name, from its lineage.json."""
    return (read_json(run / "lineage.json") or {}).get("inputs") or {}


def same_world(folders: Sequence[Path]) -> Path | None:
    """Return the world behind all of these runs or worlds; None where none is known. InputError where they differ."""
    worlds = {folder: world for folder in folders if (world := world_behind(folder)) is not None}
    towns = {str((read_json(world / "world.json") or {}).get("fingerprint")) for world in worlds.values()}
    if len(towns) > 1:
        pairs = ", ".join(f"{folder} in {world}" for folder, world in worlds.items() if folder != world)
        raise InputError(
            f"made in different worlds, which share no questions: {pairs}",
            how="--no-preference compares what they wrote down",
        )
    return next(iter(worlds.values()), None)


def shared_input(runs: Sequence[Path], names: Sequence[str]) -> Path | None:
    """Return the first of the named inputs that all runs read with the same content and that still exists."""
    inputs = [inputs_of(run) for run in runs]
    for name in names:
        facts = [own.get(name) for own in inputs]
        if facts and facts[0] and all(fact and fact["sha256"] == facts[0]["sha256"] for fact in facts):
            path = Path(facts[0]["path"])
            if path.exists():
                return path
    return None
