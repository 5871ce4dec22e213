"""Task files: each is recognised by its columns, or by the name before it (`arc:questions.jsonl`).

A task is the rows of a file in one form. Shots are the first rows of another file in the same form; one of them that is
in the test too is refused.
"""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from amenable.data.files import BadRow, row_location
from amenable.data.readers import list_files, read_rows
from amenable.errors import InputError
from amenable.evaluation.tasks import behaviour, bias, choices, cloze, generated, truthfulqa
from amenable.evaluation.tasks.form import Columns, Examinee, Form, Metrics, share
from amenable.evaluation.tasks.overlap import contaminated
from amenable.train import plan

FORMS: tuple[Form, ...] = (
    *choices.FORMS,
    *truthfulqa.FORMS,
    *cloze.FORMS,
    *generated.FORMS,
    *bias.FORMS,
    *behaviour.FORMS,
)
SHOT_END = "\n\n"


@dataclass(frozen=True)
class TaskOptions:
    """Options of the tasks."""

    num_fewshot: int = 0
    """examples before every row of a task, the first of --fewshot-data"""
    fewshot_data: Path | None = None
    """file of examples in the columns of the tasks; tasks of another form have none"""
    train_data: tuple[Path, ...] = ()
    """training files: rows of tasks that share 13 words in a row with them are counted as contaminated"""
    task_rows: int = 0
    """take only so many rows of each task, the first; 0 takes all"""

    def __post_init__(self) -> None:
        plan.require_at_least(0, self, "num_fewshot", "task_rows")
        plan.forbid(
            self.num_fewshot and self.fewshot_data is None, "--num-fewshot takes examples", "give --fewshot-data FILE"
        )


Tasking = Annotated[TaskOptions, arg(name="")]
"""field of a Config: its options are the command's own"""


@dataclass(frozen=True)
class Task:
    """Rows of one test."""

    form: Form
    rows: Sequence[Any]
    contaminated: tuple[bool, ...] | None = None
    """of each row whether training files hold it; None where there are none to compare"""

    def evaluate(self, examinee: Examinee) -> Metrics:
        """Return the metrics of a model, with the form's name, the number of contaminated rows, and the share that is
        right of the others."""
        metrics = {"form": self.form.name, **self.form.measure(examinee, self.rows)}
        if self.contaminated is None:
            return metrics
        clean = [hit for hit, held in zip(metrics.get("right", ()), self.contaminated) if not held]
        if clean and len(metrics["right"]) == len(self.rows):
            metrics["metrics"]["clean"] = share(clean)
        return {**metrics, "contaminated": sum(self.contaminated)}

    def describe(self) -> str:
        """Return form and sizes as a line."""
        held = "" if self.contaminated is None else f", {sum(self.contaminated)} of them contaminated"
        return f"{self.form.name}, {len(self.rows)} rows{held}"


def read_tasks(specs: Sequence[str], options: TaskOptions | None = None) -> dict[str, Task]:
    """Read the tasks of files, FILE or FORM:FILE, and of the files in folders, by file name. InputError for a row that
    is none of its form, a name used twice, and shots that are in the test."""
    options = options or TaskOptions()
    tasks: dict[str, Task] = {}
    for spec in specs:
        form, path = parse_task(spec)
        for file in list_files(path):
            task = read_task(Path(file), form, options.task_rows)
            name = Path(file).name.partition(".")[0]
            if name in tasks:
                raise InputError(f"two tasks are called '{name}'", file, "rename a file")
            tasks[name] = task
    if options.train_data:
        for name, task in tasks.items():
            flags = contaminated([row.example for row in task.rows], options.train_data)
            tasks[name] = replace(task, contaminated=tuple(flags))
    return with_shots(tasks, options) if options.num_fewshot else tasks


def task_inputs(specs: Sequence[str], options: TaskOptions) -> dict[str, Path | None]:
    """Return every file and folder that tasks read, by its name in the lineage."""
    training = {f"train data {path}": path for path in options.train_data}
    return {**{f"task {spec}": parse_task(spec)[1] for spec in specs}, **training, "fewshot_data": options.fewshot_data}


def parse_task(spec: str) -> tuple[str | None, Path]:
    """Parse FILE or FORM:FILE; InputError for an unknown form, with the nearest."""
    name, colon, path = spec.partition(":")
    known = sorted({form.name for form in FORMS})
    if not colon or Path(spec).exists():
        if spec in known:
            raise InputError(f"the test '{spec}' needs its file", how=f"write {spec}:FILE; no test is downloaded")
        return None, Path(spec)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
        raise InputError(
            f"unknown form '{name}' of a task", spec, f"the nearest is {near}; known are {', '.join(known)}"
        )
    return name, Path(path)


def read_task(file: Path, name: str | None = None, limit: int = 0) -> Task:
    """Read a file of one form, that of its first row unless `name` gives it."""
    numbered = read_rows(file)
    if not numbered:
        raise InputError("no rows", file, f"known forms of tasks are {', '.join(sorted({f.name for f in FORMS}))}")
    form: Form | None = None
    rows: list[Any] = []
    for number, columns in numbered[: limit or None]:
        where = f"{file}: {row_location(file, number)}"
        if isinstance(columns, BadRow) or not isinstance(columns, dict):
            raise InputError("no row of a task" if not isinstance(columns, BadRow) else str(columns), where)
        if form is None or not form.matches(columns):
            other = recognise(columns, name, where)
            if form is not None and other.name != form.name:
                raise InputError(f"a row of '{other.name}' among rows of '{form.name}'", where, "use a file for each")
            form = other
        rows += convert(form, columns, where)
    assert form is not None
    return Task(form, rows)


def recognise(columns: Columns, name: str | None, where: str) -> Form:
    """Return the form of a row, of those that fit the one with the most columns; InputError with the nearest."""
    forms = [form for form in FORMS if name in (None, form.name)]
    fitting = [form for form in forms if form.matches(columns)]
    if fitting:
        return max(fitting, key=lambda form: len(form.columns))
    near = max(forms, key=lambda form: similarity(form.columns, list(map(str, columns))))
    problem = f"no known task has the columns {', '.join(map(str, columns))}"
    raise InputError(problem, where, f"the nearest form, {near.name}, has {', '.join(near.columns)}")


def similarity(names: Sequence[str], others: Sequence[str]) -> float:
    """Return the mean similarity of names to the nearest of others, 0 to 1; surplus names of either count as 0."""
    nearest = [max(difflib.SequenceMatcher(None, name, other).ratio() for other in others) for name in names if others]
    return sum(nearest) / max(len(names), len(others))


def convert(form: Form, columns: Columns, where: str) -> Sequence[Any]:
    """Convert a row; InputError where its values are not those of the form."""
    try:
        rows = form.convert(columns)
        for row in rows:
            row.require_complete()
        return rows
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, SyntaxError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"no row of '{form.name}': {reason}", where, f"a row has {', '.join(form.columns)}") from None


def with_shots(tasks: dict[str, Task], options: TaskOptions) -> dict[str, Task]:
    """Return the tasks with the first examples of a file before every row of the same form."""
    file, count = options.fewshot_data, options.num_fewshot
    assert file is not None
    examples = read_task(file)
    if not any(task.form.name == examples.form.name for task in tasks.values()):
        raise InputError(f"no task has the form of the examples, {examples.form.name}", file)
    if len(examples.rows) < count:
        raise InputError(f"{len(examples.rows)} examples for {count} shots", file, "lower --num-fewshot")
    shots = examples.rows[:count]
    before = "".join(row.example + SHOT_END for row in shots)
    return {
        name: replace(task, rows=[replace(row, shots=before) for row in without_leak(name, task, shots, file)])
        if task.form.name == examples.form.name
        else task
        for name, task in tasks.items()
    }


def without_leak(name: str, task: Task, shots: Sequence[Any], file: Path) -> Sequence[Any]:
    """Return the rows of a task; InputError if a shot has the context of one."""
    tested = Counter(digest(row.context) for row in task.rows)
    for number, shot in enumerate(shots, start=1):
        if digest(shot.context) in tested:
            hint = "take examples from another split"
            raise InputError(f"example {number} is a row of the task '{name}'", file, hint)
    return task.rows


def digest(text: str) -> bytes:
    """Return a hash of a text in which case and white space do not count."""
    return hashlib.sha256(" ".join(text.casefold().split()).encode()).digest()
