"""Comparisons by people: clips go into the store of labels, where `amenable label-clips` shows them, and answers come
back from it.

    clip_pair   a comparison that waits for an answer: its run and number, and both clips as the page draws them
    intake      the last event that an iteration of a run has learned from

An iteration that is repeated after a crash reads the store as far as it did before, so that it learns from the same
answers. Whether several people answer a comparison, or one takes an answer back, is for the page: a comparison has the
mean of the answers that stand.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from amenable.control.clip_pictures import Scene, clip_json
from amenable.control.clips import Clips
from amenable.control.label_sources import Answers
from amenable.errors import Interrupted
from amenable.feedback.store import Event, Store
from amenable.files import write_text
from amenable.train.run import Run

CLIP_PAIR, INTAKE = "clip_pair", "intake"
NAME = "clips.json"
"""file of a run's folder: the name of its comparisons in the store"""
SECONDS = 1.0
"""between two looks into the store while training waits"""
REMIND = 3600.0
"""seconds after which training says again that it waits"""
AHEAD = 20


class PeopleLabels:
    """People who compare clips on the page. Their answers are read from the store."""

    ahead = AHEAD

    def __init__(self, path: Path, folder: Path, scene: Scene, pause: Callable[[float], None] = time.sleep):
        """path: of the store; folder: of the run."""
        self.store, self.path, self.folder, self.scene, self.pause = Store(path), path, folder, scene, pause
        self.events: list[Event] = []
        self.numbers: dict[str, int] = {}

    @cached_property
    def name(self) -> str:
        """A name that no other run has; made once, it stays in the run's folder, beside the store's present path."""
        file = self.folder / NAME
        before = json.loads(file.read_text("utf-8")) if file.exists() else {"run": uuid.uuid4().hex}
        facts = {**before, "labels_db": str(self.path.resolve())}
        if facts != before:
            write_text(file, json.dumps(facts))
        return str(facts["run"])

    def task(self, number: int) -> str:
        """Return the name of a comparison in the store."""
        return f"{self.name} {number}"

    def submit(self, numbers: range, left: Clips, right: Clips) -> None:
        """Write comparisons into the store, each once."""
        sides = [[clip_json(self.scene, pictures) for pictures in side.pictures] for side in (left, right)]
        rows = [
            {"run": self.name, "number": number, "task": self.task(number), "completions": list(pair)}
            for number, pair in zip(numbers, zip(*sides))
        ]
        self.store.append_new(CLIP_PAIR, rows, time.time(), [f"clips {row['task']}" for row in rows])

    def wait(self, needed: int, run: Run, save: Callable[[], None]) -> None:
        """Look into the store every second until there are `needed` answers; say so at first and every hour.
        Interrupted where the run is to stop meanwhile."""
        waited, saved = 0.0, False
        while (count := self.count()) < needed:
            if not saved:
                save()
                saved = True
            if waited % REMIND == 0:
                hours = f" for {waited / 3600:.0f} h" if waited else ""
                run.log.info(
                    f"waits{hours} for people: {count} of {needed} labels; amenable label-clips opens the page"
                )
            self.pause(SECONDS)
            waited += SECONDS
            if run.graceful_stop.requested:
                run.checkpoints.wait()
                raise Interrupted(run.out, run.step)

    def count(self) -> int:
        """Return the number of comparisons with an answer now."""
        return sum(value is not None and not math.isnan(value) for value in self.read(None).values())

    def answers(self, iteration: int) -> Answers:
        """Return all answers so far; of an iteration that is repeated, as far as it has read before."""
        self.refresh()
        once, last = f"{INTAKE} {self.name} {iteration}", self.events[-1].id if self.events else 0
        payload = {"run": self.name, "iteration": iteration, "last": last}
        identity, new = self.store.append_once(INTAKE, payload, time.time(), once)
        if not new:
            self.refresh()
            last = next(event.payload["last"] for event in self.events if event.id == identity)
        return self.read(last)

    def refresh(self) -> None:
        """Read the events since the last call."""
        new = self.store.events(after=self.events[-1].id if self.events else 0)
        self.events += new
        mine = (event for event in new if event.kind == CLIP_PAIR and event.payload["run"] == self.name)
        self.numbers |= {event.payload["task"]: event.payload["number"] for event in mine}

    def read(self, last: int | None) -> Answers:
        """Return the answers that stand at the event `last`, or now, of all comparisons that ever had one."""
        self.refresh()
        events = [event for event in self.events if last is None or event.id <= last]
        gone = {event.payload.get(key) for event in events for key in ("replaces", "retracts")} - {None}
        votes: dict[int, list[float]] = defaultdict(list)
        skipped: set[int] = set()
        for event in events:
            number = self.numbers.get(event.payload.get("task", ""))
            if number is None or event.kind not in ("ranking", "skip"):
                continue
            own = votes[number]
            if event.id not in gone and event.kind == "skip":
                skipped.add(number)
            elif event.id not in gone:
                first, second = event.payload["ranking"]
                own.append(0.5 if first == second else float(first < second))
        unsaid = {number: None if number in skipped else math.nan for number in votes}
        return {number: sum(own) / len(own) if own else unsaid[number] for number, own in votes.items()}
