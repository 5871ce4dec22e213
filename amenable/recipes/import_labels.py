"""Import others' labels into a store: preferences, rankings or demonstrations in any of the field's forms.

    columns that training reads   chosen and rejected, completions and ranking, messages ... (hh-rlhf among them)
    Label Studio, JSON            Pairwise, Ranker (with buckets, too) and TextArea of each annotation
    Label Studio, JSON-MIN        the same, an annotation a row
    Argilla, JSON and Hub rows    orders of fields, the better of two, written answers; of version 1 and 2
    Open-Assistant                message trees, or the table of messages: ranked replies
    Chatbot Arena, LMSYS          model_a, model_b and winner, or winner_model_a, winner_model_b, winner_tie
    AlpacaEval                    generator_1, generator_2, output_1, output_2, preference

Files are .jsonl, .json (both also with .gz), .parquet or .csv. A file that is imported twice counts once. Where an
export does not say which answer was preferred, the command stops and names the option that says it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from amenable.errors import InputError
from amenable.feedback import export_import
from amenable.feedback.hints import Hints, read_layout
from amenable.feedback.store import Store


@dataclass(frozen=True)
class Config:
    """Import labels into a store."""

    data: Path | None = None
    """a file of labels: .jsonl, .json, .parquet or .csv"""
    labels_db: Path = Path("runs/labels.db")
    annotator: str | None = None
    """the annotator, where the file names none"""
    prompt_field: str | None = None
    """of Argilla's and Label Studio's exports: the field that is the prompt, where it is not clear"""
    left_field: str | None = None
    """of Label Studio's Pairwise: the data field whose text stands on the left"""
    right_field: str | None = None
    buckets: tuple[str, ...] = ()
    """of Label Studio's Ranker: its buckets, the best first; what is in one bucket is tied"""
    label_config: Path | None = None
    """of Label Studio: the code of the labelling interface (XML), which answers all of these"""
    columns: tuple[str, ...] = ()
    """TARGET=COLUMN: columns of other names than those that training reads, as in prompt=question chosen=better
    rejected=worse"""

    def __post_init__(self) -> None:
        if (self.left_field is None) != (self.right_field is None):
            raise InputError("--left-field and --right-field belong together", how="give both")


def run(config: Config) -> Path:
    """Import the labels and return the store."""
    if config.data is None:
        raise InputError("--data is missing", how="give a file of labels")
    layout = read_layout(config.label_config)
    hints = Hints(config.prompt_field, config.left_field, config.right_field, config.buckets, layout, config.columns)
    labels = export_import.read(config.data, hints)
    for line in labels.plan(config.data):
        print(line)
    with Store(config.labels_db) as store:
        counts = export_import.store_labels(store, config.data, labels, config.annotator, time.time(), hints)
    print(f"{counts['labels']} labels, {counts['new']} of them new; {counts['unusable']} rows could not be used")
    return config.labels_db
