"""The answers to one request, from the model's thread to the client: streamed as server-sent events, or whole."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from amenable.errors import InputError
from amenable.serve.openai.app_state import Served
from amenable.serve.openai.errors import Json, Refused, error_object
from amenable.serve.openai.response_formats import ChatForm, TextForm
from amenable.serve.openai.scheduler import Asked, Busy, Ended, Failed, News, Piece
from amenable.serve.openai.scheduler import Request as Submitted
from amenable.serve.openai.schemas import Drawn
from amenable.serve.security import Receive, Scope, Send


class Answers:
    """The answers to one request, of one or more prompts: sent piece by piece or whole."""

    def __init__(
        self, served: Served, asked: Sequence[Asked], body: Drawn, form: ChatForm | TextForm, continues: bool = False
    ):
        self.served, self.asked, self.body, self.form = served, asked, body, form
        self.id = f"{form.prefix}-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.prompts = [request.ids for request in asked for _ in range(request.samples)]
        self.count = len(self.prompts)
        self.used = 0
        self.requests: list[Submitted] = []
        self.waiting: asyncio.Queue[tuple[int, News]] = asyncio.Queue()
        # a transcript's words begin with the space after "Assistant:", and an answer that is continued with its own
        self.trimmed = served.speaker.is_plain and isinstance(form, ChatForm)
        self.begun: set[int] = set(range(self.count)) if continues else set()

    async def response(self, request: Request, headers: dict[str, str]) -> Response:
        """Submit, and answer in the way that was asked for. Refused where the queue is full.

        However it ends, what is still under way is taken back, also of a client that went while it waited.
        """
        self.submit()
        if self.body.stream:
            return Streamed(self.events(), self.take_back, headers)
        whole = asyncio.ensure_future(self.whole())
        gone = asyncio.ensure_future(until_gone(request))
        try:
            await asyncio.wait({whole, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not whole.done():
                raise Refused(499, "the client has gone")
            return Json(whole.result(), headers=headers)
        finally:
            for task in (whole, gone):
                task.cancel()
            await asyncio.gather(whole, gone, return_exceptions=True)
            self.take_back()

    def submit(self) -> None:
        """Every prompt, or none."""
        loop, first = asyncio.get_running_loop(), 0
        most = self.served.scheduler.rows + self.served.scheduler.queue
        if self.count > most:
            why = f"{self.count} answers at once; ask for at most {most}, of all prompts together"
            raise Refused(400, why, "n" if len(self.asked) <= most else "prompt")
        try:
            for asked in self.asked:

                def tell(news: News, first: int = first) -> None:
                    sample = 0 if isinstance(news, Failed) else news.sample
                    loop.call_soon_threadsafe(self.waiting.put_nowait, (first + sample, news))

                self.requests.append(self.served.scheduler.submit(asked, tell))
                first += asked.samples
        except Busy as busy:
            self.take_back()
            raise Refused(429, str(busy), code="overloaded", wait=busy.seconds) from None
        except InputError:
            self.take_back()
            raise

    def take_back(self) -> None:
        """Free the rows of what has not ended."""
        for request in self.requests:
            self.served.scheduler.cancel(request)

    async def news(self) -> AsyncIterator[tuple[int, News]]:
        """(choice, news) as it comes; after a failure nothing more."""
        left = self.count
        while left:
            choice, news = await self.waiting.get()
            left -= isinstance(news, Ended)
            yield choice, news
            if isinstance(news, Failed):
                return

    async def whole(self) -> dict[str, Any]:
        """All answers at once."""
        texts = [self.form.echoed(self.served.tokenizer, prompt) for prompt in self.prompts]
        choices: dict[int, dict[str, Any]] = {}
        async for choice, new in self.news():
            if isinstance(new, Failed):
                raise Refused(500, new.why)
            texts[choice] += self.text_of(choice, new)
            if isinstance(new, Ended):
                self.used += len(new.completion.ids)
                text = texts[choice].rstrip() if self.trimmed else texts[choice]
                choices[choice] = {"index": choice, **self.form.choice(text), **await self.ending(choice, new)}
        rows = [choices[choice] for choice in sorted(choices)]
        return {**self.head(self.form.object), "choices": rows, "usage": self.usage()}

    async def events(self) -> AsyncIterator[str]:
        """Server-sent events. Log-probabilities come with the last of each choice, since text is not sent by token."""
        wants_usage = self.body.stream_options is not None and self.body.stream_options.include_usage
        nothing = {"usage": None} if wants_usage else {}
        for choice, prompt in enumerate(self.prompts):
            opening = self.form.opening(self.served.tokenizer, prompt)
            if opening is not None:
                yield self.event([{"index": choice, **opening, "logprobs": None, "finish_reason": None}], nothing)
        async for choice, new in self.news():
            if isinstance(new, Failed):
                yield f"data: {json.dumps(error_object(500, new.why))}\n\n"
                return
            text = self.text_of(choice, new)
            if isinstance(new, Ended):
                self.used += len(new.completion.ids)
                yield self.event(
                    [{"index": choice, **self.form.piece(text), **await self.ending(choice, new)}], nothing
                )
            elif text:
                row = {"index": choice, **self.form.piece(text), "logprobs": None, "finish_reason": None}
                yield self.event([row], nothing)
        if wants_usage:
            yield self.event([], {"usage": self.usage()})
        yield "data: [DONE]\n\n"

    def text_of(self, choice: int, news: Piece | Ended) -> str:
        """What an event adds to an answer's text."""
        text = news.text if isinstance(news, Piece) else news.rest
        if self.trimmed and choice not in self.begun:
            text = text.lstrip()
        if text:
            self.begun.add(choice)
        return text

    async def ending(self, choice: int, ended: Ended) -> dict[str, Any]:
        """Why an answer ended, and its log-probabilities where they are wanted."""
        completion, logprobs = ended.completion, None
        if self.form.wants_logprobs:
            prompt = self.prompts[choice]
            logprobs = await run_in_threadpool(self.form.logprobs, self.served.tokenizer, completion, prompt)
        return {"logprobs": logprobs, "finish_reason": "length" if completion.finish_reason == "length" else "stop"}

    def event(self, choices: list[dict[str, Any]], more: dict[str, Any]) -> str:
        return f"data: {json.dumps({**self.head(self.form.streamed), 'choices': choices, **more})}\n\n"

    def head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.served.name}

    def usage(self) -> dict[str, int]:
        prompt = sum(len(one.ids) for one in self.asked)
        return {"prompt_tokens": prompt, "completion_tokens": self.used, "total_tokens": prompt + self.used}


class Streamed(StreamingResponse):
    """Events that are sent as they come; `close` is called however that ends."""

    def __init__(self, events: AsyncIterator[str], close: Callable[[], None], headers: dict[str, str]):
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self.close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.close()


async def until_gone(request: Request) -> None:
    """Returns once the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
