"""Where a run comes from: the tree of everything that went in, from this model back to raw files and labels.

Read off lineage.json of each run, which holds the hash that every input had when it was used. All are hashed again: an
input that has changed since is marked, and one that is gone.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from amenable.claims.stage_folders import number, paths_of, read_json, read_yaml
from amenable.errors import InputError
from amenable.files import hash_of
from amenable.models.hf_weights import shortened
from amenable.recipes.reports.diff_runs import flat
from amenable.train.run import plain_values

State = Literal["same", "changed", "gone", "not hashed"]
SHORT = 12
"""characters of a hash that are shown"""
UNBROKEN = 10_000
"""characters of a line in a pipe, where nothing folds it"""
AGAIN = "told above"
COLOURS: dict[State, str] = {"same": "green", "changed": "bold red", "gone": "yellow", "not hashed": "dim"}


@dataclass(frozen=True)
class Config:
    """Show where a run comes from."""

    run: tyro.conf.Positional[Path] = Path("runs/ppo")
    """run directory"""
    json: bool = False
    """print it as data"""


@dataclass(frozen=True)
class Source:
    """One thing that went into a run."""

    name: str
    path: str
    """as it was written down"""
    found: Path | None
    """where it lies now; None where it is gone"""
    sha256: str | None
    """when it was used; None where nobody kept it"""
    now: str | None
    state: State
    made_by: Made | None = None
    """the run that made it; None for a raw file"""


@dataclass(frozen=True)
class Made:
    """A run, and all that went into it."""

    folder: Path
    stage: str
    sha256: str
    seconds: float | None
    options: dict[str, Any] = field(default_factory=dict)
    """by dotted name, those that are not the stage's defaults"""
    versions: dict[str, str] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    note: str = ""
    """what there is to say of it, such as that it is told above"""


def run(config: Config) -> Path:
    """Print the tree and return the folder."""
    made = trace(config.run)
    if config.json:
        print(json.dumps(plain_values(asdict(made)), indent=1, ensure_ascii=False))
    else:
        width = None if sys.stdout.isatty() else UNBROKEN
        Console(highlight=False, width=width).print(drawn(made))
    return config.run


def trace(folder: Path) -> Made:
    """A run and everything behind it. InputError where there is no such run."""
    if not folder.is_dir():
        raise InputError("no such run directory", folder, "name one that a stage wrote, such as runs/ppo")
    if not (folder / "lineage.json").exists():
        inner = sorted(path.parent.name for path in folder.glob("*/lineage.json"))
        how = f"name one of the runs in it: {shortened(inner)}" if inner else "name one that a stage wrote"
        raise InputError("is no run: it has no lineage.json", folder, how)
    return behind(folder, (), set(), {})


def behind(folder: Path, within: tuple[Path, ...], told: set[Path], hashes: dict[Path, str]) -> Made:
    """A run and what went into it. `within` are the runs it went into, `told` those that were expanded already."""
    place = folder.resolve()
    options, lineage, note = facts_of(folder)
    stage = str(options.get("command") or lineage.get("stage") or ("labels" if "labels" in lineage else "run"))
    seconds = number(finished_of(folder), "seconds")
    brief = Made(folder, stage, hashed(folder, hashes), seconds)
    if place in within:
        return replace(brief, note="goes into itself: the tree is a circle")
    if place in told:
        return replace(brief, note=AGAIN)
    told.add(place)
    sources = [looked_up(folder, name, path, sha256, hashes) for name, path, sha256 in inputs_of(lineage)]
    makers = [None if one.found is None else maker_of(one.found) for one in sources]
    sources = [
        one if maker is None else replace(one, made_by=behind(maker, (*within, place), told, hashes))
        for one, maker in zip(sources, makers)
    ]
    changed = chosen_options(stage, options, {one.name for one in sources})
    versions = {str(name): str(value) for name, value in as_mapping(lineage.get("versions")).items()}
    return replace(brief, options=changed, versions=versions, sources=tuple(sources), note=note)


def facts_of(folder: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """A run's options and lineage, and what is wrong with them."""
    found: list[dict[str, Any]] = []
    notes = []
    for reader, name in ((read_yaml, "config.yaml"), (read_json, "lineage.json")):
        try:
            found.append(reader(folder / name) or {})
        except InputError as error:
            found.append({})
            notes.append(f"{name} is {error.what}")
    if (folder / "config.yaml").exists() and not (folder / "finished.json").exists():
        notes.append("has not finished")
    if not (folder / "lineage.json").exists():
        notes.append("has no lineage")
    return found[0], found[1], "; ".join(notes)


def finished_of(folder: Path) -> dict[str, Any] | None:
    """Closing figures; None where there are none, or none that can be read."""
    try:
        return read_json(folder / "finished.json")
    except InputError:
        return None


def inputs_of(lineage: dict[str, Any]) -> Iterator[tuple[str, str, str | None]]:
    """Name, path and hash of what a run read; of exported labels, the store that they were collected in."""
    for name, fact in as_mapping(lineage.get("inputs")).items():
        path, sha256 = as_mapping(fact).get("path"), as_mapping(fact).get("sha256")
        if isinstance(path, str):
            yield str(name), path, sha256 if isinstance(sha256, str) else None
    if isinstance(lineage.get("store"), str):
        yield "store", lineage["store"], None


def as_mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def looked_up(folder: Path, name: str, path: str, sha256: str | None, hashes: dict[Path, str]) -> Source:
    """One input of the run in `folder`, hashed again."""
    found = find(path, folder, sha256, hashes)
    if found is None or sha256 is None:
        return Source(name, path, found, sha256, None, "gone" if found is None else "not hashed")
    now = hashed(found, hashes)
    return Source(name, path, found, sha256, now, "same" if now == sha256 else "changed")


def find(path: str, folder: Path, sha256: str | None, hashes: dict[Path, str]) -> Path | None:
    """Where an input lies: as it was written down, else seen from the run directory or a folder above it.

    Of several, the first with the hash that it had, then the first.
    """
    places = [Path(path), *(above / path for above in (folder.resolve(), *folder.resolve().parents))]
    there = [place for place in dict.fromkeys(places) if place.exists()]
    alike = (place for place in there if sha256 is not None and hashed(place, hashes) == sha256)
    return next(alike, next(iter(there), None))


def hashed(path: Path, hashes: dict[Path, str]) -> str:
    """The hash of a file or folder, each computed once."""
    place = path.resolve()
    if place not in hashes:
        hashes[place] = hash_of(path)
    return hashes[place]


def maker_of(path: Path) -> Path | None:
    """The run directory that a file lies in, or that a folder is; None for raw data."""
    above = [path, *path.parents] if not path.is_absolute() else [path, *path.resolve().parents]
    return next((place for place in above if (place / "lineage.json").is_file()), None)


def chosen_options(stage: str, options: dict[str, Any], inputs: set[str]) -> dict[str, Any]:
    """The options that differ from the stage's defaults, or follow from the model, by dotted name; paths are told as
    inputs."""
    defaults = default_options(stage)
    return {
        name: value
        for name, value in flat(options).items()
        if name not in {"command", "out", *inputs} and not paths_of([value]) and defaults.get(name, ...) != value
    }


def default_options(stage: str) -> dict[str, Any]:
    """A stage's defaults as a run writes them, by dotted name; nothing for what is no stage of ours."""
    try:
        module = importlib.import_module(f"amenable.stages.{stage.replace('-', '_')}")
    except ImportError:
        return {}
    return flat(plain_values(asdict(module.Config())))


# What is shown


def drawn(made: Made) -> Tree:
    """The tree as it is printed."""
    tree = Tree(described(made), guide_style="dim")
    grow(tree, made)
    return tree


def grow(tree: Tree, made: Made) -> None:
    """The sources of a run as branches. A source that is a whole run is one branch, and so is a file of a run that was
    told above; of another file in a run, the run is the branch below."""
    for one in made.sources:
        label, maker = told_source(one), one.made_by
        if maker is None:
            tree.add(label)
        elif one.found is not None and one.found.resolve() == maker.folder.resolve():
            grow(tree.add(Text.assemble(label, "  ", described(maker, named=False))), maker)
        elif maker.note == AGAIN:
            tree.add(Text.assemble(label, (f"  of {maker.stage} {maker.folder}, {AGAIN}", "dim")))
        else:
            grow(tree.add(label).add(described(maker)), maker)


def told_source(one: Source) -> Text:
    """Its name, path and hash, and what has become of it."""
    line = Text.assemble((one.name, "bold"), f" {one.path}  ", ((one.sha256 or "")[:SHORT], "cyan"))
    state = f"changed: it is {one.now[:SHORT]} now" if one.state == "changed" and one.now else one.state
    line.append(f"  {state}", COLOURS[one.state])
    if one.found is not None and one.found != Path(one.path):
        line.append(f"  (found at {one.found})", "dim")
    return line


def described(made: Made, named: bool = True) -> Text:
    """A run's stage, folder, hash and seconds; below, its options that are not the defaults."""
    line = Text.assemble((made.stage, "bold magenta"))
    if named:
        line.append(f" {made.folder}  ")
        line.append(made.sha256[:SHORT], "cyan")
    if made.seconds is not None:
        line.append(f"  {made.seconds:.1f} s")
    if made.note:
        line.append(f"  {made.note}", "yellow")
    if made.options:
        line.append("\n" + "  ".join(f"{name}={value}" for name, value in made.options.items()), "dim")
    return line
