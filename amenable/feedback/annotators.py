"""Who may label: names and roles in the store, and of each person's token a hash, never the token.

A token is 32 random bytes, so that one round of a hash is enough: there is nothing to guess. It is said once, when it
is made. Taking it back is a later event.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, cast

from amenable.errors import InputError
from amenable.feedback.store import Event, Store

Role = Literal["annotator", "owner"]
LONGEST_NAME = 60


@dataclass(frozen=True)
class Person:
    """Somebody who may label; an owner also sees everybody's labels. `added` is in seconds since 1970."""

    name: str
    role: Role
    hash: str = ""
    added: float | None = None
    revoked: bool = False

    @property
    def is_owner(self) -> bool:
        return self.role == "owner"


def add(store: Store, name: str, role: Role, time: float) -> str:
    """Let somebody label and return their token, which is kept nowhere. A name that was revoked may come back."""
    check_name(name)
    if any(person.name == name and not person.revoked for person in people(store)):
        raise InputError(f"there is an annotator '{name}' already", store.path, "revoke that one, or take another name")
    token = secrets.token_urlsafe(32)
    store.append("annotator", {"name": name, "role": role, "hash": hash_of(token)}, time)
    return token


def revoke(store: Store, name: str, time: float) -> None:
    """Take somebody's token back. What they said stays."""
    if not any(person.name == name and not person.revoked for person in people(store)):
        known = ", ".join(person.name for person in people(store) if not person.revoked) or "nobody"
        raise InputError(f"there is no annotator '{name}'", store.path, f"known: {known}")
    store.append("revocation", {"name": name}, time)


def people(store: Store) -> list[Person]:
    """Everybody who was ever added, in that order; of a name that came back the last."""
    events = sorted(store.events("annotator") + store.events("revocation"), key=lambda event: event.id)
    found: dict[str, Person] = {}
    for event in events:
        take(found, event)
    return list(found.values())


def take(found: dict[str, Person], event: Event) -> None:
    """Bring the people by name up to date with one event of any kind."""
    name = event.payload.get("name", "")
    if event.kind == "annotator":
        role = cast(Role, event.payload["role"])
        found[name] = Person(name, role, event.payload["hash"], event.time)
    elif event.kind == "revocation" and name in found:
        found[name] = replace(found[name], revoked=True)


def holder(persons: Iterable[Person], token: str) -> Person | None:
    """Whose token this is, or None; a revoked one is nobody's."""
    given = hash_of(token)
    held = [person for person in persons if not person.revoked and hmac.compare_digest(person.hash, given)]
    return held[0] if held else None


def hash_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def check_name(name: str) -> None:
    """Names are shown to others: printable, not too long, without space at the ends."""
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise InputError(f"'{name!a:.80}' is not a name", how=f"1 to {LONGEST_NAME} printable characters")
