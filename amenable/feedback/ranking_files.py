"""Rankings as files: a new label store, and lines of JSON in the published format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amenable.data.types import Ranking
from amenable.feedback.store import Store, payload_of
from amenable.files import commit_file, disk_errors, temporary_path, write_text


def write_store(path: Path, rankings: Sequence[Ranking]) -> None:
    """Write a new store of rankings, whole: it takes its name once all of them are in it."""
    with disk_errors(path):
        with Store(temporary_path(path)) as store:
            store.add_rankings(rankings)
        commit_file(temporary_path(path), path)


def write_rankings(file: Path, rankings: Sequence[Ranking]) -> None:
    """Write rankings as lines of JSON: prompt, completions, ranking (1 the best), annotator, id, further columns."""
    write_text(file, "".join(json.dumps(row_of(ranking), ensure_ascii=False) + "\n" for ranking in rankings))


def row_of(ranking: Ranking) -> dict[str, Any]:
    """Return a ranking's row in the published format."""
    row = payload_of(ranking)
    meta = row.pop("meta")
    return {**row, **meta}
