"""Completions of one HTTP request, from the model's thread to the client: streamed as server-sent events, or whole."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from amenable.errors import InputError
from amenable.serve.errors import APIError
from amenable.serve.openai.app_state import Choose, ServedModel
from amenable.serve.openai.errors import Json, error_object
from amenable.serve.openai.response_formats import ChatFormat, TextFormat
from amenable.serve.openai.scheduler import (
    ActiveRequest,
    Chunk,
    Failed,
    Finished,
    GenerationRequest,
    QueueFull,
    StreamEvent,
)
from amenable.serve.openai.schemas import SamplingRequest
from amenable.serve.security import Receive, Scope, Send


class CompletionResponse:
    """The completions of one or more prompts, as one HTTP response. A choice is one completion of one prompt."""

    def __init__(
        self,
        served: ServedModel,
        requests: Sequence[GenerationRequest],
        body: SamplingRequest,
        form: ChatFormat | TextFormat,
        continues: bool = False,
        best_of: int = 1,
        choose: Choose | None = None,
    ):
        self.served, self.requests, self.body, self.form = served, requests, body, form
        self.id = f"{form.prefix}-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.best_of, self.choose = best_of, choose
        self.prompts = [request.ids for request in requests for _ in range(request.samples // best_of)]
        """by choice"""
        self.completion_tokens = 0
        self.active: list[ActiveRequest] = []
        self.queue: asyncio.Queue[tuple[int, StreamEvent]] = asyncio.Queue()
        # a base model's completion begins with the space after "Assistant:", a continued message with its own
        self.trimmed = isinstance(form, ChatFormat) and not served.model.is_chat_model
        self.has_text: set[int] = set(range(len(self.prompts))) if continues else set()

    async def response(self, request: Request, headers: dict[str, str]) -> Response:
        """Submit the requests and return the response, streamed or whole. Raises APIError 429 where the queue is full.

        Unfinished requests are cancelled however the response ends, also where the client disconnects.
        """
        self.submit()
        if self.body.stream:
            return EventStream(self.server_sent_events(), self.cancel, headers)
        whole = asyncio.ensure_future(self.whole())
        gone = asyncio.ensure_future(wait_for_disconnect(request))
        try:
            await asyncio.wait({whole, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not whole.done():
                raise APIError(499, "the client has gone")
            return Json(whole.result(), headers=headers)
        finally:
            for task in (whole, gone):
                task.cancel()
            await asyncio.gather(whole, gone, return_exceptions=True)
            self.cancel()

    def submit(self) -> None:
        """Submit all requests; where one is refused, none."""
        loop, first = asyncio.get_running_loop(), 0
        count, limit = (
            len(self.prompts) * self.best_of,
            self.served.scheduler.max_batch_size + self.served.scheduler.max_queue,
        )
        if count > limit:
            message = f"{count} answers at once; ask for at most {limit}, of all prompts together"
            raise APIError(400, message, "n" if len(self.requests) <= limit else "prompt")
        try:
            for request in self.requests:

                def on_event(event: StreamEvent, first: int = first) -> None:
                    sample = 0 if isinstance(event, Failed) else event.sample
                    loop.call_soon_threadsafe(self.queue.put_nowait, (first + sample // self.best_of, event))

                self.active.append(self.served.scheduler.submit(request, on_event))
                first += request.samples // self.best_of
        except QueueFull as full:
            self.cancel()
            raise APIError(429, str(full), code="overloaded", retry_after=full.retry_after) from None
        except InputError:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Cancel what has not finished."""
        for active in self.active:
            self.served.scheduler.cancel(active)

    async def events(self) -> AsyncIterator[tuple[int, StreamEvent]]:
        """Yield (choice, event) as they come, until all choices have finished or one has failed. A choice of several
        completions is one event, once all of them have finished."""
        unfinished, candidates = len(self.prompts), dict[int, list[Finished]]()
        while unfinished:
            choice, event = await self.queue.get()
            if self.choose is not None and not isinstance(event, Failed):
                if isinstance(event, Chunk):
                    continue
                group = candidates.setdefault(choice, [])
                group.append(event)
                if len(group) < self.best_of:
                    continue
                event = await run_in_threadpool(self.best, group)
            unfinished -= isinstance(event, Finished)
            yield choice, event
            if isinstance(event, Failed):
                return

    def best(self, group: list[Finished]) -> Finished | Failed:
        """Return the chosen completion with its whole text, and count the tokens of the others."""
        assert self.choose is not None
        group = sorted(group, key=lambda event: event.sample)
        try:
            chosen = group[self.choose([event.completion for event in group])]
        except InputError as error:
            return Failed(f"the reward that chooses an answer failed: {error.what}")
        self.completion_tokens += sum(len(each.completion.ids) for each in group if each is not chosen)
        return replace(chosen, tail=chosen.completion.text or "")

    async def whole(self) -> dict[str, Any]:
        """Return OpenAI's completion object once all choices have finished."""
        texts = [self.form.echoed_text(self.served.tokenizer, prompt) for prompt in self.prompts]
        choices: dict[int, dict[str, Any]] = {}
        async for choice, event in self.events():
            if isinstance(event, Failed):
                raise APIError(500, event.reason)
            texts[choice] += self.new_text(choice, event)
            if isinstance(event, Finished):
                self.completion_tokens += len(event.completion.ids)
                text = texts[choice].rstrip() if self.trimmed else texts[choice]
                choices[choice] = {"index": choice, **self.form.choice(text), **await self.ending(choice, event)}
        rows = [choices[choice] for choice in sorted(choices)]
        return {**self.head(self.form.object), "choices": rows, "usage": self.usage()}

    async def server_sent_events(self) -> AsyncIterator[str]:
        """Yield OpenAI's events. A choice's log-probabilities come with its last event: text is not sent by token."""
        wants_usage = self.body.stream_options is not None and self.body.stream_options.include_usage
        usage = {"usage": None} if wants_usage else {}
        unfinished = {"logprobs": None, "finish_reason": None}
        for choice, prompt in enumerate(self.prompts):
            opening = self.form.opening(self.served.tokenizer, prompt)
            if opening is not None:
                yield self.data([{"index": choice, **opening, **unfinished}], usage)
        async for choice, event in self.events():
            if isinstance(event, Failed):
                yield server_sent_event(error_object(500, event.reason))
                return
            text = self.new_text(choice, event)
            if isinstance(event, Finished):
                self.completion_tokens += len(event.completion.ids)
                ending = await self.ending(choice, event)
                yield self.data([{"index": choice, **self.form.chunk(text), **ending}], usage)
            elif text:
                yield self.data([{"index": choice, **self.form.chunk(text), **unfinished}], usage)
        if wants_usage:
            yield self.data([], {"usage": self.usage()})
        yield "data: [DONE]\n\n"

    def new_text(self, choice: int, event: Chunk | Finished) -> str:
        """Return the text that an event adds to a choice."""
        text = event.text if isinstance(event, Chunk) else event.tail
        if self.trimmed and choice not in self.has_text:
            text = text.lstrip()
        if text:
            self.has_text.add(choice)
        return text

    async def ending(self, choice: int, event: Finished) -> dict[str, Any]:
        """Return a choice's finish reason, and its log-probabilities where they are wanted."""
        completion, logprobs = event.completion, None
        if self.form.wants_logprobs:
            prompt = self.prompts[choice]
            logprobs = await run_in_threadpool(self.form.logprobs, self.served.tokenizer, completion, prompt)
        return {"logprobs": logprobs, "finish_reason": "length" if completion.finish_reason == "length" else "stop"}

    def data(self, choices: list[dict[str, Any]], more: dict[str, Any]) -> str:
        """Return OpenAI's chunk object as a server-sent event."""
        return server_sent_event({**self.head(self.form.streamed), "choices": choices, **more})

    def head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.served.name}

    def usage(self) -> dict[str, int]:
        """Return the numbers of tokens; a prompt counts once for all its samples."""
        prompt = sum(len(request.ids) for request in self.requests)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.completion_tokens,
            "total_tokens": prompt + self.completion_tokens,
        }


def server_sent_event(data: dict[str, Any]) -> str:
    """Return JSON as one event of a stream."""
    return f"data: {json.dumps(data)}\n\n"


class EventStream(StreamingResponse):
    """Server-sent events, sent as they come; `close` is called however the response ends."""

    def __init__(self, events: AsyncIterator[str], close: Callable[[], None], headers: dict[str, str]):
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self.close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.close()


async def wait_for_disconnect(request: Request) -> None:
    """Return once the client has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
