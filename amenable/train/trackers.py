"""Experiment trackers: TensorBoard, Weights & Biases, Trackio. They get what a run's files have, and never stop it.

tensorboard   OUT/tensorboard/: scalars, samples and options as text; `tensorboard --logdir runs`
wandb         project, run OUT-ID; offline, in OUT/wandb/, where it cannot log in (`wandb sync` sends it later)
trackio       project, run OUT-ID, in trackio's own folder; `trackio show`

trackers.json in the run directory has the ID: a run that goes on is the same run there. Steps that are done again, with
the same numbers, are not sent twice.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from amenable.errors import InputError, describe
from amenable.files import write_text

TrackerName = Literal["tensorboard", "wandb", "trackio"]
FOLDERS = ("tensorboard", "wandb")
"""folders of trackers in a run directory"""
STATE = "trackers.json"
CELL = 2000
"""characters of a text in a table of samples"""


class Tracker(Protocol):
    """A run at a tracker."""

    first: int
    """first step that it takes; those before it has already"""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Send the metrics of a step."""

    def samples(self, step: int, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Send a table of samples."""

    def finish(self, step: int, summary: Mapping[str, Any] | None) -> None:
        """Send the final metrics, if the run has finished, and end the connection."""


@dataclass(frozen=True)
class TrackedRun:
    """A run as trackers name it."""

    out: Path
    project: str
    options: Mapping[str, Any]
    """as YAML has them"""
    done: int = 0
    """steps that were done before, and are not done again"""
    sent: int = 0
    """newest step that was sent before"""

    @property
    def id(self) -> str:
        """Its identity at trackers, made at the first use."""
        file = self.out / STATE
        if not file.exists():
            write_text(file, json.dumps({"id": secrets.token_hex(4)}))
        return str(json.loads(file.read_text("utf-8"))["id"])

    @property
    def name(self) -> str:
        return f"{self.out.resolve().name}-{self.id}"


@dataclass
class Trackers:
    """Trackers of a run. One that fails is left, with a warning."""

    active: dict[str, Tracker]
    warn: Callable[[str], None]
    step: int = 0

    def metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Send the finite numbers among the metrics of a step."""
        self.step = step
        numbers = {key: float(value) for key, value in values.items() if is_number(value)}
        if numbers:
            self.each("metrics", step, numbers)

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send samples as a table."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        if rows:
            self.each("samples", step, columns, [[cell(row.get(column)) for column in columns] for row in rows])

    def finish(self, summary: Mapping[str, Any] | None = None) -> None:
        """End all connections; with a summary the run has finished."""
        self.each("finish", self.step, summary)
        self.active.clear()

    def each(self, call: str, *arguments: Any) -> None:
        """Call a method of each tracker; arguments: the step, and others."""
        for name, tracker in list(self.active.items()):
            try:
                if call == "finish" or max(arguments[0], 1) >= tracker.first:
                    getattr(tracker, call)(*arguments)
            except Exception as error:
                del self.active[name]
                self.warn(f"{name} fails and gets no more rows, which metrics.jsonl has: {describe(error)}")


def require_installed(names: Sequence[str]) -> None:
    """Raise InputError, with the command that mends it, for the first tracker that is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise InputError(f"--track {name}: it is not installed", how=f"pip install {name}")


def start(names: Sequence[str], run: TrackedRun, warn: Callable[[str], None]) -> Trackers:
    """Begin, or resume, a run at each tracker. One that cannot be begun is left, with a warning."""
    trackers = Trackers({}, warn)
    for name in names:
        try:
            trackers.active[name] = TYPES[name](run, warn)
        except Exception as error:
            warn(f"{name} cannot be begun, and the run goes on without: {describe(error)}")
    return trackers


class TensorBoard:
    """Event files in the run directory. Rows after the steps that were done are replaced when they come again."""

    def __init__(self, run: TrackedRun, warn: Callable[[str], None]):
        from torch.utils.tensorboard import SummaryWriter

        self.first = run.done + 1
        self.writer = SummaryWriter(str(run.out / "tensorboard"), purge_step=self.first if run.sent else None)
        self.writer.add_text("options", as_code(run.options), run.done)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(re.sub(r"[^\w/.\-]+", "_", name).strip("/"), value, step)

    def samples(self, step: int, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        lines = [columns, ["---"] * len(columns), *rows]
        table = "\n".join("| " + " | ".join(str(item).replace("|", "\\|") for item in line) + " |" for line in lines)
        self.writer.add_text("samples", table, step)
        self.writer.flush()

    def finish(self, step: int, summary: Mapping[str, Any] | None) -> None:
        if summary is not None:
            self.writer.add_text("summary", as_code(summary), step)
        self.writer.close()


class Wandb:
    """Run of Weights & Biases: online where it can log in, else offline. Its environment variables hold."""

    def __init__(self, run: TrackedRun, warn: Callable[[str], None]):
        import wandb

        self.wandb, self.first = wandb, run.sent + 1
        options: dict[str, Any] = {"dir": str(run.out), "id": run.id, "name": run.name, "resume": "allow"}
        options |= {"project": os.environ.get("WANDB_PROJECT", run.project), "config": dict(run.options)}
        options["settings"] = wandb.Settings(console="off", init_timeout=30)
        try:
            self.run = wandb.init(**options)
        except Exception as error:
            warn(f"wandb works offline, for `wandb sync {run.out}/wandb/offline-*`: {describe(error)}")
            wandb.teardown()  # the run that could not be begun holds its identity
            self.run = wandb.init(**options, mode="offline")

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def samples(self, step: int, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        table = self.wandb.Table(columns=list(columns), data=[list(map(str, row)) for row in rows])
        self.run.log({"samples": table}, step=step)

    def finish(self, step: int, summary: Mapping[str, Any] | None) -> None:
        if summary is not None:
            self.run.summary.update(dict(summary))
        self.run.finish(exit_code=0 if summary is not None else 1)


class Trackio:
    """Run of Trackio, in its own folder or where its environment variables say."""

    def __init__(self, run: TrackedRun, warn: Callable[[str], None]):
        import trackio

        self.trackio, self.first = trackio, run.sent + 1
        self.run = trackio.init(
            project=run.project, name=run.name, config=dict(run.options), resume="allow", embed=False
        )

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def samples(self, step: int, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        table = self.trackio.Table(columns=list(columns), data=[list(map(str, row)) for row in rows])
        self.run.log({"samples": table}, step=step)

    def finish(self, step: int, summary: Mapping[str, Any] | None) -> None:
        if summary is not None:
            self.run.log({f"summary/{key}": value for key, value in summary.items() if is_number(value)}, step=step)
        self.run.finish()


TYPES: dict[str, Callable[[TrackedRun, Callable[[str], None]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "trackio": Trackio,
}


def is_number(value: Any) -> bool:
    """Return True for a finite number; a truth value is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def cell(value: Any) -> Any:
    """Return a value as the cell of a table: texts in one line and cut, numbers as they are."""
    if isinstance(value, (int, float)):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.replace("\n", "\\n")[:CELL]


def as_code(values: Mapping[str, Any]) -> str:
    """Return values as an indented block of JSON, which TensorBoard's text shows as it is."""
    return "\n".join(f"    {line}" for line in json.dumps(dict(values), indent=1, default=str).splitlines())
