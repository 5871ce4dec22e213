"""A server of the tiny models on a free port, in a thread of its own."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from amenable.feedback.store import Store
from amenable.serve import security, serve
from amenable.train import runtime


@dataclass
class Running:
    """A server under way."""

    url: str
    port: int
    house: Any
    store: Store
    server: Any

    @property
    def scheduler(self) -> Any:
        return self.house.models["tiny"].scheduler


@contextlib.contextmanager
def running(config: serve.Config, limits: security.Limits | None = None) -> Iterator[Running]:
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(Store(config.store))
        people = serve.People(store)
        door = stack.enter_context(security.listen(config.host, 0))
        models, judges = serve.chosen_models(config), serve.chosen_rewards(config)
        house = stack.enter_context(serve.open_house(config, models, judges, store, people))
        guard = serve.guard(config, house, people)
        if limits is not None:
            guard.limits = limits
        server = security.server(guard)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        end = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.01)
        port = door.getsockname()[1]
        try:
            yield Running(f"http://127.0.0.1:{port}", port, house, store, server)
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture(scope="session")
def run_server() -> Callable[..., contextlib.AbstractContextManager[Running]]:
    """run_server(config, limits): a server while the block lasts."""
    return running


@pytest.fixture(scope="session")
def serve_config(assistant: Path, base: Path, judge: Path, tmp_path_factory: pytest.TempPathFactory) -> serve.Config:
    """A chat model 'tiny', a base model 'plain', a reward model 'judge'."""
    return serve.Config(
        models=(f"tiny={assistant}", f"plain={base}"),
        reward_models=(f"judge={judge}",),
        store=tmp_path_factory.mktemp("served") / "labels.db",
        max_new_tokens=24,
        rows=8,
        queue=8,
        per_minute=10**6,
        machine=runtime.Machine(device="cpu", precision="fp32", threads=1),
    )


@pytest.fixture(scope="session")
def served(serve_config: serve.Config) -> Iterator[Running]:
    """One server for all tests that leave it as it was."""
    with running(serve_config) as server:
        yield server
