"""Examples from data sources: the valid rows of files, and the others with file, line and reason.

A file without valid rows is an error before any work starts. `readers.py` has the kinds of files, `columns.py` the
conventions of columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from amenable.data import columns as conventions
from amenable.data import task_columns
from amenable.data.column_mapping import ColumnMapping, parse_mapping
from amenable.data.files import BadRow, has_lone_surrogate, suffix_of
from amenable.data.published_formats import join_rows
from amenable.data.readers import TABLES_OF_TEXT, Source, iter_rows, list_files
from amenable.data.record import InvalidRow, LeftOutRow, Record, Usage, no_column
from amenable.data.task_columns import TASK_COLUMNS, TaskExample
from amenable.data.text_values import from_text
from amenable.data.types import Demonstration, LabeledCompletion, Prompt, Ranking, Text
from amenable.errors import InputError

T = TypeVar("T")
Known: TypeAlias = dict[str, tuple[int, str]]
"""id -> hash of its prompt, and the location of its first row"""

NOUNS = {
    "text": "texts",
    "demonstration": "demonstrations",
    "prompt": "prompts",
    "ranking": "rankings",
    "unpaired": "labelled completions",
    **dict.fromkeys(("classification", "entailment", "similarity", "multiple_choice"), "examples"),
}
"""function of columns.py or task_columns.py -> plural of its examples"""
TASKS = (task_columns.classification, task_columns.entailment, task_columns.similarity, task_columns.multiple_choice)
OTHER_NAMES = "columns of other names are read with --columns TARGET=COLUMN, as in --columns prompt=question"


@dataclass(frozen=True)
class Rejected:
    """Invalid row and the reason. Lines (in .json and .parquet, rows) count from 1."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.reason}"


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """Valid rows of a source, and rejected ones."""

    rows: list[T]
    rejected: list[Rejected]
    files: tuple[str, ...]
    columns: tuple[Usage, ...] = ()
    """column usage of each file"""
    noun: str = "rows"
    """plural noun for the rows"""
    left_out: tuple[Rejected, ...] = ()
    """sound rows without an example of the kind that is read, such as ties: counted in the plan, and not rejected"""

    def plan(self, reward_reads: Callable[[str], bool] = no_column) -> list[str]:
        """Return a line per file with its rows and columns; files of a folder with the same columns share a line.

        reward_reads: True for a column that the run's reward reads.
        """
        groups: dict[tuple[str, str], list[Usage]] = defaultdict(list)
        for usage in self.columns:
            groups[str(Path(usage.file).parent), usage.line(reward_reads)].append(usage)
        lines = []
        for (folder, used), group in groups.items():
            name = Path(group[0].file).name if len(group) == 1 else f"{len(group)} files in {folder}"
            rows = sum(usage.rows for usage in group)
            lines.append(f"{name}: {rows:,} {self.noun if rows != 1 else self.noun.removesuffix('s')}; {used}")
        return lines

    def report(self) -> str:
        """Return a line with the number of rows, files and rejected rows, and the first rejected row."""
        files = "1 file" if len(self.files) == 1 else f"{len(self.files)} files"
        first = f" (first: {self.rejected[0]})" if self.rejected else ""
        return f"{len(self.rows)} rows from {files}, {len(self.rejected)} rejected{first}"


def read_texts(
    path: Source,
    *,
    limit: int | None = None,
    columns: Sequence[str] = (),
    convert: Callable[[Text], Any] | None = None,
) -> Loaded[Any]:
    """Read documents of raw text: the column `text`, or .txt files.

    A .txt file is one document, or several separated by lines of <|endoftext|>; long ones are cut at blank lines, into
    pages of about 20 000 characters.

    Of all readers: limit is the greatest number of rows; columns are entries TARGET=COLUMN, where the files have other
    columns than the conventional ones (`column_mapping.py`); convert is called with each example as it is read, and
    what it returns stands in the example's place, so that not all are in memory. It may raise InvalidRow, from an
    InputError with a hint.
    """
    return _read(path, conventions.text, limit, columns, convert)


def read_demonstrations(
    path: Source,
    *,
    limit: int | None = None,
    columns: Sequence[str] = (),
    convert: Callable[[Demonstration], Any] | None = None,
) -> Loaded[Any]:
    """Read conversations that end with the assistant: messages, prompt and completion, Alpaca, ShareGPT, problems."""
    return _read(path, conventions.demonstration, limit, columns, convert)


def read_prompts(path: Source, *, limit: int | None = None, columns: Sequence[str] = ()) -> Loaded[Prompt]:
    """Read prompts; of demonstrations and preferences, the messages before the completion."""
    return _read(path, conventions.prompt, limit, columns)


def read_rankings(
    path: Source,
    *,
    limit: int | None = None,
    columns: Sequence[str] = (),
    convert: Callable[[Ranking], Any] | None = None,
) -> Loaded[Any]:
    """Read preferences: chosen and rejected, or K completions with ranks."""
    return _read(path, conventions.ranking, limit, columns, convert)


def read_unpaired(
    path: Source,
    *,
    limit: int | None = None,
    columns: Sequence[str] = (),
    convert: Callable[[LabeledCompletion], Any] | None = None,
) -> Loaded[Any]:
    """Read completions with a label each: prompt, completion and label."""
    return _read(path, conventions.unpaired, limit, columns, convert)


def read_task(path: Source, task: str, *, columns: Sequence[str] = ()) -> Loaded[TaskExample]:
    """Read labelled texts of a task: classification, entailment, similarity or multiple-choice (`task_columns.py`)."""
    parse = next(function for function in TASKS if function.__name__ == task.replace("-", "_"))
    return _read(path, parse, None, columns, targets=TASK_COLUMNS)


def _read(
    path: Source,
    parse: Callable[[conventions.Row, str], Any],
    limit: int | None,
    columns: Sequence[str],
    convert: Callable[[Any], Any] | None = None,
    targets: Sequence[str] = conventions.TARGETS,
) -> Loaded[Any]:
    refusals: list[InvalidRow] = []

    def converted(example: T) -> Any:
        try:
            return example if convert is None else convert(example)
        except InvalidRow as error:
            refusals.append(error)
            raise

    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}", how="give 1 or more")
    mapping = parse_mapping(columns, targets)
    used: list[Any] = []
    rejected: list[Rejected] = []
    left_out: list[Rejected] = []
    read: list[str] = []
    known: Known = {}
    tallies: list[Usage] = []
    for file in list_files(path):
        if limit is not None and len(used) >= limit:
            break
        tallies.append(Usage(str(file)))
        room = None if limit is None else limit - len(used)
        part = _read_file(file, parse, room, mapping, known, tallies[-1], converted)
        if not part.rows:
            lines = {row.reason: row.line for row in reversed([*part.rejected, *part.left_out])}
            reasons = "; ".join(f"line {line}: {reason}" for reason, line in reversed(list(lines.items())[-3:]))
            problem = f"no {NOUNS[parse.__name__].removesuffix('s')} can be read ({reasons or 'it is empty'})"
            hint = OTHER_NAMES if lines and not columns else None
            raise InputError(problem, str(file), getattr(refusals[0].__cause__, "how", None) if refusals else hint)
        used += part.rows
        rejected += part.rejected
        left_out += part.left_out
        read.append(str(file))
    return Loaded(used, rejected, tuple(read), tuple(tallies), NOUNS[parse.__name__], tuple(left_out))


def _read_file(
    file: Path | str,
    parse: Callable[[conventions.Row, str], T],
    limit: int | None,
    mapping: ColumnMapping,
    known: Known,
    tally: Usage,
    convert: Callable[[T], Any],
) -> Loaded[Any]:
    used: list[Any] = []
    rejected: list[Rejected] = []
    left_out: list[Rejected] = []
    mapped: set[str] = set()
    names: dict[str, None] = {}
    name = Path(file).name if isinstance(file, Path) else file
    rows = iter_records(file, limit, mapping)
    for line, record in join_rows(rows, mapping) if parse is conventions.ranking else rows:
        if isinstance(record, Record):
            mapped.update(record.columns)
            names.update(dict.fromkeys(record.row))
        try:
            if not isinstance(record, Record):
                raise InvalidRow(str(record))
            example = parse(record, f"{name}:{line}")
            if has_lone_surrogate(record.row):
                raise InvalidRow("half of a surrogate pair is no text")
            _require_own_id(record, example, f"{name}:{line}", known)
            used.append(convert(example))
            tally.add(record)
        except LeftOutRow as reason:
            left_out.append(Rejected(str(file), line, str(reason)))
            tally.left_out[str(reason)] += 1
        except InvalidRow as error:
            rejected.append(Rejected(str(file), line, str(error)))
        if len(used) == limit:
            break
    if names and len(used) != limit:
        mapping.require_columns(mapped, names, str(file))
    return Loaded(used, rejected, (str(file),), left_out=tuple(left_out))


def iter_records(file: Path | str, limit: int | None, mapping: ColumnMapping) -> Iterator[tuple[int, Record | BadRow]]:
    """Yield (line, record of the mapped columns) of a file, or why the row has none."""
    for line, row in iter_rows(file, limit):
        if isinstance(row, BadRow):
            yield line, row
        elif not isinstance(row, dict):
            yield line, BadRow("the row is not an object with columns")
        else:
            record = mapping.record(row)
            if isinstance(file, Path) and suffix_of(file) in TABLES_OF_TEXT:
                try:
                    record.replace(from_text(record.columns))
                except InvalidRow as error:
                    yield line, BadRow(str(error))
                    continue
            yield line, record


def _require_own_id(row: Record, example: Any, location: str, known: Known) -> None:
    """Raise InvalidRow if the id belongs to another prompt: ids seed completions and join their labels."""
    if not row.has_id() or not isinstance(example, Prompt | Ranking):
        return
    prompt = example.messages if isinstance(example, Prompt) else example.prompt
    other, first = known.setdefault(example.id, (hash(prompt), location))
    if other != hash(prompt):
        raise InvalidRow(f"the id '{example.id}' belongs to another prompt ({first})")
