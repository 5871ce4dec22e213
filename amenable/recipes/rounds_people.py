"""A round in which people are asked: how many prompts of it they have ranked, and what they said once it is enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from amenable.data.batches import shuffled
from amenable.data.files import read_json_lines
from amenable.errors import InputError
from amenable.feedback.export_import import TESTS, rankings_rows
from amenable.feedback.store import Store
from amenable.feedback.votes import model_columns
from amenable.recipes.rounds_labels import Turn, asked, write_rows

SECONDS = 2.0
"""between two looks into the store"""

Row = dict[str, Any]


def kept(turn: Turn) -> bool:
    """Whether the rankings of a round are there."""
    return (turn.asked / "labels.jsonl").exists()


def collect(
    turn: Turn,
    files: Sequence[Path],
    store: Path,
    wanted: int,
    held_out: float,
    seed: int,
    pause: Callable[[], None] = lambda: time.sleep(SECONDS),
) -> None:
    """Wait until as many prompts are ranked as wanted, and keep all that was said of the round's answers by then.

    files: samples that were asked about. labels.jsonl is written first and whole: it is the round's from then on;
    train.jsonl and validation.jsonl divide by prompts what of it tells answers apart.
    """
    file = turn.asked / "labels.jsonl"
    if not kept(turn):
        pool = pool_of(files)
        if len(pool) < wanted:
            raise InputError(f"holds {len(pool)} prompts, and {wanted} are to be ranked", files[0], "lower --labels")
        write_rows(file, wait(pool, store, wanted, pause))
    told = [row for row in read_json_lines(file) if len(set(row["ranking"])) > 1]
    names = list(dict.fromkeys(row["id"] for row in told))
    if len(names) < 2:
        raise InputError("nearly all of it are ties, which teach nothing", file, "remove it, and rank some more")
    apart = {names[i] for i in shuffled(len(names), seed, 0)[: max(1, round(len(names) * held_out))]}
    write_rows(turn.asked / "train.jsonl", [row for row in told if row["id"] not in apart])
    write_rows(turn.asked / "validation.jsonl", [row for row in told if row["id"] in apart])


def pool_of(files: Sequence[Path]) -> dict[str, Row]:
    """The prompts of samples, each with its id and, by answer, the models that gave it."""
    pool: dict[str, Row] = {}
    for file in files:
        for row in read_json_lines(file):
            entry = pool.setdefault(asked(row), {"id": str(row["id"]), "models": {}})
            for answer in row["completions"]:
                names = entry["models"].setdefault(answer, [])
                names += [row["model"]] if row.get("model") not in (None, *names) else []
    return pool


def wait(pool: Mapping[str, Row], store: Path, wanted: int, pause: Callable[[], None]) -> list[Row]:
    """The rankings of a pool once they are of as many prompts as wanted; the count is shown as it grows."""
    console, shown = Console(stderr=True), -1
    with console.status("looking for rankings") as status:
        while True:
            rows = rankings(pool, store)
            count = len({row["id"] for row in rows})
            if count != shown:
                said = f"{count} of {wanted} prompts are ranked"
                status.update(f"{said}; Ctrl-C stops, the same command goes on")
                if not console.is_terminal or count >= wanted:
                    console.print(said, highlight=False)
                shown = count
            if count >= wanted:
                return rows
            pause()


def rankings(pool: Mapping[str, Row], path: Path) -> list[Row]:
    """What people said of a pool's answers, in the order they said it; what they corrected only as it stands."""
    if not path.exists():
        return []
    with Store(path) as store:
        events = [event for event in store.standing("ranking") if event.payload.get("purpose") not in TESTS]
    rows = []
    for event in events:
        entry = pool.get(asked(event.payload))
        if entry is not None and set(event.payload["completions"]) <= set(entry["models"]):
            for row in rankings_rows(event):
                models = model_columns([entry["models"][answer] for answer in row["completions"]])
                seconds = float(event.payload.get("seconds") or 0.0)
                rows.append({**row, "id": entry["id"], **models, "seconds": seconds})
    return rows
