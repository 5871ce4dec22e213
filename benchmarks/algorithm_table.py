"""Write lines, gold, verdict and KL of each algorithm into the table of docs/algorithms.md, from a race.

python -m benchmarks.algorithm_table runs/race/race.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro

from amenable.errors import InputError
from amenable.recipes.reports.formatting import decimal
from amenable.recipes.reports.race_page import gain_text, verdict

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "algorithms.md"
MEASURED = 4
"""columns that are written: lines, gold over SFT sampled and greedy, KL"""


def main(race: tyro.conf.Positional[Path], page: Path = PAGE) -> None:
    """Rewrite the measured columns of the page's table.

    race: race.json of `amenable race`. page: the page with the table.
    """
    if not race.is_file():
        raise InputError("no such file", race, "make it by `amenable race`")
    algorithms = json.loads(race.read_text("utf-8"))["algorithms"]
    lines = [rewritten(line, algorithms) for line in page.read_text("utf-8").splitlines()]
    page.write_text("\n".join(lines) + "\n", "utf-8")


def rewritten(line: str, algorithms: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a line of the page, with new numbers where it is the row of a raced algorithm."""
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    if not line.startswith("|") or cells[0] not in algorithms:
        return line
    return "| " + " | ".join([*cells[:-MEASURED], *measured(algorithms[cells[0]])]) + " |"


def measured(row: Mapping[str, Any]) -> list[str]:
    """Return the measured cells of an algorithm."""
    greedy = f"{gain_text(row['gain_greedy'])}, {verdict(row)}"
    return [str(row["lines"]), gain_text(row["gain"]), greedy, decimal(row["kl"])]


if __name__ == "__main__":
    tyro.cli(main)
