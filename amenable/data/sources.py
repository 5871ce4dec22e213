"""Readers of data sources: a file, a folder of files, several of these, or a data set of the Hub.

Files are .parquet, .jsonl, .json and .txt, the last three also with .gz. Invalid rows are reported with file,
line and reason; a file without valid rows is an error before any work starts. `columns.py` has the column conventions.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from amenable.data import columns
from amenable.data.batches import shuffled
from amenable.data.files import (
    BadRow,
    decode_line,
    has_lone_surrogate,
    iter_json_rows,
    iter_lines,
    read_csv_rows,
    read_json_rows,
    suffix_of,
)
from amenable.data.record import InvalidRow, Record, Usage
from amenable.data.types import Conversation, Demonstration, Message, Prompt, Ranking, Text
from amenable.errors import InputError

T = TypeVar("T")
Source: TypeAlias = str | Path | Sequence[str | Path]
Known: TypeAlias = dict[str, tuple[Conversation, str]]
"""id -> its prompt and the location of its first row"""

NOUNS = {
    "text": "texts",
    "demonstration": "demonstrations",
    "prompt": "prompts",
    "ranking": "rankings",
}
"""function of columns.py -> plural of its examples"""
SUFFIXES = (".jsonl", ".json", ".parquet", ".txt")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
PAGE = 20_000
"""characters after which a long .txt file is cut at the next blank line"""


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

    def plan(self) -> list[str]:
        """Return a line per file with its rows and columns; files of a folder with the same columns share a line."""
        groups: dict[tuple[str, str], list[Usage]] = defaultdict(list)
        for usage in self.columns:
            groups[str(Path(usage.file).parent), str(usage)].append(usage)
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


def read_texts(path: Source, *, limit: int | None = None) -> Loaded[Text]:
    """Read documents of raw text: the column `text`, or .txt files.

    A .txt file is one document, or several separated by lines of <|endoftext|>; long ones are cut at blank lines, into
    pages of about 20 000 characters.

    limit (of all readers): greatest number of rows.
    """
    return _read(path, columns.text, limit)


def read_demonstrations(path: Source, *, limit: int | None = None) -> Loaded[Demonstration]:
    """Read conversations that end with the assistant: messages, prompt and completion, Alpaca, ShareGPT, problems."""
    return _read(path, columns.demonstration, limit)


def read_prompts(path: Source, *, limit: int | None = None) -> Loaded[Prompt]:
    """Read prompts; of demonstrations and preferences, the messages before the completion."""
    return _read(path, columns.prompt, limit)


def read_rankings(path: Source, *, limit: int | None = None) -> Loaded[Ranking]:
    """Read preferences: chosen and rejected, or K completions with ranks."""
    return _read(path, columns.ranking, limit)


def read_rows(file: Path) -> list[tuple[int, Any]]:
    """Read (number, row) of a file of any columns, also .csv; InputError for the first unreadable row."""
    kind = suffix_of(file)
    if kind in (".json", ".jsonl"):
        return read_json_rows(file)
    return list(read_csv_rows(file) if kind == ".csv" else _numbered_rows(file, None))


def split_holdout(rows: Sequence[T], fraction: float, seed: int) -> tuple[list[T], list[T]]:
    """Split rows into (training, held-out), both in order; about `fraction` of the rows, at least one, is held out.

    Rows with the same first user turns stay together, so no held-out prompt is trained on. If all rows begin alike,
    they are divided individually.
    """
    if not 0 < fraction < 1:
        raise InputError(f"the held-out fraction is {fraction}", how="give a number between 0 and 1")
    if len(rows) < 2:
        raise InputError(f"{len(rows)} rows cannot be divided", how="give more rows, or held-out ones of their own")
    groups: dict[Any, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[_opening(row)].append(i)
    parts: list[list[int]] = list(groups.values()) if len(groups) > 1 else [[i] for i in range(len(rows))]
    wanted = min(max(1, round(fraction * len(rows))), len(rows) - 1)
    held: set[int] = set()
    order = shuffled(len(parts), seed, 0)
    for part in (parts[i] for i in order):
        if len(held) + len(part) <= wanted:
            held.update(part)
    if not held:
        held.update(parts[min(order, key=lambda i: len(parts[i]))])
    return [row for i, row in enumerate(rows) if i not in held], [rows[i] for i in sorted(held)]


def _opening(row: Any) -> Any:
    """Return the beginning of a row: its text, or its turns before the assistant's first."""
    if isinstance(row, Text):
        return row.text
    messages: Sequence[Message] = row.messages if hasattr(row, "messages") else getattr(row, "prompt", ())
    roles = [message.role for message in messages]
    return tuple(messages[: roles.index("assistant")] if "assistant" in roles else messages) or id(row)


def _read(path: Source, parse: Callable[[columns.Row, str], T], limit: int | None) -> Loaded[T]:
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}", how="give 1 or more")
    used: list[T] = []
    rejected: list[Rejected] = []
    read: list[str] = []
    known: Known = {}
    tallies: list[Usage] = []
    for file in _files(path):
        if limit is not None and len(used) >= limit:
            break
        tallies.append(Usage(str(file)))
        usable, bad = _read_file(file, parse, None if limit is None else limit - len(used), known, tallies[-1])
        if not usable:
            lines = {row.reason: row.line for row in reversed(bad)}
            reasons = "; ".join(f"line {line}: {reason}" for reason, line in reversed(list(lines.items())[-3:]))
            raise InputError(f"no {parse.__name__} can be read ({reasons or 'it is empty'})", str(file))
        used += usable
        rejected += bad
        read.append(str(file))
    return Loaded(used, rejected, tuple(read), tuple(tallies), NOUNS[parse.__name__])


def _read_file(
    file: Path | str,
    parse: Callable[[columns.Row, str], T],
    limit: int | None,
    known: Known,
    tally: Usage,
) -> tuple[list[T], list[Rejected]]:
    used: list[T] = []
    rejected: list[Rejected] = []
    name = Path(file).name if isinstance(file, Path) else file
    for line, row in _numbered_rows(file, limit):
        try:
            if isinstance(row, BadRow):
                raise InvalidRow(str(row))
            if not isinstance(row, dict):
                raise InvalidRow("the row is not an object with columns")
            record = Record(row)
            example = parse(record, f"{name}:{line}")
            if has_lone_surrogate(row):
                raise InvalidRow("half of a surrogate pair is no text")
            _require_own_id(record, example, f"{name}:{line}", known)
            used.append(example)
            tally.add(record)
        except InvalidRow as error:
            rejected.append(Rejected(str(file), line, str(error)))
        if len(used) == limit:
            break
    return used, rejected


def _files(path: Source) -> list[Path | str]:
    """List the files of a source in order; a name of the Hub stays a string."""
    if not isinstance(path, str | Path):
        return [file for part in path for file in _files(part)]
    root = Path(path).expanduser()
    if root.is_file():
        return [root]
    if root.is_dir():
        files = sorted(file for file in root.rglob("*") if _is_data(file.relative_to(root)) and file.is_file())
        if not files:
            raise InputError("no data files in this folder", root, f"data files end in {', '.join(SUFFIXES)} or .gz")
        return list(files)
    if HUB_NAME.fullmatch(str(path)) and not root.parent.exists() and not _is_data(root):
        return [str(path)]
    raise InputError("no such file or folder", root, _nearest(root))


def _is_data(file: Path) -> bool:
    return suffix_of(file) in SUFFIXES and not any(part.startswith(".") for part in file.parts)


def _nearest(path: Path) -> str:
    """Return a hint at the nearest existing name."""
    parent, name = path.parent, path.name
    while not parent.is_dir() and parent != parent.parent:
        parent, name = parent.parent, parent.name
    close = difflib.get_close_matches(name, sorted(child.name for child in parent.iterdir()), n=1, cutoff=0.5)
    return f"the nearest is {parent / close[0]}" if close else f"{parent} is the part that exists"


def _numbered_rows(file: Path | str, limit: int | None) -> Iterator[tuple[int, Any]]:
    """Yield (line, row) of a file."""
    if isinstance(file, str):
        yield from enumerate(_hub_rows(file, limit), start=1)
        return
    kind = suffix_of(file)
    if kind == ".txt":
        yield from _documents(file)
    elif kind == ".parquet":
        yield from enumerate(_parquet_rows(file), start=1)
    elif kind in (".json", ".jsonl"):
        yield from iter_json_rows(file)
    else:
        hint = f"data files end in {', '.join(SUFFIXES)}, or in one of these and .gz"
        raise InputError(f"no reader for '{kind or file.name}'", file, hint)


def _documents(file: Path) -> Iterator[tuple[int, Any]]:
    """Yield (first line, document) of a text file."""
    first, size = 1, 0
    page: list[str] = []
    for number, line in iter_lines(file):
        text = decode_line(line, number, file)
        separates = text.strip() == "<|endoftext|>"
        if separates or (size > PAGE and not text.strip()):
            if size:
                yield first, {"text": "\n".join(page)}
            first, page, size = number + 1, [], 0
        else:
            page.append(text)
            size += len(text)
    if size:
        yield first, {"text": "\n".join(page)}


def _parquet_rows(file: Path) -> Iterator[Any]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise InputError("parquet files need pyarrow", file, "pip install 'amenable[parquet]'") from None
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"not a parquet file: {error}", file) from None


def _hub_rows(name: str, limit: int | None) -> Iterator[Any]:
    """Yield the rows of a data set of the Hub: "owner/name", or "owner/name:split" for a split other than train."""
    try:
        import datasets
    except ImportError:
        hint = "if it is a data set of the Hub: pip install 'amenable[hub]'"
        raise InputError("no such file or folder", name, hint) from None
    repository, _, split = name.partition(":")
    try:
        # streaming fetches rows one by one
        rows = datasets.load_dataset(repository, split=split or "train", streaming=limit is not None)
        yield from map(dict, rows)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"no such file or folder, and the Hub says: {error}", name) from None


def _require_own_id(row: Record, example: Any, location: str, known: Known) -> None:
    """Raise InvalidRow if the id belongs to another prompt: ids seed completions and join their labels."""
    if "id" not in row or not isinstance(example, Prompt | Ranking):
        return
    prompt = example.messages if isinstance(example, Prompt) else example.prompt
    other, first = known.setdefault(example.id, (prompt, location))
    if other != prompt:
        raise InvalidRow(f"the id '{example.id}' belongs to another prompt ({first})")
