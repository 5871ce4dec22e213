"""Rate models by what was said of them: Elo and Bradley-Terry with intervals, battles, the matrix of win rates.

Reads votes of `arena` and rankings whose models are known (people's, simulated annotators', a judge's) from a store, or
comparisons from a file: rows of model_a, model_b, winner, as arenas publish them, or rankings with `models`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True)
class Config:
    """Whose word counts, and how ratings are made of it."""

    store: Path = Path("runs/labels.db")
    """what was said, as `arena` and `label` keep it"""
    data: tuple[Path, ...] = ()
    """files of comparisons to read instead"""
    kinds: tuple[votes.Kind, ...] = votes.KINDS
    """what counts of a store"""
    annotators: tuple[str, ...] = ()
    """whose word counts, people or judges; everybody's without it"""
    json: bool = False
    """print JSON instead of tables"""
    rating: RatingConfig = field(default_factory=RatingConfig)


def run(config: Config) -> None:
    """Print the leaderboard."""
    found = leaderboard(read(config), config.rating)
    if config.json:
        print(json.dumps(found, indent=1))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=110)
    for table in (standings(found), matrix(found)):
        console.print(table)
    for note in notes(found):
        console.print(note, style="dim", markup=False, highlight=False)


def read(config: Config) -> list[Comparison]:
    """Read the comparisons that count. Raises InputError where there is none."""
    if config.data:
        found = [row for file in config.data for row in votes.read_comparisons(file, config.annotators)]
        where = config.data[0]
    else:
        if not config.store.exists():
            raise InputError("there is no such store of votes", config.store, "'amenable arena' makes one")
        with Store(config.store) as store:
            found = votes.comparisons(store, config.kinds, config.annotators)
        where = config.store
    if not found:
        raise InputError("nothing there compares two models that are known", where, "'amenable arena' collects votes")
    return found


def standings(found: Mapping[str, Any]) -> Table:
    """One row a model, best first."""
    table = Table(
        box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=counted(found["battles"], "battle"), title_justify="left"
    )
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("Model", overflow="fold")
    for head in ("Rating", "95 %", "Elo", "Battles", "Won/tied/lost", "Score", "Length"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in found["players"]:
        ratings = [f"{row['rating']:.0f}", f"{row['low']:.0f} to {row['high']:.0f}", f"{row['elo']:.0f}"]
        counts = [str(row["battles"]), "/".join(str(row[name]) for name in ("wins", "ties", "losses"))]
        length = "" if row["length"] is None else f"{row['length']:.0f}"
        table.add_row(str(row["rank"]), escape(row["name"]), *ratings, *counts, f"{row['score']:.0%}", length)
    return table


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def matrix(found: Mapping[str, Any]) -> Table:
    """What the row scored against the column, and in how many battles."""
    names: Sequence[str] = [row["name"] for row in found["players"]]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title="Win rates", title_justify="left")
    for name in ("against", *map(escape, names)):
        table.add_column(name, justify="left" if name == "against" else "right", overflow="fold")
    for name in names:
        cells = [found["win_rates"][name].get(other) for other in names]
        table.add_row(escape(name), *(f"{cell['score']:.0%} of {cell['count']}" if cell else "·" for cell in cells))
    return table


def notes(found: Mapping[str, Any]) -> list[str]:
    """What a reader must know to read the tables rightly."""
    told = [
        "Rating: Bradley-Terry, with its 95 % interval (profile likelihood).",
        "The first column is one more than how many are surely better.",
        "Score: a tie, and both being bad, count one half. Length: mean characters.",
    ]
    if found["length_worth"] is not None:
        worth = found["length_worth"]
        ends = f"{worth['low']:.0f} to {worth['high']:.0f}"
        told.append(
            f"At equal length; being longer by a usual difference is worth {worth['rating']:.0f} ({ends}) points."
        )
    if found["unmeasured"]:
        told.append(f"Left out, since nothing is said of lengths: {counted(found['unmeasured'], 'battle')}.")
    if found["several"]:
        told.append(f"Several models fought under one name, and are rated as one: {', '.join(found['several'])}.")
    if len(found["groups"]) > 1:
        groups = "; ".join(", ".join(group) for group in found["groups"])
        told.append(f"These groups never met, so that their ratings cannot be compared: {groups}.")
    return told
