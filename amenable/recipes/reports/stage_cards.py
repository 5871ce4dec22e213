"""Each stage of a demo as the report tells it: what happens in it, what went in and came out, and its command."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from amenable.claims.stage_folders import Stage, number, paths_of
from amenable.recipes.reports import charts, words
from amenable.recipes.reports.diff_runs import metric_names
from amenable.train.guards import told_warning
from amenable.train.stage_report import StageReport


def report_of(command: str, metrics: Iterable[str] = ()) -> StageReport:
    """Return the REPORT of a stage's module; without one its name, first line, and a chart of each of `metrics`."""
    module = importlib.import_module(f"amenable.stages.{command.replace('-', '_')}")
    summary = (module.__doc__ or "").strip().partition("\n")[0]
    names = list(metrics)
    curves = tuple((name, ((name, "training"),)) for name in names)
    return getattr(module, "REPORT", StageReport(command, summary, next(iter(names), ""), curves=curves))


def step(stage: Stage) -> dict[str, Any]:
    """One stage for report.jinja: its box in the drawing, and what opens from it."""
    report = report_of(stage.command, metric_names(stage))
    facts = [(label, value) for label, key in report.facts if (value := number(stage.finished, key)) is not None]
    facts = facts or plain_facts(stage.finished or {})
    if rate := number(stage.finished, "tokens_per_second"):
        facts = [*facts, ("tokens a second", rate)]
    health = (stage.finished or {}).get("health") or {"fine": [], "warnings": []}
    return {
        "name": stage.name,
        "title": report.title if stage.name == stage.command else words.name_of(stage.name),
        "command_title": "" if stage.name == stage.command else report.title,
        "what": report.summary,
        "state": state(stage),
        "seconds": words.duration(stage.seconds) if stage.finished is not None else state(stage),
        "facts": [(label, words.amount(value)) for label, value in facts],
        "reads": reads(stage),
        "warnings": [told_warning(warning) for warning in health["warnings"]],
        "fine": ", ".join(health["fine"]),
        "spark": charts.sparkline(stage.curve(report.spark)) if report.spark else None,
        "spark_name": report.spark,
        "options": options(stage.config),
        "command": f"amenable {stage.command} --config {source(stage)}",
    }


def state(stage: Stage) -> str:
    """done, begun, or still to come."""
    return "done" if stage.finished is not None else "not finished" if stage.folder.is_dir() else "to come"


def source(stage: Stage) -> Path:
    """The file that repeats a stage: its own options, or those of the plan where it has not begun."""
    own = stage.folder / "config.yaml"
    return own if own.is_file() or not stage.planned else stage.folder.parent / "plan" / f"{stage.name}.yaml"


def plain_facts(finished: dict[str, Any], most: int = 4) -> list[tuple[str, float]]:
    """The first few numbers of finished.json, for a stage whose figures go by names of their own."""
    known = {"seconds", "tokens_per_second", "seed"}
    told = [(key, value) for key in finished if key not in known and (value := number(finished, key)) is not None]
    return [(key.replace("_", " "), value) for key, value in told[:most]]


def reads(stage: Stage) -> list[str]:
    """What goes in: the paths of the options, relative to the demo where they lie in it."""
    home = Path(str(stage.config.get("out", stage.folder))).parent
    told = {key: value for key, value in stage.config.items() if key != "out"}
    paths = [Path(path) for path in paths_of(told)]
    return list(dict.fromkeys(str(path.relative_to(home) if path.is_relative_to(home) else path) for path in paths))


def options(config: dict[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Every option that was set, by dotted name; paths and what the machine decides are told elsewhere."""
    found: list[tuple[str, str]] = []
    for key, value in config.items():
        name = f"{above}{key}"
        if isinstance(value, dict):
            found += options(value, f"{name}.")
        elif name != "command" and value is not None and not paths_of(value) and not name.startswith("device."):
            found.append((name, ", ".join(map(str, value)) if isinstance(value, list) else f"{value}"))
    return found
