"""Ratings of models from comparisons: Elo and Bradley-Terry with intervals, battles, the matrix of win rates.

Reads votes of `arena` and rankings whose models are known (people's, simulated annotators', a judge's) from a store, or
comparisons from a file: rows of model_a, model_b, winner, as arenas publish them, or rankings with `models`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from amenable.errors import InputError
from amenable.feedback import votes
from amenable.feedback.leaderboard import RatingConfig, leaderboard
from amenable.feedback.ratings import Comparison
from amenable.feedback.store import Store
from amenable.recipes.reports.formatting import plural
from amenable.recipes.reports.terminal import fixed_width


@dataclass(frozen=True)
class Config:
    """Rate models from comparisons."""

    labels_db: Path = Path("runs/labels.db")
    """store of votes and rankings, as `arena` and `label` write it"""
    data: tuple[Path, ...] = ()
    """files of comparisons to read instead"""
    sources: tuple[votes.Kind, ...] = votes.KINDS
    """votes or rankings of a store that count"""
    annotators: tuple[str, ...] = ()
    """people or judges whose comparisons count; by default all"""
    json: bool = False
    """print JSON instead of tables"""
    rating: RatingConfig = field(default_factory=RatingConfig)


def run(config: Config) -> None:
    """Print the leaderboard."""
    board = leaderboard(read(config), config.rating)
    if config.json:
        print(json.dumps(board, indent=1))
        return
    console = fixed_width(Console(), 110)
    for table in (standings(board), win_rates(board)):
        console.print(table)
    for note in notes(board):
        console.print(note, style="dim", markup=False, highlight=False)


def read(config: Config) -> list[Comparison]:
    """Read the comparisons that count. Raises InputError where there is none."""
    if config.data:
        rows = [row for file in config.data for row in votes.read_comparisons(file, config.annotators)]
    elif config.labels_db.exists():
        with Store(config.labels_db) as store:
            rows = votes.comparisons(store, config.sources, config.annotators)
    else:
        raise InputError("there is no such store of votes", config.labels_db, "'amenable arena' makes one")
    if not rows:
        where = config.data[0] if config.data else config.labels_db
        raise InputError("nothing there compares two models that are known", where, "'amenable arena' collects votes")
    return rows


def make_table(title: str) -> Table:
    """Return an empty table of the leaderboard."""
    return Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left")


def standings(board: Mapping[str, Any]) -> Table:
    """Return a row a model, best first."""
    table = make_table(plural(board["battles"], "battle"))
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("Model", overflow="fold")
    for head in ("Rating", "95 %", "Elo", "Battles", "Won/tied/lost", "Score", "Length"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in board["players"]:
        ratings = [f"{row['rating']:.0f}", f"{row['low']:.0f} to {row['high']:.0f}", f"{row['elo']:.0f}"]
        counts = [str(row["battles"]), "/".join(str(row[name]) for name in ("wins", "ties", "losses"))]
        length = "" if row["length"] is None else f"{row['length']:.0f}"
        table.add_row(str(row["rank"]), escape(row["name"]), *ratings, *counts, f"{row['score']:.0%}", length)
    return table


def win_rates(board: Mapping[str, Any]) -> Table:
    """Return the score of the row's model against the column's, and the number of battles."""
    names: list[str] = [row["name"] for row in board["players"]]
    table = make_table("Win rates")
    for name in ("against", *map(escape, names)):
        table.add_column(name, justify="left" if name == "against" else "right", overflow="fold")
    for name in names:
        cells = [board["win_rates"][name].get(other) for other in names]
        table.add_row(escape(name), *(f"{cell['score']:.0%} of {cell['count']}" if cell else "·" for cell in cells))
    return table


def notes(board: Mapping[str, Any]) -> list[str]:
    """Return the notes that explain the tables."""
    notes = [
        "Rating: Bradley-Terry, with its 95 % interval (profile likelihood).",
        "The first column is one more than how many are surely better.",
        "Score: a tie, and both being bad, count one half. Length: mean characters.",
    ]
    if board["length_worth"] is not None:
        worth = "{rating:.0f} ({low:.0f} to {high:.0f}) points".format(**board["length_worth"])
        notes.append(f"At equal length; being longer by a usual difference is worth {worth}.")
    if board["unmeasured"]:
        notes.append(f"Left out, since nothing is said of lengths: {plural(board['unmeasured'], 'battle')}.")
    if board["several"]:
        notes.append(f"Several models fought under one name, and are rated as one: {', '.join(board['several'])}.")
    if len(board["groups"]) > 1:
        groups = "; ".join(", ".join(group) for group in board["groups"])
        notes.append(f"These groups never met, so that their ratings cannot be compared: {groups}.")
    return notes
