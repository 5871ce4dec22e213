"""Records of data files: a row's columns without nulls, and the columns that an example used.

Null means absent: `datasets` and parquet fill missing values with null, also inside messages.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

LARGEST = sys.float_info.max
INDEX = re.compile(r"-?\d+")
Derived: TypeAlias = tuple[Any, tuple[str, ...]]
"""value of a derived column, and the columns that it is made of"""
FIELDS = {"role", "content", "from", "value", "weight", "train", "rank", "completion", "type", "text"}
"""keys of a column's objects that are read; others are listed as unused, as `column.key`"""
WHOLE = {"tools", "tool_calls", "function_call", "tool_call_id", "reasoning_content", "reasoning", "thinking"}
"""columns and keys whose values are read as a whole"""


class InvalidRow(ValueError):
    """The reason why a row cannot be used."""


class LeftOutRow(InvalidRow):
    """The reason why a sound row holds no example of the kind that is read, such as a tie: counted, not rejected."""


class Record(Mapping[str, Any]):
    """Columns of a row without nulls. Reading a value marks its column as used; `in` does not.

    The columns are those of the row, or others made of them (`derive`): renamed by the user's mapping, or the
    conventional columns of a published format.
    """

    def __init__(self, row: Mapping[str, Any]):
        self.row: dict[str, Any] = without_nulls(row) or {}
        self.columns = self.row
        self.sources: dict[str, tuple[str, ...]] = {}
        """derived column -> the columns of the row that it is made of, dotted inside objects"""
        self.used: set[str] = set()

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Record:
        """Convert a row to a record; return a record unchanged."""
        return row if isinstance(row, Record) else cls(row)

    def __getitem__(self, column: str) -> Any:
        value = self.columns[column]
        self.used.add(column)
        return value

    def __contains__(self, column: object) -> bool:
        return column in self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def filled(self, column: str) -> bool:
        """Return True for a column that is present, not blank text and not an empty list."""
        return is_filled(self.columns.get(column))

    def derive(self, columns: Mapping[str, Derived]) -> None:
        """Replace the columns by others made of them, each with the names of those that it is made of."""
        self.sources = {name: tuple(self.origins(sources)) for name, (_, sources) in columns.items()}
        self.columns = {name: value for name, (value, _) in columns.items()}

    def replace(self, columns: Mapping[str, Any]) -> None:
        """Replace the values of columns, in the row as well; columns that are not among them are absent."""
        changed = {next(self.origins([name])): value for name, value in columns.items()}
        self.row = {**self.row, **{name: value for name, value in changed.items() if name in self.row}}
        self.columns = dict(columns)

    def origins(self, names: Iterable[str]) -> Iterator[str]:
        """Yield the columns of the row that columns, dotted inside objects, are made of."""
        for name in names:
            column, _, rest = name.partition(".")
            for source in self.sources.get(name) or self.sources.get(column, (column,)):
                yield source if name in self.sources or not rest else f"{source}.{rest}"

    def id(self, default: str) -> str:
        """Return the column `id` as text, or the default."""
        return str(self.columns.get("id", self.row.get("id", default)))

    def has_id(self) -> bool:
        """Return True for a row with an id of its own."""
        return "id" in self.columns or "id" in self.row

    def used_sources(self) -> set[str]:
        """Return the columns of the row that were used, dotted inside objects."""
        if not self.sources:
            return self.used
        return set(self.origins([*self.used, *(["id"] if "id" in self.sources else [])]))

    def rest(self) -> dict[str, Any]:
        """Return the unused columns of the row and their values, without `id`."""
        used = self.used
        if self.sources:
            used = {source if source in self.row else source.split(".")[0] for source in self.used_sources()}
        return {name: value for name, value in self.row.items() if name not in used and name != "id"}

    def unused(self) -> list[str]:
        """Return the names of unused filled columns of the row, and of unused parts inside used columns."""
        rest, used = self.rest(), self.used_sources()
        inside = [
            path for name in self.row if name not in (*rest, "id") for path in unused_paths(self.row[name], name, used)
        ]
        return [*(name for name, value in rest.items() if is_filled(value)), *dict.fromkeys(inside)]

    def __str__(self) -> str:
        """Name the columns, for the reason of a rejected row."""
        return f"among {', '.join(self.row)}" if self.row else "in an empty row"


@dataclass
class Usage:
    """Counts over the valid rows of a file: rows, and per column the rows that use it and those that do not."""

    file: str
    rows: int = 0
    used: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    rest: set[str] = field(default_factory=set)
    """further columns of the rows, which rewards may read"""
    left_out: Counter[str] = field(default_factory=Counter)
    """reason -> sound rows that hold no example of the kind that is read"""

    def add(self, record: Record) -> None:
        """Count a valid row."""
        self.rows += 1
        columns = [column for column in record if column in record.used or column == "id"]
        self.used.update(list(dict.fromkeys(record.origins(columns))) if record.sources else columns)
        self.unused.update(record.unused())
        self.rest.update(record.rest())

    def line(self, reward_reads: Callable[[str], bool]) -> str:
        """Name the used columns, those that the run's reward reads, and the unused ones; for a column that only some
        rows use, the number of others."""
        scored = [name for name in self.unused if name in self.rest and reward_reads(name)]
        left = [
            f"{name} (in {count:,} of {self.rows:,} rows)" if name in self.used else name
            for name, count in self.unused.items()
            if name not in scored
        ]
        named = f"column{'' if len(self.used) == 1 else 's'} {', '.join(self.used)} used"
        named += f"; {', '.join(scored)} used by the reward" if scored else ""
        reasons = "".join(f"; left out: {count:,} ({reason})" for reason, count in self.left_out.items())
        return named + (f"; not used: {', '.join(left)}" if left else "") + reasons


def no_column(name: str) -> bool:
    """Return False for every column, as a run without a reward reads none for it."""
    return False


def without_nulls(value: Any) -> Any:
    """Remove nulls from objects at any depth; an object of nothing but nulls becomes null."""
    if isinstance(value, Mapping):
        parts = {key: without_nulls(part) for key, part in value.items()}
        return {key: part for key, part in parts.items() if part is not None} or (None if parts else {})
    if isinstance(value, list | tuple):
        return [without_nulls(part) for part in value]
    return value


def is_filled(value: Any) -> bool:
    """Return True for a value that is not null, not blank text and not an empty list."""
    return bool(value.strip() if isinstance(value, str) else value is not None and value != [])


def unused_paths(value: Any, path: str, used: set[str]) -> Iterator[str]:
    """Yield the dotted paths inside a column's value that no used path covers; of `messages.0` the other entries."""
    inner = {other.removeprefix(f"{path}.").split(".")[0] for other in used if other.startswith(f"{path}.")}
    if path in used and path.split(".")[-1] in WHOLE:
        return
    if path in used:
        yield from (f"{path}.{key}" for key in other_keys(value))
    elif not inner:
        yield from [path] if is_filled(value) else []
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from unused_paths(part, f"{path}.{key}", used)
    elif isinstance(value, list) and all(map(INDEX.fullmatch, inner)):
        entries = {int(index) % len(value): index for index in inner}
        for index in entries.values():
            yield from unused_paths(value[int(index)], f"{path}.{index}", used)
        if len(entries) < len(value):
            yield f"{path} (other entries)"
    elif isinstance(value, list):
        for part in value:
            yield from unused_paths(part, path, used)


def other_keys(value: Any) -> Iterator[str]:
    """Yield the keys, other than FIELDS, of objects in a value, also nested ones."""
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, Mapping):
            for key, part in entry.items():
                if key in FIELDS:
                    yield from other_keys(part)
                elif key not in WHOLE and not (key == "name" and entry.get("role") in ("tool", "function")):
                    yield key


def text_of(value: Any, name: str) -> str:
    """Return a value that must be text."""
    if not isinstance(value, str):
        raise InvalidRow(f"{name} is {kind(value)}, not text")
    return value


def words_of(value: Any, name: str) -> str:
    """Return a value that must be text and not blank."""
    if not text_of(value, name).strip():
        raise InvalidRow(f"{name} is empty")
    return str(value)


def is_number(value: Any) -> bool:
    """Return True for a finite number; True and False are not numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST


def kind(value: Any) -> str:
    """Name the type of a value in JSON's terms."""
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text"}
    return names.get(type(value), "a list" if isinstance(value, Sequence) else "an object")
