"""Who may label: add somebody, list them, take a token back.

    amenable annotators add Ann --role owner      prints Ann's token, once
    amenable annotators list
    amenable annotators revoke Ann

Only a hash of the token is kept, in the store of labels; a lost one is revoked and made anew.
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
    """whom to add or revoke"""
    role: annotators.Role = "annotator"
    """an owner also sees everybody's labels, and how people agree"""
    store: Path = Path("runs/labels.db")

    def __post_init__(self) -> None:
        if self.action != "list" and not self.name:
            raise InputError("a name is missing", how=f"as in: amenable annotators {self.action} Ann")
        if self.action == "list" and self.name:
            raise InputError(f"'{self.name}' after list", how="list takes no name")


def run(config: Config) -> None:
    """Do it and say what was done."""
    if config.action != "add" and not config.store.exists():
        raise InputError("there is no such store of labels", config.store, "'amenable annotators add NAME' makes one")
    with Store(config.store) as store:
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
