"""Take labels of others into a store: preferences, rankings or demonstrations in any of the field's formats.

Known are the columns that training reads (hh-rlhf's among them), and what Argilla and Label Studio export as JSON. A
file that comes twice is kept once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from amenable.errors import InputError
from amenable.feedback import exchange
from amenable.feedback.store import Store


@dataclass(frozen=True)
class Config:
    """Import labels into a store."""

    data: Path | None = None
    """a file of labels: .jsonl, .json or .parquet"""
    store: Path = Path("runs/labels.db")
    annotator: str | None = None
    """who said them, where the file does not say so"""


def run(config: Config) -> Path:
    """Take the labels in and return the store."""
    if config.data is None:
        raise InputError("--data is missing", how="give a file of labels")
    if not config.data.is_file():
        raise InputError("no such file", config.data, "give a file of labels: .jsonl, .json or .parquet")
    exchange.read(config.data)
    with Store(config.store) as store:
        counts = exchange.bring_in(store, config.data, config.annotator, time.time())
    print(f"{counts['labels']} labels, {counts['new']} of them new; {counts['unusable']} rows could not be used")
    return config.store
