"""Which task is whose: what to label next, until when it stays somebody's, what came of it.

    pool       prompts and their answers, of one or more files of `amenable sample`; the answers of several models to
               one prompt come together
    places     one a task, or several for a share of them, so that people can be compared; a place is held by one person
    known      items whose order is known: all of them first (screening), or one in so many tasks (calibration)

Everything follows from the events of the store: a server that was killed, or a second one, finds the same state.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from amenable.data import sources
from amenable.data.samples import read_samples
from amenable.data.types import Conversation, Message, Ranking
from amenable.errors import InputError
from amenable.feedback.store import Event, Store, turns
from amenable.serve.errors import APIError

Kind = Literal["rank", "compare", "demonstrate", "converse"]
Purpose = Literal["label", "overlap", "calibration", "screening"]
ANSWERS = ("ranking", "demonstration", "conversation", "skip")
"""kinds of events that end a task"""
MANY_SKIPS = 2
"""a task that so many people found unclear is asked no more"""


@dataclass(frozen=True)
class Task:
    """Something to label. completions, sources and ended are of one length K; K is 0 where a person writes."""

    id: str
    kind: Kind
    prompt: Conversation = ()
    completions: tuple[str, ...] = ()
    sources: tuple[dict[str, Any], ...] = ()
    """which model made each answer, and with which settings"""
    ended: tuple[bool, ...] = ()
    known: tuple[float, ...] | None = None
    """the right ranks, of an item that tests"""
    purpose: Purpose = "label"
    other_sources: tuple[tuple[dict[str, Any], ...], ...] = ()
    """of each answer, further models that gave the same text; empty where there is none at all"""

    @property
    def origins(self) -> dict[str, Any]:
        """Where the answers come from, as an event keeps it."""
        others = {"other_sources": list(map(list, self.other_sources))} if any(self.other_sources) else {}
        return {"sources": list(self.sources), **others}


@dataclass(frozen=True)
class Rules:
    """How tasks are given out."""

    lease: float = 1800.0
    """seconds that an open task stays somebody's"""
    overlap: float = 0.1
    """share of the tasks that several people get"""
    raters: int = 2
    """how many get each of those"""
    calibration_every: int = 10
    """one in so many tasks has a known answer, where there are such items"""
    screening_pass: float = 0.75
    """share of the known pairs that a newcomer must order rightly"""
    seed: int = 0


@dataclass(frozen=True)
class Assignment:
    """A task in somebody's hands. `id` is that of the event; `order` are the completions' places as they are shown."""

    id: int
    task: Task
    annotator: str
    place: str
    order: tuple[int, ...]
    since: float
    """when it was last shown or held, in seconds since 1970"""
    shown: float
    """when it was first shown"""
    answer: Event | None = None
    former: Event | None = None
    """an answer that was taken back"""
    tries: int = 0


@dataclass
class Desk:
    """Gives out tasks and takes answers, for any number of people and threads."""

    store: Store
    tasks: Sequence[Task]
    rules: Rules = field(default_factory=Rules)
    clock: Callable[[], float] = time.time
    lock: threading.RLock = field(default_factory=threading.RLock)
    read: int = 0
    """the last event that is known here"""
    given: dict[int, Assignment] = field(default_factory=dict)
    places: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    """assignments of each place of a task, the last one last"""
    hands: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """the assignments that each person was shown"""
    history: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """the assignments that each person answered, in that order"""
    answered: Counter[str] = field(default_factory=Counter)
    """how many answers each task has, skips apart"""
    watch: Callable[[Event], None] = lambda event: None
    """is told of every event"""

    def next(self, annotator: str, kind: Kind, screened: bool = True) -> Assignment | None:
        """The task that somebody works on next: the one they left open, or a new one; None where nothing is left."""
        with self.lock:
            self.refresh()
            if screened and self.is_tested_yet(annotator):
                kind = "rank"
            opened = self.open_one(annotator, kind)
            while opened is None:
                found = self.choose(annotator, kind, screened)
                if found is None:
                    return None
                opened = self.show(annotator, *found)
            return opened

    def open_one(self, annotator: str, kind: Kind) -> Assignment | None:
        """What somebody was shown, has not answered, and still holds."""
        mine = (self.given[i] for i in reversed(self.hands[annotator]))
        return next((one for one in mine if one.task.kind == kind and one.answer is None and self.held(one)), None)

    def held(self, one: Assignment) -> bool:
        """Whether a place is still its holder's: nobody had it since, and it is answered or not yet due back."""
        last = self.places[one.task.id, one.place][-1] == one.id
        return last and (one.answer is not None or self.clock() < one.since + self.rules.lease)

    def is_tested_yet(self, annotator: str) -> bool:
        """Whether somebody is still being screened; Refused for somebody who did not pass."""
        tests = [task for task in self.tasks if task.purpose == "screening"]
        if self.unseen(annotator, tests) is not None:
            return True
        if tests and self.mean_right(annotator, "screening") < self.rules.screening_pass:
            raise APIError(403, "Thank you for your answers. They differ too often from the known ones to go on.")
        return False

    def choose(self, annotator: str, kind: Kind, screened: bool) -> tuple[Task, str] | None:
        """A task and the place in it."""
        if kind == "converse":
            number = sum(self.given[i].task.kind == kind for i in self.hands[annotator])
            return Task(digest(annotator, str(number)), "converse"), "0"
        for purpose, is_due in (("screening", screened), ("calibration", self.calibration_is_due(annotator))):
            if kind == "rank" and is_due:
                fresh = self.unseen(annotator, [task for task in self.tasks if task.purpose == purpose])
                if fresh is not None:
                    return fresh, f"@{annotator}"
        asked = [task for task in self.tasks if task.kind == kind]
        begun = (task for task in asked if task.purpose == "overlap" and (task.id, "0") in self.places)
        # what somebody else has ranked already comes first, so that people can be compared
        return next((found for task in (*begun, *asked) if (found := self.free_place(annotator, task))), None)

    def unseen(self, annotator: str, tests: Sequence[Task]) -> Task | None:
        """The first item of known order that somebody has not answered."""
        done = {self.given[i].task.id for i in self.history[annotator]}
        return next((task for task in tests if task.id not in done), None)

    def calibration_is_due(self, annotator: str) -> bool:
        purposes = [self.given[i].task.purpose for i in self.history[annotator] if self.given[i].task.kind == "rank"]
        since = next((n for n, purpose in enumerate(reversed(purposes)) if purpose == "calibration"), len(purposes))
        return since >= self.rules.calibration_every - 1

    def free_place(self, annotator: str, task: Task) -> tuple[Task, str] | None:
        """The first place of a task that is free and that this person may take: one each, none that they skipped."""
        if task.purpose not in ("label", "overlap"):
            return None
        names = [str(number) for number in range(self.rules.raters if task.purpose == "overlap" else 1)]
        taken = [self.given[i] for name in names for i in self.places.get((task.id, name), [])]
        skips = sum(one.answer is not None and one.answer.kind == "skip" for one in taken)
        mine = any(one.annotator == annotator and one.answer is not None for one in taken)
        if mine or skips >= MANY_SKIPS:
            return None
        return next(((task, name) for name in names if self.is_free(task.id, name)), None)

    def is_free(self, task: str, name: str) -> bool:
        known = self.places.get((task, name))
        if not known:
            return True
        last = self.given[known[-1]]
        return not self.held(last) or (last.answer is not None and last.answer.kind == "skip")

    def show(self, annotator: str, task: Task, place: str) -> Assignment | None:
        """Write down that a task is shown to somebody; None where another process has just given the place away."""
        order = list(range(len(task.completions)))
        random.Random(f"{self.rules.seed} {task.id} {annotator}").shuffle(order)
        turn = len(self.places.get((task.id, place), []))
        payload = {
            **{"annotator": annotator, "task": task.id, "place": place, "task_kind": task.kind},
            **{"purpose": task.purpose, "prompt": turns(task.prompt), "completions": list(task.completions)},
            **{"ended": list(task.ended), "known": task.known, "shown_order": order, **task.origins},
        }
        identity, new = self.store.append_once("shown", payload, self.clock(), f"shown {task.id} {place} {turn}")
        self.refresh()
        return self.given[identity] if new else None

    def answer(self, annotator: str, assignment: int, kind: str, payload: dict[str, Any]) -> int:
        """Keep what somebody answered (kind: ranking, demonstration, conversation or skip); returns the event's id.

        The same answer sent twice is kept once. Refused: a task of somebody else, one answered otherwise already, one
        that was theirs too long ago and is another's now.
        """
        with self.lock:
            self.refresh()
            one = self.own(annotator, assignment)
            if one.answer is None and self.places[one.task.id, one.place][-1] != one.id:
                raise APIError(409, "This task was open for too long and is with somebody else now.")
            about = {"assignment": one.id, "task": one.task.id, "purpose": one.task.purpose, "annotator": annotator}
            about |= {"replaces": None if one.former is None else one.former.id}
            said = {**payload, **about}
            if one.answer is not None:
                return self.repeated(one.answer, kind, said)
            identity, new = self.store.append_once(kind, said, self.clock(), f"answer {one.id} {one.tries}")
            self.refresh()
            kept = self.given[one.id].answer
            if not new and kept is not None:
                return self.repeated(kept, kind, said)
            return identity

    def repeated(self, kept: Event, kind: str, said: dict[str, Any]) -> int:
        """The id of an answer that is there, where the new one says the same."""
        timeless = [
            {**payload, "seconds": 0, "replaces": 0} for payload in (kept.payload, json.loads(json.dumps(said)))
        ]
        if kept.kind != kind or timeless[0] != timeless[1]:
            raise APIError(409, "This task has another answer already. Take it back to change it.")
        return kept.id

    def own(self, annotator: str, assignment: int) -> Assignment:
        """An assignment of this person; of another's nothing is said, not even that it is there."""
        one = self.given.get(assignment)
        if one is None or one.annotator != annotator:
            raise APIError(404, "There is no such task of yours.")
        return one

    def undo(self, annotator: str) -> Assignment:
        """Take back somebody's last answer and put the task before them again."""
        with self.lock:
            self.refresh()
            if not self.history[annotator]:
                raise APIError(409, "There is nothing to take back.")
            one = self.given[self.history[annotator][-1]]
            assert one.answer is not None
            if not self.held(one):
                raise APIError(409, "Somebody else has this task now.")
            if one.task.purpose == "screening":
                raise APIError(409, "This one cannot be taken back.")
            payload = {"retracts": one.answer.id, "annotator": annotator, "assignment": one.id}
            self.store.append_once("retraction", payload, self.clock(), f"retraction {one.answer.id}")
            self.refresh()
            return self.given[one.id]

    def hold(self, annotator: str, assignment: int) -> None:
        """Somebody is still at work on it."""
        with self.lock:
            self.refresh()
            one = self.own(annotator, assignment)
            if one.answer is None and self.places[one.task.id, one.place][-1] == one.id:
                self.store.append("held", {"assignment": one.id, "annotator": annotator}, self.clock())

    def progress(self, annotator: str, kind: Kind) -> dict[str, Any]:
        """What somebody has done of a kind (skips apart), how many tasks of it there are, and how many are answered."""
        with self.lock:
            self.refresh()
            mine = [self.given[i] for i in self.history[annotator]]
            done = [one for one in mine if one.task.kind == kind and one.answer and one.answer.kind != "skip"]
            tasks = {task.id for task in self.tasks if task.kind == kind and task.purpose in ("label", "overlap")}
            return {"mine": len(done), "tasks": len(tasks), "answered": sum(self.answered[task] > 0 for task in tasks)}

    def mean_right(self, annotator: str, purpose: Purpose) -> float:
        """Share of the known pairs that somebody ordered rightly, a tie one half; 1 where there are none."""
        mine = [self.given[i] for i in self.history[annotator]]
        shares = [share for one in mine if one.task.purpose == purpose for share in right_pairs(one)]
        return sum(shares) / len(shares) if shares else 1.0

    def refresh(self) -> None:
        """Take in the events since the last time."""
        for event in self.store.events(after=self.read):
            self.read = event.id
            self.take(event)
            self.watch(event)

    def take(self, event: Event) -> None:
        """Bring the state up to date with one event."""
        payload, at = event.payload, event.time or 0.0
        if event.kind == "shown":
            one = shown_task(event)
            self.given[event.id] = one
            self.places[one.task.id, one.place].append(event.id)
            self.hands[one.annotator].append(event.id)
            return
        known = self.given.get(payload.get("assignment", -1))
        if known is None:
            return
        if event.kind in ANSWERS:
            self.given[known.id] = replace(known, answer=event)
            self.history[known.annotator].append(known.id)
            self.answered[known.task.id] += event.kind != "skip"
        elif event.kind == "retraction":
            self.given[known.id] = replace(known, answer=None, former=known.answer, tries=known.tries + 1, since=at)
            self.history[known.annotator].remove(known.id)
            self.answered[known.task.id] -= known.answer is not None and known.answer.kind != "skip"
        elif event.kind == "held":
            self.given[known.id] = replace(known, since=at)


def shown_task(event: Event) -> Assignment:
    """An assignment out of its event, which says everything that was on the screen."""
    p = event.payload
    task = Task(
        id=p["task"],
        kind=p["task_kind"],
        prompt=tuple(Message(turn["role"], turn["content"]) for turn in p["prompt"]),
        completions=tuple(p["completions"]),
        sources=tuple(p["sources"]),
        other_sources=tuple(map(tuple, p.get("other_sources", []))),
        ended=tuple(p["ended"]),
        known=None if p["known"] is None else tuple(p["known"]),
        purpose=p["purpose"],
    )
    at = event.time or 0.0
    return Assignment(event.id, task, p["annotator"], p["place"], tuple(p["shown_order"]), at, at)


def right_pairs(one: Assignment) -> Iterator[float]:
    """1 for every pair of known order that the answer orders so, one half where it is tied, else 0."""
    known, answer = one.task.known, one.answer
    if known is None or answer is None or answer.kind != "ranking":
        return
    ranks = answer.payload["ranking"]
    for i, right in enumerate(known):
        for j, other in enumerate(known):
            if right < other:
                yield 1.0 if ranks[i] < ranks[j] else 0.5 if ranks[i] == ranks[j] else 0.0


def read_tasks(files: Sequence[Path], kinds: Sequence[Kind], answers: int, rules: Rules) -> list[Task]:
    """The tasks of files of samples, in their order: for each prompt one of every kind that is asked for.

    Answers to the same prompt come together, whichever file they are in; one that is there already is left out (all
    blank ones are the empty answer), and of more than `answers` so many are drawn. A comparison takes two of them.
    """
    tasks = []
    for prompt, entries in pooled(files).items():
        for kind in kinds:
            if kind == "converse":
                continue
            wanted = {"rank": answers, "compare": 2, "demonstrate": 0}[kind]
            if kind == "demonstrate":
                chosen: list[Entry] = []
            elif len(entries) < 2 or (kind == "rank" and len(entries) < 3 and "compare" in kinds):
                continue
            else:
                draw = random.Random(f"{rules.seed} {kind} {prompt}")
                chosen = draw.sample(entries, min(wanted, len(entries)))
            texts = tuple(entry.text for entry in chosen)
            identity = digest(kind, json.dumps(turns(prompt)), *texts)
            common = random.Random(f"{rules.seed} {identity}").random() < rules.overlap
            tasks.append(
                Task(
                    id=identity,
                    kind=kind,
                    prompt=prompt,
                    completions=texts,
                    sources=tuple(entry.sources[0] for entry in chosen),
                    other_sources=tuple(tuple(entry.sources[1:]) for entry in chosen),
                    ended=tuple(entry.ended for entry in chosen),
                    purpose="overlap" if common else "label",
                )
            )
    if not tasks and any(kind != "converse" for kind in kinds):
        raise InputError("no prompt has two different answers", files[0], "sample more answers a prompt")
    return tasks


@dataclass
class Entry:
    """An answer in a pool. sources: where it comes from, more than one where several models gave the same text."""

    text: str
    ended: bool
    sources: list[dict[str, Any]] = field(default_factory=list)


def pooled(files: Sequence[Path]) -> dict[Conversation, list[Entry]]:
    """The different answers to each prompt, over all files."""
    pool: dict[Conversation, dict[str, Entry]] = {}
    for file in files:
        settings = settings_of(file)
        for _, row in read_samples(file):
            source = {"model": row.model, **settings}
            entries = pool.setdefault(row.prompt, {})
            for text, ended in zip((text if text.strip() else "" for text in row.completions), row.ended):
                entry = entries.setdefault(text, Entry(text, ended))
                entry.sources += [source] if source not in entry.sources else []
    return {prompt: list(entries.values()) for prompt, entries in pool.items()}


def settings_of(file: Path) -> dict[str, Any]:
    """How a file of samples was drawn, of the run that it lies in."""
    options = file.parent / "config.yaml"
    if not options.is_file():
        return {}
    try:
        known = yaml.safe_load(options.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return {key: known[key] for key in ("sampling", "seed") if key in known} if isinstance(known, dict) else {}


def known_tasks(file: Path | None, purpose: Purpose) -> list[Task]:
    """Items of known order, of a file of rankings or comparisons."""
    if file is None:
        return []
    return [known_task(ranking, purpose, file) for ranking in sources.read_rankings(file).rows]


def known_task(ranking: Ranking, purpose: Purpose, file: Path) -> Task:
    return Task(
        id=digest(purpose, json.dumps(turns(ranking.prompt)), *ranking.completions),
        kind="rank",
        prompt=ranking.prompt,
        completions=ranking.completions,
        sources=tuple({"file": str(file)} for _ in ranking.completions),
        ended=(True,) * len(ranking.completions),
        known=ranking.ranks,
        purpose=purpose,
    )


def digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
