"""Annotators: their names and roles in the store, with a hash of each annotator's token, never the token.

A token is 32 random bytes, which cannot be guessed, so that one round of a hash is enough. It is returned once, by
`add`. A revocation is a later event.
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
    """An annotator; an owner also sees the labels of all annotators. `added` is in seconds since 1970."""

    name: str
    role: Role
    hash: str = ""
    added: float | None = None
    revoked: bool = False

    @property
    def is_owner(self) -> bool:
        """True for an owner."""
        return self.role == "owner"


def add(store: Store, name: str, role: Role, time: float) -> str:
    """Add an annotator and return their token, which is stored nowhere. A revoked name may be added again."""
    check_name(name)
    if any(person.name == name and not person.revoked for person in people(store)):
        raise InputError(f"there is an annotator '{name}' already", store.path, "revoke that one, or take another name")
    token = secrets.token_urlsafe(32)
    store.append("annotator", {"name": name, "role": role, "hash": hash_of(token)}, time)
    return token


def revoke(store: Store, name: str, time: float) -> None:
    """Revoke an annotator's token. Their labels stay."""
    if not any(person.name == name and not person.revoked for person in people(store)):
        known = ", ".join(person.name for person in people(store) if not person.revoked) or "none"
        raise InputError(f"there is no annotator '{name}'", store.path, f"known: {known}")
    store.append("revocation", {"name": name}, time)


def people(store: Store) -> list[Person]:
    """Return all annotators, revoked ones included, in the order in which their names were first added."""
    events = sorted(store.events("annotator") + store.events("revocation"), key=lambda event: event.id)
    by_name: dict[str, Person] = {}
    for event in events:
        apply(by_name, event)
    return list(by_name.values())


def apply(by_name: dict[str, Person], event: Event) -> None:
    """Update annotators by name with an event; events of other kinds change nothing."""
    name = event.payload.get("name", "")
    if event.kind == "annotator":
        role = cast(Role, event.payload["role"])
        by_name[name] = Person(name, role, event.payload["hash"], event.time)
    elif event.kind == "revocation" and name in by_name:
        by_name[name] = replace(by_name[name], revoked=True)


def person_for_token(persons: Iterable[Person], token: str) -> Person | None:
    """Return the person who holds the token; None for an unknown or revoked one."""
    given = hash_of(token)
    matches = (person for person in persons if not person.revoked and hmac.compare_digest(person.hash, given))
    return next(matches, None)


def hash_of(token: str) -> str:
    """Return the hash of a token, in hexadecimal."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def check_name(name: str) -> None:
    """Raise InputError for a name that is too long, not printable, or has space at its ends."""
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise InputError(f"'{name!a:.80}' is not a name", how=f"1 to {LONGEST_NAME} printable characters")
