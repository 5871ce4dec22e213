"""Two hidden models answer side by side; a person says which was better, and then sees their names.

    amenable arena --models sft=runs/demo/sft ppo=runs/demo/ppo dpo=runs/demo/dpo

The pair is drawn among the models, fewest battles first, with sides at random. Votes go into the store, where the
leaderboard and `amenable ratings` read them. On this machine alone (127.0.0.1) nobody needs a token; with --host for
others everybody does: `amenable annotators add NAME` makes one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from amenable.errors import InputError
from amenable.feedback.leaderboard import RatingConfig
from amenable.feedback.store import Store
from amenable.files import hash_of
from amenable.generation.sampling import Sampling
from amenable.serve import security, serve
from amenable.train.runtime import Device, DeviceOptions

if TYPE_CHECKING:
    from amenable.serve.battles import Arena
    from amenable.serve.openai.app_state import House

USUAL = ("sft", "ppo", "dpo")
"""the demo's models that fight where none is named, those of them that are there"""
DEMO = Path("runs/demo")


@dataclass(frozen=True)
class Config:
    """Who fights, for whom."""

    models: tuple[str, ...] = ()
    """NAME=FOLDER or FOLDER, two or more; without it those that `amenable demo` made"""
    store: Path = Path("runs/labels.db")
    """where votes are kept"""
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.7, top_p=0.95, max_new_tokens=512))
    """how both draw their answers"""
    rating: RatingConfig = field(default_factory=RatingConfig)
    """how the leaderboard's ratings are made"""
    rows: int = 16
    """answers that a model computes at once"""
    queue: int = 32
    """answers that may wait beyond those; more are refused, and told when to come back"""
    host: str = "127.0.0.1"
    """0.0.0.0 lets others in, with tokens"""
    port: int = 8019
    """0 takes any that is free"""
    require_tokens: bool = False
    """demand tokens on 127.0.0.1 too, as behind a proxy"""
    secure_cookies: bool = False
    """for a server that is reached by https, through a proxy"""
    per_minute: int = 600
    """requests of one address or token"""
    device: Device = field(default_factory=DeviceOptions)

    def __post_init__(self) -> None:
        self.served  # noqa: B018 - refuses impossible settings before a model is loaded

    @property
    def served(self) -> serve.Config:
        """The same as the settings of a server of these models."""
        return serve.Config(
            models=self.models,
            store=self.store,
            max_new_tokens=self.sampling.max_new_tokens,
            rows=self.rows,
            queue=self.queue,
            host=self.host,
            port=self.port,
            require_tokens=self.require_tokens,
            secure_cookies=self.secure_cookies,
            per_minute=self.per_minute,
            device=self.device,
        )


def run(config: Config) -> None:
    """Serve until Ctrl-C."""
    security.require_server()
    models, served = chosen(config), config.served
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(Store(config.store))
        people = serve.People(store)
        if served.wants_tokens:
            serve.require_people(served, people)
        door = stack.enter_context(security.listen(config.host, config.port))
        house = stack.enter_context(serve.open_house(served, models, [], store, people))
        arena = open_arena(config, house, models, store)
        for name in renamed(arena):
            print(f"another model was voted on as '{name}' before, and both are rated as one; give this one a new name")
        print(f"{', '.join(house.models)} fight; votes go into {config.store}")
        where = security.address_of(door, config.host)
        print(f"arena at {where}   leaderboard at {where}/leaderboard   Ctrl-C ends", flush=True)
        security.server(guard(config, arena, people)).run(sockets=[door])


def chosen(config: Config) -> list[tuple[str, Path]]:
    """(name, folder) of the models that fight; InputError where there are not two."""
    models = serve.named(config.models)
    if not config.models:
        models = [(name, DEMO / name) for name in USUAL if (DEMO / name / "finished.json").exists()]
    if len(models) < 2:
        how = "'make demo' makes some; or name two or more, as in --models a=runs/sft b=runs/ppo"
        raise InputError(
            f"{len(models) or 'no'} model{'' if len(models) == 1 else 's'} to fight, and it takes two", how=how
        )
    return models


def open_arena(config: Config, house: House, models: Sequence[tuple[str, Path]], store: Store) -> Arena:
    """The place where they fight."""
    from amenable.serve.battles import Arena

    origins = {name: {"folder": str(folder), "sha256": hash_of(folder)} for name, folder in models}
    return Arena(house, store, origins, config.sampling, config.rating, time.time)


def renamed(arena: Arena) -> list[str]:
    """Names under which other models were voted on before, by the hashes of their weights."""
    arena.refresh()
    before = {
        (name, event.payload["origins"][side]["sha256"])
        for event in arena.votes.values()
        for side, name in event.payload["models"].items()
    }
    now = {name: origin["sha256"] for name, origin in arena.origins.items()}
    return sorted({name for name, sha256 in before if now.get(name, sha256) != sha256})


def guard(config: Config, arena: Arena, people: serve.People) -> security.Guard:
    """The application behind its checks."""
    from amenable.serve import battles
    from amenable.serve.openai import errors

    wants = config.served.wants_tokens
    admits: Callable[[str], bool] | None = None
    if wants:
        admits = lambda token: people.holder(token) is not None  # noqa: E731
    return security.Guard(
        battles.make_app(arena),
        hosts=None if wants else security.LOCAL,
        limits=security.Limits(body=200_000, per_minute=config.per_minute),
        admits=admits,
        open_paths=battles.OPEN_PATHS,
        said=errors.said,
    )
