"""Store of labels: an append-only file of events. No event is ever changed or removed.

An event is a kind, a time and a JSON payload. A correction is a later event that names the event that it `replaces`; a
later `retraction` names the event that it `retracts`. After `append` has returned, the event is on disk: it survives
the process, and a power failure. `append_once` stores an event only if none of its name is there.

    shown           a task on an annotator's screen: the answers, their order and models, and when the task expires
    ranking         an order of the answers, with ratings, flags and notes where they were given
    demonstration   a written answer; conversation: both sides of a written conversation
    suggestion      a model's proposal to an annotator who was writing
    skip            a task that an annotator found unclear, and why
    retraction      a withdrawn answer, by its event's id
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from amenable.data.turns import message
from amenable.data.types import Conversation, Demonstration, Ranking, message_fields
from amenable.errors import InputError

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
"""format 1, and its extensions since"""
MAGIC = b"SQLite format 3\0"
"""beginning of an SQLite file"""
INSERT = "INSERT INTO events (kind, time, payload, once) VALUES (?, ?, ?, ?)"
WAIT = 30.0
"""seconds to wait while another process writes"""


@dataclass(frozen=True)
class Event:
    """One stored event: `time` is in seconds since 1970, or None where unknown; `payload` is JSON."""

    id: int
    kind: str
    time: float | None
    payload: dict[str, Any]


class Store:
    """Events in one SQLite file, created if missing. Threads may share a store, processes a file."""

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
        """Create or upgrade the table; write ahead, and sync every commit."""
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
        """Return the number of the file's format, 0 for a new file."""
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        return int(version)

    @contextmanager
    def transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
        """Open a transaction, on disk at the end of the block. Raises InputError where it could not be written."""
        try:
            with self.lock, self.connection:
                self.connection.execute("BEGIN IMMEDIATE")
                yield self.connection
        except sqlite3.Error as error:
            raise InputError(f"the '{kind}' could not be stored: {error}", self.path) from error

    def append(self, kind: str, payload: dict[str, Any], time: float | None) -> int:
        """Store an event; returns its id, larger than any before. The event is on disk on return.

        InputError for a payload that is not JSON (nan and infinity are not).
        """
        return self.append_all(kind, [payload], time)[0]

    def append_all(self, kind: str, payloads: Sequence[dict[str, Any]], time: float | None) -> list[int]:
        """Store many events of one kind, all or (if the process dies) none; returns their ids."""
        rows = [(kind, time, self.to_json(kind, payload), None) for payload in payloads]
        with self.transaction(kind) as connection:
            return [int(connection.execute(INSERT, row).lastrowid or 0) for row in rows]

    def append_once(self, kind: str, payload: dict[str, Any], time: float | None, once: str) -> tuple[int, bool]:
        """Store an event unless one has the name `once`; returns (id of the event of that name, whether it is new)."""
        row = (kind, time, self.to_json(kind, payload), once)
        with self.transaction(kind) as connection:
            stored = connection.execute("SELECT id FROM events WHERE once = ?", (once,)).fetchone()
            return (int(stored[0]), False) if stored else (int(connection.execute(INSERT, row).lastrowid or 0), True)

    def append_new(self, kind: str, payloads: Sequence[dict[str, Any]], time: float | None, once: Sequence[str]) -> int:
        """Store those of many events whose names are new, all or none; returns the number of new events."""
        rows = [(kind, time, self.to_json(kind, payload), name) for payload, name in zip(payloads, once)]
        with self.transaction(kind) as connection:
            return sum(connection.execute(f"{INSERT} ON CONFLICT DO NOTHING", row).rowcount for row in rows)

    def to_json(self, kind: str, payload: dict[str, Any]) -> str:
        """Return a payload as JSON text. Raises InputError where it is not JSON."""
        try:
            return json.dumps(payload, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"a '{kind}' that is not JSON: {error}", self.path) from error

    def events(self, kind: str | None = None, after: int = 0) -> list[Event]:
        """Return all events in order, or those of one kind; only those later than the event `after`."""
        where, values = ("id > ?", (after,)) if kind is None else ("id > ? AND kind = ?", (after, kind))
        with self.lock:
            rows = self.connection.execute(
                f"SELECT id, kind, time, payload FROM events WHERE {where} ORDER BY id", values
            )
            return [Event(identity, name, time, json.loads(text)) for identity, name, time, text in rows]

    def active(self, *kinds: str) -> list[Event]:
        """Return the events of these kinds that no later event replaces or retracts, in order."""
        events = sorted((event for kind in kinds for event in self.events(kind)), key=lambda event: event.id)
        gone = {event.payload.get("replaces") for event in events}
        gone |= {event.payload.get("retracts") for event in self.events("retraction")}
        return [event for event in events if event.id not in gone]

    def add_ranking(
        self, ranking: Ranking, shown_order: Sequence[int], seconds: float, time: float, replaces: int | None = None
    ) -> int:
        """Store an annotator's ranking; returns the event's id.

        shown_order: indices of the completions in the order in which they were shown. seconds: time to decide.
        replaces: the id of the earlier ranking that this ranking corrects.
        """
        if sorted(shown_order) != list(range(len(ranking.completions))):
            raise InputError(f"shown order {list(shown_order)} of {len(ranking.completions)} completions", self.path)
        if replaces is not None and replaces not in {event.id for event in self.events("ranking")}:
            raise InputError(f"there is no ranking {replaces} to correct", self.path)
        about = {"shown_order": list(shown_order), "seconds": seconds, "replaces": replaces}
        return self.append("ranking", {**payload_of(ranking), **about}, time)

    def add_rankings(self, rankings: Sequence[Ranking], time: float | None = None) -> list[int]:
        """Store many rankings in one transaction, such as a simulated annotator's, without order or duration."""
        return self.append_all("ranking", [payload_of(ranking) for ranking in rankings], time)

    def rankings(self) -> list[Ranking]:
        """Return the active rankings, in order."""
        return [ranking_of(event.payload) for event in self.active("ranking")]

    def demonstrations(self) -> list[Demonstration]:
        """Return the active demonstrations: written answers to a prompt, and whole conversations."""
        return [demonstration_of(event) for event in self.active("demonstration", "conversation")]

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            self.connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_store(path: Path) -> bool:
    """Return True for an SQLite file, as stores are."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def turns(conversation: Conversation) -> list[dict[str, Any]]:
    """Return messages as in rows of data; messages without loss have the weight 0."""
    return [message_fields(message) for message in conversation]


def conversation_of(turns: Sequence[Mapping[str, Any]]) -> Conversation:
    """Return the messages of `turns`."""
    return tuple(message(turn, "a message") for turn in turns)


def payload_of(ranking: Ranking) -> dict[str, Any]:
    """Return a ranking as the payload of its event."""
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
    """Return the ranking in the payload of its event."""
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
    """Return a `demonstration` or `conversation` event as a training example."""
    payload = event.payload
    messages = conversation_of(payload["messages"])
    return Demonstration(messages, payload.get("id") or f"label-{event.id}", {"annotator": payload.get("annotator")})
