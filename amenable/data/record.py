"""Records of data files: a row's columns without nulls, and the columns that an example used.

Null means absent: `datasets` and parquet fill missing values with null, also inside messages.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LARGEST = sys.float_info.max
FIELDS = {"role", "content", "from", "value", "weight", "train", "rank", "completion", "type", "text"}
"""keys of a column's objects that are read; others are listed as unused, as `column.key`"""
WHOLE = {"tools", "tool_calls", "function_call", "tool_call_id", "reasoning_content", "reasoning", "thinking"}
"""columns and keys whose values are read as a whole"""


class InvalidRow(ValueError):
    """The reason why a row cannot be used."""


class Record(Mapping[str, Any]):
    """Columns of a row without nulls. Reading a value marks its column as used; `in` does not."""

    def __init__(self, row: Mapping[str, Any]):
        self.columns: dict[str, Any] = without_nulls(row) or {}
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
        value = self.columns.get(column)
        return bool(value.strip() if isinstance(value, str) else value is not None and value != [])

    def id(self, default: str) -> str:
        """Return the column `id` as text, or the default."""
        return str(self.columns.get("id", default))

    def rest(self) -> dict[str, Any]:
        """Return the unused columns and their values, without `id`."""
        return {name: value for name, value in self.columns.items() if name not in self.used and name != "id"}

    def unused(self) -> list[str]:
        """Return the names of unused filled columns, and of unused keys inside used columns."""
        inside = [
            f"{name}.{key}"
            for name in self.columns
            if name in self.used and name not in WHOLE
            for key in other_keys(self.columns[name])
        ]
        return [*filter(self.filled, self.rest()), *dict.fromkeys(inside)]

    def __str__(self) -> str:
        """Name the columns, for the reason of a rejected row."""
        return f"among {', '.join(self.columns)}" if self.columns else "in an empty row"


@dataclass
class Usage:
    """Counts over the valid rows of a file: rows, and per column the rows that use it and those that do not."""

    file: str
    rows: int = 0
    used: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)

    def add(self, record: Record) -> None:
        """Count a valid row."""
        self.rows += 1
        self.used.update(column for column in record if column in record.used or column == "id")
        self.unused.update(record.unused())

    def __str__(self) -> str:
        """Name the used and unused columns; for a column that only some rows use, the number of others."""
        named = f"column{'' if len(self.used) == 1 else 's'} {', '.join(self.used)} used"
        left = [
            f"{name} (in {count:,} of {self.rows:,} rows)" if name in self.used else name
            for name, count in self.unused.items()
        ]
        return named + (f"; not used: {', '.join(left)}" if left else "")


def without_nulls(value: Any) -> Any:
    """Remove nulls from objects at any depth; an object of nothing but nulls becomes null."""
    if isinstance(value, Mapping):
        parts = {key: without_nulls(part) for key, part in value.items()}
        return {key: part for key, part in parts.items() if part is not None} or (None if parts else {})
    if isinstance(value, list | tuple):
        return [without_nulls(part) for part in value]
    return value


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
