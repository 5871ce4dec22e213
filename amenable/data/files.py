"""Readers of lines, JSON rows and CSV rows.

A file is UTF-8, with or without a byte order mark. Lines end at a line feed (a carriage return before it is dropped),
never at U+2028, U+2029 or U+0085. Files that end in .gz are decompressed.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from amenable.errors import InputError

MAX_DEPTH = 200
"""greatest depth of nested lists and objects in a row"""
TOO_DEEP = f"nested: more than {MAX_DEPTH} lists and objects inside each other"
WRAPPED = re.compile(rb'\{\s*"data"\s*:')
"""beginning of a file that is {"data": list of rows}"""
BETWEEN = re.compile(r"[ \t\r\n,]*")
WIDE = ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"))


class BadRow(str):
    """Reason why a line or row cannot be read."""


def iter_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (number from 1, line without its end); InputError for an unreadable, cut or UTF-16 file."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if number == 1:
                    _require_utf8(line, file)
                    line = line.removeprefix(codecs.BOM_UTF8)
                yield number, line.removesuffix(b"\n").removesuffix(b"\r")
    except EOFError:
        raise InputError("the file is cut short", file, "fetch it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"damaged, or no gzip file: {error}", file, "fetch it again") from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file) from None


def _require_utf8(line: bytes, file: Path) -> None:
    for mark, name in WIDE:
        if line.startswith(mark):
            raise InputError(f"it is {name}, not UTF-8", file, conversion_hint(file, name))


def conversion_hint(file: Path, encoding: str = "LATIN1") -> str:
    """Return the hint for a file in another encoding."""
    return f"convert it, as in: iconv -f {encoding} -t UTF-8 '{file.name}' > 'utf8-{file.name}'"


def decode_line(line: bytes, number: int, file: Path) -> str:
    """Decode a line; InputError with line, byte and hint if it is not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 (line {number}, {_bad_byte(error)})", file, conversion_hint(file)) from None


def _bad_byte(error: UnicodeDecodeError) -> str:
    return f"byte {error.start + 1} is 0x{error.object[error.start]:02X}"


def read_text(file: Path) -> str:
    """Read a file with line feeds between its lines; InputError if it cannot be read or is not UTF-8."""
    return "\n".join(decode_line(line, number, file) for number, line in iter_lines(file))


def parse_json(line: bytes) -> Any:
    """Parse a line; return its value or a BadRow."""
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return BadRow(f"not UTF-8 ({_bad_byte(error)}); convert the file, if from latin-1: iconv -f LATIN1 -t UTF-8")
    except json.JSONDecodeError as error:
        return BadRow(f"not JSON: {error.msg} (column {error.colno})")
    except (ValueError, RecursionError) as error:
        return BadRow(f"not JSON that can be read: {error}")
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and depth(value) > MAX_DEPTH:
        return BadRow(TOO_DEEP)
    return value


def depth(value: Any) -> int:
    """Return the depth to which lists and objects are nested."""
    level, layer = 0, [value]
    while layer := [part for part in layer if isinstance(part, dict | list)]:
        layer = [part for whole in layer for part in (whole.values() if isinstance(whole, dict) else whole)]
        level += 1
    return level


def has_lone_surrogate(value: Any) -> bool:
    """Return True if a string in a JSON value holds half of a surrogate pair, which is not a character."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            try:
                part.encode()
            except UnicodeEncodeError:
                return True
        elif isinstance(part, dict):
            waiting += part.keys()
            waiting += part.values()
        elif isinstance(part, list | tuple):
            waiting += part
    return False


def iter_json_rows(file: Path) -> Iterator[tuple[int, Any]]:
    """Yield (number, row or BadRow) of a .json or .jsonl file; numbers count lines, or list items, from 1.

    A file has a row per line, a list of rows, or (.json) {"data": list of rows} or a single row over several lines.
    InputError, with line and column, for any other list or .json file.
    """
    rows = _parse_whole(file)
    if rows is not None:
        yield from enumerate(rows, start=1)
        return
    for number, line in iter_lines(file):
        if line.strip():
            yield number, parse_json(line)


def _parse_whole(file: Path) -> list[Any] | None:
    """Parse a file that is a single JSON value into rows; None if each line is a row."""
    first = next((line.strip() for _, line in iter_lines(file) if line.strip()), b"")
    if first[:1] != b"[" and (suffix_of(file) != ".json" or (first[-1:] == b"}" and not WRAPPED.match(first))):
        return None
    text = read_text(file)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" or not text.strip():
            return None
        problem = f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        raise InputError(problem, file, "give a list of rows, or one row a line") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON that can be read: {error}", file) from None
    if isinstance(value, dict):
        value = value["data"] if list(value) == ["data"] else [value]
    if not isinstance(value, list):
        raise InputError("neither a list of rows nor a row", file)
    return [BadRow(TOO_DEEP) if depth(row) > MAX_DEPTH else row for row in value]


def suffix_of(file: Path) -> str:
    """Return a file's suffix without .gz."""
    return Path(file.name.removesuffix(".gz")).suffix


def read_json_rows(file: Path, hint: str | None = None) -> list[tuple[int, Any]]:
    """Read all (number, row) of a .json or .jsonl file; InputError, with location and hint, for the first bad row."""
    rows = list(iter_json_rows(file))
    for number, row in rows:
        if isinstance(row, BadRow):
            raise InputError(f"{row_location(file, number)} is {row}", file, hint)
        if has_lone_surrogate(row):
            raise InputError(f"{row_location(file, number)} holds half of a character (a lone surrogate)", file, hint)
    return rows


def read_json_lines(file: Path) -> list[dict[str, Any]]:
    """Read the rows of a .jsonl file that a run wrote; none if it is missing. A line torn by a stop is skipped."""
    if not file.is_file():
        return []
    return [row for _, line in iter_lines(file) if isinstance(row := parse_json(line), dict)]


def read_csv_rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    """Read (line, row) of a .csv file with a header, all values strings; InputError for a row of another width.

    Quoted values may hold commas and line ends; `line` is the row's first line.
    """
    table = csv.reader(f"{line}\n" for line in read_text(file).split("\n"))
    rows, start = [], 1
    names: list[str] | None = None
    usual = csv.field_size_limit(2**31 - 1)
    try:
        for values in table:
            if names is None:
                names = values
            elif values and len(values) != len(names):
                raise InputError(f"line {start} has {len(values)} values, and there are {len(names)} columns", file)
            elif values:
                rows.append((start, dict(zip(names, values))))
            start = table.line_num + 1
    except csv.Error as error:
        raise InputError(f"line {start} is not CSV: {error}", file) from None
    finally:
        csv.field_size_limit(usual)
    return rows


def row_location(file: Path, number: int) -> str:
    """Locate a row by its number in its reader: "line 3", "row 2 (line 17)" of a JSON list, "row 2" of parquet."""
    if suffix_of(file) == ".parquet":
        return f"row {number}"
    if _parse_whole(file) is None:
        return f"line {number}"
    text, scan = read_text(file), json.JSONDecoder().raw_decode
    start = at = text.find("[") + 1
    for _ in range(number if at else 0):
        between = BETWEEN.match(text, at)
        start = between.end() if between else at
        _, at = scan(text, start)
    return f"row {number} (line {1 + text.count(chr(10), 0, start)})"
