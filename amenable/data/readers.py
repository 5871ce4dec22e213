"""Readers of rows: a file, a folder of files, a pattern of files, one of these behind a URL, or a data set of the Hub.

Files are .jsonl, .json, .csv, .tsv and .txt, also with .gz or .zst, .parquet, and .arrow (a stream or a file of Arrow
IPC). The folder that `Dataset.save_to_disk` writes has the rows of its shards, in order.
"""

from __future__ import annotations

import difflib
import glob
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from amenable.data.files import (
    COMPRESSED,
    decode_line,
    iter_csv_rows,
    iter_json_rows,
    iter_lines,
    read_json_rows,
    read_text,
    suffix_of,
)
from amenable.data.urls import UrlPath, list_urls, open_raw, to_path
from amenable.errors import InputError

Source: TypeAlias = str | Path | Sequence[str | Path]
TABLES_OF_TEXT = (".csv", ".tsv")
"""files whose values are all text"""
SUFFIXES = (".jsonl", ".json", ".parquet", ".arrow", *TABLES_OF_TEXT, ".txt")
KINDS = f"{', '.join(SUFFIXES)}, or in one of these and {' or '.join(COMPRESSED)}"
SAVED_STATE, SAVED_SPLITS = "state.json", "dataset_dict.json"
"""files of a folder of `Dataset.save_to_disk`, and of `DatasetDict.save_to_disk`"""
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
MARKS = re.compile(r"[*?\[]")
"""marks of a pattern of files"""
ARROW_FILE = b"ARROW1"
"""beginning of an Arrow IPC file; a stream has none"""
BATCH = 1024
"""rows of an Arrow table that are converted at once"""
PAGE = 20_000
"""characters after which a long .txt file is cut at the next blank line"""


def read_rows(file: Path) -> list[tuple[int, Any]]:
    """Read (number, row) of a file of any columns; InputError for the first unreadable row."""
    kind = suffix_of(file)
    if kind in (".json", ".jsonl"):
        return read_json_rows(file)
    return list(iter_rows(file, None))


def list_files(path: Source) -> list[Path | str]:
    """List the files of a source in order; a name of the Hub stays a string."""
    if not isinstance(path, str | Path):
        return [file for part in path for file in list_files(part)]
    root = to_path(path).expanduser()
    if isinstance(root, UrlPath):
        return _require_data([file for file, name in list_urls(root) if not name or _is_data(Path(name))], root)
    if root.is_file():
        return [root]
    if is_pattern(root):
        return _require_data(matching(root), root)
    if root.is_dir() and (root / SAVED_STATE).is_file():
        return list(_saved_shards(root))
    if root.is_dir():
        if (root / SAVED_SPLITS).is_file():
            splits = [child for child in sorted(root.iterdir()) if (child / SAVED_STATE).is_file()]
            names = ", ".join(child.name for child in splits) or "none is there"
            raise InputError(
                f"a data set of splits ({names})", root, f"name one, as in {splits[-1] if splits else root}"
            )
        files = sorted(file for file in root.rglob("*") if _is_data(file.relative_to(root)) and file.is_file())
        return _require_data(files, root)
    if HUB_NAME.fullmatch(str(path)) and not root.parent.exists() and not _is_data(root):
        return [str(path)]
    raise InputError("no such file or folder", root, _nearest(root))


def is_pattern(path: Path) -> bool:
    """Return True for a pattern of files on this machine, as texts/*.jsonl; not for a path that exists."""
    return bool(MARKS.search(str(path))) and not isinstance(path, UrlPath) and not path.exists()


def matching(pattern: Path) -> list[Path]:
    """List the data files of a pattern in order; ** matches any folders."""
    root = fixed_root(pattern)
    files = (Path(name) for name in sorted(glob.glob(str(pattern), recursive=True)))
    return [file for file in files if file.is_file() and _is_data(file.relative_to(root))]


def fixed_root(pattern: Path) -> Path:
    """Return the folder above all that a pattern matches."""
    return next(folder for folder in pattern.parents if not MARKS.search(str(folder)))


def _require_data(files: list[Path], source: Path) -> list[Path | str]:
    if not files:
        problem = "no data files match this pattern" if is_pattern(source) else "no data files in this folder"
        raise InputError(problem, source, f"data files end in {KINDS}")
    return list(files)


def _saved_shards(folder: Path) -> list[Path]:
    """List the Arrow files of a saved data set; InputError where its state is unreadable or a file is missing."""
    try:
        files = [folder / entry["filename"] for entry in json.loads(read_text(folder / SAVED_STATE))["_data_files"]]
    except (ValueError, KeyError, TypeError):
        raise InputError("no state of a saved data set", folder / SAVED_STATE, "save it again") from None
    if missing := next((file for file in files if not file.is_file()), None):
        raise InputError(f"a file of the saved data set is missing: {missing.name}", folder, "save or copy it again")
    return files


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
    elif kind in (".parquet", ".arrow"):
        yield from enumerate(_columnar_rows(file), start=1)
    elif kind in TABLES_OF_TEXT:
        yield from iter_csv_rows(file)
    elif kind in (".json", ".jsonl"):
        yield from iter_json_rows(file)
    else:
        raise InputError(f"no reader for '{kind or file.name}'", file, f"data files end in {KINDS}")


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


def _columnar_rows(file: Path) -> Iterator[Any]:
    """Yield the rows of a .parquet or .arrow file."""
    kind = suffix_of(file).removeprefix(".")
    try:
        import pyarrow
    except ImportError:
        raise InputError(f"{kind} files need pyarrow", file, "pip install 'amenable[parquet]'") from None
    if file.suffix in COMPRESSED:
        raise InputError(f"a compressed {kind} file", file, f"decompress it: {kind} files are compressed inside")
    try:
        for batch in _parquet_batches(file) if kind == "parquet" else _arrow_batches(file):
            for start in range(0, batch.num_rows, BATCH):
                yield from batch.slice(start, BATCH).to_pylist()
    except MemoryError:  # one of Arrow's is an ArrowException
        raise
    except (OSError, pyarrow.ArrowException) as error:
        problem = str(error).splitlines()[0]
        raise InputError(f"no {kind} file, or damaged: {problem}", file, "fetch it again") from None


def _parquet_batches(file: Path) -> Iterator[Any]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(open_raw(file) if isinstance(file, UrlPath) else file) as table:
        yield from table.iter_batches(batch_size=BATCH)


def _arrow_batches(file: Path) -> Iterator[Any]:
    """Yield the batches of an Arrow IPC file, or stream."""
    import pyarrow.ipc

    with pyarrow.PythonFile(open_raw(file)) if isinstance(file, UrlPath) else pyarrow.OSFile(str(file)) as opened:
        is_file = opened.read(len(ARROW_FILE)) == ARROW_FILE
        opened.seek(0)
        if is_file:
            with pyarrow.ipc.open_file(opened) as table:
                yield from (table.get_batch(i) for i in range(table.num_record_batches))
        else:
            with pyarrow.ipc.open_stream(opened) as stream:
                yield from stream


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
