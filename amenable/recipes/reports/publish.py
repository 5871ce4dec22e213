"""Publication of a report: its figures as JSON, its page, and its table and headline on the terminal."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console

from amenable.files import write_text
from amenable.recipes.reports.terminal import Grid, fixed_width, print_lines, rich_table


def publish(folder: Path, name: str, figures: dict[str, Any], page: str, grid: Grid, width: int = 150) -> Path:
    """Write NAME.json and NAME.html, print the table and the figures' `headline` (lines), and return the folder.

    Numbers that are not finite are null. width: columns where the output is no terminal.
    """
    write_text(folder / f"{name}.json", json.dumps(finite(figures), indent=1, ensure_ascii=False))
    write_text(folder / f"{name}.html", page)
    console = fixed_width(Console(stderr=True), width)
    console.print(rich_table(grid))
    print_lines(console, [*figures["headline"], f"report: {folder / f'{name}.html'}"], soft_wrap=True)
    return folder


def finite(value: Any) -> Any:
    """Return JSON's lists, objects and values, with null for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return list(map(finite, value))
    return None if isinstance(value, float) and not math.isfinite(value) else value
