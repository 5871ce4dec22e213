"""Clip page: people say which of two clips is better, while `amenable control --from comparisons` learns from it.

Clips of `--judge people` are drawn in the browser, side by side and over and over. Keys and taps answer: left, right,
equal, can't tell; U takes the last answer back. Clips and answers meet in a database (--labels-db), which this command
and the training share, so that either may stop and go on. Annotators, tokens, their agreement and the owner's page are
those of `amenable label`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from amenable.control.people_labels import NAME
from amenable.errors import InputError
from amenable.feedback import annotators, quality
from amenable.feedback.store import Store
from amenable.serve import label, security
from amenable.serve.labelling.clip_queue import ClipQueue
from amenable.serve.labelling.task_queue import AssignmentPolicy
from amenable.serve.options import PageOptions, require_bounds
from amenable.serve.tokens import require_token_holder

if TYPE_CHECKING:
    from amenable.serve.labelling.routes import LabelApp

CLIPS_DB = Path("runs/clips.db")
INSTRUCTIONS = """\
# What to do

You see two short clips, over and over. Say in which of them it goes **better**, as you understand the task; three to
five seconds are enough. Where both are as good, say so; where you cannot tell, skip them.
"""


@dataclass(frozen=True)
class Config(PageOptions):
    """The clips, the question, and the address."""

    labels_db: Path = CLIPS_DB
    """database of clips and labels, that of amenable control --labels-db; that of --run where it is given"""
    run: Path | None = None
    """folder of the run whose clips are shown; by default those of all runs in the database"""
    question: str = ""
    """shown above the clips, as in 'Which one is closer to a backflip?'"""
    overlap: float = 0.1
    """share of the comparisons that --raters annotators get, to measure their agreement"""
    raters: int = 2
    assignment_timeout_minutes: float = 5.0
    """time after which an unanswered comparison goes to somebody else"""
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_bounds(self, raters=(2, 100), overlap=(0, 1), assignment_timeout_minutes=(0.1, 10**5))


def run(config: Config) -> None:
    """Serve until Ctrl-C."""
    security.require_server()
    name, labels_db = run_clips(config)
    sock = security.listen(config.host, config.port)
    with sock, Store(labels_db) as store:
        if config.needs_tokens:
            require_token_holder(annotators.people(store), store, " --role owner")
        label_app = make_clip_app(config, store, name)
        address = security.address_of(sock, config.host)
        print(f"clips and answers are in {labels_db}; runs write them with --judge people")
        print(f"label at {address}   the owner's page: {address}/owner   Ctrl-C ends", flush=True)
        security.make_server(label.protect(config, label_app)).run(sockets=[sock])


def run_clips(config: Config) -> tuple[str | None, Path]:
    """Return the name of the run's clips, None for those of all runs, and the database that they are in. InputError
    for a folder without clips, and for another database than the run's."""
    folder = config.run
    if folder is None:
        return None, config.labels_db
    try:
        facts = json.loads((folder / NAME).read_text("utf-8"))
        name, labels_db = str(facts["run"]), Path(facts.get("labels_db", config.labels_db))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        hint = "name a run of amenable control --from comparisons --judge people"
        raise InputError("has no clips for people", folder, hint) from None
    if not labels_db.exists():  # the run was moved, with its database
        return name, config.labels_db
    if config.labels_db != CLIPS_DB and config.labels_db.resolve() != labels_db.resolve():
        raise InputError(f"the clips of {folder} are in {labels_db}", "labels_db", "leave --labels-db out")
    return name, labels_db


def make_clip_app(config: Config, store: Store, name: str | None) -> LabelApp:
    """Return everything that the routes use."""
    from amenable.serve.labelling.routes import LabelApp

    policy = AssignmentPolicy(60 * config.assignment_timeout_minutes, config.raters, seed=config.seed)
    queue = ClipQueue(store, [], policy, time.time, question=config.question, run=name, overlap=config.overlap)
    return LabelApp(
        queue=queue,
        kinds=("compare",),
        instructions=lambda: INSTRUCTIONS,
        figures=lambda: quality.figures(store, config.seed, None),
        one_key=True,
        clips=True,
        thanks="The training has no further clips at the moment. This page looks for new ones by itself.",
        local_owner=not config.needs_tokens,
    )
