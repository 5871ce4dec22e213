"""Log of a run: rows in files (metrics, samples), progress bars on a terminal, plain lines in a pipe.

metrics.jsonl has only numbers that the seed decides, so that two runs can be compared bit for bit; times are in
timings.jsonl.
"""

from __future__ import annotations

import atexit
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Display
from rich.table import Column, Table

from amenable.data.files import read_json_lines
from amenable.files import disk_errors, sync_file, sync_folder, write_text
from amenable.ranks import is_first
from amenable.train import guards
from amenable.train.memory_limit import peak_bytes
from amenable.train.trackers import Trackers

FILES = ("metrics", "samples", "traces", "answers", "timings")
"""files of rows, each row with its step; a run that resumes drops the rows of steps that it repeats"""
BAR_WIDTH = 24
"""columns; a narrow terminal cuts the numbers after the bar"""
PIPE_WIDTH = 130
UNITS = {"tokens": "tok/s", "steps": "steps/s"}
PAUSE = 10.0
"""seconds between two progress lines in a pipe"""

Part = TypeVar("Part")
Progress = Callable[[int, int], None]
"""called with (done, total) of some work: first with done = 0, last with done = total"""
Bars = Callable[[str], Progress]
"""returns the progress of some work, by its name on the screen"""


def silent(done: int, total: int) -> None:
    """Ignore progress."""


def tracked(parts: Sequence[Part], progress: Progress) -> Iterator[Part]:
    """Yield the parts of some work; call `progress` before each, and after the last one or when the caller stops."""
    try:
        for done, part in enumerate(parts):
            progress(done, len(parts))
            yield part
    finally:
        progress(len(parts), len(parts))


def no_bars(name: str) -> Progress:
    """Return the progress of work without a bar."""
    return silent


class Log:
    """Log of one run, `name`: rows in the files of its folder, and progress on the screen; of several processes the
    first alone writes."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        self.trackers: Trackers | None = None
        self.console = Console(file=sys.stderr, highlight=False, quiet=not is_first())
        self.display: Display | None = None
        self.steps: TaskID | None = None
        self.last_line = 0.0
        self.latest = ""
        self.tokens, self.seconds = 0, 0.0
        self.loaded: int | None = None
        """peak memory of the process before the first step, with data and weights in it"""
        self.unit = "tokens"
        """what `advance` counts: tokens, or steps of an environment"""

    def info(self, line: str) -> None:
        """Print a line, unless it is empty."""
        if not line:
            return
        self.console.print(f"[bold]{self.name}[/bold]  {escape(line)}", soft_wrap=True)

    def show(self, table: Table) -> None:
        """Print a table, cut to the width of a terminal or PIPE_WIDTH."""
        wide = Console(file=self.console.file, width=PIPE_WIDTH, quiet=self.console.quiet)
        (self.console if self.console.is_terminal else wide).print(table)

    def warn(self, line: str) -> None:
        """Print a warning."""
        self.console.print(f"[bold]{self.name}[/bold]  [yellow]warning[/yellow]  {escape(line)}", soft_wrap=True)

    def health(self, health: dict[str, Any]) -> None:
        """Print the summary of a run's guards: passed checks in green, warnings in yellow."""
        for passed, line in guards.lines(health):
            mark = "[green]fine[/green]" if passed else "[yellow]warning[/yellow]"
            self.console.print(f"[bold]{self.name}[/bold]  {mark}  {escape(line)}", soft_wrap=True)

    def read(self, name: str) -> list[dict[str, Any]]:
        """Read the rows of one of FILES; none if the file does not exist."""
        return read_json_lines(self.folder / f"{name}.jsonl")

    def row(self, step: int, values: dict[str, Any]) -> None:
        """Append a row to metrics.jsonl. Tensors are written as numbers, numbers that are not finite as null."""
        plain = {key: plain_number(value) for key, value in values.items()}
        append(self.folder / "metrics.jsonl", [{"step": step, **plain}])
        if self.trackers is not None:
            self.trackers.metrics(step, plain)

    def samples(self, step: int, rows: list[dict[str, Any]]) -> None:
        """Append rows to samples.jsonl: completions with their scores."""
        self.rows("samples", step, rows)
        if self.trackers is not None:
            self.trackers.samples(step, rows)

    def rows(self, name: str, step: int, rows: list[dict[str, Any]]) -> None:
        """Append rows to one of FILES; step 0 is before any training."""
        append(self.folder / f"{name}.jsonl", [{"step": step, **row} for row in rows])

    def session(self, step: int, seconds: float) -> None:
        """Append a row to timings.jsonl: the begin and end of this session, in Unix time, and the peak memory of its
        process, at the end and before the first step; seconds: its length."""
        now = time.time()
        memory = {"peak_bytes": peak_bytes(), "loaded_bytes": self.loaded}
        self.rows("timings", step, [{"began": now - seconds, "ended": now, **memory}])

    def truncate_after(self, step: int) -> None:
        """Remove rows of later steps, which a resumed run repeats; rows of step 0 are repeated with step 1."""
        for name in FILES if is_first() else ():
            path = self.folder / f"{name}.jsonl"
            if path.exists():
                rows = [line for line in lines_of(path) if is_before(line, step)]
                write_text(path, "".join(line + "\n" for line in rows))

    def replace(self, name: str, step: int, rows: list[dict[str, Any]]) -> None:
        """Overwrite one of FILES, for rows of a finished run."""
        if is_first():
            write_text(self.folder / f"{name}.jsonl", as_lines([{"step": step, **row} for row in rows]))

    def sync(self) -> None:
        """Sync all rows to the disk, before a checkpoint that relies on them."""
        with disk_errors(self.folder):
            for path in (self.folder / f"{name}.jsonl" for name in FILES):
                if path.exists():
                    sync_file(path)
            sync_folder(self.folder)

    def latest_row(self) -> dict[str, Any]:
        """Return the values of the last row of metrics.jsonl, or none."""
        path = self.folder / "metrics.jsonl"
        rows = lines_of(path) if path.exists() else []
        return {key: value for key, value in json.loads(rows[-1]).items() if key != "step"} if rows else {}

    def last_step(self) -> int:
        """Return the newest step in metrics.jsonl, or 0."""
        path = self.folder / "metrics.jsonl"
        steps = [row["step"] for line in lines_of(path)[-2:] if (row := parse(line))] if path.exists() else []
        return max(steps, default=0)

    def open(self, done: int, total: int) -> None:
        """Start the bar of the steps, or in a pipe the time of progress lines."""
        self.total, self.begun, self.first, self.last_line = total, time.monotonic(), done, time.monotonic()
        self.tokens, self.seconds, self.loaded = 0, 0.0, peak_bytes()
        if self.console.is_terminal:
            display = self.start_display()
            display.live.transient = False
            self.steps = display.add_task(f"[bold]{self.name}", total=total, completed=done, latest="")

    def advance(self, done: int, tokens: int, values: dict[str, Any]) -> None:
        """Move the bar to `done` steps, after `tokens` more of the unit; in a pipe print every PAUSE seconds."""
        now = time.monotonic()
        self.tokens += tokens
        self.seconds = now - self.begun
        rate = f"{self.tokens / max(self.seconds, 1e-9):,.0f} {UNITS[self.unit]}  " if self.tokens else ""
        self.latest = rate + "  ".join(f"{key} {short(value)}" for key, value in values.items())
        if self.display is not None and self.steps is not None:
            self.display.update(self.steps, completed=done, latest=self.latest)
        elif now - self.last_line > PAUSE or done == self.total:
            left = (self.total - done) * self.seconds / max(done - self.first, 1)
            self.last_line = now
            self.info(f"{done}/{self.total}  {self.latest}  {left:.0f} s left")

    def bar(self, name: str) -> Bar:
        """Return the progress of some work in this run, such as a forward pass over some rows."""
        return Bar(self, name)

    def start_display(self) -> Display:
        """Return the terminal's display of bars, started with the first bar and closed at exit at the latest."""
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
        """Remove all bars; that of the steps stays on the screen."""
        if self.display is not None:
            for task in set(self.display.task_ids) - {self.steps}:
                self.display.remove_task(task)
            self.display.stop()
            atexit.unregister(self.close)
        self.display = self.steps = None


class Bar:
    """Progress of some work: a bar below that of the steps until it is done; in a pipe a line every PAUSE seconds."""

    def __init__(self, log: Log, name: str):
        self.log, self.name = log, name
        self.begun = time.monotonic()
        self.task: TaskID | None = None

    def __call__(self, done: int, total: int) -> None:
        if self.log.console.is_terminal:
            self.draw(done, total)
        elif 0 < done < total and time.monotonic() - max(self.begun, self.log.last_line) > PAUSE:
            self.log.last_line = time.monotonic()
            left = (total - done) * (self.log.last_line - self.begun) / done
            self.log.info(f"{self.name} {done}/{total}  {left:.0f} s left")

    def draw(self, done: int, total: int) -> None:
        """Add the bar, move it, or remove it."""
        display = self.log.start_display()
        if self.task is None:
            self.task = display.add_task(self.name, total=total, latest="")
        display.update(self.task, completed=done)
        if done >= total:
            display.remove_task(self.task)
            self.task = None
        if not display.tasks:
            self.log.close()


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    if not is_first():
        return
    with disk_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(as_lines(rows))


def as_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file of rows. The last may be torn inside a character by a crash; only a line feed ends a
    line, unlike in `splitlines`, since completions may hold other line separators."""
    return [line for line in path.read_bytes().decode("utf-8", "replace").split("\n") if line]


def is_before(line: str, step: int) -> bool:
    """Return True if a row is of a step up to `step`; False for a torn line and for the summary of all steps."""
    row = parse(line)
    return row is not None and "health" not in row and max(row["step"], 1) <= step


def parse(line: str) -> dict[str, Any] | None:
    """Return a row with its step, None for a torn line."""
    try:
        row = json.loads(line)
        return row if row["step"] >= 0 else None
    except (ValueError, KeyError, TypeError):
        return None


def plain_number(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def short(value: Any) -> str:
    value = plain_number(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
