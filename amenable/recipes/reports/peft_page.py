"""Report of `amenable compare-peft`: for each stage a table of ways to fine-tune, with quality, parameters and cost.

Quality is measured example by example: accuracy is the mean of hits, the loss that of nats over tokens, each over all
seeds. Intervals resample examples, not seeds, whose own figures stand beside; differences are paired by example.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amenable.data.files import read_json_lines
from amenable.functional.statistics import bootstrap
from amenable.recipes.reports.formatting import NONE, decimal, estimate, plural
from amenable.recipes.reports.publish import publish
from amenable.recipes.reports.rendering import render
from amenable.recipes.reports.terminal import Grid
from amenable.seeds import seeded_generator
from amenable.train.memory_limit import gibibytes
from amenable.train.plan import human_count

Row = dict[str, Any]
HeldOut = Mapping[str, tuple[float, float]]
"""by example: 1 for a hit, or the loss in nats; and what it is divided by, 1 or the tokens"""
FULL = "full"
NAMES = {FULL: "all weights", "top": "top layers", "lora": "LoRA", "prompt": "prompt tuning", "prefix": "prefix tuning"}
STAGES = {"classify": ("Classification", "accuracy"), "sft": ("Supervised fine-tuning", "held-out loss")}
"""title of a stage's table, and its quality"""


@dataclass(frozen=True)
class WayRun:
    """A finished run of a way to fine-tune."""

    folder: Path
    learning_rate: float
    """its peak"""
    parameters: tuple[int, int]
    """those that train, and all"""
    examples: HeldOut

    @property
    def seconds(self) -> float:
        """Seconds of the run, without those of starting its process."""
        return float(json.loads((self.folder / "finished.json").read_text("utf-8"))["seconds"])

    @property
    def training_bytes(self) -> float | None:
        """The peak memory of its process beyond that with data and weights in memory, before the first step; None where
        it was not measured."""
        rows = read_json_lines(self.folder / "timings.jsonl")
        peaks = [row["peak_bytes"] - row["loaded_bytes"] for row in rows if row.get("loaded_bytes")]
        return max(peaks, default=None)


def write(folder: Path, results: Mapping[str, Mapping[str, list[WayRun]]], command: str) -> Path:
    """Write peft.json and peft.html, print the tables, and return the folder.

    results: by stage, the runs of each way, one a seed; the first way is the one that others differ from.
    """
    stages = {stage: figures_of(ways) for stage, ways in results.items()}
    lines = [line for stage, ways in stages.items() for line in headline(stage, ways)]
    grids = [table(stage, ways) for stage, ways in stages.items()]
    figures: Row = {"command": command, "headline": lines, "stages": stages}
    page = render("peft.jinja", "report.css", headline=lines, grids=grids, command=command)
    return publish(folder, "peft", figures, page, joined(grids))


def figures_of(ways: Mapping[str, Sequence[WayRun]]) -> Row:
    """Return the figures of each way on the examples that all ways have in a seed; seeds may hold out different
    ones."""
    shared = [set.intersection(*(set(run.examples) for run in runs)) for runs in zip(*ways.values(), strict=True)]
    keys = sorted(set.union(*shared))
    sums = {way: values_of(runs, shared, keys) for way, runs in ways.items()}
    first, figures = next(iter(ways)), {}
    for way, runs in ways.items():
        memory = [run.training_bytes for run in runs if run.training_bytes is not None]
        trained, total = runs[0].parameters
        figures[way] = {
            "quality": interval(sums[way]),
            "difference": None if way == first else interval(sums[way], sums[first]),
            "seeds": [ratio(each) for each in sums[way]],
            "examples": len(keys),
            "parameters": trained,
            "share": trained / total,
            "training_bytes": sum(memory) / len(memory) if memory else None,
            "seconds": sum(run.seconds for run in runs) / len(runs),
            "learning_rate": runs[0].learning_rate,
        }
    return figures


def values_of(runs: Sequence[WayRun], shared: Sequence[set[str]], keys: Sequence[str]) -> Tensor:
    """Return numerators and denominators of a way's runs by example [S, E, 2], zero where a seed does not share it."""
    rows = [
        [run.examples[key] if key in own else (0.0, 0.0) for key in keys] for run, own in zip(runs, shared, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.float64)


def interval(values: Tensor, others: Tensor | None = None) -> Row:
    """Return the quality of runs [S, E, 2], or its difference from that of others on the same examples, with its 95 %
    interval over examples."""

    def statistic(rows: Tensor) -> float:
        return ratio(values[:, rows]) - (ratio(others[:, rows]) if others is not None else 0.0)

    value, low, high = bootstrap(statistic, values.shape[1], seeded_generator(0, "peft"))
    return {"value": value, "low": low, "high": high}


def ratio(values: Tensor) -> float:
    """Return the sum of the numerators over that of the denominators [..., 2]."""
    numerator, denominator = values.flatten(0, -2).sum(0).tolist()
    return float(numerator / denominator)


def table(stage: str, figures: Mapping[str, Row]) -> Grid:
    """Return a row for each way."""
    title, quality = STAGES[stage]
    rows = []
    for way, row in figures.items():
        memory = row["training_bytes"]
        cells = (
            estimate(row["quality"], 3),
            " ".join(decimal(value, 3) for value in row["seeds"]),
            estimate(row["difference"], 3),
            f"{human_count(row['parameters'])} ({100 * row['share']:.3g} %)",
            NONE if memory is None else gibibytes(memory),
            f"{row['seconds']:.0f}",
            f"{row['learning_rate']:g}",
        )
        rows.append((NAMES[way], *cells))
    first = next(iter(figures.values()))
    note = (
        f"{plural(first['examples'], 'held-out example')}, {plural(len(first['seeds']), 'seed')}; 95 % intervals over"
    )
    note += " examples; differences are paired. Memory is the peak beyond that with data and weights loaded."
    heads = ("", quality, "by seed", "difference", "trained parameters", "memory", "seconds", "learning rate")
    return Grid(title, heads, rows, note)


def headline(stage: str, figures: Mapping[str, Row]) -> list[str]:
    """Return sentences on the best way, and on those that cannot be told from the first."""
    title, quality = STAGES[stage]
    sign = -1 if stage == "sft" else 1
    best = max(figures, key=lambda way: sign * figures[way]["quality"]["value"])
    first, *others = figures
    gaps = {way: figures[way]["difference"] for way in others}
    alike = [NAMES[way] for way, gap in gaps.items() if gap["low"] <= 0 <= gap["high"]]
    worse = [NAMES[way] for way, gap in gaps.items() if max(sign * gap["low"], sign * gap["high"]) < 0]
    lines = [f"{title}: the best {quality} is that of {NAMES[best]}, {decimal(figures[best]['quality']['value'], 3)}."]
    if alike:
        lines.append(f"{' and '.join(alike)} cannot be told from {NAMES[first]}.")
    if worse:
        lines.append(f"Worse than {NAMES[first]}: {', '.join(worse)}.")
    return lines


def joined(grids: Sequence[Grid]) -> Grid:
    """Return the tables as one for the terminal, each under its title."""
    rows = [row for grid in grids for row in [(grid.title, grid.heads[1], *[""] * (len(grid.heads) - 2)), *grid.rows]]
    return Grid("Ways to fine-tune", ("", "quality", *grids[0].heads[2:]), rows, grids[0].note)
