"""The routes of `serve`: OpenAI's for chat and completions, scores of reward models, figures, and the chat page.

    POST /v1/chat/completions, /v1/completions    streamed (server-sent events) or whole;  GET /v1/models
    POST /score                                   a reward model's scores of answers to a prompt
    POST /feedback/thumb, /feedback/ranking       what people say of answers; on disk when it is acknowledged
    GET  /health, /metrics, / (the page)

A field that is not known here is refused and never ignored. Errors are OpenAI's objects. Text is text everywhere: no
path or name of a request is ever opened as a file, and what a model wrote is markup to nobody.

(Annotations are evaluated here, not kept as text: FastAPI reads those of the routes.)
"""

import asyncio
import contextlib
import json
import math
import secrets
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from amenable.data.types import Message, Ranking, fault
from amenable.errors import InputError
from amenable.feedback.store import Store, payload_of
from amenable.generation.engine import Completion, mix
from amenable.generation.sampling import Sampling
from amenable.serve import security
from amenable.serve.chat import Speaker
from amenable.serve.scheduler import Asked, Busy, Ended, Failed, News, Piece, Scheduler
from amenable.text.chat import PLAIN_STOP, render_prompt
from amenable.text.tokenizer import Tokenizer

PAGES = Path(__file__).parent / "pages"
FILES = {
    "/": ("chat.html", "text/html"),
    "/chat.css": ("chat.css", "text/css"),
    "/chat.js": ("chat.js", "text/javascript"),
    "/chat-text.js": ("chat-text.js", "text/javascript"),
    "/chat-rank.js": ("chat-rank.js", "text/javascript"),
}
OPEN_PATHS = frozenset({*FILES, "/favicon.ico", "/health", "/login"})
"""what is shown to those without a token"""
MOST_ANSWERS = 16
Score = Callable[[Sequence[Message], Sequence[str], Sequence[bool]], Sequence[float]]
"""(prompt, completions, ended) -> scores; slow, and one at a time"""


@dataclass
class Served:
    """A model that answers."""

    name: str
    speaker: Speaker
    scheduler: Scheduler
    max_new_tokens: int = 128
    """of an answer whose request names no limit"""

    @property
    def tokenizer(self) -> Tokenizer:
        return self.speaker.tokenizer

    @property
    def context(self) -> int:
        return self.speaker.decoder.config.context


@dataclass
class Scoring:
    """A reward model, and how many requests may wait for it."""

    score: Score
    lock: threading.Lock = field(default_factory=threading.Lock)
    seats: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(8))


@dataclass
class House:
    """Everything that the routes need. whose: the name of who holds a token, None where it is nobody's."""

    models: dict[str, Served]
    scorers: dict[str, Scoring]
    store: Store | None
    whose: Callable[[str | None], str | None]
    secure: bool = False
    started: float = field(default_factory=time.time)


class Refused(Exception):
    """An answer that is an error, as OpenAI's clients read it."""

    def __init__(self, status: int, why: str, param: str | None = None, code: str | None = None, wait: int = 0):
        super().__init__(why)
        self.status, self.why, self.param, self.code, self.wait = status, why, param, code, wait


class Body(BaseModel):
    """What a request says: nothing beyond its fields, no number that is not one."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


Text = Annotated[str, Field(max_length=200_000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Stop = Annotated[str, Field(min_length=1, max_length=200)]


class Part(Body):
    type: Literal["text"]
    text: Text


class Turn(Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[Part], Field(min_length=1, max_length=100)]

    @property
    def message(self) -> Message:
        said = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message("system" if self.role == "developer" else self.role, said)


Turns = Annotated[list[Turn], Field(min_length=1, max_length=1000)]


class StreamOptions(Body):
    include_usage: bool = False


class Drawn(Body):
    """How answers are drawn: what chat and completions have in common."""

    model: Name
    max_tokens: Annotated[int, Field(ge=1, le=10**6)] | None = None
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=10**6)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    user: Annotated[str, Field(max_length=200)] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def sampling(self, max_tokens: int) -> Sampling:
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=self.top_k,
            top_p=1.0 if self.top_p is None else self.top_p,
            min_p=self.min_p,
            max_new_tokens=max_tokens,
        )


class ChatBody(Drawn):
    messages: Turns
    max_completion_tokens: Annotated[int, Field(ge=1, le=10**6)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    truncation: Literal["auto", "disabled"] = "disabled"
    """auto: the oldest turns are dropped where all do not fit; how many is said in x-dropped-messages"""


Ids = Annotated[list[Annotated[int, Field(ge=0, le=2**31)]], Field(min_length=1, max_length=10**6)]


class CompletionBody(Drawn):
    prompt: Text | Ids | Annotated[list[Text], Field(min_length=1, max_length=MOST_ANSWERS)]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None


class ScoreBody(Body):
    model: Name
    messages: Turns
    completions: Annotated[list[Text], Field(min_length=1, max_length=64)]
    ended: Annotated[list[bool], Field(max_length=64)] | None = None
    """whether each answer ended by itself; all did where this is absent"""


Token = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")]


class LoginBody(Body):
    token: Token


class ThumbBody(Body):
    id: Token
    """made by the page; the same one twice is kept once"""
    model: Name
    messages: Turns
    """the conversation, ending with the answer"""
    up: bool
    sampling: dict[str, float | int | None] = {}


class RankingBody(Body):
    id: Token
    messages: Turns
    completions: Annotated[list[Text], Field(min_length=2, max_length=9)]
    """in the order in which they were shown"""
    ranking: Annotated[list[Annotated[int, Field(ge=1, le=9)]], Field(min_length=2, max_length=9)]
    """1 the best, ties share a rank"""
    models: Annotated[list[Name], Field(max_length=9)] = []
    sampling: dict[str, float | int | None] = {}
    seconds: Annotated[float, Field(ge=0, le=1e6)] = 0.0


class Json(JSONResponse):
    """JSON in ASCII: half a surrogate pair, which a request may hold, is no UTF-8."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


def make_app(house: House) -> FastAPI:
    """The application, to be put behind a `security.Guard`."""
    app = FastAPI(title="amenable", docs_url=None, redoc_url=None, default_response_class=Json)
    add_errors(app)
    add_pages(app)
    add_models(app, house)
    add_feedback(app, house)
    return app


def add_errors(app: FastAPI) -> None:
    """Whatever goes wrong is told as OpenAI's clients expect it."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        headers = {"retry-after": str(error.wait)} if error.wait else None
        return Json(error_object(error.status, error.why, error.param, error.code), error.status, headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        param = ".".join(str(place) for place in first["loc"][1:] if not is_variant(place)) or None
        why = "the body is not JSON" if first["type"] == "json_invalid" else str(first["msg"])
        return Json(error_object(400, f"{param}: {why}" if param else why, param), 400)

    @app.exception_handler(InputError)
    async def impossible(_: Request, error: InputError) -> Response:
        return Json(error_object(400, str(error)), 400)

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        return Json(error_object(error.status_code, str(error.detail)), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> Response:
        return Json(error_object(500, "the server failed; its log says why"), 500)


def is_variant(place: Any) -> bool:
    """Whether a part of an error's place is the name of one of a field's types, which no client knows."""
    return isinstance(place, str) and ("[" in place or place in ("str", "Part"))


def error_object(status: int, why: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    names = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = "server_error" if status >= 500 else names.get(status, "invalid_request_error")
    return {"error": {"message": why, "type": kind, "param": param, "code": code}}


def said(refusal: security.Refusal) -> dict[str, Any]:
    """A refusal of the guard in the same form."""
    return error_object(refusal.status, refusal.why)


def add_pages(app: FastAPI) -> None:
    """The page's own few files, read once."""
    for path, (name, kind) in FILES.items():
        content = (PAGES / name).read_bytes()

        app.add_api_route(path, sends(content, kind), include_in_schema=False)
    app.add_api_route("/favicon.ico", lambda: Response(status_code=204), include_in_schema=False)


def sends(content: bytes, kind: str) -> Callable[[], Response]:
    """A route that answers always the same."""
    return lambda: Response(content, media_type=kind)


def add_models(app: FastAPI, house: House) -> None:
    """What the models do, and how they do."""

    @app.get("/health")
    async def health() -> dict[str, Any]:
        alive = all(served.scheduler.thread.is_alive() for served in house.models.values())
        if not alive:
            raise Refused(503, "a model has stopped")
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(prometheus(house), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [*map(about(house), [*house.models, *house.scorers])]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        if name not in house.models and name not in house.scorers:
            raise unknown(name)
        return about(house)(name)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatBody, request: Request) -> Response:
        served = find(house.models, body.model)
        messages = asking(body.messages)
        limit = body.max_completion_tokens or body.max_tokens or served.max_new_tokens
        ids, dropped = prompt_of(served, messages, limit, body.truncation == "auto")
        stops = (*body.stops, *(PLAIN_STOP if served.speaker.is_plain else ()))
        likeliest = body.top_logprobs or 0 if body.logprobs else 0
        asked = Asked(ids, body.sampling(limit), seed_of(body), body.n or 1, stops, likeliest)
        answers = Answers(served, [asked], body, ChatForm(bool(body.logprobs)))
        return await answers.response(request, {"x-dropped-messages": str(dropped)})

    @app.post("/v1/completions")
    async def completions(body: CompletionBody, request: Request) -> Response:
        served = find(house.models, body.model)
        limit, seed = body.max_tokens or served.max_new_tokens, seed_of(body)
        asked = [
            Asked(ids, body.sampling(limit), mix(seed, i) if i else seed, body.n or 1, body.stops, body.logprobs or 0)
            for i, ids in enumerate(prompts_of(served, body.prompt))
        ]
        return await Answers(served, asked, body, TextForm(body.logprobs is not None)).response(request, {})

    @app.post("/score")
    def score(body: ScoreBody) -> dict[str, Any]:
        scoring = find(house.scorers, body.model)
        messages = asking(body.messages)
        ended = body.ended or [True] * len(body.completions)
        if len(ended) != len(body.completions):
            raise Refused(400, f"{len(ended)} for {len(body.completions)} completions", "ended")
        if not scoring.seats.acquire(blocking=False):
            raise Refused(429, "the server is busy", code="overloaded", wait=2)
        try:
            with scoring.lock:
                scores = scoring.score(messages, body.completions, ended)
        finally:
            scoring.seats.release()
        rows = [{"object": "score", "index": i, "score": value} for i, value in enumerate(scores)]
        return {"object": "list", "model": body.model, "data": rows}


def about(house: House) -> Callable[[str], dict[str, Any]]:
    """What is told of a model by its name."""

    def told(name: str) -> dict[str, Any]:
        facts = {"id": name, "object": "model", "created": int(house.started), "owned_by": "amenable"}
        if name in house.scorers:
            return {**facts, "kind": "reward"}
        served = house.models[name]
        kind = "completion" if served.speaker.is_plain else "chat"
        return {**facts, "kind": kind, "context": served.context}

    return told


def find(known: Mapping[str, Any], name: str) -> Any:
    if name not in known:
        raise unknown(name)
    return known[name]


def unknown(name: str) -> Refused:
    return Refused(404, f"there is no such model here: {name:.100}", "model", "model_not_found")


def asking(turns: Sequence[Turn]) -> list[Message]:
    """A conversation that waits for the assistant."""
    messages = [turn.message for turn in turns]
    wrong = fault(messages) or (None if messages[-1].role == "user" else "the last message is not a user's")
    if wrong:
        raise Refused(400, wrong, "messages")
    return messages


def prompt_of(served: Served, messages: list[Message], limit: int, drop: bool) -> tuple[list[int], int]:
    """A conversation's ids, and how many of its oldest messages were dropped so that an answer has room."""
    if drop:
        system = [message for message in messages[:-1] if message.role == "system"]
        turns = [message for message in messages[:-1] if message.role != "system"]
        speaker = Speaker(served.name, served.speaker.decoder, served.tokenizer, turns)
        return speaker.fit(system, messages[-1], limit)
    return fitting(served, render_prompt(served.tokenizer, messages), "messages"), 0


def prompts_of(served: Served, prompt: str | list[int] | list[str]) -> list[list[int]]:
    """The ids of one text, of several, or of what are ids already."""
    if isinstance(prompt, list) and isinstance(prompt[0], int):
        return [fitting(served, [int(token) for token in prompt], "prompt")]
    texts = [prompt] if isinstance(prompt, str) else [str(text) for text in prompt]
    tokenizer = served.tokenizer
    return [fitting(served, [tokenizer.bos_id, *tokenizer.encode(text)], "prompt") for text in texts]


def fitting(served: Served, ids: list[int], param: str) -> list[int]:
    """Ids that the model knows, and no more of them than it reads."""
    if len(ids) >= served.context:
        why = f"{len(ids)} tokens leave no room for an answer in a context of {served.context}"
        raise Refused(400, why, param, "context_length_exceeded")
    if max(ids) >= served.speaker.decoder.config.vocab_size:
        raise Refused(400, f"token {max(ids)} is unknown to the model", param)
    return ids


def seed_of(body: Drawn) -> int:
    """The request's seed, or a new one."""
    return secrets.randbits(62) if body.seed is None else body.seed


@dataclass(frozen=True)
class ChatForm:
    """A turn of a conversation."""

    wants_logprobs: bool
    object = "chat.completion"
    streamed = "chat.completion.chunk"
    prefix = "chatcmpl"

    def choice(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def opening(self) -> dict[str, Any] | None:
        return {"delta": {"role": "assistant", "content": ""}}

    def piece(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}

    def logprobs(self, tokenizer: Tokenizer, completion: Completion) -> dict[str, Any]:
        rows = []
        for token, logp, best in by_token(completion):
            near = [word(tokenizer, other, value) for other, value in best]
            rows.append({**word(tokenizer, token, logp), "top_logprobs": near})
        return {"content": rows, "refusal": None}


@dataclass(frozen=True)
class TextForm:
    """The continuation of a text."""

    wants_logprobs: bool
    object = "text_completion"
    streamed = "text_completion"
    prefix = "cmpl"

    def choice(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def opening(self) -> dict[str, Any] | None:
        return None

    def piece(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def logprobs(self, tokenizer: Tokenizer, completion: Completion) -> dict[str, Any]:
        rows = by_token(completion)
        words = [tokenizer.decode([token], keep_control=True) for token, _, _ in rows]
        offsets = [sum(map(len, words[:i])) for i in range(len(words))]
        near = [{tokenizer.decode([other], keep_control=True): value for other, value in best} for _, _, best in rows]
        logps = [logp for _, logp, _ in rows]
        return {"tokens": words, "token_logprobs": logps, "top_logprobs": near, "text_offset": offsets}


def by_token(completion: Completion) -> list[tuple[int, float, list[tuple[int, float]]]]:
    """(id, log-probability, the likeliest) of an answer's tokens, without the EOS."""
    count = len(completion.ids) - completion.ended
    likeliest = completion.likeliest or [[]] * count
    return list(zip(completion.ids[:count], completion.logps[:count], likeliest))


def word(tokenizer: Tokenizer, token: int, logp: float) -> dict[str, Any]:
    text = tokenizer.decode([token], keep_control=True)
    return {"token": text, "logprob": logp, "bytes": list(text.encode())}


class Answers:
    """The answers to one request, of one or more prompts: sent piece by piece or whole."""

    def __init__(self, served: Served, asked: Sequence[Asked], body: Drawn, form: ChatForm | TextForm):
        self.served, self.asked, self.body, self.form = served, asked, body, form
        self.id = f"{form.prefix}-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.count = sum(one.samples for one in asked)
        self.used = 0
        # a transcript's words begin with the space after "Assistant:"
        self.trimmed = served.speaker.is_plain and isinstance(form, ChatForm)
        self.begun: set[int] = set()

    async def response(self, request: Request, headers: dict[str, str]) -> Response:
        """Submit, and answer in the way that was asked for. Refused where the queue is full."""
        news = self.news()
        try:
            first = await anext(news)
        except Busy as busy:
            raise Refused(429, str(busy), code="overloaded", wait=busy.seconds) from None
        if self.body.stream:
            return StreamingResponse(self.events(first, news), media_type="text/event-stream", headers=headers)
        whole = asyncio.ensure_future(self.whole(first, news))
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
            await news.aclose()

    async def news(self) -> AsyncGenerator[tuple[int, News], None]:
        """(choice, news) as it comes. Where nobody asks on, the answers are taken back."""
        loop, waiting, scheduler = asyncio.get_running_loop(), asyncio.Queue[tuple[int, News]](), self.served.scheduler
        requests = []
        try:
            first = 0
            for asked in self.asked:

                def tell(news: News, first: int = first) -> None:
                    sample = 0 if isinstance(news, Failed) else news.sample
                    loop.call_soon_threadsafe(waiting.put_nowait, (first + sample, news))

                requests.append(scheduler.submit(asked, tell))
                first += asked.samples
            left = self.count
            while left:
                choice, news = await waiting.get()
                left -= isinstance(news, Ended)
                yield choice, news
                if isinstance(news, Failed):
                    return
        finally:
            for request in requests:
                scheduler.cancel(request)

    async def whole(self, first: tuple[int, News], news: AsyncIterator[tuple[int, News]]) -> dict[str, Any]:
        """All answers at once."""
        texts: dict[int, str] = dict.fromkeys(range(self.count), "")
        choices: dict[int, dict[str, Any]] = {}
        async for choice, new in chain(first, news):
            if isinstance(new, Failed):
                raise Refused(500, new.why)
            texts[choice] += self.text_of(choice, new)
            if isinstance(new, Ended):
                self.used += len(new.completion.ids)
                text = texts[choice].rstrip() if self.trimmed else texts[choice]
                choices[choice] = {"index": choice, **self.form.choice(text), **self.ending(new)}
        rows = [choices[choice] for choice in sorted(choices)]
        return {**self.head(self.form.object), "choices": rows, "usage": self.usage()}

    async def events(self, first: tuple[int, News], news: AsyncGenerator[tuple[int, News], None]) -> AsyncIterator[str]:
        """Server-sent events. Log-probabilities come with the last of each choice, since text is not sent by token."""
        wants_usage = self.body.stream_options is not None and self.body.stream_options.include_usage
        nothing = {"usage": None} if wants_usage else {}
        async with contextlib.aclosing(news):
            opening = self.form.opening()
            for choice in range(self.count if opening else 0):
                yield self.event(
                    [{"index": choice, **(opening or {}), "logprobs": None, "finish_reason": None}], nothing
                )
            async for choice, new in chain(first, news):
                if isinstance(new, Failed):
                    yield f"data: {json.dumps(error_object(500, new.why))}\n\n"
                    return
                text = self.text_of(choice, new)
                if isinstance(new, Ended):
                    self.used += len(new.completion.ids)
                    yield self.event([{"index": choice, **self.form.piece(text), **self.ending(new)}], nothing)
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

    def ending(self, ended: Ended) -> dict[str, Any]:
        """Why an answer ended, and its log-probabilities where they are wanted."""
        completion = ended.completion
        logprobs = self.form.logprobs(self.served.tokenizer, completion) if self.form.wants_logprobs else None
        return {"logprobs": logprobs, "finish_reason": "length" if completion.stopped_by == "length" else "stop"}

    def event(self, choices: list[dict[str, Any]], more: dict[str, Any]) -> str:
        return f"data: {json.dumps({**self.head(self.form.streamed), 'choices': choices, **more})}\n\n"

    def head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.served.name}

    def usage(self) -> dict[str, int]:
        prompt = sum(len(one.ids) for one in self.asked)
        return {"prompt_tokens": prompt, "completion_tokens": self.used, "total_tokens": prompt + self.used}


async def chain(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for one in rest:
        yield one


async def until_gone(request: Request) -> None:
    """Returns once the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def add_feedback(app: FastAPI, house: House) -> None:
    """What people say of answers. It is on disk when the page hears so, and the same thing said twice is kept once."""

    @app.post("/login")
    async def login(body: LoginBody) -> Response:
        if house.whose(body.token) is None:
            raise Refused(401, "this token is not known here")
        return Response(status_code=204, headers={"set-cookie": security.cookie(body.token, house.secure)})

    @app.post("/feedback/thumb")
    def thumb(body: ThumbBody, request: Request) -> dict[str, Any]:
        messages = [turn.message for turn in body.messages]
        wrong = fault(messages) or (None if messages[-1].role == "assistant" else "the last message is not an answer")
        if wrong:
            raise Refused(400, wrong, "messages")
        payload = {
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "up": body.up,
            "model": body.model,
            "sampling": body.sampling,
            "annotator": who(request),
            "id": body.id,
        }
        return keep("thumb", payload, body.id)

    @app.post("/feedback/ranking")
    def ranking(body: RankingBody, request: Request) -> dict[str, Any]:
        count = len(body.completions)
        if len(body.ranking) != count or (body.models and len(body.models) != count):
            raise Refused(400, f"{len(body.ranking)} ranks for {count} answers", "ranking")
        about = {"models": body.models, "sampling": body.sampling, "source": "serve"}
        prompt = tuple(asking(body.messages))
        ranks = tuple(float(rank) for rank in body.ranking)
        kept = Ranking(prompt, tuple(body.completions), ranks, f"serve-{body.id}", who(request), about)
        order = {"shown_order": list(range(count)), "seconds": body.seconds, "replaces": None}
        return keep("ranking", {**payload_of(kept), **order}, body.id)

    def who(request: Request) -> str:
        return house.whose(security.token_of(dict(request.headers))) or "?"

    def keep(kind: str, payload: dict[str, Any], once: str) -> dict[str, Any]:
        if house.store is None:
            raise Refused(404, "no feedback is kept here", code="no_store")
        event, new = house.store.append_once(kind, payload, time.time(), f"serve-{kind}-{payload['annotator']}-{once}")
        return {"event": event, "new": new}


def prometheus(house: House) -> str:
    """Figures in Prometheus' text format."""
    counters = {
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
        "answers_most": ("answers that may wait or run", lambda s: s.rows + s.queue),
    }
    lines = []
    for name, (meaning, value) in counters.items():
        kind = "counter" if name.endswith(("_total", "_sum", "_count")) else "gauge"
        lines += [f"# HELP amenable_{name} {meaning}", f"# TYPE amenable_{name} {kind}"]
        for model, served in house.models.items():
            number = value(served.scheduler)
            label = json.dumps(model, ensure_ascii=False)
            lines.append(f"amenable_{name}{{model={label}}} {number if math.isfinite(number) else 0}")
    return "\n".join(lines) + "\n"
