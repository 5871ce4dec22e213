"""Serve models: a chat page and an OpenAI-compatible API, for one person or many at once.

    amenable serve --models assistant=runs/demo/ppo plain=runs/demo/sft --reward-models judge=runs/demo/reward

Requests to a model are answered together (continuous batching); where too many wait, the next is told when to come
back. What people say of answers on the page (thumbs, rankings) goes into the store of labels. On this machine alone
(127.0.0.1) nobody needs a token; with --host for others everybody does: `amenable annotators add NAME` makes one.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from amenable.data.types import Message, Ranking
from amenable.errors import InputError
from amenable.feedback import annotators
from amenable.feedback.store import Store
from amenable.serve import security
from amenable.serve.chat import Speaker
from amenable.serve.openai.scheduler import Scheduler
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.examples import ranking_rows
from amenable.train.runtime import Device, DeviceOptions, Runtime, start_runtime

if TYPE_CHECKING:
    from amenable.serve.openai.app_state import House, Score

USUAL = (("assistant", Path("runs/demo/ppo")), ("sft", Path("runs/demo/sft")), ("sft", Path("runs/sft")))
"""the models that are served where none is named, those of them that are there"""
USUAL_REWARD = Path("runs/demo/reward")
KNOWN_FOR = 2.0
"""seconds after which it is asked anew who holds a token, so that a revoked one ends"""


@dataclass(frozen=True)
class Config:
    """Which models, for whom, and how many at once."""

    models: tuple[str, ...] = ()
    """NAME=FOLDER or FOLDER, one or more; without it those that `amenable demo` made"""
    reward_models: tuple[str, ...] = ()
    """NAME=FOLDER of reward models, for /score"""
    store: Path = Path("runs/labels.db")
    """where thumbs and rankings are kept"""
    max_new_tokens: int = 512
    """the longest answer where a request names no limit"""
    rows: int = 32
    """answers that a model computes at once"""
    queue: int = 64
    """answers that may wait beyond those; more are refused, and told when to come back"""
    host: str = "127.0.0.1"
    """0.0.0.0 lets others in, with tokens"""
    port: int = 8018
    """0 takes any that is free"""
    require_tokens: bool = False
    """demand tokens on 127.0.0.1 too, as behind a proxy"""
    secure_cookies: bool = False
    """for a server that is reached by https, through a proxy"""
    per_minute: int = 600
    """requests of one address or token"""
    device: Device = field(default_factory=DeviceOptions)

    def __post_init__(self) -> None:
        for name, least, most in (
            ("max_new_tokens", 1, 10**6),
            ("rows", 1, 1024),
            ("queue", 0, 10**5),
            ("port", 0, 65535),
            ("per_minute", 1, 10**6),
        ):
            if not least <= getattr(self, name) <= most:
                raise InputError(f"{name} is {getattr(self, name)}", how=f"it must lie between {least} and {most}")
        together = [*named(self.models), *named(self.reward_models)]
        if len(dict(together)) != len(together):
            raise InputError("two models have one name", how="name them apart, as in --models a=runs/x b=runs/y")

    @property
    def wants_tokens(self) -> bool:
        return self.require_tokens or self.host not in security.LOCAL


def run(config: Config) -> None:
    """Serve until Ctrl-C."""
    security.require_server()
    chosen, judges = chosen_models(config), chosen_rewards(config)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(Store(config.store))
        people = People(store)
        if config.wants_tokens:
            require_people(config, people)
        door = stack.enter_context(security.listen(config.host, config.port))
        house = stack.enter_context(open_house(config, chosen, judges, store, people))
        print(f"{', '.join([*house.models, *house.scorers])}; feedback goes into {config.store}")
        where = security.address_of(door, config.host)
        print(f"chat at {where}   API at {where}/v1   Ctrl-C ends", flush=True)
        security.server(guard(config, house, people)).run(sockets=[door])


def named(models: Sequence[str]) -> list[tuple[str, Path]]:
    """(name, folder) of NAME=FOLDER; of a FOLDER alone its own name."""
    found = []
    for text in models:
        name, _, folder = text.rpartition("=")
        if not folder or text.startswith("="):
            raise InputError(f"'{text}' names no model", how="write NAME=FOLDER, as in assistant=runs/ppo")
        found.append((name or Path(folder).resolve().name, Path(folder)))
    return found


def chosen_models(config: Config) -> list[tuple[str, Path]]:
    """The models to serve; InputError where there is none."""
    if config.models:
        return named(config.models)
    found: dict[str, Path] = {}
    for name, folder in USUAL:
        if (folder / "finished.json").exists():
            found.setdefault(name, folder)
    if not found and not config.reward_models:
        raise InputError("no model to serve", how="'make demo' makes some; or name one, as in --models runs/sft")
    return list(found.items())


def chosen_rewards(config: Config) -> list[tuple[str, Path]]:
    """The reward models to serve; without a name that of the demo, if it is there."""
    if config.models or config.reward_models or not (USUAL_REWARD / "finished.json").exists():
        return named(config.reward_models)
    return [("reward", USUAL_REWARD)]


class People:
    """Who holds a token; asked of the store at most every few seconds."""

    def __init__(self, store: Store):
        self.store, self.lock = store, threading.Lock()
        self.known: list[annotators.Person] = []
        self.since = -KNOWN_FOR

    def all(self) -> list[annotators.Person]:
        with self.lock:
            if time.monotonic() - self.since >= KNOWN_FOR:
                self.known, self.since = annotators.people(self.store), time.monotonic()
            return self.known

    def holder(self, token: str) -> str | None:
        """The name of who holds a token."""
        person = annotators.holder(self.all(), token)
        return None if person is None else person.name


def require_people(config: Config, people: People) -> None:
    """Where others can reach the page, somebody must hold a token."""
    if all(person.revoked for person in people.all()):
        how = f"'amenable annotators add NAME --store {config.store}' makes one"
        raise InputError(f"nobody holds a token, and --host {config.host} lets everybody in", config.store, how)


@contextlib.contextmanager
def open_house(
    config: Config,
    models: Sequence[tuple[str, Path]],
    judges: Sequence[tuple[str, Path]],
    store: Store,
    people: People,
) -> Iterator[House]:
    """The models, each with its thread, which ends when this does."""
    from amenable.serve.openai.app_state import House, Scoring, Served

    runtime = start_runtime(config.device)
    speakers = {name: Speaker.ready(folder, runtime) for name, folder in models}
    scorers = {name: Scoring(scorer(folder, runtime)) for name, folder in judges}

    def whose(token: str | None) -> str | None:
        if token is None or not config.wants_tokens:
            return None if config.wants_tokens else "owner"
        return people.holder(token)

    house = House({}, scorers, store, whose, config.secure_cookies)
    try:
        for name, speaker in speakers.items():
            scheduler = schedule(speaker, runtime, config.rows, config.queue)
            house.models[name] = Served(name, speaker, scheduler, config.max_new_tokens)
        yield house
    finally:
        for served in house.models.values():
            served.scheduler.close()


def schedule(speaker: Speaker, runtime: Runtime, rows: int, queue: int) -> Scheduler:
    tokenizer = speaker.tokenizer
    return Scheduler(speaker.decoder, tokenizer.decode, tokenizer.stop_ids, runtime, rows, queue)


def scorer(folder: Path, runtime: Runtime) -> Score:
    """A reward model's scores of answers. InputError where a conversation is longer than it reads."""
    loading.require_model(folder, "amenable reward")
    tokenizer = Tokenizer.load(folder)
    model = loading.load_reward_model(folder, runtime, tokenizer, frozen=True)
    context = model.decoder.config.context_length

    def score(prompt: Sequence[Message], completions: Sequence[str], ended: Sequence[bool]) -> Sequence[float]:
        blank = Ranking(tuple(prompt), tuple(completions), (1.0,) * len(completions), meta={"ended": list(ended)})
        rows = ranking_rows(blank, tokenizer, context)
        if rows is None:
            raise InputError(f"the conversation is longer than the {context} tokens that the model reads")
        return forward.compute_rewards(model, rows, runtime, max_tokens=8192).tolist()

    return score


def guard(config: Config, house: House, people: People) -> security.Guard:
    """The application behind its checks."""
    from amenable.serve.openai import api, errors

    admits: Callable[[str], bool] | None = None
    if config.wants_tokens:
        admits = lambda token: people.holder(token) is not None  # noqa: E731
    return security.Guard(
        api.make_app(house),
        hosts=None if config.wants_tokens else security.LOCAL,
        limits=security.Limits(per_minute=config.per_minute),
        admits=admits,
        open_paths=api.OPEN_PATHS,
        said=errors.said,
    )
