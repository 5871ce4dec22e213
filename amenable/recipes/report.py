"""What a demo came to: report.html for people, report.json for programs, and the main table on the terminal.

Reads the stage folders of a run, finished or not, and shows what there is; what is missing is named and left empty. A
full run holds one demo a seed: each gets its report, and the whole one in which the claims are judged over all seeds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from amenable.claims import claims
from amenable.claims.evidence import Evidence
from amenable.claims.overoptimization import tracked_curves
from amenable.claims.stage_folders import read_stage, read_stages, seed_folders
from amenable.errors import InputError
from amenable.files import sha256, visible_files, write_text
from amenable.recipes.reports import words
from amenable.recipes.reports.merge_evaluations import merged, preference_across
from amenable.recipes.reports.report_data import Figures, figures_of, judges_of, pair_of, preferred
from amenable.recipes.reports.report_page import missing_line, render

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
    state, seeds = state_of(config.run), begun(seed_folders(config.run))
    figures = [write(seed, [seed]) for seed in seeds]
    settled = [seed for seed, found in zip(seeds, figures) if not found["unfinished"]]
    told = [{"name": seed.name, "finished": seed in settled} for seed in seeds]
    whole = write(config.run, settled or seeds[:1] or [config.run], {"seeds": told, "state": state})
    tell(whole, config.run / "report.html", Console())
    return config.run


def renew(folder: Path) -> Path:
    """Print the main table of a demo and return its folder; the report is written anew where the stages' files, or the
    code that reads them, are not those that it was made from."""
    page, kept = folder / "report.html", folder / "report.json"
    figures = json.loads(kept.read_text("utf-8")) if kept.exists() and page.exists() else {}
    if figures.get("state") != state_of(folder):
        return run(Config(run=folder))
    tell(figures, page, Console())
    return folder


def state_of(run: Path) -> str:
    """A hash of all that a report is made from: this package's code, and every file of the stages but their tensors."""
    package = Path(__file__).parents[1]
    demos = seed_folders(run) or [run]
    stages = [folder for demo in demos if demo.is_dir() for folder in demo.iterdir() if folder.is_dir()]
    files = [file for folder in stages for file in visible_files(folder) if "tensors" not in file.suffix]
    names = {file: file.relative_to(run).as_posix() for file in files}
    names |= {file: file.relative_to(package).as_posix() for file in package.rglob("*.py")}
    facts = sorted(f"{name}:{sha256(file)}\n" for file, name in names.items())
    return hashlib.sha256("".join(facts).encode()).hexdigest()


def begun(folders: Sequence[Path]) -> list[Path]:
    """The demos in which at least one stage has begun."""
    return [folder for folder in folders if any(read_stage(one) is not None for one in folder.iterdir())]


def write(run: Path, demos: Sequence[Path], more: Mapping[str, Any] | None = None) -> Figures:
    """Write a run's report and return its figures: the claims over all `demos`, all else from the first of them.

    more: "seeds", name and whether it is finished for every demo of a full run; "state", what it is made from.
    """
    stages = read_stages(demos[0])
    try:
        across = preference_across(Evidence(demos[0]), merged(stages))
        figures = figures_of(stages, claims.decide(demos), tracked_curves(demos[0]), across)
    except InputError as error:  # a world of another version, say: all that needs no truth is still worth a report
        figures = {**figures_of(stages), "unjudged": str(error)}
    figures = {**figures, "seeds": [], **(more or {})}
    write_text(run / "report.json", json.dumps(figures, indent=1, ensure_ascii=False, allow_nan=False))
    write_text(run / "report.html", render(figures, stages, run))
    return figures


def tell(figures: Figures, page: Path, console: Console) -> None:
    """The main table, the headline comparison, and where the page is."""
    if not console.is_terminal:
        console = Console(file=console.file, width=130)
    if figures["models"]:
        console.print(main_table(figures))
    told = (*words.claims(figures), preference_lines(figures), *words.reward_model(figures), missing_line(figures))
    for line in told:
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
    table.add_column("", no_wrap=True)
    for heading in (["gold"] if golden else []) + [heading for _, heading, _ in columns]:
        table.add_column(heading, justify="right", no_wrap=True)
    for decoding, models in rows.items():
        table.add_row(f"[dim]{decoding}[/dim]")
        for name, found in models.items():
            if all(found[key] is None for key, _, _ in columns):  # the best of n has no greedy answers
                continue
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
