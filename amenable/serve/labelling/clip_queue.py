"""Comparisons of clips as labelling tasks, which are added while a run trains."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from amenable.control.people_labels import CLIP_PAIR
from amenable.data.types import Message
from amenable.feedback.store import Event
from amenable.serve.labelling.task_queue import TaskQueue
from amenable.serve.labelling.tasks import Task


@dataclass
class ClipQueue(TaskQueue):
    """A queue whose tasks are the store's pairs of clips, in the order in which runs have written them."""

    tasks: list[Task] = field(default_factory=list)
    question: str = ""
    """shown above the clips"""
    run: str | None = None
    """name of the run whose clips are shown; None for all of them"""
    overlap: float = 0.1
    """share of the comparisons that several annotators get"""

    def apply(self, event: Event) -> None:
        """Update the state by one event; a pair of clips is a new task."""
        if event.kind != CLIP_PAIR:
            super().apply(event)
        elif self.run in (None, event.payload["run"]):
            self.tasks.append(self.task_of(event))

    def task_of(self, event: Event) -> Task:
        """Return a pair of clips as a comparison."""
        name, clips = event.payload["task"], tuple(event.payload["completions"])
        overlaps = random.Random(f"{self.policy.seed} {name}").random() < self.overlap
        return Task(
            id=name,
            kind="compare",
            prompt=(Message("user", self.question),) if self.question else (),
            completions=clips,
            sources=tuple({"run": event.payload["run"], "number": event.payload["number"]} for _ in clips),
            ended=(True, True),
            purpose="overlap" if overlaps else "label",
        )
