"""The report of a demo: report.html for people, report.json for programs, and the main table on the terminal.

Reads the stage folders of a run, finished or not, and shows what there is; missing stages are named and left empty. A
full run holds one demo a seed: each gets its report, and the whole one in which the claims are judged over all seeds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
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
from amenable.evaluation.preference import DECODINGS
from amenable.files import sha256, visible_files, write_text
from amenable.recipes.reports import control_page, formatting, report_data, summary
from amenable.recipes.reports.formatting import display_name
from amenable.recipes.reports.merge_evaluations import merge, preference_across
from amenable.recipes.reports.report_data import Figures, by_decoding
from amenable.recipes.reports.report_page import missing_line, render
from amenable.recipes.reports.tables import MEASURES
from amenable.recipes.reports.terminal import fixed_width, print_lines

COLUMNS = {
    "truthful": "truthful",
    "hallucination": "halluc.",
    "rude": "rude",
    "harmful": "harmful",
    "follows": "follows",
    "length": "length",
    "bpb": "bits/byte",
    "kl": "KL",
    "reward": "reward",
}
"""measure: heading on the terminal"""


@dataclass(frozen=True)
class Config:
    """Write the report of a demo."""

    run: Path = Path("runs/demo")
    """the folder that holds the stages' run directories, or the run directory of `amenable control`"""


def run(config: Config) -> Path:
    """Write report.json and report.html into the run's folder, print the main table, return the folder."""
    if control_page.is_control(config.run):
        return control_page.write(config.run)
    state = state_of(config.run)
    seeds = [
        seed for seed in seed_folders(config.run) if any(read_stage(stage) is not None for stage in seed.iterdir())
    ]
    finished = [seed for seed in seeds if not write(seed, [seed])["unfinished"]]
    facts = {"seeds": [{"name": seed.name, "finished": seed in finished} for seed in seeds], "state": state}
    figures = write(config.run, finished or seeds[:1] or [config.run], facts)
    print_report(figures, config.run / "report.html", Console())
    return config.run


def renew(folder: Path) -> Path:
    """Print the main table of a demo and return its folder; the report is written anew where the stages' files, or the
    code that reads them, have changed since."""
    page, data = folder / "report.html", folder / "report.json"
    figures = json.loads(data.read_text("utf-8")) if data.exists() and page.exists() else {}
    if figures.get("state") != state_of(folder):
        return run(Config(run=folder))
    print_report(figures, page, Console())
    return folder


def state_of(run: Path) -> str:
    """Return a hash of all that a report is made from: the code, and every file of the stages but their tensors."""
    package = Path(__file__).parents[1]
    demos = seed_folders(run) or [run]
    stages = [folder for demo in demos if demo.is_dir() for folder in demo.iterdir() if folder.is_dir()]
    files = [file for folder in stages for file in visible_files(folder) if "tensors" not in file.suffix]
    names = {file: file.relative_to(run).as_posix() for file in files}
    names |= {file: file.relative_to(package).as_posix() for file in package.rglob("*.py")}
    facts = sorted(f"{name}:{sha256(file)}\n" for file, name in names.items())
    return hashlib.sha256("".join(facts).encode()).hexdigest()


def write(run: Path, demos: Sequence[Path], facts: Mapping[str, Any] | None = None) -> Figures:
    """Write a run's report and return its figures: the claims over all `demos`, all else from the first of them.

    facts: "seeds", name of each demo of a full run and True if it is finished; "state", the hash that `renew` compares.
    """
    stages = read_stages(demos[0])
    try:
        across = preference_across(Evidence(demos[0]), merge(stages))
        figures = report_data.collect(stages, claims.decide(demos), tracked_curves(demos[0]), across)
    except InputError as error:  # a world of another version, say: all that needs no truth is still worth a report
        figures = {**report_data.collect(stages), "unjudged": str(error)}
    figures = {**figures, "seeds": [], **(facts or {})}
    write_text(run / "report.json", json.dumps(figures, indent=1, ensure_ascii=False, allow_nan=False))
    write_text(run / "report.html", render(figures, stages, run))
    return figures


def print_report(figures: Figures, page: Path, console: Console) -> None:
    """Print the main table, the headline comparison, and the path of the page."""
    console = fixed_width(console, 130)
    if figures["models"]:
        console.print(main_table(figures))
    sentences = (*summary.claim_counts(figures), *preference_lines(figures), *summary.reward_model(figures))
    print_lines(console, [line for line in (*sentences, missing_line(figures)) if line])
    print_lines(console, [f"report: {page}"], soft_wrap=True)


def main_table(figures: Figures) -> Table:
    """Return models x measures, sampled and greedy; a measure of no model has no column."""
    rows = [
        (decoding, name, by_decoding(model, decoding))
        for decoding in DECODINGS
        for name, model in figures["models"].items()
    ]
    columns = [key for key in COLUMNS if any(row[key] is not None for _, _, row in rows)]
    has_gold = any(row["gold"] is not None for _, _, row in rows)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in (["gold"] if has_gold else []) + [COLUMNS[key] for key in columns]:
        table.add_column(heading, justify="right", no_wrap=True)
    previous = None
    for decoding, name, row in rows:
        if decoding != previous:
            table.add_row(f"[dim]{decoding}[/dim]")
            previous = decoding
        if any(row[key] is not None for key in columns):  # the best of n has no greedy answers
            cells = [gold_text(row)] if has_gold else []
            table.add_row(display_name(name), *cells, *[MEASURES[key][2](row[key]) for key in columns])
    return table


def gold_text(figures: Figures) -> str:
    """Return gold with half of its interval."""
    half = formatting.half_width(figures["gold_low"], figures["gold_high"])
    return f"{formatting.decimal(figures['gold'])} {half}".rstrip()


def preference_lines(figures: Figures) -> list[str]:
    """Return the win rate of the aligned model against the one before it, a line a decoding."""
    after, before = map(display_name, report_data.headline_pair(figures) or ("", ""))
    return [
        f"{after} preferred to {before}, {decoding}: {formatting.percent(row['wins'])} "
        f"({formatting.interval(row['low'], row['high'])}, {row['n']} prompts, judges: {row['judges']})"
        for decoding, row in report_data.headline_preferences(figures).items()
    ]
