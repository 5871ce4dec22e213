"""What a demo came to: report.html for people, report.json for programs, and the main table on the terminal.

Reads the stage folders of a run, finished or not, and shows what there is; what is missing is named and left empty.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from amenable.recipes import words
from amenable.recipes.figures import Figures, figures_of, judges_of, pair_of, preferred
from amenable.recipes.folders import read_stages
from amenable.recipes.page import missing_line, render
from amenable.train.run import write_text

COLUMNS: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("truthful", "truthful", words.percent),
    ("hallucination", "halluc.", words.percent),
    ("rude", "rude", words.percent),
    ("harmful", "harmful", words.percent),
    ("follows", "follows", words.percent),
    ("length", "length", lambda value: words.plain(value, 1)),
    ("bpb", "bits/byte", lambda value: words.plain(value, 3)),
    ("kl", "KL", words.plain),
    ("reward", "reward", words.plain),
)
"""key, heading, how it is written"""


@dataclass(frozen=True)
class Config:
    """Write the report of a demo."""

    run: Path = Path("runs/demo")
    """the folder that holds the stages' run directories"""


def run(config: Config) -> Path:
    """Write report.json and report.html into the run's folder, print the main table, return the folder."""
    stages = read_stages(config.run)
    figures = figures_of(stages)
    write_text(config.run / "report.json", json.dumps(figures, indent=1, ensure_ascii=False, allow_nan=False))
    write_text(config.run / "report.html", render(figures, stages, config.run))
    tell(figures, config.run / "report.html", Console())
    return config.run


def tell(figures: Figures, page: Path, console: Console) -> None:
    """The main table, the headline comparison, and where the page is."""
    if not console.is_terminal:
        console = Console(file=console.file, width=110)
    if figures["models"]:
        console.print(main_table(figures))
    for line in (preference_lines(figures), *words.reward_model(figures), missing_line(figures)):
        if line:
            console.print(line, highlight=False, markup=False)
    console.print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)


def main_table(figures: Figures) -> Table:
    """Models x measures, sampled and greedy; what was measured of no model has no column."""
    rows = {
        decoding: {name: one if decoding == "sampled" else one["greedy"] for name, one in figures["models"].items()}
        for decoding in words.DECODINGS
    }
    every = [found for models in rows.values() for found in models.values()]
    columns = [column for column in COLUMNS if any(found[column[0]] is not None for found in every)]
    golden = any(found["gold"] is not None for found in every)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for heading in (["gold"] if golden else []) + [heading for _, heading, _ in columns]:
        table.add_column(heading, justify="right", no_wrap=True)
    for decoding, models in rows.items():
        table.add_row(f"[dim]{decoding}[/dim]")
        for name, found in models.items():
            cells = [gold_text(found)] if golden else []
            table.add_row(words.name_of(name), *cells, *[written(found[key]) for key, _, written in columns])
    return table


def gold_text(found: Figures) -> str:
    """Gold with half of its interval."""
    low, high = found["gold_low"], found["gold_high"]
    half = "" if low is None or high is None else f" ±{words.plain((high - low) / 2)}"
    return words.plain(found["gold"]) + half


def preference_lines(figures: Figures) -> str:
    """How often the aligned model is preferred to the one before it, a line a decoding."""
    pair, judges = pair_of(figures), judges_of(figures)
    if pair is None or judges is None:
        return ""
    after, before = map(words.name_of, pair)
    rows = [(name, preferred(figures, *pair, name, judges)) for name in words.DECODINGS]
    return "\n".join(
        f"{after} preferred to {before}, {name}: {words.percent(row['wins'])} "
        f"({words.span(row['low'], row['high'])}, {row['n']} prompts, judges: {judges})"
        for name, row in rows
        if row is not None
    )
