"""Write lines, gold and KL of each algorithm into the table of docs/algorithms.md, from a race.

python -m benchmarks.algorithm_table runs/race/race.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro

from amenable.errors import InputError

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "algorithms.md"
MEASURED = 3
"""columns that are written: lines, gold over SFT, KL"""


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
    gain = row["gain"]
    return [str(row["lines"]), f"{gain['value']:+.2f} ({gain['low']:.2f} to {gain['high']:.2f})", f"{row['kl']:.2f}"]


if __name__ == "__main__":
    tyro.cli(main)
