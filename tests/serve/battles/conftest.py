"""An arena of scripted models."""

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from amenable.feedback.leaderboard import RatingConfig
from amenable.feedback.store import Store
from amenable.generation.sampling import Sampling
from amenable.serve.battles.arena_state import Arena
from amenable.serve.openai.scheduler import Chunk, Failed, Finished


class Script:
    """A scheduler that emits given texts or events, chunk by chunk, instead of a model's."""

    def __init__(self) -> None:
        self.output: list[Any] = ["one", " two"]
        self.requests: list[Any] = []
        self.cancelled = 0

    def submit(self, request: Any, on_event: Any) -> Any:
        self.requests.append(request)
        for text in self.output:
            if isinstance(text, Exception):
                raise text
            on_event(text if isinstance(text, (Failed, Finished)) else Chunk(0, text))
        if not isinstance(self.output[-1], (Failed, Finished)):
            on_event(Finished(0, "", SimpleNamespace(ids=[1], finish_reason="eos")))  # type: ignore[arg-type]
        return object()

    def cancel(self, request: Any) -> None:
        self.cancelled += 1


@pytest.fixture
def arena(served, tmp_path):
    """An arena of two scripted models, `tiny` and `plain`, and its store."""
    with Store(tmp_path / "votes.db") as store:
        models = {name: replace(model, scheduler=Script()) for name, model in served.state.models.items()}
        state = replace(served.state, models=models, store=store)
        origins = {name: {"folder": f"runs/{name}", "sha256": name * 4} for name in models}
        yield Arena(state, store, origins, Sampling(max_new_tokens=8), RatingConfig(), lambda: 5.0, random.Random(0))


@pytest.fixture
def make_script() -> Any:
    """make_script(): a scheduler that emits two chunks."""
    return Script
