"""Read files of rows in one way everywhere: bytes, lines, JSON.

A file is UTF-8, with or without a byte order mark. A line ends at a line feed (a carriage return before it is dropped)
and nowhere else: U+2028, U+2029 and U+0085 are characters of a text. A name that ends in .gz is decompressed.
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
"""lists and objects inside each other, beyond which a row is refused"""
TOO_DEEP = f"nested: more than {MAX_DEPTH} lists and objects inside each other"
WRAPPED = re.compile(rb'\{\s*"data"\s*:')
"""how a file that is {"data": a list of rows} begins"""
BETWEEN = re.compile(r"[ \t\r\n,]*")
WIDE = ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"))


class BadRow(str):
    """A line or row that cannot be read: the reason."""


def iter_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line without its end); InputError for a file that cannot be read to its end, or is UTF-16."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if number == 1:
                    _require_narrow(line, file)
                    line = line.removeprefix(codecs.BOM_UTF8)
                yield number, line.removesuffix(b"\n").removesuffix(b"\r")
    except EOFError:
        raise InputError("the file is cut short", file, "fetch it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"damaged, or no gzip file: {error}", file, "fetch it again") from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file) from None


def _require_narrow(line: bytes, file: Path) -> None:
    for mark, name in WIDE:
        if line.startswith(mark):
            raise InputError(f"it is {name}, not UTF-8", file, conversion(file, name))


def conversion(file: Path, encoding: str = "LATIN1") -> str:
    """Advice for a file in another encoding."""
    return f"convert it, as in: iconv -f {encoding} -t UTF-8 '{file.name}' > 'utf8-{file.name}'"


def decode(line: bytes, number: int, file: Path) -> str:
    """A line as text; InputError with line, byte and advice where it is not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 (line {number}, {_bad_byte(error)})", file, conversion(file)) from None


def _bad_byte(error: UnicodeDecodeError) -> str:
    return f"byte {error.start + 1} is 0x{error.object[error.start]:02X}"


def read_text(file: Path) -> str:
    """The lines of a file with line feeds between them; InputError where it cannot be read or is not UTF-8."""
    return "\n".join(decode(line, number, file) for number, line in iter_lines(file))


def parse_json(line: bytes) -> Any:
    """The value of a line, or BadRow."""
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


def has_half_character(value: Any) -> bool:
    """Return True if a text in a JSON value holds half of a surrogate pair, which is no character."""
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
    """(number, row or BadRow) of a .json or .jsonl file: its lines, or the places in a list, counted from 1.

    A file is one row a line, a list of rows, or (.json) {"data": a list of rows} or a single row over several lines.
    InputError, with line and column, for a list or a .json file that is none of these.
    """
    rows = _rows_of_one_value(file)
    if rows is not None:
        yield from enumerate(rows, start=1)
        return
    for number, line in iter_lines(file):
        if line.strip():
            yield number, parse_json(line)


def _rows_of_one_value(file: Path) -> list[Any] | None:
    """The rows of a file that is one JSON value; None where each line is a row."""
    first = next((line.strip() for _, line in iter_lines(file) if line.strip()), b"")
    if first[:1] != b"[" and (_kind(file) != ".json" or (first[-1:] == b"}" and not WRAPPED.match(first))):
        return None
    text = read_text(file)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" or not text.strip():
            return None
        what = f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        raise InputError(what, file, "give a list of rows, or one row a line") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON that can be read: {error}", file) from None
    if isinstance(value, dict):
        value = value["data"] if list(value) == ["data"] else [value]
    if not isinstance(value, list):
        raise InputError("neither a list of rows nor a row", file)
    return [BadRow(TOO_DEEP) if depth(row) > MAX_DEPTH else row for row in value]


def _kind(file: Path) -> str:
    return Path(file.name.removesuffix(".gz")).suffix


def read_json_rows(file: Path, how: str | None = None) -> list[tuple[int, Any]]:
    """All (number, row) of a .json or .jsonl file; InputError, with its place and `how`, for the first bad row."""
    rows = list(iter_json_rows(file))
    for number, row in rows:
        if isinstance(row, BadRow):
            raise InputError(f"{place_of(file, number)} is {row}", file, how)
        if has_half_character(row):
            raise InputError(f"{place_of(file, number)} holds half of a character (a lone surrogate)", file, how)
    return rows


def read_csv_rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    """(line, row) of a .csv file with a line of column names, all values texts; InputError for a row of another width.

    A quoted value may hold commas and line ends: the line of a row is that on which it begins.
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


def place_of(file: Path, number: int) -> str:
    """Return the place of a row by its number in `iter_json_rows`: "line 3", or "row 2 (line 17)" of a list."""
    if _rows_of_one_value(file) is None:
        return f"line {number}"
    text, scan = read_text(file), json.JSONDecoder().raw_decode
    start = at = text.find("[") + 1
    for _ in range(number if at else 0):
        between = BETWEEN.match(text, at)
        start = between.end() if between else at
        _, at = scan(text, start)
    return f"row {number} (line {1 + text.count(chr(10), 0, start)})"
