"""Many people's requests to one model, answered together: continuous batching behind a short queue.

    submit -> (queue, bounded) -> rows of the engine, beside those that run -> pieces, one by one -> Ended

One thread owns the model. Requests join the running rows as soon as there is room, each with its own settings, and
leave them when they end or are taken back. What a request is answered depends on its prompt, settings and seed, and not
on who its neighbours are. Where the queue is full, `submit` raises Busy, at once: nothing grows.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from amenable.errors import InputError
from amenable.generation.continuous_batch import ContinuousBatch
from amenable.generation.detokenizer import Decode
from amenable.generation.engine import evaluating
from amenable.generation.requests import Completion, EosIds, SampleRequest, completion_limit
from amenable.generation.sampling import Sampling
from amenable.models.decoder import Decoder
from amenable.seeds import mix
from amenable.train.runtime import Runtime


@dataclass(frozen=True)
class Asked:
    """A request: `samples` answers to one prompt; sample j draws from (seed, j)."""

    ids: Sequence[int]
    sampling: Sampling
    seed: int
    samples: int = 1
    stop: tuple[str, ...] = ()
    likeliest: int = 0
    """how many of the most probable tokens are wanted at each place"""
    prompt_logprobs: bool = False
    """log-probabilities of the prompt's tokens are wanted too"""
    prompt_only: bool = False
    """nothing is wanted but those of the prompt, which may then fill the context"""


@dataclass(frozen=True)
class Piece:
    """More text of answer `sample`. Pieces never hold half a character, nor a part of a stop string."""

    sample: int
    text: str


@dataclass(frozen=True)
class Ended:
    """An answer is complete; `rest` is the text that no piece has brought yet."""

    sample: int
    rest: str
    completion: Completion


@dataclass(frozen=True)
class Failed:
    """There will be no more of this request."""

    why: str


News = Piece | Ended | Failed


class Busy(Exception):
    """The queue is full; `seconds` is when to ask again."""

    def __init__(self, seconds: int):
        super().__init__(f"the server is busy; ask again in {seconds} s")
        self.seconds = seconds


@dataclass
class Counts:
    """What was done since the start; times in seconds."""

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
class Request:
    """A request under way. All but `cancelled` is the model's thread's alone."""

    number: int
    asked: Asked
    tell: Callable[[News], None]
    since: float
    left: int
    shown: dict[int, int] = field(default_factory=dict)
    begun: bool = False
    cancelled: bool = False


class Scheduler:
    """A model, its thread, and those who wait for it.

    rows: answers computed at once. queue: answers that may wait beyond those.
    """

    def __init__(
        self,
        decoder: Decoder,
        decode: Decode,
        eos_id: EosIds,
        runtime: Runtime,
        rows: int = 32,
        queue: int = 64,
    ):
        self.decoder, self.decode, self.eos_id, self.runtime = decoder, decode, eos_id, runtime
        self.rows, self.queue = rows, queue
        self.counts = Counts()
        self.numbers = itertools.count()
        self.changed = threading.Condition()
        self.arrived: list[Request] = []
        self.running: dict[int, Request] = {}
        self.closing = False
        self.thread = threading.Thread(target=self.work, name="model", daemon=True)
        self.thread.start()

    def submit(self, asked: Asked, tell: Callable[[News], None]) -> Request:
        """Begin to answer. `tell` is called in the model's thread and must return at once.

        InputError for a prompt without room for an answer, or for more answers than the model computes at once; Busy
        where too many answers wait.
        """
        self.limit(asked)
        if not 1 <= asked.samples <= self.rows:
            raise InputError(f"{asked.samples} answers to one prompt", how=f"ask for 1 to {self.rows}")
        with self.changed:
            if self.closing:
                raise Busy(5)
            if self.pending + asked.samples > self.rows + self.queue:
                self.counts.refused += 1
                raise Busy(self.patience())
            request = Request(next(self.numbers), asked, tell, time.monotonic(), asked.samples)
            self.counts.requests += 1
            self.arrived.append(request)
            self.changed.notify()
        return request

    def cancel(self, request: Request) -> None:
        """Stop a request and free its rows. Nothing is told of it any more. Harmless where it has ended."""
        with self.changed:
            request.cancelled = True
            self.changed.notify()

    def close(self) -> None:
        """Stop the thread; what is under way fails."""
        with self.changed:
            self.closing = True
            self.changed.notify()
        self.thread.join(30)

    @property
    def pending(self) -> int:
        """Answers that wait or run."""
        return sum(request.left for request in [*self.arrived, *self.running.values()] if not request.cancelled)

    def patience(self) -> int:
        """Seconds until a row is likely to be free, of how long answers took."""
        mean = self.counts.answer_seconds / max(1, self.counts.answers)
        return max(1, min(60, math.ceil(mean * self.pending / self.rows)))

    def work(self) -> None:
        """The thread: take what came, advance all rows by a token, tell; until the end."""
        with evaluating(self.decoder), torch.no_grad(), self.runtime.autocast():
            slots = self.open()
            while self.take(slots):
                try:
                    ended = slots.step()
                except Exception:
                    traceback.print_exc()
                    self.fail("the model failed; the server's log says why")
                    slots = self.open()
                    continue
                self.deliver(slots, ended)
        self.fail("the server is closing")

    def open(self) -> ContinuousBatch:
        """Empty rows. Sampling and stops are those of each job."""
        context = self.decoder.config.context_length
        return ContinuousBatch(
            self.decoder,
            [],
            Sampling(),
            self.eos_id,
            decode=self.decode,
            max_batch_size=self.rows,
            follow=True,
            length=context,
        )

    def take(self, slots: ContinuousBatch) -> bool:
        """Let go of the cancelled, put the new ones in; wait while there is nothing to do. False at the end."""
        with self.changed:
            while True:
                for request in [request for request in self.running.values() if request.cancelled]:
                    slots.cancel(request.number)
                    del self.running[request.number]
                    self.counts.cancelled += 1
                for request in self.arrived:
                    if request.cancelled:
                        self.counts.cancelled += 1
                        continue
                    self.running[request.number] = request
                    slots.add(self.jobs(request))
                self.arrived.clear()
                if self.closing or self.running:
                    return not self.closing
                self.changed.wait()

    def limit(self, asked: Asked) -> int:
        """The number of tokens that the engine draws: 1, to be dropped, where nothing is wanted but the prompt's."""
        context = self.decoder.config.context_length
        if asked.prompt_only:
            return completion_limit(asked.ids, 1, context + 1, "the prompt")
        return completion_limit(asked.ids, asked.sampling.max_new_tokens, context, "the prompt")

    def jobs(self, request: Request) -> list[SampleRequest]:
        """The answers of a request, for the engine."""
        asked, limit = request.asked, self.limit(request.asked)
        job = SampleRequest(
            request.number, 0, asked.ids, limit, 0, asked.sampling, asked.stop, asked.likeliest, asked.prompt_logprobs
        )
        return [replace(job, sample=k, seed=mix(asked.seed, k)) for k in range(asked.samples)]

    def deliver(self, slots: ContinuousBatch, ended: Sequence[tuple[SampleRequest, Completion]]) -> None:
        """Tell what is new."""
        for running in slots.running.values():
            job, detokenizer = running.request, running.detokenizer
            assert detokenizer is not None
            request = self.running[job.prompt]
            shown = request.shown.get(job.sample, 0)
            if detokenizer.ids and not request.begun:
                self.begin(request)
            text = detokenizer.text[shown : detokenizer.stable_length(request.asked.stop)]
            if text:
                request.shown[job.sample] = shown + len(text)
                self.tell(request, Piece(job.sample, text))
        for job, completion in ended:
            self.finish(self.running[job.prompt], job, completion)

    def begin(self, request: Request) -> None:
        request.begun = True
        self.counts.first_tokens += 1
        self.counts.first_token_seconds += time.monotonic() - request.since

    def finish(self, request: Request, job: SampleRequest, completion: Completion) -> None:
        """An answer is complete, and with the last the request."""
        if not request.begun:
            self.begin(request)
        if request.asked.prompt_only:
            completion = Completion([], [], "length", "", [], completion.prompt_logprobs)
        text = completion.text or ""
        with self.changed:
            request.left -= 1
            self.counts.answers += 1
            self.counts.completion_tokens += len(completion.ids)
            self.counts.answer_seconds += time.monotonic() - request.since
            if not request.left:
                self.counts.prompt_tokens += len(request.asked.ids)
                del self.running[request.number]
        self.tell(request, Ended(job.sample, text[request.shown.get(job.sample, 0) :], completion))

    def fail(self, why: str) -> None:
        """Give up everything that is under way."""
        with self.changed:
            failed = [*self.running.values(), *self.arrived]
            self.running.clear()
            self.arrived.clear()
            self.counts.failed += len(failed)
        for request in failed:
            self.tell(request, Failed(why))

    def tell(self, request: Request, news: News) -> None:
        """Tell, unless nobody listens; a listener that has gone is no reason to stop."""
        if request.cancelled:
            return
        try:
            request.tell(news)
        except RuntimeError:  # its event loop is closed
            request.cancelled = True
