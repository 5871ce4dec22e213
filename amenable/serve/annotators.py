"""Annotators: add one, list them, revoke a token.

    amenable annotators add Ann --role owner      prints Ann's token, once
    amenable annotators list
    amenable annotators revoke Ann

Only a hash of the token is stored, with the labels; a lost token is revoked and a new one made.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from amenable.errors import InputError
from amenable.feedback import annotators
from amenable.feedback.store import Store


@dataclass(frozen=True)
class Config:
    """Add, list or revoke annotators."""

    action: Positional[Literal["list", "add", "revoke"]] = "list"
    name: Positional[str] = ""
    """the annotator to add or revoke"""
    role: annotators.Role = "annotator"
    """an owner also sees the labels of all annotators, and their agreement"""
    labels_db: Path = Path("runs/labels.db")
    """database for labels"""

    def __post_init__(self) -> None:
        if self.action != "list" and not self.name:
            raise InputError("a name is missing", how=f"as in: amenable annotators {self.action} Ann")
        if self.action == "list" and self.name:
            raise InputError(f"'{self.name}' after list", how="list takes no name")


def run(config: Config) -> None:
    """Run the action and print its result."""
    if config.action != "add" and not config.labels_db.exists():
        advice = "'amenable annotators add NAME' makes one"
        raise InputError("there is no such store of labels", config.labels_db, advice)
    with Store(config.labels_db) as store:
        if config.action == "add":
            token = annotators.add(store, config.name, config.role, time.time())
            print(f"{config.name} ({config.role}) may label. The token, shown this once:\n{token}")
        elif config.action == "revoke":
            annotators.revoke(store, config.name, time.time())
            print(f"the token of {config.name} is worth nothing any more; the labels stay")
        else:
            for person in annotators.people(store):
                day = time.strftime("%Y-%m-%d", time.localtime(person.added))
                print(f"{person.name:<24} {person.role:<10} since {day}{'  revoked' if person.revoked else ''}")
