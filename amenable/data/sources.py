"""Read data: a file, a folder of files, several of them, or a data set of the Hub.

Files are .parquet, .jsonl, .json and .txt, the last three also with .gz. A row that cannot be used is reported with
file, line and reason; a file in which no row can be used is an error, before any work is done. Which columns make which
example is said in `columns.py`.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from amenable.data import columns
from amenable.data.batches import shuffled
from amenable.data.files import (
    BadRow,
    decode,
    has_half_character,
    iter_json_rows,
    iter_lines,
    place_of,
    read_csv_rows,
    read_json_rows,
)
from amenable.data.record import Record, Unusable, Usage
from amenable.data.types import Conversation, Demonstration, Labelled, Message, Prompt, Ranking, Text
from amenable.errors import InputError

T = TypeVar("T")
Source: TypeAlias = str | Path | Sequence[str | Path]
OnBad: TypeAlias = Literal["report", "stop"]
Known: TypeAlias = dict[str, tuple[Conversation, str]]
"""the prompt that an id stands for, and where it was read"""

NOUNS = {
    "text": "texts",
    "demonstration": "demonstrations",
    "prompt": "prompts",
    "ranking": "rankings",
    "labelled": "labelled answers",
}
"""a reader of columns, and what it makes of rows, in the plural"""
SUFFIXES = (".jsonl", ".json", ".parquet", ".txt")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
PAGE = 20_000
"""characters after which a long .txt file is cut at the next blank line"""


@dataclass(frozen=True)
class Rejected:
    """A row that was not used, and why. Lines (in .json and .parquet, rows) count from 1."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.reason}"


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """The rows that can be used, and those that cannot."""

    rows: list[T]
    rejected: list[Rejected]
    files: tuple[str, ...]
    columns: tuple[Usage, ...] = ()
    """of each file, which columns were used"""
    noun: str = "rows"
    """what a row is, in the plural"""

    def plan(self) -> list[str]:
        """A line for each file: its rows, and which columns they were made of. Files of a folder share one where their
        columns are the same."""
        alike: dict[tuple[str, str], list[Usage]] = defaultdict(list)
        for one in self.columns:
            alike[str(Path(one.file).parent), str(one)].append(one)
        lines = []
        for (folder, named), group in alike.items():
            name = Path(group[0].file).name if len(group) == 1 else f"{len(group)} files in {folder}"
            rows = sum(one.rows for one in group)
            lines.append(f"{name}: {rows:,} {self.noun if rows != 1 else self.noun.removesuffix('s')}; {named}")
        return lines

    def report(self) -> str:
        """One line: how many rows, of how many files, how many rejected, and the first of these."""
        files = "1 file" if len(self.files) == 1 else f"{len(self.files)} files"
        first = f" (first: {self.rejected[0]})" if self.rejected else ""
        return f"{len(self.rows)} rows from {files}, {len(self.rejected)} rejected{first}"


def read_texts(path: Source, *, limit: int | None = None, on_bad: OnBad = "report") -> Loaded[Text]:
    """Documents of raw text: the column `text`, or .txt files.

    A .txt file is one document, or several between lines that say <|endoftext|>; a long one is cut at blank lines, into
    pages of some 20 000 characters.

    limit: read no more than so many rows. on_bad: "stop" makes the first bad row an error. This holds for all readers.
    """
    return _read(path, columns.text, limit, on_bad)


def read_demonstrations(path: Source, *, limit: int | None = None, on_bad: OnBad = "report") -> Loaded[Demonstration]:
    """Conversations that end with the assistant: messages, prompt and completion, Alpaca, ShareGPT, problems."""
    return _read(path, columns.demonstration, limit, on_bad)


def read_prompts(path: Source, *, limit: int | None = None, on_bad: OnBad = "report") -> Loaded[Prompt]:
    """Conversations that wait for the assistant; of demonstrations and preferences, what comes before the answer."""
    return _read(path, columns.prompt, limit, on_bad)


def read_rankings(path: Source, *, limit: int | None = None, on_bad: OnBad = "report") -> Loaded[Ranking]:
    """Preferences: chosen and rejected, or K completions with their ranks."""
    return _read(path, columns.ranking, limit, on_bad)


def read_labelled(path: Source, *, limit: int | None = None, on_bad: OnBad = "report") -> Loaded[Labelled]:
    """Unpaired preferences: prompt, completion, and a label that says whether it is wanted."""
    return _read(path, columns.labelled, limit, on_bad)


def read_rows(file: Path) -> list[tuple[int, Any]]:
    """(number, row) of one file, .csv among them, whatever is in the rows; InputError for the first unreadable one."""
    kind = _kind(file)
    if kind in (".json", ".jsonl"):
        return read_json_rows(file)
    return list(read_csv_rows(file) if kind == ".csv" else _numbered_rows(file, None))


def place_in(file: Path, number: int) -> str:
    """The place of a row in words, by its number in `read_rows`."""
    return f"row {number}" if _kind(file) == ".parquet" else place_of(file, number)


def split_holdout(rows: Sequence[T], fraction: float, seed: int) -> tuple[list[T], list[T]]:
    """(training, held out), each in the given order; about `fraction` of the rows are held out, and at least one.

    Rows that begin with the same words of a user stay together, so that no held-out prompt is trained on. Where all
    rows begin the same, they are divided one by one.
    """
    if not 0 < fraction < 1:
        raise InputError(f"a share of {fraction} to hold out", how="it must lie between 0 and 1")
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
    """What a row begins with: its text, or its turns before the assistant first speaks."""
    if isinstance(row, Text):
        return row.text
    messages: Sequence[Message] = row.messages if hasattr(row, "messages") else getattr(row, "prompt", ())
    roles = [message.role for message in messages]
    return tuple(messages[: roles.index("assistant")] if "assistant" in roles else messages) or id(row)


def _read(path: Source, parse: Callable[[columns.Row, str], T], limit: int | None, on_bad: OnBad) -> Loaded[T]:
    if limit is not None and limit < 1:
        raise InputError(f"a limit of {limit} rows", how="it must be 1 or more")
    used: list[T] = []
    rejected: list[Rejected] = []
    read: list[str] = []
    known: Known = {}
    tallies: list[Usage] = []
    for file in _files(path):
        if limit is not None and len(used) >= limit:
            break
        tallies.append(Usage(str(file)))
        usable, bad = _read_file(file, parse, None if limit is None else limit - len(used), on_bad, known, tallies[-1])
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
    on_bad: OnBad,
    known: Known,
    tally: Usage,
) -> tuple[list[T], list[Rejected]]:
    used: list[T] = []
    rejected: list[Rejected] = []
    name = Path(file).name if isinstance(file, Path) else file
    for line, row in _numbered_rows(file, limit):
        try:
            if isinstance(row, BadRow):
                raise Unusable(str(row))
            if not isinstance(row, dict):
                raise Unusable("the row is not an object with columns")
            record = Record(row)
            example = parse(record, f"{name}:{line}")
            _require_unicode(row)
            _require_own_id(record, example, f"{name}:{line}", known)
            used.append(example)
            tally.add(record)
        except Unusable as error:
            if on_bad == "stop":
                raise InputError(str(error), f"{file}:{line}") from None
            rejected.append(Rejected(str(file), line, str(error)))
        if len(used) == limit:
            break
    return used, rejected


def _files(path: Source) -> list[Path | str]:
    """The files of a source, in order; a name of the Hub stays a string."""
    if not isinstance(path, str | Path):
        return [file for one in path for file in _files(one)]
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    if place.is_dir():
        files = sorted(file for file in place.rglob("*") if _is_data(file.relative_to(place)) and file.is_file())
        if not files:
            raise InputError("no data files in this folder", place, f"data files end in {', '.join(SUFFIXES)} or .gz")
        return list(files)
    if HUB_NAME.fullmatch(str(path)) and not place.parent.exists() and not _is_data(place):
        return [str(path)]
    raise InputError("no such file or folder", place, _nearest(place))


def _is_data(file: Path) -> bool:
    if any(part.startswith(".") for part in file.parts):
        return False
    return (file.with_suffix("") if file.suffix == ".gz" else file).suffix in SUFFIXES


def _nearest(place: Path) -> str | None:
    """A hint at the name that was perhaps meant."""
    parent, name = place.parent, place.name
    while not parent.is_dir() and parent != parent.parent:
        parent, name = parent.parent, parent.name
    found = difflib.get_close_matches(name, sorted(child.name for child in parent.iterdir()), n=1, cutoff=0.5)
    return f"the nearest is {parent / found[0]}" if found else f"{parent} is the part that exists"


def _numbered_rows(file: Path | str, limit: int | None) -> Iterator[tuple[int, Any]]:
    """(line, row) of one file."""
    if isinstance(file, str):
        yield from enumerate(_hub_rows(file, limit), start=1)
        return
    kind = _kind(file)
    if kind == ".txt":
        yield from _documents(file)
    elif kind == ".parquet":
        yield from enumerate(_parquet_rows(file), start=1)
    elif kind in (".json", ".jsonl"):
        yield from iter_json_rows(file)
    else:
        how = f"data files end in {', '.join(SUFFIXES)}, or in one of these and .gz"
        raise InputError(f"no reader for '{kind or file.name}'", file, how)


def _kind(file: Path) -> str:
    return Path(file.stem).suffix if file.suffix == ".gz" else file.suffix


def _documents(file: Path) -> Iterator[tuple[int, Any]]:
    """The documents of a text file and the lines they begin at."""
    first, size = 1, 0
    page: list[str] = []
    for number, line in iter_lines(file):
        text = decode(line, number, file)
        ends = text.strip() == "<|endoftext|>"
        if ends or (size > PAGE and not text.strip()):
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
    """Rows of a data set of the Hub: "owner/name", or "owner/name:split" for another split than train."""
    try:
        import datasets
    except ImportError:
        how = "if it is a data set of the Hub: pip install 'amenable[hub]'"
        raise InputError("no such file or folder", name, how) from None
    repository, _, split = name.partition(":")
    try:
        # with a limit the rows are fetched as they are asked for
        rows = datasets.load_dataset(repository, split=split or "train", streaming=limit is not None)
        yield from map(dict, rows)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"no such file or folder, and the Hub says: {error}", name) from None


def _require_unicode(value: Any) -> None:
    if has_half_character(value):
        raise Unusable("half of a surrogate pair is no text")


def _require_own_id(row: Record, example: Any, place: str, known: Known) -> None:
    """An id decides the random numbers of a prompt's answers, and joins what is said of them: two prompts need two."""
    if "id" not in row or not isinstance(example, Prompt | Ranking):
        return
    prompt = example.messages if isinstance(example, Prompt) else example.prompt
    other, first = known.setdefault(example.id, (prompt, place))
    if other != prompt:
        raise Unusable(f"the id '{example.id}' belongs to another prompt ({first})")
