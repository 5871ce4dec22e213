"""Stage folders of a demo: options, closing figures and metrics of every stage.

A demo is a folder of run directories, one a stage, and of plan/, where the recipe wrote down every stage before the
first began. A full run holds one demo a seed.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from amenable.data.files import read_json_lines
from amenable.errors import InputError
from amenable.rewards.spec import path_of, split_weight

ORDER = ("world", "tokenizer", "pretrain", "sft", "sample", "annotate", "reward", "ppo", "dpo", "evaluate")
"""the stages of a demo, in the order they happen"""


def is_stage(command: object) -> bool:
    """Return True for the command of a stage: one of the files in stages/."""
    name = command.replace("-", "_") if isinstance(command, str) else ""
    return name.isidentifier() and importlib.util.find_spec(f"amenable.stages.{name}") is not None


def order_of(command: str) -> tuple[int, str]:
    """Return a sort key: stages in the order they happen; a command that no demo has stands before evaluation."""
    last = ORDER.index("evaluate")
    return (2 * ORDER.index(command), "") if command in ORDER else (2 * last - 1, command)


@dataclass(frozen=True)
class Stage:
    """One run directory."""

    name: str
    """of the folder; a second run of a command (ppo-ptx) has its own"""
    command: str
    folder: Path
    config: dict[str, Any]
    lineage: dict[str, Any]
    finished: dict[str, Any] | None
    """closing figures, or None while the stage is not done"""
    metrics: list[dict[str, Any]]
    planned: bool = False
    """the recipe wrote it down, so that it is wanted even where its folder is not there yet"""

    @property
    def seconds(self) -> float | None:
        return number(self.finished, "seconds")

    @property
    def sessions(self) -> list[tuple[float, float]]:
        """(begin, end) in Unix time of each session of the run; none where it wrote no timings.jsonl."""
        rows = read_json_lines(self.folder / "timings.jsonl")
        pairs = ((number(row, "began"), number(row, "ended")) for row in rows)
        return [(began, ended) for began, ended in pairs if began is not None and ended is not None]

    def curve(self, key: str) -> list[tuple[float, float]]:
        """(step, value) of every row of metrics.jsonl that holds a finite number under `key`."""
        pairs = ((number(row, "step"), number(row, key)) for row in self.metrics)
        return [(step, value) for step, value in pairs if step is not None and value is not None]


def seed_folders(run: Path) -> list[Path]:
    """Return the demos of a full run, by seed: seed-0, seed-1 and so on. Empty where `run` is one demo."""
    folders = [
        folder for folder in run.glob("seed-*") if folder.is_dir() and folder.name.removeprefix("seed-").isdigit()
    ]
    return sorted(folders, key=lambda folder: int(folder.name.removeprefix("seed-")))


def read_stages(run: Path) -> list[Stage]:
    """Read every stage below `run`, in the order they happen, with those still to come. InputError where none began."""
    if not run.is_dir():
        raise InputError("no such folder", run, "give --run the folder that 'amenable demo' wrote")
    begun = [stage for folder in sorted(run.iterdir()) if (stage := read_stage(folder)) is not None]
    if not begun:
        hint = f"a demo holds folders such as {ORDER[0]}, {ORDER[2]}, {ORDER[3]}; 'amenable demo' makes them"
        raise InputError("holds no stage of a demo", run, hint)
    plan = read_plan(run)
    names = {stage.name for stage in begun}
    stages = [replace(stage, planned=stage.name in plan) for stage in begun]
    stages += [stage for name, stage in plan.items() if name not in names]
    return sorted(stages, key=lambda stage: (order_of(stage.command), stage.name != stage.command, stage.name))


def read_plan(run: Path) -> dict[str, Stage]:
    """Read the stages of plan/, by folder name, with their options and nothing else."""
    options = {path.stem: read_yaml(path) or {} for path in sorted((run / "plan").glob("*.yaml"))}
    return {
        name: Stage(name, config["command"], run / name, config, {}, None, [], planned=True)
        for name, config in options.items()
        if is_stage(config.get("command"))
    }


def read_stage(folder: Path) -> Stage | None:
    """Read one run directory; None for a folder that is no stage of a demo."""
    config, finished = read_yaml(folder / "config.yaml"), read_json(folder / "finished.json")
    if config is None and finished is None:
        return None
    command = (config or {}).get("command") or (finished or {}).get("stage")
    if not isinstance(command, str) or not is_stage(command):
        return None
    lineage = read_json(folder / "lineage.json") or {}
    rows = [
        row for row in read_json_lines(folder / "metrics.jsonl") if "health" not in row
    ]  # the summary is in finished too
    return Stage(folder.name, command, folder, config or {}, lineage, finished, rows)


def missing(stages: list[Stage]) -> list[str]:
    """Return the commands of a demo without a finished stage."""
    done = {stage.command for stage in stages if stage.finished is not None}
    return [command for command in ORDER if command not in done]


def unfinished(stages: list[Stage]) -> list[str]:
    """Return the stages still to come. Where there is a plan: those of it, and those begun, that are not done.

    Without a plan, the missing commands that were begun or are later than everything begun: an earlier one was left
    out on purpose, as a run on real text leaves out the world.
    """
    if any(stage.planned for stage in stages):
        return [stage.name for stage in stages if stage.finished is None]
    begun = {stage.command for stage in stages}
    latest = max(order_of(command) for command in begun)
    return [command for command in missing(stages) if command in begun or order_of(command) > latest]


def find_stage(stages: Sequence[Stage], name: str) -> Stage | None:
    """Return the stage of that folder, or None where it has not begun."""
    return next((stage for stage in stages if stage.name == name), None)


def paths_of(values: Any) -> list[str]:
    """Return the path in every string with a slash among nested options.

    >>> paths_of({"out": "a/b", "models": ["sft=runs/sft@few-shot"], "reward": ["runs/reward=0.5"], "seed": 1})
    ['a/b', 'runs/sft', 'runs/reward']
    """
    if isinstance(values, dict):
        return [path for value in values.values() for path in paths_of(value)]
    if isinstance(values, list):
        return [path for value in values for path in paths_of(value)]
    return [str(path_in(values))] if isinstance(values, str) and "/" in values else []


def path_in(text: str) -> Path:
    """Return the path of an option's value: of `name=folder@modifier`, of a reward (SPEC=WEIGHT), or the value itself.

    >>> path_in("ppo=runs/ppo@greedy"), path_in("runs/reward:good=2")
    (PosixPath('runs/ppo'), PosixPath('runs/reward'))
    """
    name, equals, folder = text.partition("=")
    if equals and "/" not in name:
        return Path(folder.split("@", 1)[0])
    spec, _ = split_weight(text)
    return path_of(spec) or Path(spec)


def read_yaml(path: Path) -> dict[str, Any] | None:
    """Read a mapping, or None where there is no file."""
    return read_mapping(path, yaml.safe_load, "YAML")


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a mapping, or None where there is no file."""
    return read_mapping(path, json.loads, "JSON")


def read_mapping(path: Path, parse: Callable[[str], Any], form: str) -> dict[str, Any] | None:
    """Read a mapping from a text file; None where there is no file, empty where the file holds something else."""
    if not path.is_file():
        return None
    try:
        values = parse(path.read_text("utf-8"))
    except (yaml.YAMLError, ValueError):
        raise InputError(f"not readable as {form}", path, "run its stage again") from None
    return values if isinstance(values, dict) else {}


def number(values: dict[str, Any] | None, key: str) -> float | None:
    """Return a finite number out of nested mappings, `key` being a name or a dotted path; None where there is none.

    >>> number({"heldout": {"accuracy": 0.7}}, "heldout.accuracy")
    0.7
    """
    value: Any = values
    if isinstance(value, dict) and key in value:
        value = value[key]
    else:
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value
