"""Write labels as data files that training reads: rankings, pairs, demonstrations, and their lineage.

Reads the store that `label` writes. `amenable reward --data runs/labels/rankings.jsonl` learns from the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from amenable.errors import InputError
from amenable.feedback import export_import
from amenable.feedback.store import Store


@dataclass(frozen=True)
class Config:
    """Export the labels of a store."""

    labels_db: Path = Path("runs/labels.db")
    out: Path = Path("runs/labels")
    """folder of the files; files of these names are replaced"""


def run(config: Config) -> Path:
    """Write the files and return their folder."""
    if not config.labels_db.exists():
        raise InputError("there is no such store of labels", config.labels_db, "'amenable label' makes one")
    if config.out.exists() and not config.out.is_dir():
        raise InputError("is a file", config.out, "give --out a folder")
    with Store(config.labels_db) as store:
        counts = export_import.export(store, config.out)
    for name, rows in counts.items():
        print(f"{rows:>8} {name:<16} {config.out / name}.jsonl")
    return config.out
