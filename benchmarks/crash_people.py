"""`amenable control --judge people` with a person who labels all clips that wait, whenever training waits: a stage of
benchmarks/crash.py. labels.json in the run has every pair of clips and every label in the database, by the number of
the comparison, so that a kill that loses or doubles one shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from amenable.control.people_labels import CLIP_PAIR, PeopleLabels
from amenable.feedback.store import Store
from amenable.files import write_text
from amenable.stages import control

LABELS = "labels.json"


def run(config: control.Config) -> Path:
    """Train as the command does, on a database beside the run, and write labels.json."""
    wait = PeopleLabels.wait

    def labelled(labels: PeopleLabels, needed: int, run: Any, save: Callable[[], None]) -> None:
        labels.pause = lambda seconds: label_pairs(labels.store)
        wait(labels, needed, run, save)

    database = config.out.with_suffix(".db")
    database.parent.mkdir(parents=True, exist_ok=True)
    with mock.patch.object(PeopleLabels, "wait", labelled):
        control.run(replace(config, labels_db=database))
    write_text(config.out / LABELS, json.dumps(rows_of(database)))
    return config.out


def label_pairs(store: Store) -> None:
    """Label every pair of clips once, all together or none: left is better in comparisons of even number."""
    pairs = [event.payload for event in store.events(CLIP_PAIR)]
    rows = [{"task": pair["task"], "ranking": [2, 1] if pair["number"] % 2 else [1, 2]} for pair in pairs]
    store.append_new("ranking", rows, 0.0, [f"label {pair['task']}" for pair in pairs])


def rows_of(database: Path) -> list[tuple[str, int]]:
    """Return kind and number of every event of comparisons, sorted."""
    with Store(database) as store:
        events = [event for event in store.events() if event.kind in (CLIP_PAIR, "ranking")]
    numbers = {event.payload["task"]: event.payload["number"] for event in events if event.kind == CLIP_PAIR}
    return sorted((event.kind, numbers[event.payload["task"]]) for event in events)
