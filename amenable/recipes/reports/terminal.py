"""Tables and lines on a terminal, or in a file of a fixed width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Grid:
    """A table of text for terminal and page; the first column names the rows."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


def fixed_width(console: Console, width: int) -> Console:
    """Return the console, or one of `width` columns where it is no terminal."""
    return console if console.is_terminal else Console(file=console.file, width=width)


def print_lines(console: Console, lines: Iterable[str], soft_wrap: bool = False) -> None:
    """Print lines as they are, without markup."""
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=soft_wrap)


def rich_table(grid: Grid) -> Table:
    """Return a grid as a rich table: first column left, others right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for i, head in enumerate(grid.heads):
        table.add_column(head, justify="right" if i else "left", overflow="fold")
    for row in grid.rows:
        table.add_row(*row)
    return table
