"""Rounds in which people rank: the count of ranked prompts, and their rankings once there are enough."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from rich.console import Console

from amenable.data.batches import shuffled
from amenable.data.files import read_json_lines
from amenable.errors import InputError
from amenable.evaluation.preference import half_width
from amenable.feedback.consistency import Contradiction, order_of, split_contradictory
from amenable.feedback.export_import import GOLD_PURPOSES, rankings_rows
from amenable.feedback.store import Store
from amenable.feedback.votes import model_columns
from amenable.recipes.reports.formatting import plural
from amenable.recipes.rounds_labels import Round, prompt_key, write_rows
from amenable.serve.labelling.task_queue import MAX_SKIPS

SECONDS = 2.0
"""between two reads of the store"""
MAX_SHOWN = 3
"""contradictory pairs that a line names"""

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
    least: int = 2,
    max_skips: int = MAX_SKIPS,
) -> None:
    """Wait until `count` prompts are ranked, and write all rankings of the round's answers by then.

    files: samples whose answers are ranked. labels.jsonl is written first and whole: it is the round's from then on;
    train.jsonl and validation.jsonl are its rankings that are no full ties and contradict no other of the same person,
    divided by prompts. least: prompts with such a ranking. max_skips: a prompt skipped by so many is ranked no more.
    """
    file = turn.annotations / "labels.jsonl"
    if not has_labels(turn):
        pool = pool_of(files)
        if len(pool) < count:
            raise InputError(
                f"holds {len(pool)} prompts, and {count} are to be ranked", files[0], "lower --prompts-per-round"
            )
        write_rows(file, wait(pool, store, count, pause, least, max_skips))
    rows, contradictions = usable(read_json_lines(file))
    if contradictions:
        print(contradiction_line(contradictions), file=sys.stderr, flush=True)
    names = list(dict.fromkeys(row["id"] for row in rows))
    if len(names) < 2:
        raise InputError("nearly all of it are ties, which teach nothing", file, "remove it, and rank some more")
    validation = {names[i] for i in shuffled(len(names), seed, 0)[: max(1, round(len(names) * held_out))]}
    write_rows(turn.annotations / "train.jsonl", [row for row in rows if row["id"] not in validation])
    write_rows(turn.annotations / "validation.jsonl", [row for row in rows if row["id"] in validation])


def usable(rows: Sequence[Row]) -> tuple[list[Row], list[Contradiction]]:
    """Return the rankings that teach, each once: no full ties, none that contradicts another of the same person; and
    the contradictions."""
    consistent, contradictions = split_contradictory([row for row in rows if len(set(row["ranking"])) > 1])
    once: dict[Any, Row] = {}
    for row in consistent:
        once.setdefault((row["annotator"], prompt_key(row), frozenset(order_of(row))), row)
    return list(once.values()), contradictions


def contradiction_line(contradictions: Sequence[Contradiction]) -> str:
    """Return a line that names contradictory pairs, the first few by prompt and answers."""
    shown = "; ".join(
        f"'{shorten(pair.prompt, 60)}': '{shorten(pair.answers[0], 40)}' and '{shorten(pair.answers[1], 40)}'"
        for pair in contradictions[:MAX_SHOWN]
    )
    others = f"; and {len(contradictions) - MAX_SHOWN} others" if len(contradictions) > MAX_SHOWN else ""
    people = ", ".join(dict.fromkeys(pair.annotator for pair in contradictions))
    return (
        f"{people} preferred each of two answers to the other in {plural(len(contradictions), 'pair')}, which are kept"
        f" in the store and left out of training: {shown}{others}"
    )


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


def wait(
    pool: Mapping[str, Row], store: Path, count: int, pause: Callable[[], None], least: int, max_skips: int
) -> list[Row]:
    """Return the rankings of a pool once they are of `count` prompts, `least` of them with a usable ranking; the
    progress is shown as it grows. InputError where the pool has no prompt left."""
    console, shown = Console(stderr=True), (-1, -1)
    with console.status("looking for rankings") as status:
        while True:
            rows = rankings(pool, store)
            ranked, left = len({row["id"] for row in rows}), rankings_left(rows, count, least)
            if (ranked, left) != shown:
                line = f"{min(ranked, count) if left else ranked} of {count} prompts are ranked"
                if ranked >= count and left:
                    line = too_few_line(rows, least, left)
                status.update(f"{line}; Ctrl-C stops, the same command goes on")
                if not console.is_terminal or not left:
                    console.print(line, highlight=False, soft_wrap=True)
                shown = ranked, left
            if not left:
                return rows
            if len(pool) <= len({row["id"] for row in rows} | skipped(pool, store, max_skips)):
                hint = f"name another --out and ask for more comparisons; the labels stay in {store}, and count again"
                raise InputError(too_few_line(rows, least, left), how=hint)
            pause()


def rankings_left(rows: Sequence[Row], count: int, least: int) -> int:
    """Return the number of prompts still to be ranked: `count` in all, `least` of them with a usable ranking."""
    ranked, taught = ({row["id"] for row in each} for each in (rows, usable(rows)[0]))
    return max(count - len(ranked), least - len(taught), 0)


def too_few_line(rows: Sequence[Row], least: int, left: int) -> str:
    """Return a line on rankings that say too little, and how many more it takes, by the interval of a share."""
    taught, ranked = len({row["id"] for row in usable(rows)[0]}), len({row["id"] for row in rows})
    known = f"to ±{100 * half_width(taught):.0f} %" if taught else "not at all"
    return (
        f"{taught} of {ranked} rankings prefer an answer and contradict no other: too few, they tell a share {known};"
        f" {left} more needed ({least}: ±{100 * half_width(least):.0f} %)"
    )


def skipped(pool: Mapping[str, Row], path: Path, max_skips: int) -> set[str]:
    """Return the ids of the pool's prompts that `max_skips` people or more have skipped."""
    if not path.exists():
        return set()
    with Store(path) as store:
        shown = {event.id: event.payload for event in store.events("shown")}
        tasks = [shown.get(event.payload.get("assignment", 0)) for event in store.active("skip")]
    counts = Counter(entry["id"] for task in tasks if task and (entry := pool.get(prompt_key(task))))
    return {name for name, count in counts.items() if count >= max_skips}


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
