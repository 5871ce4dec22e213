"""Rounds in which people rank: the count of ranked prompts, and their rankings once there are enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from amenable.data.batches import shuffled
from amenable.data.files import read_json_lines
from amenable.errors import InputError
from amenable.feedback.export_import import GOLD_PURPOSES, rankings_rows
from amenable.feedback.store import Store
from amenable.feedback.votes import model_columns
from amenable.recipes.rounds_labels import Round, prompt_key, write_rows

SECONDS = 2.0
"""between two reads of the store"""

Row = dict[str, Any]


def has_labels(turn: Round) -> bool:
    """Return True if the rankings of a round are written."""
    return (turn.annotations / "labels.jsonl").exists()


def collect(
    turn: Round,
    files: Sequence[Path],
    store: Path,
    count: int,
    held_out: float,
    seed: int,
    pause: Callable[[], None] = lambda: time.sleep(SECONDS),
) -> None:
    """Wait until `count` prompts are ranked, and write all rankings of the round's answers by then.

    files: samples whose answers are ranked. labels.jsonl is written first and whole: it is the round's from then on;
    train.jsonl and validation.jsonl are its rankings that are no full ties, divided by prompts.
    """
    file = turn.annotations / "labels.jsonl"
    if not has_labels(turn):
        pool = pool_of(files)
        if len(pool) < count:
            raise InputError(
                f"holds {len(pool)} prompts, and {count} are to be ranked", files[0], "lower --prompts-per-round"
            )
        write_rows(file, wait(pool, store, count, pause))
    rows = [row for row in read_json_lines(file) if len(set(row["ranking"])) > 1]
    names = list(dict.fromkeys(row["id"] for row in rows))
    if len(names) < 2:
        raise InputError("nearly all of it are ties, which teach nothing", file, "remove it, and rank some more")
    validation = {names[i] for i in shuffled(len(names), seed, 0)[: max(1, round(len(names) * held_out))]}
    write_rows(turn.annotations / "train.jsonl", [row for row in rows if row["id"] not in validation])
    write_rows(turn.annotations / "validation.jsonl", [row for row in rows if row["id"] in validation])


def pool_of(files: Sequence[Path]) -> dict[str, Row]:
    """Return the prompts of samples, each with its id and, by answer, the models that gave it."""
    pool: dict[str, Row] = {}
    for file in files:
        for row in read_json_lines(file):
            entry = pool.setdefault(prompt_key(row), {"id": str(row["id"]), "models": {}})
            for answer in row["completions"]:
                names = entry["models"].setdefault(answer, [])
                names += [row["model"]] if row.get("model") not in (None, *names) else []
    return pool


def wait(pool: Mapping[str, Row], store: Path, count: int, pause: Callable[[], None]) -> list[Row]:
    """Return the rankings of a pool once they are of `count` prompts; the progress is shown as it grows."""
    console, shown = Console(stderr=True), -1
    with console.status("looking for rankings") as status:
        while True:
            rows = rankings(pool, store)
            ranked = len({row["id"] for row in rows})
            if ranked != shown:
                line = f"{ranked} of {count} prompts are ranked"
                status.update(f"{line}; Ctrl-C stops, the same command goes on")
                if not console.is_terminal or ranked >= count:
                    console.print(line, highlight=False)
                shown = ranked
            if ranked >= count:
                return rows
            pause()


def rankings(pool: Mapping[str, Row], path: Path) -> list[Row]:
    """Return people's rankings of a pool's answers by time; of a corrected one the last version."""
    if not path.exists():
        return []
    with Store(path) as store:
        events = [event for event in store.active("ranking") if event.payload.get("purpose") not in GOLD_PURPOSES]
    rows = []
    for event in events:
        entry = pool.get(prompt_key(event.payload))
        if entry is not None and set(event.payload["completions"]) <= set(entry["models"]):
            for row in rankings_rows(event):
                models = model_columns([entry["models"][answer] for answer in row["completions"]])
                seconds = float(event.payload.get("seconds") or 0.0)
                rows.append({**row, "id": entry["id"], **models, "seconds": seconds})
    return rows
