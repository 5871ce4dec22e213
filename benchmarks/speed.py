"""Tokens a second and peak memory of pretraining, SFT, reward, DPO, PPO and decoding.

    python -m benchmarks.speed --only pretrain,ppo --size 5M --precision bf16 --out table.md

Each row runs the stage's own functions on seeded data in a process of its own: a warm-up, then `repeats` timed steps,
whose median, least and most are printed. Memory is the process's peak less what it was after the imports.
The ceiling that training rows are compared with, a plain matrix product, is measured in the same run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal

import torch
import tyro

from amenable.errors import InputError
from amenable.train import plan
from amenable.train.runtime import DeviceOptions, start_runtime
from benchmarks.machine import Precision, alone, machine_line, measure_ceiling, peak_bytes, print_lines, seconds_of
from benchmarks.workloads import ROWS, SIZES, Size, SizeName


@dataclass(frozen=True)
class Config:
    """Measure tokens a second and peak memory on this processor."""

    only: str = ""
    """rows to measure, with commas between; without it all. 'decode' is every row that begins so"""
    size: Literal["both", "5M", "124M", "smoke"] = "both"
    """smoke runs everything in seconds and says nothing about speed"""
    precision: Literal["both", "fp32", "bf16"] = "both"
    repeats: int = 3
    """timed steps of a row, after one that warms up"""
    threads: int = 0
    """processor threads; 0 is one a core"""
    out: Path | None = None
    """also write the table to this file"""

    def __post_init__(self) -> None:
        plan.require_at_least(1, self, "repeats")
        plan.require_at_least(0, self, "threads")
        for name in self.only.split(",") if self.only else []:
            if name not in ROWS and name not in {row.split("-")[0] for row in ROWS}:
                raise InputError(f"there is no row '{name}'", "--only", f"choose from {', '.join(ROWS)}")

    @property
    def rows(self) -> list[str]:
        wanted = self.only.split(",")
        return [row for row in ROWS if not self.only or row in wanted or row.split("-")[0] in wanted]

    @property
    def sizes(self) -> list[SizeName]:
        return ["5M", "124M"] if self.size == "both" else [self.size]

    @property
    def precisions(self) -> list[Precision]:
        return ["fp32", "bf16"] if self.precision == "both" else [self.precision]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print. Returns the exit code."""
    config = tyro.cli(Config, args=arguments, prog="benchmarks.speed", description=__doc__)
    return print_lines(report(config), config.out, "benchmarks.speed")


def report(config: Config) -> Iterator[str]:
    """Yield the lines of a Markdown page: machine, ceiling, and the table row by row."""
    yield machine_line(config.threads)
    yield ""
    limit = alone(measure_ceiling, config.threads)
    if limit is None:
        raise MemoryError("the process that measures the ceiling was killed")
    yield limit.describe()
    yield ""
    yield table_line("size", "products", "row", "tokens/s", "min", "max", "of ceiling", "peak MiB", "a step")
    yield table_line("---", "---", "---", "---:", "---:", "---:", "---:", "---:", "---", fill="-")
    for size in config.sizes:
        for precision in config.precisions:
            for row in config.rows:
                measured = alone(measure, row, SIZES[size], precision, config.threads, config.repeats)
                yield from table_lines(size, precision, row, measured, limit.flops(precision))


def table_lines(size: str, precision: str, row: str, measured: Measured | None, ceiling: float) -> list[str]:
    """Return a row's lines; `ceiling` in FLOP/s; None is a row whose process was killed."""
    if measured is None:
        return [table_line(size, precision, row, "killed", "", "", "", "", "(no memory left?)")]
    lines = []
    for label, rates in measured.rates.items():
        share = f"{median(measured.flop_rates) / ceiling:.0%}" if any(measured.flop_rates) else ""
        numbers = [f"{number:,.0f}" for number in (median(rates), min(rates), max(rates))]
        memory = f"{measured.memory / 2**20:,.0f}"
        lines.append(table_line(size, precision, label, *numbers, share, memory, measured.description))
    return lines


def table_line(*cells: str, fill: str = " ") -> str:
    """Return a line of the table, in widths that keep it readable as plain text."""
    widths = (5, 8, 15, 8, 8, 8, 10, 8, 0)
    padded = [
        cell.rjust(width, fill) if 2 < column < 8 else cell.ljust(width, fill)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"


@dataclass(frozen=True)
class Measured:
    """Timings of a row."""

    rates: dict[str, list[float]]
    """tokens a second of each repeat, by line of the table"""
    flop_rates: list[float]
    """operations a second of each repeat; 0 where none are counted"""
    memory: int
    """peak bytes, less those after the imports"""
    description: str


def measure(row: str, size: Size, precision: Precision, threads: int, repeats: int) -> Measured:
    """Build the row's workload, warm up once, time `repeats` steps."""
    before = peak_bytes()
    runtime = start_runtime(DeviceOptions(device="cpu", precision=precision, threads=threads))
    torch.manual_seed(0)
    workload = ROWS[row](size, runtime)
    workload.step(0)
    timed = [seconds_of(partial(workload.step, number)) for number in range(1, repeats + 1)]
    works = [work for _, work in timed]
    rates = {label: [work.tokens[label] / seconds for seconds, work in timed] for label in works[0].tokens}
    description = ", ".join(part for part in (workload.description, works[-1].note) if part)
    return Measured(rates, [work.flops / seconds for seconds, work in timed], peak_bytes() - before, description)


if __name__ == "__main__":
    sys.exit(main())
