"""What a run says: rows in files (metrics, samples), bars on a terminal, plain lines in a pipe.

metrics.jsonl holds what the seed decides and nothing of the clock, so that two runs can be compared bit for bit;
times go to timings.jsonl.
"""

from __future__ import annotations

import atexit
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Display
from rich.table import Column, Table

from amenable.data.files import read_json_lines
from amenable.files import disk_errors, sync_file, sync_folder, write_text
from amenable.train import guards

FILES = ("metrics", "samples", "traces", "answers", "timings")
"""the files of rows, each row with its step; a run that goes on after a stop drops those it will make again"""
BAR_WIDTH = 24
"""columns; what a narrow terminal has no room for is taken from the figures beside the bar"""
PIPE_WIDTH = 130
PAUSE = 10.0
"""seconds between two lines about progress in a pipe"""

Part = TypeVar("Part")
Progress = Callable[[int, int], None]
"""called with how much of a piece of work is done, and of how much: first with 0, last with all of it"""
Bars = Callable[[str], Progress]
"""gives the progress of a piece of work, by the name that it is shown under"""


def silent(done: int, total: int) -> None:
    """The progress of work that nobody looks at."""


def tracked(parts: Sequence[Part], progress: Progress) -> Iterator[Part]:
    """The parts of some work, one after another: `progress` is called before each, and when the last one is done or no
    more are taken."""
    try:
        for done, part in enumerate(parts):
            progress(done, len(parts))
            yield part
    finally:
        progress(len(parts), len(parts))


def no_bars(name: str) -> Progress:
    """Bars where nobody looks."""
    return silent


class Log:
    """Rows of numbers in files, and progress on the screen."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        self.console = Console(file=sys.stderr, highlight=False)
        self.display: Display | None = None
        self.steps: TaskID | None = None
        self.told = 0.0
        self.latest = ""
        self.tokens, self.seconds = 0, 0.0

    def info(self, line: str) -> None:
        """One line to the person at the screen; nothing where it is empty."""
        if not line:
            return
        self.console.print(f"[bold]{self.name}[/bold]  {escape(line)}", soft_wrap=True)

    def show(self, table: Table) -> None:
        """A table; a pipe gets it as wide as it is."""
        wide = Console(file=self.console.file, width=PIPE_WIDTH)
        (self.console if self.console.is_terminal else wide).print(table)

    def warn(self, line: str) -> None:
        """One line that should not be overlooked."""
        self.console.print(f"[bold]{self.name}[/bold]  [yellow]warning[/yellow]  {escape(line)}", soft_wrap=True)

    def health(self, health: dict[str, Any]) -> None:
        """The summary at the end of a run: what is fine in green, the warnings in yellow."""
        for good, line in guards.lines(health):
            mark = "[green]fine[/green]" if good else "[yellow]warning[/yellow]"
            self.console.print(f"[bold]{self.name}[/bold]  {mark}  {escape(line)}", soft_wrap=True)

    def read(self, name: str) -> list[dict[str, Any]]:
        """The rows of one of FILES; none where there is no such file yet."""
        return read_json_lines(self.folder / f"{name}.jsonl")

    def row(self, step: int, values: dict[str, Any]) -> None:
        """Append one row to metrics.jsonl. Tensors become numbers; what is not finite becomes null."""
        plain = {key: plain_number(value) for key, value in values.items()}
        append(self.folder / "metrics.jsonl", [{"step": step, **plain}])

    def samples(self, step: int, rows: list[dict[str, Any]]) -> None:
        """Append rows to samples.jsonl: what the model said, and what was thought of it."""
        self.rows("samples", step, rows)

    def rows(self, name: str, step: int, rows: list[dict[str, Any]]) -> None:
        """Append rows to one of FILES. What was measured before any training has step 0."""
        append(self.folder / f"{name}.jsonl", [{"step": step, **row} for row in rows])

    def session(self, step: int, seconds: float) -> None:
        """Append to timings.jsonl when the present session began and ended, in Unix time; `seconds` it has taken."""
        now = time.time()
        self.rows("timings", step, [{"began": now - seconds, "ended": now}])

    def truncate_after(self, step: int) -> None:
        """Drop the rows after a step: they will be made again. Rows of step 0 are made with those of step 1."""
        for name in FILES:
            path = self.folder / f"{name}.jsonl"
            if path.exists():
                rows = [line for line in lines_of(path) if kept(line, step)]
                write_text(path, "".join(line + "\n" for line in rows))

    def replace(self, name: str, step: int, rows: list[dict[str, Any]]) -> None:
        """Write one of FILES whole, in place of what it held: for rows that are made when all steps are done."""
        write_text(self.folder / f"{name}.jsonl", as_lines([{"step": step, **row} for row in rows]))

    def sync(self) -> None:
        """See to it that all rows are on the disk, before a checkpoint counts on them."""
        with disk_errors(self.folder):
            for path in (self.folder / f"{name}.jsonl" for name in FILES):
                if path.exists():
                    sync_file(path)
            sync_folder(self.folder)

    def latest_row(self) -> dict[str, Any]:
        """The values of the last row of metrics.jsonl; nothing where there is no row yet."""
        path = self.folder / "metrics.jsonl"
        rows = lines_of(path) if path.exists() else []
        return {key: value for key, value in json.loads(rows[-1]).items() if key != "step"} if rows else {}

    def open(self, done: int, total: int) -> None:
        """Start the bar (on a terminal) or the counting of lines (in a pipe)."""
        self.total, self.begun, self.first, self.told = total, time.monotonic(), done, time.monotonic()
        self.tokens, self.seconds = 0, 0.0
        if self.console.is_terminal:
            display = self.shown()
            display.live.transient = False
            self.steps = display.add_task(f"[bold]{self.name}", total=total, completed=done, latest="")

    def advance(self, done: int, tokens: int, values: dict[str, Any]) -> None:
        """Move the bar to `done` steps; the pipe gets a line now and then."""
        now = time.monotonic()
        self.tokens += tokens
        self.seconds = now - self.begun
        rate = f"{self.tokens / max(self.seconds, 1e-9):,.0f} tok/s  " if self.tokens else ""
        self.latest = rate + "  ".join(f"{key} {short(value)}" for key, value in values.items())
        if self.display is not None and self.steps is not None:
            self.display.update(self.steps, completed=done, latest=self.latest)
        elif now - self.told > PAUSE or done == self.total:
            left = (self.total - done) * self.seconds / max(done - self.first, 1)
            self.told = now
            self.info(f"{done}/{self.total}  {self.latest}  {left:.0f} s left")

    def bar(self, name: str) -> Bar:
        """The progress of a piece of work in this run, such as a pass of a model over some rows."""
        return Bar(self, name)

    def shown(self) -> Display:
        """The bars on the terminal; they begin with the first of them, and end with the process at the latest."""
        if self.display is None:
            self.display = Display(
                TextColumn("{task.description}"),
                BarColumn(bar_width=BAR_WIDTH),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[latest]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
                console=self.console,
                expand=True,
                transient=True,
            )
            self.display.start()
            atexit.register(self.close)
        return self.display

    def close(self) -> None:
        """Take the bars away; that of the steps stays as it is."""
        if self.display is not None:
            for task in set(self.display.task_ids) - {self.steps}:
                self.display.remove_task(task)
            self.display.stop()
            atexit.unregister(self.close)
        self.display = self.steps = None


class Bar:
    """A piece of work on the screen: a bar, below that of the steps where there is one, until all is done; in a pipe a
    line now and then."""

    def __init__(self, log: Log, name: str):
        self.log, self.name = log, name
        self.begun = time.monotonic()
        self.task: TaskID | None = None

    def __call__(self, done: int, total: int) -> None:
        if self.log.console.is_terminal:
            self.draw(done, total)
        elif 0 < done < total and time.monotonic() - max(self.begun, self.log.told) > PAUSE:
            self.log.told = time.monotonic()
            left = (total - done) * (self.log.told - self.begun) / done
            self.log.info(f"{self.name} {done}/{total}  {left:.0f} s left")

    def draw(self, done: int, total: int) -> None:
        """Begin the bar, move it, or take it away."""
        display = self.log.shown()
        if self.task is None:
            self.task = display.add_task(self.name, total=total, latest="")
        display.update(self.task, completed=done)
        if done >= total:
            display.remove_task(self.task)
            self.task = None
        if not display.tasks:
            self.log.close()


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    with disk_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(as_lines(rows))


def as_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def lines_of(path: Path) -> list[str]:
    """The lines of a file of rows. A crash may have torn the last one in the middle of a character, and an answer may
    hold characters that some call the end of a line: only the line feed is."""
    return [line for line in path.read_bytes().decode("utf-8", "replace").split("\n") if line]


def kept(line: str, step: int) -> bool:
    """Whether a row belongs to the steps already done; a line torn by a crash does not, nor a summary of all steps."""
    try:
        row = json.loads(line)
        return "health" not in row and max(row["step"], 1) <= step
    except (ValueError, KeyError, TypeError):
        return False


def plain_number(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def short(value: Any) -> str:
    value = plain_number(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
