"""Continuous batching of many clients' requests to one model, behind a bounded queue.

    submit -> queue -> rows of the running batch -> Chunk, Chunk, ... -> Finished

One thread owns the model. Requests join the batch as soon as there is room, each with its own settings, and leave it
when they finish or are cancelled. A completion depends on its prompt, settings and seed, not on the rest of the batch.
Where the queue is full, `submit` raises QueueFull at once.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from amenable.errors import InputError
from amenable.generation.continuous_batch import ContinuousBatch, Running
from amenable.generation.detokenizer import Decode
from amenable.generation.engine import evaluating
from amenable.generation.requests import Completion, EosIds, SampleRequest, completion_limit
from amenable.generation.sampling import Sampling
from amenable.models.language_model import LanguageModel
from amenable.seeds import mix
from amenable.train.runtime import Runtime


@dataclass(frozen=True)
class GenerationRequest:
    """A request for `samples` completions of one prompt; sample j draws from (seed, j)."""

    ids: Sequence[int]
    sampling: Sampling
    seed: int
    samples: int = 1
    stop: tuple[str, ...] = ()
    top_logprobs: int = 0
    """number of most probable tokens to report at each position"""
    prompt_logprobs: bool = False
    """report the log-probabilities of the prompt's tokens too"""
    prompt_only: bool = False
    """report nothing but those; the prompt may then fill the context"""


@dataclass(frozen=True)
class Chunk:
    """More text of completion `sample`. A chunk never ends within a character or within a stop string."""

    sample: int
    text: str


@dataclass(frozen=True)
class Finished:
    """A complete completion; `tail` is the text after its last chunk."""

    sample: int
    tail: str
    completion: Completion


@dataclass(frozen=True)
class Failed:
    """The end of a request that failed."""

    reason: str


StreamEvent = Chunk | Finished | Failed


class Batch(Protocol):
    """Requests that are decoded together, as ContinuousBatch does it."""

    running: dict[int, Running]

    def add(self, requests: Sequence[SampleRequest]) -> None: ...

    def cancel(self, prompt: int) -> None: ...

    def step(self) -> Sequence[tuple[SampleRequest, Completion]]: ...


class QueueFull(Exception):
    """Too many completions wait; `retry_after` is in seconds."""

    def __init__(self, retry_after: int):
        super().__init__(f"the server is busy; ask again in {retry_after} s")
        self.retry_after = retry_after


@dataclass
class Counts:
    """Totals since the start; times in seconds."""

    requests: int = 0
    refused: int = 0
    cancelled: int = 0
    failed: int = 0
    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_token_seconds: float = 0.0
    first_tokens: int = 0
    answer_seconds: float = 0.0


@dataclass(eq=False)
class ActiveRequest:
    """A submitted request. All but `cancelled` belongs to the model's thread."""

    number: int
    request: GenerationRequest
    on_event: Callable[[StreamEvent], None]
    since: float
    unfinished: int
    """samples that have not finished"""
    sent: dict[int, int] = field(default_factory=dict)
    """characters sent of each sample"""
    has_tokens: bool = False
    cancelled: bool = False


class Scheduler:
    """A model, its thread, and the requests that run or wait.

    max_batch_size: completions decoded at once. max_queue: completions that may wait beyond those. make_batch: returns
    an empty batch of another engine than ours.
    """

    def __init__(
        self,
        decoder: LanguageModel,
        decode: Decode,
        eos_id: EosIds,
        runtime: Runtime,
        max_batch_size: int = 32,
        max_queue: int = 64,
        make_batch: Callable[[], Batch] | None = None,
    ):
        self.make_batch = make_batch
        self.decoder, self.decode, self.eos_id, self.runtime = decoder, decode, eos_id, runtime
        self.max_batch_size, self.max_queue = max_batch_size, max_queue
        self.counts = Counts()
        self.numbers = itertools.count()
        self.changed = threading.Condition()
        self.arrived: list[ActiveRequest] = []
        self.running: dict[int, ActiveRequest] = {}
        self.closing = False
        self.thread = threading.Thread(target=self.run, name="model", daemon=True)
        self.thread.start()

    def submit(self, request: GenerationRequest, on_event: Callable[[StreamEvent], None]) -> ActiveRequest:
        """Queue a request. `on_event` is called in the model's thread and must return at once.

        Raises InputError for a prompt without room for a completion and for more samples than the batch has rows, and
        QueueFull where too many completions wait.
        """
        self.token_limit(request)
        if not 1 <= request.samples <= self.max_batch_size:
            raise InputError(f"{request.samples} answers to one prompt", how=f"ask for 1 to {self.max_batch_size}")
        with self.changed:
            if self.closing:
                raise QueueFull(5)
            if self.pending + request.samples > self.max_batch_size + self.max_queue:
                self.counts.refused += 1
                raise QueueFull(self.retry_after())
            active = ActiveRequest(next(self.numbers), request, on_event, time.monotonic(), request.samples)
            self.counts.requests += 1
            self.arrived.append(active)
            self.changed.notify()
        return active

    def cancel(self, active: ActiveRequest) -> None:
        """Stop a request and free its rows; it gets no more events. Does nothing to a finished request."""
        with self.changed:
            active.cancelled = True
            self.changed.notify()

    def close(self) -> None:
        """Stop the thread; unfinished requests fail."""
        with self.changed:
            self.closing = True
            self.changed.notify()
        self.thread.join(30)

    @property
    def pending(self) -> int:
        """Number of completions that run or wait."""
        return sum(active.unfinished for active in [*self.arrived, *self.running.values()] if not active.cancelled)

    def retry_after(self) -> int:
        """Return the seconds until a row is likely to be free, by the mean time of a completion."""
        mean = self.counts.answer_seconds / max(1, self.counts.answers)
        return max(1, min(60, math.ceil(mean * self.pending / self.max_batch_size)))

    def run(self) -> None:
        """Run the model's thread: admit requests, decode a token of every row, emit events, until closed."""
        with evaluating(self.decoder), torch.no_grad(), self.runtime.autocast():
            batch = self.empty_batch()
            while self.admit(batch):
                try:
                    finished = batch.step()
                except Exception:
                    traceback.print_exc()
                    self.fail("the model failed; the server's log says why")
                    batch = self.empty_batch()
                    continue
                self.emit_new(batch, finished)
        self.fail("the server is closing")

    def empty_batch(self) -> Batch:
        """Return a batch without rows. Sampling settings and stop strings are those of each request."""
        if self.make_batch is not None:
            return self.make_batch()
        return ContinuousBatch(
            self.decoder,
            [],
            Sampling(),
            self.eos_id,
            decode=self.decode,
            max_batch_size=self.max_batch_size,
            follow=True,
            length=self.decoder.config.context_length,
        )

    def admit(self, batch: Batch) -> bool:
        """Remove cancelled requests from the batch and add arrived ones. Blocks while idle; False once closing."""
        with self.changed:
            while True:
                for active in [active for active in self.running.values() if active.cancelled]:
                    batch.cancel(active.number)
                    del self.running[active.number]
                    self.counts.cancelled += 1
                for active in self.arrived:
                    if active.cancelled:
                        self.counts.cancelled += 1
                        continue
                    self.running[active.number] = active
                    batch.add(self.sample_requests(active))
                self.arrived.clear()
                if self.closing or self.running:
                    return not self.closing
                self.changed.wait()

    def token_limit(self, request: GenerationRequest) -> int:
        """Return the number of tokens to sample; with `prompt_only` it is 1, and the token is dropped."""
        context = self.decoder.config.context_length
        if request.prompt_only:
            spare = self.make_batch is None  # the token that is dropped may be beyond the context
            return completion_limit(request.ids, 1, context + spare, "the prompt")
        return completion_limit(request.ids, request.sampling.max_new_tokens, context, "the prompt")

    def sample_requests(self, active: ActiveRequest) -> list[SampleRequest]:
        """Return the engine's requests, one a sample."""
        request = active.request
        sample = SampleRequest(
            active.number,
            0,
            request.ids,
            self.token_limit(request),
            0,
            request.sampling,
            request.stop,
            request.top_logprobs,
            request.prompt_logprobs,
        )
        return [replace(sample, sample=k, seed=mix(request.seed, k)) for k in range(request.samples)]

    def emit_new(self, batch: Batch, finished: Sequence[tuple[SampleRequest, Completion]]) -> None:
        """Emit the new text of every running row, and the finished completions."""
        for row in batch.running.values():
            sample, detokenizer = row.request, row.detokenizer
            assert detokenizer is not None
            active = self.running[sample.prompt]
            sent = active.sent.get(sample.sample, 0)
            if detokenizer.ids and not active.has_tokens:
                self.count_first_token(active)
            text = detokenizer.text[sent : detokenizer.stable_length(active.request.stop)]
            if text:
                active.sent[sample.sample] = sent + len(text)
                self.emit(active, Chunk(sample.sample, text))
        for sample, completion in finished:
            self.finish(self.running[sample.prompt], sample, completion)

    def count_first_token(self, active: ActiveRequest) -> None:
        active.has_tokens = True
        self.counts.first_tokens += 1
        self.counts.first_token_seconds += time.monotonic() - active.since

    def finish(self, active: ActiveRequest, sample: SampleRequest, completion: Completion) -> None:
        """Emit a completion; the request leaves the batch with its last one."""
        if not active.has_tokens:
            self.count_first_token(active)
        if active.request.prompt_only:
            completion = Completion([], [], "length", "", [], completion.prompt_logprobs)
        text = completion.text or ""
        with self.changed:
            active.unfinished -= 1
            self.counts.answers += 1
            self.counts.completion_tokens += len(completion.ids)
            self.counts.answer_seconds += time.monotonic() - active.since
            if not active.unfinished:
                self.counts.prompt_tokens += len(active.request.ids)
                del self.running[active.number]
        self.emit(active, Finished(sample.sample, text[active.sent.get(sample.sample, 0) :], completion))

    def fail(self, reason: str) -> None:
        """Fail every request that runs or waits."""
        with self.changed:
            failed = [*self.running.values(), *self.arrived]
            self.running.clear()
            self.arrived.clear()
            self.counts.failed += len(failed)
        for active in failed:
            self.emit(active, Failed(reason))

    def emit(self, active: ActiveRequest, event: StreamEvent) -> None:
        """Call the request's `on_event`, unless it is cancelled; a closed event loop cancels it."""
        if active.cancelled:
            return
        try:
            active.on_event(event)
        except RuntimeError:  # its event loop is closed
            active.cancelled = True
