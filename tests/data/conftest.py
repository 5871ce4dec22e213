"""Files of rows."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def jsonl() -> Callable[..., Path]:
    """Return a writer of a file, gzipped if its name ends so, with a line for each row (bytes as they are)."""

    def write(file: Path, *rows: object, line_end: str = "\n") -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        data = b"".join(line + line_end.encode() for line in lines)
        file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)
        return file

    return write
