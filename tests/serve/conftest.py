"""A server of the tiny models on a free port, in a thread of its own."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from amenable.feedback.store import Store
from amenable.serve import label, security, serve
from amenable.train.runtime import DeviceOptions


@dataclass
class Running:
    """A server under way."""

    url: str
    port: int
    state: Any
    store: Store
    server: Any

    @property
    def scheduler(self) -> Any:
        return self.state.models["tiny"].scheduler


@contextlib.contextmanager
def running(config: serve.Config, limits: security.Limits | None = None) -> Iterator[Running]:
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(Store(config.labels_db))
        tokens = serve.open_tokens(config, store)
        models, judges = serve.chosen_models(config), serve.chosen_reward_models(config)
        state = stack.enter_context(serve.load_state(config, models, judges, store, tokens, config.max_new_tokens))
        guard = serve.protect(config, state, tokens)
        if limits is not None:
            guard.limits = limits
        port, server = stack.enter_context(listening(guard))
        yield Running(f"http://127.0.0.1:{port}", port, state, store, server)


@contextlib.contextmanager
def listening(guard: security.SecurityMiddleware) -> Iterator[tuple[int, Any]]:
    """The port of an application, served in a thread, and its server."""
    with security.listen("127.0.0.1", 0) as door:
        server = security.make_server(guard)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        end = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.01)
        try:
            yield door.getsockname()[1], server
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture(scope="session")
def run_server() -> Callable[..., contextlib.AbstractContextManager[Running]]:
    """run_server(config, limits): a server while the block lasts."""
    return running


@pytest.fixture(scope="session")
def run_guard() -> Callable[..., contextlib.AbstractContextManager[tuple[int, Any]]]:
    """run_guard(guard): (port, server) while the block lasts."""
    return listening


@pytest.fixture(scope="session")
def run_labelling(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """run_labelling(prompts, limits): (port, label_app) of a labelling page while the block lasts."""

    @contextlib.contextmanager
    def labelling(prompts: int, limits: security.Limits) -> Iterator[tuple[int, Any]]:
        folder = tmp_path_factory.mktemp("labelling")
        rows = [{"prompt": [{"role": "user", "content": f"{n}?"}], "completions": list("abc")} for n in range(prompts)]
        (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = label.Config(data=(folder / "samples.jsonl",), labels_db=folder / "labels.db")
        with Store(config.labels_db) as store:

            def suggest(conversation: Any, number: int) -> dict[str, Any]:
                return {"text": f"suggestion {number}", "model": "m", "seed": number}

            label_app = label.make_label_app(config, store, label.load_tasks(config), None, suggest, None)
            with listening(replace(label.protect(config, label_app), limits=limits)) as (port, _):
                yield port, label_app

    return labelling


@pytest.fixture(scope="session")
def serve_config(assistant: Path, base: Path, judge: Path, tmp_path_factory: pytest.TempPathFactory) -> serve.Config:
    """A chat model 'tiny', a base model 'plain', a reward model 'judge'."""
    return serve.Config(
        models=(f"tiny={assistant}", f"plain={base}"),
        reward_models=(f"judge={judge}",),
        labels_db=tmp_path_factory.mktemp("served") / "labels.db",
        max_new_tokens=24,
        max_batch_size=8,
        max_queue=8,
        rate_limit_per_minute=10**6,
        device=DeviceOptions(device="cpu", precision="fp32", threads=1),
    )


@pytest.fixture(scope="session")
def served(serve_config: serve.Config) -> Iterator[Running]:
    """One server for all tests that leave it as it was."""
    with running(serve_config) as server:
        yield server


@pytest.fixture(scope="session")
def client(served: Running) -> Iterator[openai.OpenAI]:
    """OpenAI's own client of that server."""
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
def http(served: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=30) as client:
        yield client
