"""Task assignment: the task an annotator gets next, the time until it expires, and the label that answers it.

    slot    a task has one slot, or several for a share of the tasks, so that annotators can be compared; a slot is
            assigned to one person at a time
    gold    items of known ranks: first all of one kind (qualification), then one in `gold_every` tasks

All state follows from the store's events: a restarted server, or a second one, has the same.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from amenable.feedback.store import Event, Store, conversation_of, turns
from amenable.serve.errors import APIError
from amenable.serve.labelling.tasks import Kind, Purpose, Task, digest

ANSWERS = ("ranking", "demonstration", "conversation", "skip")
"""kinds of events that end an assignment"""
MAX_SKIPS = 2
"""a task skipped by so many annotators is assigned no more"""


@dataclass(frozen=True)
class AssignmentPolicy:
    """Rules by which tasks are assigned."""

    timeout: float = 1800.0
    """seconds after which an unanswered assignment expires"""
    raters: int = 2
    """annotators of an overlap task"""
    gold_every: int = 10
    """one in so many rankings is a gold item, if there are any"""
    qualification_threshold: float = 0.75
    """share of the gold pairs that a new annotator must order rightly"""
    seed: int = 0


@dataclass(frozen=True)
class Assignment:
    """A task assigned to an annotator. `id` is its event's; `order` lists the completions as they are shown."""

    id: int
    task: Task
    annotator: str
    slot: str
    order: tuple[int, ...]
    since: float
    """time of the last sign of work on it, in seconds since 1970"""
    shown: float
    """time it was first shown"""
    answer: Event | None = None
    previous_answer: Event | None = None
    """an answer that was retracted"""
    revision: int = 0
    """number of retractions"""


@dataclass
class TaskQueue:
    """Assigns tasks and stores their answers, for any number of annotators and threads."""

    store: Store
    tasks: Sequence[Task]
    policy: AssignmentPolicy = field(default_factory=AssignmentPolicy)
    clock: Callable[[], float] = time.time
    lock: threading.RLock = field(default_factory=threading.RLock)
    last_event_id: int = 0
    assignments: dict[int, Assignment] = field(default_factory=dict)
    """by id"""
    slots: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    """assignments of each (task, slot), oldest first"""
    assigned_to: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """assignments of each annotator, oldest first"""
    history: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """answered assignments of each annotator, in the order of the answers"""
    answered: Counter[str] = field(default_factory=Counter)
    """number of answers by task, without skips"""
    on_event: Callable[[Event], None] = lambda event: None
    """called with every event of the store"""

    def next(self, annotator: str, kind: Kind, qualify: bool = True) -> Assignment | None:
        """Return an annotator's open assignment or a new one; None where nothing is left.

        With `qualify` a new annotator gets the qualification's rankings first, whatever the kind.
        """
        with self.lock:
            self.refresh()
            if qualify and self.in_qualification(annotator):
                kind = "rank"
            assignment = self.open_assignment(annotator, kind)
            while assignment is None:
                choice = self.choose(annotator, kind, qualify)
                if choice is None:
                    return None
                assignment = self.assign(annotator, *choice)
            return assignment

    def open_assignment(self, annotator: str, kind: Kind) -> Assignment | None:
        """Return an annotator's last assignment that is neither answered nor expired."""
        for i in reversed(self.assigned_to[annotator]):
            assignment = self.assignments[i]
            if assignment.task.kind == kind and assignment.answer is None and self.is_held(assignment):
                return assignment
        return None

    def is_held(self, assignment: Assignment) -> bool:
        """True where an assignment is the last of its slot, and answered or not yet expired."""
        if not self.is_last(assignment):
            return False
        return assignment.answer is not None or self.clock() < assignment.since + self.policy.timeout

    def is_last(self, assignment: Assignment) -> bool:
        """True where the slot was assigned to nobody else since."""
        return self.slots[assignment.task.id, assignment.slot][-1] == assignment.id

    def in_qualification(self, annotator: str) -> bool:
        """True while an annotator has qualification items left. Raises APIError 403 for one who did not pass."""
        tests = [task for task in self.tasks if task.purpose == "screening"]
        if self.next_gold_item(annotator, tests) is not None:
            return True
        if tests and self.gold_accuracy(annotator, "screening") < self.policy.qualification_threshold:
            raise APIError(403, "Thank you for your answers. They differ too often from the known ones to go on.")
        return False

    def choose(self, annotator: str, kind: Kind, qualify: bool) -> tuple[Task, str] | None:
        """Return the next task and its slot: gold items first, then overlap tasks that others began, then the rest."""
        if kind == "converse":
            number = sum(self.assignments[i].task.kind == kind for i in self.assigned_to[annotator])
            return Task(digest(annotator, str(number)), "converse"), "0"
        for purpose, is_due in (("screening", qualify), ("calibration", self.gold_is_due(annotator))):
            if kind == "rank" and is_due:
                item = self.next_gold_item(annotator, [task for task in self.tasks if task.purpose == purpose])
                if item is not None:
                    return item, f"@{annotator}"
        tasks = [task for task in self.tasks if task.kind == kind]
        begun = (task for task in tasks if task.purpose == "overlap" and (task.id, "0") in self.slots)
        free = ((task, self.free_slot(annotator, task)) for task in (*begun, *tasks))
        return next(((task, slot) for task, slot in free if slot is not None), None)

    def next_gold_item(self, annotator: str, items: Sequence[Task]) -> Task | None:
        """Return the first gold item that an annotator has not answered."""
        done = {self.assignments[i].task.id for i in self.history[annotator]}
        return next((task for task in items if task.id not in done), None)

    def gold_is_due(self, annotator: str) -> bool:
        """True where an annotator's last `gold_every` - 1 rankings hold no gold item."""
        tasks = [self.assignments[i].task for i in self.history[annotator]]
        purposes = [task.purpose for task in tasks if task.kind == "rank"]
        since = next((n for n, purpose in enumerate(reversed(purposes)) if purpose == "calibration"), len(purposes))
        return since >= self.policy.gold_every - 1

    def free_slot(self, annotator: str, task: Task) -> str | None:
        """Return the first free slot of a task that the annotator has not answered and others have not skipped."""
        if task.purpose not in ("label", "overlap", "repeat"):
            return None
        slots = [str(number) for number in range(self.policy.raters if task.purpose == "overlap" else 1)]
        earlier = [self.assignments[i] for slot in slots for i in self.slots.get((task.id, slot), [])]
        answers = [(each.annotator, each.answer.kind) for each in earlier if each.answer is not None]
        skips = sum(kind == "skip" for _, kind in answers)
        if skips >= MAX_SKIPS or any(name == annotator for name, _ in answers):
            return None
        return next((slot for slot in slots if self.is_free(task.id, slot)), None)

    def is_free(self, task: str, slot: str) -> bool:
        """True for a slot never assigned, expired, or skipped."""
        assigned = self.slots.get((task, slot))
        if not assigned:
            return True
        last = self.assignments[assigned[-1]]
        return not self.is_held(last) or (last.answer is not None and last.answer.kind == "skip")

    def assign(self, annotator: str, task: Task, slot: str) -> Assignment | None:
        """Store an assignment; None where another process has just assigned the slot."""
        order = list(range(len(task.completions)))
        random.Random(f"{self.policy.seed} {task.id} {annotator}").shuffle(order)
        count = len(self.slots.get((task.id, slot), []))
        payload = {
            **{"annotator": annotator, "task": task.id, "place": slot, "task_kind": task.kind},
            **{"purpose": task.purpose, "prompt": turns(task.prompt), "completions": list(task.completions)},
            **{"ended": list(task.ended), "known": task.gold_ranks, "shown_order": order, **task.source_fields},
        }
        identity, new = self.store.append_once("shown", payload, self.clock(), f"shown {task.id} {slot} {count}")
        self.refresh()
        return self.assignments[identity] if new else None

    def answer(self, annotator: str, assignment_id: int, kind: str, payload: dict[str, Any]) -> int:
        """Store an answer (kind: ranking, demonstration, conversation or skip) and return its event's id.

        The same answer sent twice is stored once. Raises APIError for another's assignment (404), and for one that has
        another answer or has expired and is another's now (409).
        """
        with self.lock:
            self.refresh()
            assignment = self.get_assignment(annotator, assignment_id)
            if assignment.answer is None and not self.is_last(assignment):
                raise APIError(409, "This task was open for too long and is with somebody else now.")
            task, previous = assignment.task, assignment.previous_answer
            payload = {
                **payload,
                **{"assignment": assignment.id, "task": task.id, "purpose": task.purpose, "annotator": annotator},
                "replaces": None if previous is None else previous.id,
            }
            if assignment.answer is not None:
                return self.repeated(assignment.answer, kind, payload)
            once = f"answer {assignment.id} {assignment.revision}"
            identity, new = self.store.append_once(kind, payload, self.clock(), once)
            self.refresh()
            stored = self.assignments[assignment.id].answer
            if not new and stored is not None:
                return self.repeated(stored, kind, payload)
            return identity

    def repeated(self, stored: Event, kind: str, payload: dict[str, Any]) -> int:
        """Return the id of a stored answer where the new one equals it. Raises APIError 409 where they differ."""
        old, new = ({**each, "seconds": 0, "replaces": 0} for each in (stored.payload, json.loads(json.dumps(payload))))
        if stored.kind != kind or old != new:
            raise APIError(409, "This task has another answer already. Take it back to change it.")
        return stored.id

    def get_assignment(self, annotator: str, assignment_id: int) -> Assignment:
        """Return an annotator's assignment. Raises APIError 404 for an unknown one, and for another annotator's."""
        assignment = self.assignments.get(assignment_id)
        if assignment is None or assignment.annotator != annotator:
            raise APIError(404, "There is no such task of yours.")
        return assignment

    def undo(self, annotator: str) -> Assignment:
        """Retract an annotator's last answer and return its assignment, open again."""
        with self.lock:
            self.refresh()
            if not self.history[annotator]:
                raise APIError(409, "There is nothing to take back.")
            assignment = self.assignments[self.history[annotator][-1]]
            assert assignment.answer is not None
            if not self.is_held(assignment):
                raise APIError(409, "Somebody else has this task now.")
            if assignment.task.purpose == "screening":
                raise APIError(409, "This one cannot be taken back.")
            payload = {"retracts": assignment.answer.id, "annotator": annotator, "assignment": assignment.id}
            self.store.append_once("retraction", payload, self.clock(), f"retraction {assignment.answer.id}")
            self.refresh()
            return self.assignments[assignment.id]

    def renew(self, annotator: str, assignment_id: int) -> None:
        """Start an assignment's timeout anew, unless it is answered or another's now."""
        with self.lock:
            self.refresh()
            assignment = self.get_assignment(annotator, assignment_id)
            if assignment.answer is None and self.is_last(assignment):
                self.store.append("held", {"assignment": assignment.id, "annotator": annotator}, self.clock())

    def progress(self, annotator: str, kind: Kind) -> dict[str, int]:
        """Count an annotator's answers of a kind (without skips), its tasks, and the tasks that are answered."""
        with self.lock:
            self.refresh()
            own = [self.assignments[i] for i in self.history[annotator]]
            done = [each for each in own if each.task.kind == kind and each.answer and each.answer.kind != "skip"]
            tasks = {task.id for task in self.tasks if task.kind == kind and task.purpose in ("label", "overlap")}
            return {"mine": len(done), "tasks": len(tasks), "answered": sum(self.answered[task] > 0 for task in tasks)}

    def gold_accuracy(self, annotator: str, purpose: Purpose) -> float:
        """Return the share of gold pairs that an annotator ordered rightly, a tie one half; 1 without any."""
        own = [self.assignments[i] for i in self.history[annotator]]
        scores = [score for each in own if each.task.purpose == purpose for score in gold_pair_scores(each)]
        return sum(scores) / len(scores) if scores else 1.0

    def refresh(self) -> None:
        """Apply the events stored since the last call, by any process."""
        for event in self.store.events(after=self.last_event_id):
            self.last_event_id = event.id
            self.apply(event)
            self.on_event(event)

    def apply(self, event: Event) -> None:
        """Update the state by one event."""
        payload, at = event.payload, event.time or 0.0
        if event.kind == "shown":
            assignment = assignment_of(event)
            self.assignments[event.id] = assignment
            self.slots[assignment.task.id, assignment.slot].append(event.id)
            self.assigned_to[assignment.annotator].append(event.id)
            return
        old = self.assignments.get(payload.get("assignment", -1))
        if old is None:
            return
        if event.kind in ANSWERS:
            self.assignments[old.id] = replace(old, answer=event)
            self.history[old.annotator].append(old.id)
            self.answered[old.task.id] += event.kind != "skip"
        elif event.kind == "retraction":
            self.assignments[old.id] = replace(
                old, answer=None, previous_answer=old.answer, revision=old.revision + 1, since=at
            )
            self.history[old.annotator].remove(old.id)
            self.answered[old.task.id] -= old.answer is not None and old.answer.kind != "skip"
        elif event.kind == "held":
            self.assignments[old.id] = replace(old, since=at)


def assignment_of(event: Event) -> Assignment:
    """Return the assignment in a `shown` event, which holds everything that was on the screen."""
    p = event.payload
    task = Task(
        id=p["task"],
        kind=p["task_kind"],
        prompt=conversation_of(p["prompt"]),
        completions=tuple(p["completions"]),
        sources=tuple(p["sources"]),
        other_sources=tuple(map(tuple, p.get("other_sources", []))),
        ended=tuple(p["ended"]),
        gold_ranks=None if p["known"] is None else tuple(p["known"]),
        purpose=p["purpose"],
    )
    at = event.time or 0.0
    return Assignment(event.id, task, p["annotator"], p["place"], tuple(p["shown_order"]), at, at)


def gold_pair_scores(assignment: Assignment) -> Iterator[float]:
    """Yield for every pair of known order 1 where the answer orders it so, one half where it is tied, else 0."""
    gold, answer = assignment.task.gold_ranks, assignment.answer
    if gold is None or answer is None or answer.kind != "ranking":
        return
    ranks = answer.payload["ranking"]
    for i, better in enumerate(gold):
        for j, worse in enumerate(gold):
            if better < worse:
                yield 1.0 if ranks[i] < ranks[j] else 0.5 if ranks[i] == ranks[j] else 0.0
