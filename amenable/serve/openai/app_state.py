"""What is served: the models that answer, those that score, the store, and who holds a token."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from amenable.data.types import Message
from amenable.feedback.store import Store
from amenable.serve.chat import Speaker
from amenable.serve.openai.errors import Refused
from amenable.serve.openai.scheduler import Scheduler
from amenable.text.tokenizer import Tokenizer

Score = Callable[[Sequence[Message], Sequence[str], Sequence[bool]], Sequence[float]]
"""(prompt, completions, ended) -> scores; slow, and one at a time"""


@dataclass
class Served:
    """A model that answers."""

    name: str
    speaker: Speaker
    scheduler: Scheduler
    max_new_tokens: int = 512
    """of an answer whose request names no limit"""

    @property
    def tokenizer(self) -> Tokenizer:
        return self.speaker.tokenizer

    @property
    def context(self) -> int:
        return self.speaker.decoder.config.context_length


@dataclass
class Scoring:
    """A reward model, and how many requests may wait for it."""

    score: Score
    lock: threading.Lock = field(default_factory=threading.Lock)
    seats: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(8))


@dataclass
class House:
    """Everything that the routes need. whose: the name of who holds a token, None where it is nobody's."""

    models: dict[str, Served]
    scorers: dict[str, Scoring]
    store: Store | None
    whose: Callable[[str | None], str | None]
    secure: bool = False
    started: float = field(default_factory=time.time)


def model_of(house: House, name: str) -> Served:
    """A model that answers, by its name; Refused where there is none, with the use of one that is a reward model."""
    if name in house.scorers:
        raise Refused(404, f"{name:.100} is a reward model: it scores answers (POST /score) and gives none", "model")
    if name not in house.models:
        raise unknown(name)
    return house.models[name]


def scorer_of(house: House, name: str) -> Scoring:
    """A reward model by its name; Refused where there is none, with the use of one that is no reward model."""
    if name in house.models:
        raise Refused(404, f"{name:.100} gives answers and scores none; GET /score lists the reward models", "model")
    if name not in house.scorers:
        raise unknown(name)
    return house.scorers[name]


def unknown(name: str) -> Refused:
    return Refused(404, f"there is no such model here: {name:.100}", "model", "model_not_found")


def listing(house: House, names: Iterable[str]) -> dict[str, Any]:
    """Models as OpenAI's clients read their list."""
    return {"object": "list", "data": [about(house, name) for name in names]}


def about(house: House, name: str) -> dict[str, Any]:
    """What is told of a model."""
    facts = {"id": name, "object": "model", "created": int(house.started), "owned_by": "amenable"}
    if name in house.scorers:
        return {**facts, "kind": "reward"}
    served = model_of(house, name)
    return {**facts, "kind": "completion" if served.speaker.is_plain else "chat", "context": served.context}


def prometheus(house: House) -> str:
    """Figures in Prometheus' text format."""
    counters = {
        "requests_total": ("requests that were accepted", lambda s: s.counts.requests),
        "refused_total": ("requests refused because the queue was full", lambda s: s.counts.refused),
        "cancelled_total": ("requests that were taken back", lambda s: s.counts.cancelled),
        "failed_total": ("requests that failed", lambda s: s.counts.failed),
        "answers_total": ("answers that ended", lambda s: s.counts.answers),
        "prompt_tokens_total": ("tokens of prompts that were answered", lambda s: s.counts.prompt_tokens),
        "completion_tokens_total": ("tokens of answers", lambda s: s.counts.completion_tokens),
        "first_token_seconds_sum": ("seconds until the first token", lambda s: s.counts.first_token_seconds),
        "first_token_seconds_count": ("requests that got a first token", lambda s: s.counts.first_tokens),
        "answer_seconds_sum": ("seconds until an answer ended", lambda s: s.counts.answer_seconds),
        "answers_pending": ("answers that wait or run", lambda s: s.pending),
        "answers_most": ("answers that may wait or run", lambda s: s.rows + s.queue),
    }
    lines = []
    for name, (meaning, value) in counters.items():
        kind = "counter" if name.endswith(("_total", "_sum", "_count")) else "gauge"
        lines += [f"# HELP amenable_{name} {meaning}", f"# TYPE amenable_{name} {kind}"]
        for model, served in house.models.items():
            number = value(served.scheduler)
            label = json.dumps(model, ensure_ascii=False)
            lines.append(f"amenable_{name}{{model={label}}} {number if math.isfinite(number) else 0}")
    return "\n".join(lines) + "\n"
