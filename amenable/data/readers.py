"""Readers of rows: a file, a folder of files, several of these, or a data set of the Hub.

Files are .parquet, .jsonl, .json and .txt, the last three also with .gz.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from amenable.data.files import decode_line, iter_json_rows, iter_lines, read_csv_rows, read_json_rows, suffix_of
from amenable.errors import InputError

Source: TypeAlias = str | Path | Sequence[str | Path]
SUFFIXES = (".jsonl", ".json", ".parquet", ".txt")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
PAGE = 20_000
"""characters after which a long .txt file is cut at the next blank line"""


def read_rows(file: Path) -> list[tuple[int, Any]]:
    """Read (number, row) of a file of any columns, also .csv; InputError for the first unreadable row."""
    kind = suffix_of(file)
    if kind in (".json", ".jsonl"):
        return read_json_rows(file)
    return list(read_csv_rows(file) if kind == ".csv" else iter_rows(file, None))


def list_files(path: Source) -> list[Path | str]:
    """List the files of a source in order; a name of the Hub stays a string."""
    if not isinstance(path, str | Path):
        return [file for part in path for file in list_files(part)]
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


def iter_rows(file: Path | str, limit: int | None) -> Iterator[tuple[int, Any]]:
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
