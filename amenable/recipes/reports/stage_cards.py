"""Cards of a demo's stages: what each does, its inputs and results, and the command that repeats it."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from amenable.claims.stage_folders import Stage, number, paths_of
from amenable.recipes.reports import charts, formatting
from amenable.recipes.reports.diff_runs import flat, metric_names
from amenable.train.guards import warning_line
from amenable.train.log import UNITS
from amenable.train.stage_report import StageReport


def report_of(command: str, metrics: Iterable[str] = ()) -> StageReport:
    """Return the REPORT of a stage's module; without one its name, first line, and a chart of each of `metrics`."""
    module = importlib.import_module(f"amenable.stages.{command.replace('-', '_')}")
    summary = (module.__doc__ or "").strip().partition("\n")[0]
    names = list(metrics)
    curves = tuple((name, ((name, "training"),)) for name in names)
    return getattr(module, "REPORT", StageReport(command, summary, next(iter(names), ""), curves=curves))


def card(stage: Stage) -> dict[str, Any]:
    """Return one stage for report.jinja: its box in the drawing, and the details that open from it."""
    report = report_of(stage.command, metric_names(stage))
    facts = [(label, value) for label, key in report.facts if (value := number(stage.finished, key)) is not None]
    facts = facts or first_numbers(stage.finished or {})
    for unit in UNITS:
        if rate := number(stage.finished, f"{unit}_per_second"):
            facts = [*facts, (f"{unit} a second", rate)]
    health = (stage.finished or {}).get("health") or {"fine": [], "warnings": []}
    return {
        "name": stage.name,
        "title": report.title if stage.name == stage.command else formatting.display_name(stage.name),
        "command_title": "" if stage.name == stage.command else report.title,
        "what": report.summary,
        "state": state(stage),
        "seconds": formatting.duration(stage.seconds) if stage.finished is not None else state(stage),
        "facts": [(label, formatting.amount(value)) for label, value in facts],
        "matrix": confusion(stage.finished or {}, report.matrix),
        "reads": input_paths(stage),
        "warnings": [warning_line(warning) for warning in health["warnings"]],
        "fine": ", ".join(health["fine"]),
        "spark": charts.sparkline(stage.curve(report.spark)) if report.spark else None,
        "spark_name": report.spark,
        "options": options(stage.config),
        "command": f"amenable {stage.command} --config {config_file(stage)}",
    }


def confusion(finished: dict[str, Any], key: str) -> dict[str, Any] | None:
    """Return the object of finished.json with labels and a confusion matrix; None without one."""
    figures = finished.get(key) or {} if key else {}
    return figures if "confusion" in figures else None


def state(stage: Stage) -> str:
    """Return "done", "not finished" or "to come"."""
    return "done" if stage.finished is not None else "not finished" if stage.folder.is_dir() else "to come"


def config_file(stage: Stage) -> Path:
    """Return the file that repeats a stage: its own config.yaml, or that of the plan before it has begun."""
    own = stage.folder / "config.yaml"
    return own if own.is_file() or not stage.planned else stage.folder.parent / "plan" / f"{stage.name}.yaml"


def first_numbers(finished: dict[str, Any], most: int = 4) -> list[tuple[str, float]]:
    """Return the first few numbers of finished.json, for a stage that declares no facts."""
    keys = [key for key in finished if key not in {"seconds", "seed", *(f"{unit}_per_second" for unit in UNITS)}]
    numbers = [(key.replace("_", " "), value) for key in keys if (value := number(finished, key)) is not None]
    return numbers[:most]


def input_paths(stage: Stage) -> list[str]:
    """Return the paths among a stage's options, relative to the demo where they lie in it."""
    root = Path(str(stage.config.get("out", stage.folder))).parent
    paths = map(Path, paths_of({key: value for key, value in stage.config.items() if key != "out"}))
    return list(dict.fromkeys(str(path.relative_to(root) if path.is_relative_to(root) else path) for path in paths))


def options(config: dict[str, Any]) -> list[tuple[str, str]]:
    """Return every option that was set, by dotted name, without paths and the device's options."""
    return [
        (name, ", ".join(map(str, value)) if isinstance(value, list) else f"{value}")
        for name, value in flat(config).items()
        if name != "command" and value is not None and not paths_of(value) and not name.startswith("device.")
    ]
