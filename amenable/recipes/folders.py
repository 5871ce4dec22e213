"""The stage folders of a demo, read back: what was asked, what came out, how it went.

A demo is a folder of run directories, one a stage. Whatever is not there yet is absent here: nothing is made up.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from amenable.errors import InputError

ORDER = ("world", "tokenizer", "pretrain", "sft", "sample", "annotate", "reward", "ppo", "dpo", "evaluate")
"""the stages of a demo, in the order they happen"""


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

    @property
    def seconds(self) -> float | None:
        return number(self.finished, "seconds")

    def curve(self, key: str) -> list[tuple[float, float]]:
        """(step, value) of every row of metrics.jsonl that holds a finite number under `key`."""
        found = ((number(row, "step"), number(row, key)) for row in self.metrics)
        return [(step, value) for step, value in found if step is not None and value is not None]


def read_stages(run: Path) -> list[Stage]:
    """Every stage folder below `run`, in the order they happened. InputError where there is none."""
    if not run.is_dir():
        raise InputError("no such folder", run, "give --run the folder that 'amenable demo' wrote")
    stages = [stage for folder in sorted(run.iterdir()) if (stage := read_stage(folder)) is not None]
    if not stages:
        how = f"a demo holds folders such as {ORDER[0]}, {ORDER[2]}, {ORDER[3]}; 'amenable demo' makes them"
        raise InputError("holds no stage of a demo", run, how)
    return sorted(stages, key=lambda stage: (ORDER.index(stage.command), stage.name != stage.command, stage.name))


def read_stage(folder: Path) -> Stage | None:
    """One run directory, or None where a folder is no stage of a demo."""
    config, finished = read_yaml(folder / "config.yaml"), read_json(folder / "finished.json")
    if config is None and finished is None:
        return None
    command = (config or {}).get("command") or (finished or {}).get("stage")
    if command not in ORDER:
        return None
    lineage = read_json(folder / "lineage.json") or {}
    return Stage(folder.name, command, folder, config or {}, lineage, finished, read_rows(folder / "metrics.jsonl"))


def missing(stages: list[Stage]) -> list[str]:
    """The stages of a demo that are not done."""
    done = {stage.command for stage in stages if stage.finished is not None}
    return [command for command in ORDER if command not in done]


def unfinished(stages: list[Stage]) -> list[str]:
    """The missing ones that are still to come: begun, or later than everything begun.

    An earlier one that is missing was left out on purpose, as a run on real text leaves out the world.
    """
    begun = {stage.command for stage in stages}
    latest = max(ORDER.index(command) for command in begun)
    return [command for command in missing(stages) if command in begun or ORDER.index(command) > latest]


def read_yaml(path: Path) -> dict[str, Any] | None:
    """A mapping, or None where there is no file."""
    if not path.is_file():
        return None
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise InputError("not readable as YAML", path, "run its stage again") from None
    return values if isinstance(values, dict) else {}


def read_json(path: Path) -> dict[str, Any] | None:
    """A mapping, or None where there is no file."""
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError:
        raise InputError("not readable as JSON", path, "run its stage again") from None
    return values if isinstance(values, dict) else {}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file, none where there is no file. A line torn by a stop is passed over."""
    if not path.is_file():
        return []
    rows = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                rows.append(row)
    return rows


def number(values: dict[str, Any] | None, key: str) -> float | None:
    """A finite number out of nested mappings, `key` being a name or a dotted path; None where there is none.

    >>> number({"heldout": {"accuracy": 0.7}}, "heldout.accuracy")
    0.7
    """
    found: Any = values
    if isinstance(found, dict) and key in found:
        found = found[key]
    else:
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found):
        return None
    return found
