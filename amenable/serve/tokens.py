"""Access tokens of the annotators in a label store: their names by token, and a check that there is a token."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from amenable.errors import InputError
from amenable.feedback import annotators
from amenable.feedback.store import Store

CACHE_SECONDS = 2.0
"""time after which annotators are read again, so that a revoked token ends"""


class TokenCache:
    """The people of a store by token, read at most every CACHE_SECONDS."""

    def __init__(self, store: Store):
        self.store, self.lock = store, threading.Lock()
        self.people: list[annotators.Person] = []
        self.read_at = -CACHE_SECONDS

    def user_for_token(self, token: str) -> str | None:
        """Return the name of a token's holder, None for an unknown token."""
        with self.lock:
            if time.monotonic() - self.read_at >= CACHE_SECONDS:
                self.people, self.read_at = annotators.people(self.store), time.monotonic()
            people = self.people
        person = annotators.person_for_token(people, token)
        return None if person is None else person.name

    def __contains__(self, token: str) -> bool:
        return self.user_for_token(token) is not None


def require_token_holder(people: Iterable[annotators.Person], store: Store, options: str = "") -> None:
    """Raise InputError where every token is revoked or none exists; the message proposes a command with `options`."""
    if all(person.revoked for person in people):
        command = f"amenable annotators add NAME{options} --labels-db {store.path}"
        raise InputError("nobody holds a token", store.path, f"'{command}' makes one")
