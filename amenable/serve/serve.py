"""Serve models: a chat page and an OpenAI-compatible API, for one person or many at once.

    amenable serve --models assistant=runs/demo/ppo plain=runs/demo/sft --reward-models judge=runs/demo/reward

Requests to a model are decoded together (continuous batching); where too many wait, the next is refused with a time to
retry. With --best-of N --reward SPEC an answer of the chat API is the one of N that the reward prefers. Thumbs and
rankings of answers on the page are stored as labels. On this machine alone (127.0.0.1) no token is needed; with --host
for others everybody needs one: `amenable annotators add NAME` makes it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from amenable.errors import InputError
from amenable.evaluation.answering import LoadedModel
from amenable.evaluation.vllm_answers import VllmAnswers, answers_by
from amenable.feedback import annotators
from amenable.feedback.store import Store
from amenable.generation.sampler_options import SamplerOptions
from amenable.generation.vllm_batch import VllmBatch
from amenable.generation.vllm_engine import VllmEngine
from amenable.rewards.best_of import BestOfOptions, load_best_of
from amenable.serve import security
from amenable.serve.conversation import load_with_rewards
from amenable.serve.openai.scheduler import Scheduler
from amenable.serve.options import PageOptions, ServerOptions, parse_models, require_bounds
from amenable.serve.tokens import TokenCache, require_token_holder
from amenable.train.runtime import start_runtime

if TYPE_CHECKING:
    from amenable.serve.openai.app_state import AppState

DEFAULT_MODELS = (("assistant", Path("runs/demo/ppo")), ("sft", Path("runs/demo/sft")), ("sft", Path("runs/sft")))
"""models served without --models, as far as they exist"""
DEFAULT_REWARD_MODEL = Path("runs/demo/reward")


@dataclass(frozen=True)
class Config(ServerOptions, BestOfOptions):
    """The models, the address, and the limits of the server."""

    port: int = 8018
    reward_models: tuple[str, ...] = ()
    """NAME=FOLDER of reward models, for /score and /rewards/NAME; alone they are served without models"""
    max_new_tokens: int = 512
    """limit of an answer whose request has none"""

    def __post_init__(self) -> None:
        super().__post_init__()
        BestOfOptions.__post_init__(self)
        require_bounds(self, max_new_tokens=(1, 10**6), best_of=(1, self.max_batch_size))
        parse_models([*self.models, *self.reward_models])


def run(config: Config) -> None:
    """Serve until Ctrl-C."""
    security.require_server()
    models, reward_models = chosen_models(config), chosen_reward_models(config)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(Store(config.labels_db))
        tokens = open_tokens(config, store)
        sock = stack.enter_context(security.listen(config.host, config.port))
        state = stack.enter_context(load_state(config, models, reward_models, store, tokens, config.max_new_tokens))
        print(f"{', '.join([*state.models, *state.reward_models])}; feedback goes into {config.labels_db}")
        address = security.address_of(sock, config.host)
        print(f"chat at {address}   API at {address}/v1   Ctrl-C ends", flush=True)
        security.make_server(protect(config, state, tokens)).run(sockets=[sock])


def open_tokens(config: PageOptions, store: Store) -> TokenCache | None:
    """Return the tokens that are let in; None where none is needed. Raises InputError where nobody holds one."""
    if not config.needs_tokens:
        return None
    require_token_holder(annotators.people(store), store)
    return TokenCache(store)


def chosen_models(config: Config) -> list[tuple[str, Path]]:
    """Return (name, folder) of the models to serve: the demo's where neither models nor reward models are named. Raises
    InputError where there is none."""
    if config.models or config.reward_models:
        return parse_models(config.models)
    chosen: dict[str, Path] = {}
    for name, folder in DEFAULT_MODELS:
        if (folder / "finished.json").exists():
            chosen.setdefault(name, folder)
    if not chosen:
        raise InputError("no model to serve", how="'make demo' makes some; or name one, as in --models runs/sft")
    return list(chosen.items())


def chosen_reward_models(config: Config) -> list[tuple[str, Path]]:
    """Return (name, folder) of the reward models to serve: the demo's where no model is named."""
    if config.models or config.reward_models or not (DEFAULT_REWARD_MODEL / "finished.json").exists():
        return parse_models(config.reward_models)
    return [("reward", DEFAULT_REWARD_MODEL)]


@contextlib.contextmanager
def load_state(
    config: ServerOptions,
    models: Sequence[tuple[str, Path]],
    reward_models: Sequence[tuple[str, Path]],
    store: Store,
    tokens: TokenCache | None,
    max_new_tokens: int,
) -> Iterator[AppState]:
    """Load the models and start a thread for each; the threads, and vLLM's engines, end with this context."""
    from amenable.serve.openai.app_state import AppState, RewardEndpoint, ServedModel

    runtime = start_runtime(config.device)
    answers_by(SamplerOptions(sampler=config.sampler), [folder for _, folder in models], Path(), runtime)
    loaded, rewards = load_with_rewards(models, [folder for _, folder in reward_models], runtime)
    endpoints = {name: RewardEndpoint(reward) for (name, _), reward in zip(reward_models, rewards)}

    def user_for_token(token: str | None) -> str | None:
        if tokens is None:
            return "owner"
        return None if token is None else tokens.user_for_token(token)

    best_of = load_best_of(config, runtime, own_columns=False) if isinstance(config, BestOfOptions) else None
    state = AppState({}, endpoints, store, user_for_token, config.secure_cookies, best_of)
    engines: list[VllmEngine] = []
    try:
        for model in loaded:
            if config.sampler == "vllm":
                engines.append(load_vllm(model, config.max_batch_size))
            scheduler = make_scheduler(model, config.max_batch_size, config.max_queue, *engines[-1:])
            state.models[model.entry.name] = ServedModel(model, scheduler, max_new_tokens)
        yield state
    finally:
        for served in state.models.values():
            served.scheduler.close()
        for engine in engines:
            engine.close()


def load_vllm(model: LoadedModel, rows: int) -> VllmEngine:
    """Return vLLM's engine with a model's weights. InputError where its log-probabilities are not the model's."""
    with tempfile.TemporaryDirectory() as folder:
        engine = VllmAnswers(SamplerOptions(sampler="vllm"), Path(folder), model.runtime, rows=rows).load(model)
    assert isinstance(engine, VllmEngine)
    return engine


def make_scheduler(
    model: LoadedModel, max_batch_size: int, max_queue: int, engine: VllmEngine | None = None
) -> Scheduler:
    """Return a scheduler of a model, its thread running. engine: decodes in place of ours."""
    decode, ends = model.tokenizer.decode, model.tokenizer.stop_ids
    make_batch = None if engine is None else VllmBatch(engine, decode, ends).emptied
    return Scheduler(model.decoder, decode, ends, model.runtime, max_batch_size, max_queue, make_batch)


def protect(config: Config, state: AppState, tokens: TokenCache | None) -> security.SecurityMiddleware:
    """Return the application behind its security checks."""
    from amenable.serve.openai import api, errors

    return security.SecurityMiddleware(
        api.make_app(state),
        hosts=security.LOCAL if tokens is None else None,
        limits=security.Limits(per_minute=config.rate_limit_per_minute),
        authenticate=None if tokens is None else tokens.__contains__,
        open_paths=api.OPEN_PATHS,
        error_body=errors.error_body,
    )
