"""The routes of `serve`: OpenAI's for chat and completions, scores of reward models, figures, and the chat page.

    POST /v1/chat/completions, /v1/completions    streamed (server-sent events) or whole;  GET /v1/models
    POST /score                                   a reward model's scores of answers to a prompt;  GET lists them
    POST /feedback/thumb, /feedback/ranking       what people say of answers; on disk when it is acknowledged
    GET  /health, /metrics, / (the page)

A field that asks for what is not here is refused by name, with advice; fields that have no part in an answer are named
in x-ignored-fields. Errors are OpenAI's objects. Text is text everywhere: no path or name of a request is ever opened
as a file, and what a model wrote is markup to nobody.

Chat goes on with a last message of the assistant where `continue_final_message`, or `prefix` in that message, is true.
Completions take texts or ids, one or several; `echo` with `logprobs` scores the prompt, and alone with `max_tokens` 0.

What a request says is in bodies, what a model reads of it in prompts, what is answered in answers and forms, what goes
wrong in refusals, what people say of answers in opinions.

(Annotations are evaluated here, not kept as text: FastAPI reads those of the routes.)
"""

import secrets
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from amenable.seeds import mix
from amenable.serve.openai.app_state import House, about, listing, model_of, prometheus, scorer_of
from amenable.serve.openai.errors import Json, Refused, add_errors
from amenable.serve.openai.feedback_routes import add_feedback
from amenable.serve.openai.prompt_building import asking, conversation_of, prompt_of, prompts_of
from amenable.serve.openai.response_formats import ChatForm, TextForm
from amenable.serve.openai.scheduler import Asked
from amenable.serve.openai.schemas import ChatBody, CompletionBody, Drawn, ScoreBody
from amenable.serve.openai.streaming import Answers
from amenable.serve.web_pages import add_static, static_routes
from amenable.text.chat import PLAIN_STOP

FILES = static_routes({"/": "chat.html"}, "chat.css", "chat.js", "chat-rank.js", "chat-store.js")
OPEN_PATHS = frozenset({*FILES, "/health", "/login"})
"""what is shown to those without a token"""


def make_app(house: House) -> FastAPI:
    """The application, to be put behind a `security.Guard`."""
    app = FastAPI(title="amenable", docs_url=None, redoc_url=None, default_response_class=Json)
    add_errors(app)
    add_static(app, FILES)
    add_models(app, house)
    add_feedback(app, house)
    return app


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
        return listing(house, house.models)

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        model_of(house, name)
        return about(house, name)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatBody, request: Request) -> Response:
        served = model_of(house, body.model)
        messages, prefix = conversation_of(body)
        limit = body.max_completion_tokens or body.max_tokens or served.max_new_tokens
        # in a thread: long texts keep nobody else waiting
        ids, dropped = await run_in_threadpool(prompt_of, served, messages, limit, body.truncation == "auto", prefix)
        stops = (*body.stops, *(PLAIN_STOP if served.speaker.is_plain else ()))
        asked = Asked(ids, body.sampling(limit), seed_of(body), body.n or 1, stops, body.top_logprobs or 0)
        answers = Answers(served, [asked], body, ChatForm(bool(body.logprobs)), continues=bool(prefix))
        return await answers.response(request, {"x-dropped-messages": str(dropped), **ignored_by(body)})

    @app.post("/v1/completions")
    async def completions(body: CompletionBody, request: Request) -> Response:
        served = model_of(house, body.model)
        limit = served.max_new_tokens if body.max_tokens is None else body.max_tokens
        prompts, added = await run_in_threadpool(prompts_of, served, body)
        form = TextForm(body.logprobs is not None, body.echo, added)
        usual = Asked(
            ids=(),
            sampling=body.sampling(max(1, limit)),
            seed=seed_of(body),
            samples=body.n or 1,
            stop=body.stops,
            likeliest=body.logprobs or 0,
            prompt_logprobs=form.echo and form.wants_logprobs,
            prompt_only=limit == 0,
        )
        asked = [replace(usual, ids=ids, seed=mix(usual.seed, i) if i else usual.seed) for i, ids in enumerate(prompts)]
        return await Answers(served, asked, body, form).response(request, ignored_by(body))

    @app.get("/score")
    async def scorers() -> dict[str, Any]:
        return listing(house, house.scorers)

    @app.post("/score")
    def score(body: ScoreBody) -> dict[str, Any]:
        scoring = scorer_of(house, body.model)
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


def seed_of(body: Drawn) -> int:
    """The request's seed, or a new one."""
    return secrets.randbits(62) if body.seed is None else body.seed


def ignored_by(body: Drawn) -> dict[str, str]:
    """The header that names the fields of a request that had no part in its answer, if there are any."""
    return {"x-ignored-fields": ",".join(body.ignored)} if body.ignored else {}
