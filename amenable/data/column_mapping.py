"""Mapping of a file's columns to the conventional ones, as `--columns prompt=question chosen=a rejected=b` gives it.

With a mapping a row has the mapped columns and no others: what it does not name is never read, and is named as not
used. A column inside objects and lists has a dotted path: `conversation.0.text` is the text of the first entry.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amenable.data.record import INDEX, Record
from amenable.errors import InputError

EXAMPLE = "give TARGET=COLUMN, as in --columns prompt=question chosen=better rejected=worse"


@dataclass(frozen=True)
class ColumnMapping:
    """Conventional column -> path of the file's column. Empty: columns are read by their own names."""

    paths: Mapping[str, str]

    def record(self, row: Mapping[str, Any]) -> Record:
        """Return a row's record of the mapped columns; those that the row lacks are absent."""
        record = Record(row)
        if self.paths:
            values = {target: (value_at(record.row, path), (path,)) for target, path in self.paths.items()}
            record.derive({target: value for target, value in values.items() if value[0] is not None})
        return record

    def require_columns(self, present: Collection[str], columns: Collection[str], file: str) -> None:
        """Raise InputError for a path that no row of a file has; `present` are those that were read from it.

        columns: the names of the file's columns, for the nearest.
        """
        for target, path in self.paths.items():
            if target not in present:
                near = difflib.get_close_matches(path.split(".")[0], columns, n=1)
                hint = f"the nearest is '{near[0]}'; " if near else ""
                problem = f"no column '{path}', which --columns reads as {target}"
                raise InputError(problem, file, f"{hint}the columns are {', '.join(columns)}")


def parse_mapping(entries: Sequence[str], targets: Collection[str]) -> ColumnMapping:
    """Parse entries TARGET=COLUMN.

    Raises InputError for an entry of another form, a target that is unknown or named twice, and a column that two
    targets name.
    """
    paths: dict[str, str] = {}
    for entry in entries:
        target, equals, path = (part.strip() for part in entry.partition("="))
        if not (target and equals and path):
            raise InputError(f"--columns: '{entry}' is no mapping", how=EXAMPLE)
        if target not in targets:
            near = difflib.get_close_matches(target, targets, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise InputError(f"--columns: unknown target '{target}'", how=f"{hint}known are {', '.join(targets)}")
        if target in paths:
            problem = f"--columns: two columns for {target}: '{paths[target]}' and '{path}'"
            raise InputError(problem, how="name one column for each target")
        if path in paths.values():
            other = next(name for name, used in paths.items() if used == path)
            raise InputError(f"--columns: '{path}' is mapped to {other} and to {target}", how="name it once")
        paths[target] = path
    return ColumnMapping(paths)


def value_at(row: Mapping[str, Any], path: str) -> Any:
    """Return the value of a column, or of a dotted path inside one; None where there is none.

    Text that is JSON is parsed where the path goes into it.
    """
    if path in row:
        return row[path]
    value: Any = row
    for key in path.split("."):
        if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
            value = parsed(value)
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list) and INDEX.fullmatch(key) and -len(value) <= int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def parsed(text: str) -> Any:
    """Return the value of a JSON text; None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
