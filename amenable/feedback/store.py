"""What people said, kept for good: an append-only file of events. Nothing is ever changed or removed.

An event is a kind, a time and a JSON payload. A correction is a later event that names the one it replaces; what is
taken back is named by a later `retraction`. Where `append` has returned, the event is on disk: it survives the process,
and the machine's power. An event that must not be there twice is kept with `append_once`.

    shown           a task on somebody's screen: the answers, their order, who made them, until when it is theirs
    ranking         an order of the answers, with ratings, flags and notes where they were given
    demonstration   an answer that somebody wrote; conversation: both sides of one
    suggestion      what a model proposed to somebody who was writing
    skip            a task that somebody found unclear, and why
    retraction      an answer taken back, by its event's id
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from amenable.data.types import Conversation, Demonstration, Message, Ranking
from amenable.errors import InputError
from amenable.files import write_text

VERSION = 2
SCHEMA = (
    """CREATE TABLE IF NOT EXISTS events (
        id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, time REAL, payload TEXT NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS events_by_kind ON events (kind, id)",
    """CREATE TRIGGER IF NOT EXISTS events_stay BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'events are never removed'); END""",
    """CREATE TRIGGER IF NOT EXISTS events_stand BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'events are never changed'); END""",
    "ALTER TABLE events ADD COLUMN once TEXT",
    "CREATE UNIQUE INDEX events_once ON events (once) WHERE once IS NOT NULL",
    f"PRAGMA user_version = {VERSION}",
)
"""format 1, and what was added to it since"""
WAIT = 30.0
"""seconds to wait while another process writes"""


@dataclass(frozen=True)
class Event:
    """Something that was said: `time` is in seconds since 1970, None where nobody took it; `payload` is JSON."""

    id: int
    kind: str
    time: float | None
    payload: dict[str, Any]


class Store:
    """Events in one SQLite file, made if it does not exist. Threads may share a store, processes a file."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.connection = sqlite3.connect(self.path, WAIT, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"no store of feedback can be opened: {error}", self.path) from error
        try:
            self.prepare()
        except sqlite3.Error as error:
            self.connection.close()
            raise InputError(f"no store of feedback can be opened: {error}", self.path) from error

    def prepare(self) -> None:
        """Write ahead, sync every commit, and make the table where there is none."""
        version = self.version()
        if version > VERSION:
            self.connection.close()
            raise InputError(f"written by a later version (format {version}, known {VERSION})", self.path)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = FULL")
        if version < VERSION:
            with self.connection:
                self.connection.execute("BEGIN IMMEDIATE")
                # another process may have been here since
                for statement in SCHEMA if self.version() < VERSION else ():
                    self.connection.execute(statement)

    def version(self) -> int:
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        return int(version)

    def append(self, kind: str, payload: dict[str, Any], time: float | None) -> int:
        """Keep an event; returns its id, larger than any before. It is on disk when this returns.

        InputError for a payload that is not JSON (nan and infinity are not).
        """
        return self.append_all(kind, [payload], time)[0]

    def append_all(self, kind: str, payloads: Sequence[dict[str, Any]], time: float | None) -> list[int]:
        """Keep many events of one kind, all of them or (should the process die) none; returns their ids."""
        texts = [self.text_of(kind, payload) for payload in payloads]
        insert = "INSERT INTO events (kind, time, payload) VALUES (?, ?, ?)"
        try:
            with self.lock, self.connection:
                self.connection.execute("BEGIN IMMEDIATE")
                return [int(self.connection.execute(insert, (kind, time, text)).lastrowid or 0) for text in texts]
        except sqlite3.Error as error:
            raise InputError(f"the '{kind}' could not be kept: {error}", self.path) from error

    def append_once(self, kind: str, payload: dict[str, Any], time: float | None, once: str) -> tuple[int, bool]:
        """Keep an event unless there is one of the name `once`; returns (id of the one that is there, whether new)."""
        text = self.text_of(kind, payload)
        insert = "INSERT INTO events (kind, time, payload, once) VALUES (?, ?, ?, ?)"
        try:
            with self.lock, self.connection:
                self.connection.execute("BEGIN IMMEDIATE")
                there = self.connection.execute("SELECT id FROM events WHERE once = ?", (once,)).fetchone()
                if there is not None:
                    return int(there[0]), False
                return int(self.connection.execute(insert, (kind, time, text, once)).lastrowid or 0), True
        except sqlite3.Error as error:
            raise InputError(f"the '{kind}' could not be kept: {error}", self.path) from error

    def append_new(self, kind: str, payloads: Sequence[dict[str, Any]], time: float | None, once: Sequence[str]) -> int:
        """Keep those of many events whose names are not there yet, all or none; returns how many were new."""
        rows = [(kind, time, self.text_of(kind, payload), name) for payload, name in zip(payloads, once)]
        insert = "INSERT INTO events (kind, time, payload, once) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
        try:
            with self.lock, self.connection:
                self.connection.execute("BEGIN IMMEDIATE")
                return sum(self.connection.execute(insert, row).rowcount for row in rows)
        except sqlite3.Error as error:
            raise InputError(f"the '{kind}' could not be kept: {error}", self.path) from error

    def text_of(self, kind: str, payload: dict[str, Any]) -> str:
        """A payload as it is kept."""
        try:
            return json.dumps(payload, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"a '{kind}' that is not JSON: {error}", self.path) from error

    def events(self, kind: str | None = None, after: int = 0) -> list[Event]:
        """All events in the order they were kept, or those of one kind; only those later than the event `after`."""
        where, values = ("id > ?", (after,)) if kind is None else ("id > ? AND kind = ?", (after, kind))
        with self.lock:
            rows = self.connection.execute(
                f"SELECT id, kind, time, payload FROM events WHERE {where} ORDER BY id", values
            )
            return [Event(identity, name, time, json.loads(text)) for identity, name, time, text in rows]

    def standing(self, *kinds: str) -> list[Event]:
        """The events of these kinds that no later one replaces or takes back, in the order they were kept."""
        events = sorted((event for kind in kinds for event in self.events(kind)), key=lambda event: event.id)
        gone = {event.payload.get("replaces") for event in events}
        gone |= {event.payload.get("retracts") for event in self.events("retraction")}
        return [event for event in events if event.id not in gone]

    def add_ranking(
        self, ranking: Ranking, shown_order: Sequence[int], seconds: float, time: float, replaces: int | None = None
    ) -> int:
        """Keep an annotator's ranking; returns the event's id.

        shown_order: the completions' places in the order in which they were shown. seconds: how long the decision took.
        replaces: the id of the earlier ranking that this one corrects.
        """
        if sorted(shown_order) != list(range(len(ranking.completions))):
            raise InputError(f"shown order {list(shown_order)} of {len(ranking.completions)} completions", self.path)
        if replaces is not None and replaces not in {event.id for event in self.events("ranking")}:
            raise InputError(f"there is no ranking {replaces} to correct", self.path)
        about = {"shown_order": list(shown_order), "seconds": seconds, "replaces": replaces}
        return self.append("ranking", {**payload_of(ranking), **about}, time)

    def add_rankings(self, rankings: Sequence[Ranking], time: float | None = None) -> list[int]:
        """Keep many rankings at once, such as a simulated annotator's, of which no order or duration is known."""
        return self.append_all("ranking", [payload_of(ranking) for ranking in rankings], time)

    def rankings(self) -> list[Ranking]:
        """The rankings that stand, in the order they were kept: those that no later one replaces or takes back."""
        return [ranking_of(event.payload) for event in self.standing("ranking")]

    def demonstrations(self) -> list[Demonstration]:
        """What people wrote: answers to a prompt, and whole conversations."""
        return [demonstration_of(event) for event in self.standing("demonstration", "conversation")]

    def export_rankings(self, path: str | Path) -> int:
        """Write the rankings that stand to a file of JSON lines that training reads; returns how many there are.

        Columns: prompt, completions, ranking (1 the best), annotator, id. The file is written beside and renamed, so
        that a reader finds the old one or the new one, never half of either.
        """
        rankings = self.rankings()
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_text(Path(path), "".join(line(ranking) + "\n" for ranking in rankings))
        return len(rankings)

    def close(self) -> None:
        with self.lock:
            self.connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def turns(conversation: Conversation) -> list[dict[str, Any]]:
    """Messages as rows of data have them; those of a demonstration that are context only have the weight 0."""
    return [
        {"role": message.role, "content": message.content, **({} if message.trained else {"weight": 0})}
        for message in conversation
    ]


def conversation_of(turns: Sequence[Mapping[str, Any]]) -> Conversation:
    """The messages of `turns`."""
    return tuple(Message(turn["role"], turn["content"], turn.get("weight") != 0) for turn in turns)


def payload_of(ranking: Ranking) -> dict[str, Any]:
    return {
        "prompt": turns(ranking.prompt),
        "completions": list(ranking.completions),
        "ranking": list(ranking.ranks),
        "annotator": ranking.annotator,
        "id": ranking.id,
        "meta": ranking.meta,
        **({} if ranking.margin is None else {"margin": ranking.margin}),
    }


def ranking_of(payload: dict[str, Any]) -> Ranking:
    return Ranking(
        prompt=conversation_of(payload["prompt"]),
        completions=tuple(payload["completions"]),
        ranks=tuple(payload["ranking"]),
        id=payload["id"],
        annotator=payload["annotator"],
        meta=payload["meta"],
        margin=payload.get("margin"),
    )


def demonstration_of(event: Event) -> Demonstration:
    """A `demonstration` or `conversation` as an example to imitate."""
    payload = event.payload
    messages = conversation_of(payload["messages"])
    return Demonstration(messages, payload.get("id") or f"label-{event.id}", {"annotator": payload.get("annotator")})


def line(ranking: Ranking) -> str:
    """A ranking as a line of a data file."""
    return json.dumps({name: value for name, value in payload_of(ranking).items() if name != "meta"})
