"""Lineage of a run: the tree of all its inputs, from this model back to raw files and labels.

Read off lineage.json of each run, which holds the hash that every input had when it was used. All are hashed again:
inputs that have changed since, or are gone, are marked.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from amenable import files
from amenable.claims.stage_folders import number, paths_of, read_json, read_yaml
from amenable.data.input_hash import hash_of_input
from amenable.data.readers import is_pattern
from amenable.errors import InputError
from amenable.models.hf_weights import shortened
from amenable.recipes.reports.diff_runs import flat
from amenable.train.run_options import plain_values

State = Literal["same", "changed", "gone", "not hashed"]
SHORT = 12
"""characters of a hash that are shown"""
PIPE_WIDTH = 10_000
"""characters of a line in a pipe, where nothing folds it"""
SHOWN_ABOVE = "shown above"
COLOURS: dict[State, str] = {"same": "green", "changed": "bold red", "gone": "yellow", "not hashed": "dim"}


@dataclass(frozen=True)
class Config:
    """Show the inputs of a run, and their inputs, back to raw data."""

    run: tyro.conf.Positional[Path] = Path("runs/ppo")
    """run directory"""
    json: bool = False
    """print it as data"""


@dataclass(frozen=True)
class Source:
    """One input of a run."""

    name: str
    path: str
    """as it was written down"""
    location: Path | None
    """its path now; None where it is gone"""
    sha256: str | None
    """when it was used; None where it was not hashed"""
    now: str | None
    """its hash now"""
    state: State
    made_by: RunLineage | None = None
    """the run that wrote it; None for a raw file"""


@dataclass(frozen=True)
class RunLineage:
    """A run, and all its inputs."""

    folder: Path
    stage: str
    sha256: str
    seconds: float | None
    options: dict[str, Any] = field(default_factory=dict)
    """by dotted name, those that are not the stage's defaults"""
    versions: dict[str, str] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    note: str = ""
    """remarks, such as that the run is shown above"""


def run(config: Config) -> Path:
    """Print the tree and return the folder."""
    lineage = trace(config.run)
    if config.json:
        print(json.dumps(to_json(lineage), indent=1, ensure_ascii=False))
    else:
        tree = Tree(run_label(lineage), guide_style="dim")
        add_branches(tree, lineage)
        Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH).print(tree)
    return config.run


def trace(folder: Path) -> RunLineage:
    """Return the lineage of a run. InputError where there is no such run."""
    require_run(folder, ("lineage.json",), "is no run: it has no lineage.json")
    return trace_run(folder, (), set(), {})


def require_run(folder: Path, files: Sequence[str], problem: str) -> None:
    """Raise InputError unless a folder exists and holds any of the files that a stage writes."""
    if not folder.is_dir():
        raise InputError("no such folder", folder, "name one that a stage wrote, such as runs/ppo")
    if not any((folder / name).exists() for name in files):
        inner = sorted(path.parent.name for path in folder.glob(f"*/{files[0]}"))
        hint = f"name one of the runs in it: {shortened(inner)}" if inner else "name one that a stage wrote"
        raise InputError(problem, folder, hint)


def trace_run(folder: Path, path: tuple[Path, ...], shown: set[Path], hashes: dict[Path, str]) -> RunLineage:
    """Return a run with its inputs. `path`: the runs it is an input of; `shown`: the runs expanded already."""
    resolved = folder.resolve()
    options, lineage, finished, note = read_facts(folder)
    stage = str(options.get("command") or lineage.get("stage") or ("labels" if "labels" in lineage else "run"))
    run = RunLineage(folder, stage, cached_hash(folder, hashes), number(finished, "seconds"))
    if resolved in path:
        return replace(run, note="goes into itself: the tree is a circle")
    if resolved in shown:
        return replace(run, note=SHOWN_ABOVE)
    shown.add(resolved)
    sources = []
    for name, written, sha256 in inputs_of(lineage):
        source = check_source(folder, name, written, sha256, hashes)
        maker = None if source.location is None else run_of(source.location)
        made_by = None if maker is None else trace_run(maker, (*path, resolved), shown, hashes)
        sources.append(replace(source, made_by=made_by))
    changed = changed_options(stage, options, {source.name for source in sources})
    versions = {str(name): str(value) for name, value in as_mapping(lineage.get("versions")).items()}
    return replace(run, options=changed, versions=versions, sources=tuple(sources), note=note)


def read_facts(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]:
    """Return a run's options, lineage and closing figures, and remarks on what is wrong with them."""
    facts: list[dict[str, Any]] = []
    notes = []
    for reader, name in ((read_yaml, "config.yaml"), (read_json, "lineage.json"), (read_json, "finished.json")):
        try:
            facts.append(reader(folder / name) or {})
        except InputError as error:
            facts.append({})
            notes.append(f"{name} is {error.what}")
    if (folder / "config.yaml").exists() and not (folder / "finished.json").exists():
        notes.append("has not finished")
    if not (folder / "lineage.json").exists():
        notes.append("has no lineage")
    return facts[0], facts[1], facts[2], "; ".join(notes)


def inputs_of(lineage: dict[str, Any]) -> Iterator[tuple[str, str, str | None]]:
    """Yield name, path and hash of a run's inputs; of exported labels, the store that they were collected in."""
    for name, fact in as_mapping(lineage.get("inputs")).items():
        path, sha256 = as_mapping(fact).get("path"), as_mapping(fact).get("sha256")
        if isinstance(path, str):
            yield str(name), path, sha256 if isinstance(sha256, str) else None
    if isinstance(lineage.get("store"), str):
        yield "store", lineage["store"], None


def as_mapping(value: Any) -> dict[str, Any]:
    """Return the value if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def check_source(folder: Path, name: str, path: str, sha256: str | None, hashes: dict[Path, str]) -> Source:
    """Locate one input of the run in `folder` and hash it again."""
    location = locate(path, folder, sha256, hashes)
    if location is None or sha256 is None:
        is_gone = location is None and "://" not in path
        return Source(name, path, location, sha256, None, "gone" if is_gone else "not hashed")
    now = cached_hash(location, hashes)
    return Source(name, path, location, sha256, now, "same" if now == sha256 else "changed")


def locate(path: str, folder: Path, sha256: str | None, hashes: dict[Path, str]) -> Path | None:
    """Return an input's path: as it was written down, else relative to the run directory or a folder above it.

    Of several, the first with the hash that it had, then the first.
    """
    candidates = [Path(path), *(above / path for above in (folder.resolve(), *folder.resolve().parents))]
    existing = [candidate for candidate in dict.fromkeys(candidates) if candidate.exists() or is_pattern(candidate)]
    same = (candidate for candidate in existing if sha256 is not None and cached_hash(candidate, hashes) == sha256)
    return next(same, next(iter(existing), None))


def cached_hash(path: Path, hashes: dict[Path, str]) -> str:
    """Return the hash of a file or folder, each computed once."""
    resolved = path.resolve()
    if resolved not in hashes:
        hashes[resolved] = hash_of_input(path, files.sha256)
    return hashes[resolved]


def run_of(path: Path) -> Path | None:
    """Return the run directory that a file lies in, or that a folder is; None for raw data."""
    above = [path, *path.parents] if not path.is_absolute() else [path, *path.resolve().parents]
    return next((folder for folder in above if (folder / "lineage.json").is_file()), None)


def changed_options(stage: str, options: dict[str, Any], inputs: set[str]) -> dict[str, Any]:
    """Return the options that differ from the stage's defaults, or follow from the model, by dotted name; no paths."""
    defaults = default_options(stage)
    return {
        name: value
        for name, value in flat(options).items()
        if name not in {"command", "out", *inputs} and not paths_of([value]) and defaults.get(name, ...) != value
    }


def default_options(stage: str) -> dict[str, Any]:
    """Return a stage's defaults as a run writes them, by dotted name; empty for an unknown stage."""
    try:
        module = importlib.import_module(f"amenable.stages.{stage.replace('-', '_')}")
    except ImportError:
        return {}
    return flat(plain_values(asdict(module.Config())))


def to_json(run: RunLineage) -> dict[str, Any]:
    """Return a run and its sources as plain values."""
    sources = []
    for source in run.sources:
        row = {**vars(source), "found": source.location, "made_by": source.made_by and to_json(source.made_by)}
        sources.append(plain_values({name: value for name, value in row.items() if name != "location"}))
    return plain_values({**vars(run), "sources": sources})


def add_branches(tree: Tree, run: RunLineage) -> None:
    """Add the sources of a run. A source that is a whole run is one branch, and so is a file of a run that is shown
    above; of another file in a run, the run is the branch below."""
    for source in run.sources:
        label, maker = source_label(source), source.made_by
        if maker is None:
            tree.add(label)
        elif source.location is not None and source.location.resolve() == maker.folder.resolve():
            add_branches(tree.add(Text.assemble(label, "  ", run_label(maker, with_folder=False))), maker)
        elif maker.note == SHOWN_ABOVE:
            tree.add(Text.assemble(label, (f"  of {maker.stage} {maker.folder}, {SHOWN_ABOVE}", "dim")))
        else:
            add_branches(tree.add(label).add(run_label(maker)), maker)


def source_label(source: Source) -> Text:
    """Return a source's name, path, hash and state."""
    line = Text.assemble((source.name, "bold"), f" {source.path}  ", ((source.sha256 or "")[:SHORT], "cyan"))
    state = f"changed: it is {source.now[:SHORT]} now" if source.state == "changed" and source.now else source.state
    line.append(f"  {state}", COLOURS[source.state])
    if source.location is not None and source.location != Path(source.path):
        line.append(f"  (found at {source.location})", "dim")
    return line


def run_label(run: RunLineage, with_folder: bool = True) -> Text:
    """Return a run's stage, folder, hash and seconds; below, its options that are not the defaults."""
    line = Text.assemble((run.stage, "bold magenta"))
    if with_folder:
        line.append(f" {run.folder}  ")
        line.append(run.sha256[:SHORT], "cyan")
    if run.seconds is not None:
        line.append(f"  {run.seconds:.1f} s")
    if run.note:
        line.append(f"  {run.note}", "yellow")
    if run.options:
        line.append("\n" + "  ".join(f"{name}={value}" for name, value in run.options.items()), "dim")
    return line
