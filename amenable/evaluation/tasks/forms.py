"""Task files: each is recognised by its columns, or by the name before it (`arc:questions.jsonl`).

A task is the rows of a file in one form. Shots are rows of another file in the same form; a file that has a row of the
test too is refused.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amenable.data.files import BadRow, row_location
from amenable.data.readers import iter_rows, list_files, read_rows
from amenable.errors import InputError
from amenable.evaluation.prompting import PromptingOptions, read_prefix
from amenable.evaluation.shots import require_no_leak
from amenable.evaluation.tasks import (
    behaviour,
    bias,
    choices,
    closed_domain,
    cloze,
    generated,
    mt_bench,
    paraphrases,
    refusals,
    self_knowledge,
    sycophancy,
    truthfulness,
    truthfulqa,
)
from amenable.evaluation.tasks.form import Columns, Examinee, Form, Metrics, share
from amenable.evaluation.tasks.likelihood import SHOT_END
from amenable.evaluation.tasks.options import TaskOptions
from amenable.evaluation.tasks.overlap import contaminated

FORMS: tuple[Form, ...] = (
    *choices.FORMS,
    *truthfulqa.FORMS,
    *cloze.FORMS,
    *generated.FORMS,
    *mt_bench.FORMS,
    *bias.FORMS,
    *behaviour.FORMS,
    *truthfulness.FORMS,
    *closed_domain.FORMS,
    *refusals.FORMS,
    *sycophancy.FORMS,
    *paraphrases.FORMS,
    *self_knowledge.FORMS,
)


@dataclass(frozen=True)
class Task:
    """Rows of one test."""

    form: Form
    rows: Sequence[Any]
    contaminated: tuple[bool, ...] | None = None
    """of each row whether training files hold it; None where there are none to compare"""

    def evaluate(self, examinee: Examinee) -> Metrics:
        """Return the metrics of a model, with the form's name, the number of rows of which the beginning is cut, the
        number of contaminated rows, and the share that is right of the others."""
        metrics = {"form": self.form.name, **self.form.measure(examinee, self.rows), "cut": self.count_cut(examinee)}
        if self.contaminated is None:
            return metrics
        clean = [hit for hit, held in zip(metrics.get("right", ()), self.contaminated) if not held]
        if clean and len(metrics["right"]) == len(self.rows):
            metrics["metrics"]["clean"] = share(clean)
        return {**metrics, "contaminated": sum(self.contaminated)}

    def count_cut(self, examinee: Examinee) -> int:
        """Return the number of rows that are longer than the context with their answers, and lose their beginning."""
        words, room = examinee.model.tokenizer, examinee.model.decoder.config.context_length
        answer = examinee.generation.max_new_tokens if self.form.generates else -1  # a choice's last token is not read
        room -= len(words.added_ids) + answer
        texts = [text for text in (row.whole for row in self.rows) if len(text.encode()) > room]
        return sum(len(ids) > room for ids in words.encode_batch(texts))

    def describe(self) -> str:
        """Return form and sizes as a line."""
        held = "" if self.contaminated is None else f", {sum(self.contaminated)} of them contaminated"
        return f"{self.form.name}, {len(self.rows)} rows{held}"


def read_tasks(
    specs: Sequence[str],
    options: TaskOptions | None = None,
    prompting: PromptingOptions | None = None,
    seed: int = 0,
    has_judge: bool = False,
    has_prompts: bool = False,
) -> dict[str, Task]:
    """Read the tasks of files, FILE or FORM:FILE, and of the files in folders, by file name. InputError for a row that
    is none of its form, a name used twice, options that no task reads, and examples that are in the test.

    seed: of the examples that are drawn. has_judge: True where a judge grades answers. has_prompts: True where examples
    that are of no task's form come before other prompts.
    """
    options, prompting = options or TaskOptions(), prompting or PromptingOptions()
    tasks: dict[str, Task] = {}
    for spec in specs:
        form, path = parse_task(spec)
        for file in list_files(path):
            task = read_task(Path(file), form, options.task_rows)
            name = Path(file).name.partition(".")[0]
            if name in tasks:
                raise InputError(f"two tasks are called '{name}'", file, "rename a file")
            tasks[name] = task
    require_options(tasks, options, has_judge)
    if options.train_data:
        for name, task in tasks.items():
            flags = contaminated([row.example for row in task.rows], options.train_data)
            tasks[name] = replace(task, contaminated=tuple(flags))
    shown = with_shots(tasks, prompting, seed)
    if prompting.shots and not has_prompts and not any(row.shots for task in shown.values() for row in task.rows):
        hint = "give rows in the columns of a task, or compare a model @few-shot"
        raise InputError("the examples have the form of no task", prompting.names, hint)
    return shown


def require_options(tasks: dict[str, Task], options: TaskOptions, has_judge: bool) -> None:
    """Raise InputError for an option that no task reads, and for a task that needs a judge where there is none."""
    forms = [task.form for task in tasks.values()]
    for name in ("calibrate", "self_consistency", "chat_template"):
        if getattr(options, name) and not any(name in form.reads for form in forms):
            known = ", ".join(dict.fromkeys(form.name for form in FORMS if name in form.reads))
            raise InputError(f"no task reads --{name.replace('_', '-')}", how=f"tests that do are {known}")
    for name, task in tasks.items():
        if "judge" in task.form.reads and not has_judge:
            raise InputError("a judge grades its answers", name, "give --reward judge:URL:MODEL, and no other reward")


def task_inputs(specs: Sequence[str], options: TaskOptions) -> dict[str, Path | None]:
    """Return every file and folder that tasks read, by its name in the lineage."""
    training = {f"train data {path}": path for path in options.train_data}
    return {**{f"task {spec}": parse_task(spec)[1] for spec in specs}, **training}


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


def with_shots(tasks: dict[str, Task], prompting: PromptingOptions, seed: int) -> dict[str, Task]:
    """Return the tasks with the prefix, and with examples of a file of the same form, before every row."""
    prefix = read_prefix(prompting.prefix)
    if prefix:
        prefix += SHOT_END
        tasks = {
            name: replace(task, rows=[replace(row, description=prefix + row.description) for row in task.rows])
            for name, task in tasks.items()
        }
    forms = {file: form_of(file) for file in prompting.shots}
    for name, task in tasks.items():
        files = tuple(file for file, form in forms.items() if form is not None and form.name == task.form.name)
        if files:
            tasks = {
                **tasks,
                name: replace(task, rows=rows_with_shots(name, task, replace(prompting, shots=files), seed)),
            }
    return tasks


def rows_with_shots(name: str, task: Task, prompting: PromptingOptions, seed: int) -> list[Any]:
    """Return the rows of a task with examples of files of its form; InputError for one that is in the test."""
    examples = [row for file in prompting.shots for row in read_task(file, task.form.name).rows]
    selector = prompting.selector([row.context for row in examples], [row.label for row in examples], seed)
    tested, own = ([row.context or row.example for row in rows] for rows in (task.rows, examples))
    require_no_leak(own, tested, name, prompting.names)
    return [replace(row, shots=tuple(examples[i] for i in selector.choose(row.context))) for row in task.rows]


def form_of(file: Path) -> Form | None:
    """Return the form of a file's first row; None where it is no row of a task."""
    _, columns = next(iter_rows(file, None), (0, None))
    if not isinstance(columns, dict) or not any(form.matches(columns) for form in FORMS):
        return None
    return recognise(columns, None, str(file))


def without_tasks(files: Sequence[Path], tasks: Mapping[str, Task]) -> tuple[Path, ...]:
    """Return the files of examples that are in the form of no task, for prompts; all files where each is in one."""
    forms = {task.form.name for task in tasks.values()}
    own = [file for file in files if (form := form_of(file)) is None or form.name not in forms]
    return tuple(own or files)
