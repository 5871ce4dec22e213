"""State of the server: the models that generate, the reward models, the label store, and the users of tokens."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from amenable.data.types import Conversation, Message, Prompt
from amenable.evaluation.answering import LoadedModel
from amenable.feedback.store import Store
from amenable.generation.requests import Completion
from amenable.hash_cache import model_hash
from amenable.rewards.best_of import BestOf
from amenable.rewards.functions import RewardFunction
from amenable.serve.errors import APIError
from amenable.serve.openai.scheduler import Scheduler
from amenable.serve.security import Scope, headers_of, token_of
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.forward import Row

Choose = Callable[[Sequence[Completion]], int]
"""completions of a prompt -> the index of the best"""
MAX_TOKENS_PER_PASS = 8192
"""ids computed at once of rows whose log-probabilities are wanted, as in training by default"""


@dataclass
class SerialQueue:
    """Queue of requests that compute in their own threads, one at a time. `slots` bounds those that run or wait."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    slots: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(8))

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, and have it in this context. Raises APIError 429 where too many requests wait."""
        if not self.slots.acquire(blocking=False):
            raise APIError(429, "the server is busy", code="overloaded", retry_after=2)
        try:
            with self.lock:
                yield
        finally:
            self.slots.release()


@dataclass
class ServedModel:
    """A model that generates."""

    model: LoadedModel
    scheduler: Scheduler
    max_new_tokens: int = 512
    """the limit of a completion whose request has none"""
    queue: SerialQueue = field(default_factory=SerialQueue)
    """of requests for log-probabilities"""

    @property
    def name(self) -> str:
        return self.model.entry.name

    @property
    def tokenizer(self) -> Tokenizer:
        return self.model.tokenizer

    @property
    def context(self) -> int:
        return self.model.decoder.config.context_length

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Facts by which a run knows the model, its tokenizer and its precision."""
        decoder = self.model.decoder
        return {
            "model": model_hash(self.model.folder),
            "tokenizer": self.tokenizer.fingerprint,
            "precision": "bf16" if self.model.runtime.bf16 else "fp32",
            "num_tokens": decoder.num_tokens,
            "context": self.context,
        }

    def logprobs(self, rows: Sequence[Row], temperature: float) -> list[list[float]]:
        """Return the log-probabilities of each row's loss mask. Raises APIError 400 for ids that the model lacks, and
        for rows beyond its context."""
        for number, (ids, _) in enumerate(rows):
            if len(ids) > self.context:
                raise APIError(400, f"row {number} has {len(ids)} ids, and the model reads {self.context}", "rows")
            if max(ids) >= self.model.decoder.num_tokens:
                raise APIError(400, f"row {number} has id {max(ids)}, which the model lacks", "rows")
        decoder, runtime = self.model.decoder, self.model.runtime
        with self.queue.turn():
            logps = forward.compute_logprobs(decoder, rows, runtime, MAX_TOKENS_PER_PASS, temperature)
        return [part.tolist() for part in logps]


@dataclass
class RewardEndpoint:
    """A reward function behind /score."""

    reward: RewardFunction
    queue: SerialQueue = field(default_factory=SerialQueue)

    def scores(
        self, prompts: Sequence[Conversation], completions: Sequence[str], ended: Sequence[bool] | None
    ) -> list[float]:
        """Return the score of each completion; all of them ended by themselves where `ended` is None or empty. Raises
        APIError 400 for lists of other lengths, 429 where too many requests wait."""
        ended = ended or [True] * len(completions)
        for name, values in (("prompts", prompts), ("ended", ended)):
            if len(values) != len(completions):
                raise APIError(400, f"{len(values)} for {len(completions)} completions", name)
        with self.queue.turn():
            return list(self.reward(prompts, completions, ended=ended))


@dataclass
class AppState:
    """Everything that the routes use."""

    models: dict[str, ServedModel]
    reward_models: dict[str, RewardEndpoint]
    store: Store | None
    user_for_token: Callable[[str | None], str | None]
    """maps an access token to a user name; None for an unknown one"""
    secure: bool = False
    """cookies are sent over https alone"""
    best_of: BestOf | None = None
    """choice of chat answers among several; None sends each that is sampled"""
    choosing: threading.Lock = field(default_factory=threading.Lock)
    """one request's answers are scored at a time"""
    started: float = field(default_factory=time.time)

    def user_of(self, scope: Scope) -> str:
        """Return the name of the user that sent a request, "?" for an unknown one."""
        return self.user_for_token(token_of(headers_of(scope))) or "?"


def model_of(state: AppState, name: str) -> ServedModel:
    """Return a generating model by its name. Raises APIError 404 for other names; a reward model's says its use."""
    if name in state.reward_models:
        raise APIError(404, f"{name:.100} is a reward model: it scores answers (POST /score) and gives none", "model")
    if name not in state.models:
        raise model_not_found(name)
    return state.models[name]


def chooser(state: AppState, served: ServedModel, messages: Sequence[Message], ids: Sequence[int]) -> Choose | None:
    """Return the choice among completions of a prompt; None where the server sends each."""
    best_of = state.best_of
    if best_of is None:
        return None

    def choose(completions: Sequence[Completion]) -> int:
        with state.choosing:
            best, _ = best_of.choose(Prompt(tuple(messages)), ids, completions, served.tokenizer, cut=True)
        return best[0]

    return choose


def reward_model_of(state: AppState, name: str) -> RewardEndpoint:
    """Return a reward model by its name. Raises APIError 404 for other names; a generating model's says its use."""
    if name in state.models:
        raise APIError(404, f"{name:.100} gives answers and scores none; GET /score lists the reward models", "model")
    if name not in state.reward_models:
        raise model_not_found(name)
    return state.reward_models[name]


def model_not_found(name: str) -> APIError:
    """Return the error for an unknown name."""
    return APIError(404, f"there is no such model here: {name:.100}", "model", "model_not_found")


def model_list(state: AppState, names: Iterable[str]) -> dict[str, Any]:
    """Return OpenAI's list object of these models."""
    return {"object": "list", "data": [model_info(state, name) for name in names]}


def model_info(state: AppState, name: str) -> dict[str, Any]:
    """Return OpenAI's model object, with the model's kind and context length."""
    facts = {"id": name, "object": "model", "created": int(state.started), "owned_by": "amenable"}
    if name in state.reward_models:
        return {**facts, "kind": "reward"}
    served = model_of(state, name)
    return {**facts, "kind": "chat" if served.model.is_chat_model else "completion", "context": served.context}


def prometheus(state: AppState) -> str:
    """Return the models' counters in Prometheus' text format."""
    metrics = {
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
        "answers_most": ("answers that may wait or run", lambda s: s.max_batch_size + s.max_queue),
    }
    lines = []
    for name, (meaning, value) in metrics.items():
        kind = "counter" if name.endswith(("_total", "_sum", "_count")) else "gauge"
        lines += [f"# HELP amenable_{name} {meaning}", f"# TYPE amenable_{name} {kind}"]
        for model, served in state.models.items():
            number = value(served.scheduler)
            label = json.dumps(model, ensure_ascii=False)
            lines.append(f"amenable_{name}{{model={label}}} {number if math.isfinite(number) else 0}")
    return "\n".join(lines) + "\n"
