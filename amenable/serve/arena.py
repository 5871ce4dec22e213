"""Arena: two hidden models answer side by side; a person votes for the better one, then sees their names.

    amenable arena --models sft=runs/demo/sft ppo=runs/demo/ppo dpo=runs/demo/dpo

The pair is drawn among the models, fewest battles first, with sides at random. Votes are stored as labels, which the
leaderboard and `amenable ratings` read. On this machine alone (127.0.0.1) no token is needed; with --host for others
everybody needs one: `amenable annotators add NAME` makes it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from amenable.errors import InputError
from amenable.feedback.leaderboard import RatingConfig
from amenable.feedback.store import Store
from amenable.generation.sampling import Sampling
from amenable.hash_cache import model_hash
from amenable.serve import security, serve
from amenable.serve.options import ServerOptions, parse_models
from amenable.serve.tokens import TokenCache

if TYPE_CHECKING:
    from amenable.serve.battles.arena_state import Arena
    from amenable.serve.openai.app_state import AppState

DEMO = Path("runs/demo")
DEFAULT_MODELS = ("sft", "ppo", "dpo")
"""models of the demo that fight without --models, as far as they exist"""


@dataclass(frozen=True)
class Config(ServerOptions):
    """The models, the address, and the limits of the server."""

    port: int = 8019
    max_batch_size: int = 16
    max_queue: int = 32
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.7, top_p=0.95, max_new_tokens=512))
    """sampling settings of both models"""
    rating: RatingConfig = field(default_factory=RatingConfig)
    """settings of the leaderboard's ratings"""


def run(config: Config) -> None:
    """Serve until Ctrl-C."""
    security.require_server()
    models = chosen_models(config)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(Store(config.labels_db))
        tokens = serve.open_tokens(config, store)
        sock = stack.enter_context(security.listen(config.host, config.port))
        limit = config.sampling.max_new_tokens
        state = stack.enter_context(serve.load_state(config, models, [], store, tokens, limit))
        arena = open_arena(config, state, models, store)
        for name in reused_names(arena):
            print(f"another model was voted on as '{name}' before, and both are rated as one; give this one a new name")
        print(f"{', '.join(state.models)} fight; votes go into {config.labels_db}")
        address = security.address_of(sock, config.host)
        print(f"arena at {address}   leaderboard at {address}/leaderboard   Ctrl-C ends", flush=True)
        security.make_server(protect(config, arena, tokens)).run(sockets=[sock])


def chosen_models(config: Config) -> list[tuple[str, Path]]:
    """Return (name, folder) of the models that fight. Raises InputError where there are fewer than two."""
    models = parse_models(config.models)
    if not config.models:
        models = [(name, DEMO / name) for name in DEFAULT_MODELS if (DEMO / name / "finished.json").exists()]
    if len(models) < 2:
        raise InputError(
            f"{len(models) or 'no'} model{'' if len(models) == 1 else 's'} to fight, and it takes two",
            how="'make demo' makes some; or name two or more, as in --models a=runs/sft b=runs/ppo",
        )
    return models


def open_arena(config: Config, state: AppState, models: Sequence[tuple[str, Path]], store: Store) -> Arena:
    """Return the arena of these models, with their hashes."""
    from amenable.serve.battles.arena_state import Arena

    origins = {name: {"folder": str(folder), "sha256": model_hash(folder)} for name, folder in models}
    return Arena(state, store, origins, config.sampling, config.rating, time.time)


def reused_names(arena: Arena) -> list[str]:
    """Return the names under which other models were voted on before, by the hashes of their weights."""
    arena.refresh()
    before = {
        (name, event.payload["origins"][side]["sha256"])
        for event in arena.votes.values()
        for side, name in event.payload["models"].items()
    }
    now = {name: origin["sha256"] for name, origin in arena.origins.items()}
    return sorted({name for name, sha256 in before if now.get(name, sha256) != sha256})


def protect(config: Config, arena: Arena, tokens: TokenCache | None) -> security.SecurityMiddleware:
    """Return the application behind its security checks."""
    from amenable.serve.battles import routes
    from amenable.serve.openai import errors

    return security.SecurityMiddleware(
        routes.make_app(arena),
        hosts=security.LOCAL if tokens is None else None,
        limits=security.Limits(body=200_000, per_minute=config.rate_limit_per_minute),
        authenticate=None if tokens is None else tokens.__contains__,
        open_paths=routes.OPEN_PATHS,
        error_body=errors.error_body,
    )
