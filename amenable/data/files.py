"""Readers of lines, JSON rows and CSV rows.

A file is UTF-8, with or without a byte order mark. Lines end at a line feed (a carriage return before it is dropped),
never at U+2028, U+2029 or U+0085. Files that end in .gz or .zst are decompressed.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from amenable.data.urls import open_raw
from amenable.errors import InputError

MAX_DEPTH = 200
"""greatest depth of nested lists and objects in a row"""
TOO_DEEP = f"nested: more than {MAX_DEPTH} lists and objects inside each other"
WRAPPED = re.compile(rb'\{\s*"data"\s*:')
"""beginning of a file that is {"data": list of rows}"""
BETWEEN = re.compile(r"[ \t\r\n,]*")
COMPRESSED = (".gz", ".zst")
PIECE = 1 << 16
"""bytes of a .zst file that are read at once"""
WIDE = ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"))


class BadRow(str):
    """Reason why a line or row cannot be read."""


def iter_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (number from 1, line without its end); InputError for an unreadable, cut or UTF-16 file."""
    try:
        with open_bytes(file) as stream:
            for number, line in enumerate(stream, start=1):
                if number == 1:
                    _require_utf8(line, file)
                    line = line.removeprefix(codecs.BOM_UTF8)
                yield number, line.removesuffix(b"\n").removesuffix(b"\r")
    except EOFError:
        raise InputError("the file is cut short", file, "fetch it again") from None
    except (gzip.BadGzipFile, zlib.error, Damaged) as error:
        kind = "zstd" if file.suffix == ".zst" else "gzip"
        raise InputError(f"damaged, or no {kind} file: {error}", file, "fetch it again") from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file) from None


def open_bytes(file: Path) -> gzip.GzipFile | IO[bytes]:
    """Open a file to read the bytes that it holds, decompressed."""
    if file.suffix == ".gz":
        return gzip.GzipFile(fileobj=open_raw(file))
    return io.BufferedReader(ZstdStream(file), PIECE) if file.suffix == ".zst" else open_raw(file)


class Damaged(Exception):
    """A .zst file that cannot be decompressed."""


class ZstdStream(io.RawIOBase):
    """Decompressed bytes of a .zst file of one frame or several. EOFError where the last is cut short."""

    def __init__(self, file: Path):
        try:
            import zstandard
        except ImportError:
            raise InputError(".zst files need zstandard", file, "pip install 'amenable[zstd]'") from None
        self.decompressor, self.error = zstandard.ZstdDecompressor(), zstandard.ZstdError
        self.file = open_raw(file)
        self.frame: Any = None
        self.compressed = self.ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with the next bytes, and return their number; 0 at the end of the file."""
        while not self.ready:
            self.compressed = self.compressed or self.file.read(PIECE)
            if not self.compressed and self.frame is not None:
                raise EOFError
            if not self.compressed:
                return 0
            self.frame = self.frame or self.decompressor.decompressobj()
            try:
                self.ready = self.frame.decompress(self.compressed)
            except self.error as error:
                raise Damaged(str(error)) from None
            self.compressed = self.frame.unused_data
            if self.frame.eof:
                self.frame = None
        part, self.ready = self.ready[: len(buffer)], self.ready[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self.file.close()
        super().close()


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
    """Return a file's suffix without .gz or .zst."""
    return Path(file.stem if file.suffix in COMPRESSED else file.name).suffix


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


def iter_csv_rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, row) of a .csv or .tsv file with a header, all values strings.

    Quoted values may hold separators and line ends; `line` is the row's first line. InputError for a row of another
    width, a quote that is not closed, two columns of a name, and another separator.
    """
    delimiter = "\t" if suffix_of(file) == ".tsv" else ","
    lines = (f"{decode_line(line, number, file)}\n" for number, line in iter_lines(file))
    table, start = csv.reader(lines, delimiter=delimiter, strict=True), 1
    names: list[str] | None = None
    usual = csv.field_size_limit(2**31 - 1)
    try:
        for values in table:
            if names is None:
                names = header(values, delimiter, file)
            elif values and len(values) != len(names):
                raise InputError(f"line {start} has {len(values)} values, and there are {len(names)} columns", file)
            elif values:
                yield start, dict(zip(names, values))
            start = table.line_num + 1
    except csv.Error as error:
        raise InputError(f"line {start} is not CSV: {error}", file) from None
    finally:
        csv.field_size_limit(usual)


def header(names: list[str], delimiter: str, file: Path) -> list[str]:
    """Return the names of the columns; InputError for a name that is there twice, and for another separator."""
    other = next((mark for mark in ";\t,|" if mark in names[0] and mark != delimiter), None) if names else None
    if other is not None and len(names) == 1:
        problem = f"its columns are parted by {other!r}, not by {delimiter!r}"
        raise InputError(problem, file, "write it with commas (.csv) or with tabs (.tsv)")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two columns are named '{twice}'", file, "give every column a name of its own")
    return names


def row_location(file: Path, number: int) -> str:
    """Locate a row by its number in its reader: "line 3", "row 2 (line 17)" of a JSON list, "row 2" of parquet."""
    kind = suffix_of(file)
    if kind not in (".json", ".jsonl", ".csv", ".tsv"):
        return f"row {number}"
    if kind in (".csv", ".tsv") or _parse_whole(file) is None:
        return f"line {number}"
    text, scan = read_text(file), json.JSONDecoder().raw_decode
    start = at = text.find("[") + 1
    for _ in range(number if at else 0):
        between = BETWEEN.match(text, at)
        start = between.end() if between else at
        _, at = scan(text, start)
    return f"row {number} (line {1 + text.count(chr(10), 0, start)})"
