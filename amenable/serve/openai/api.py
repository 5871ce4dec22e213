"""Routes of `serve`: OpenAI's chat and completions, reward models' scores, metrics, and the chat page.

    POST /v1/chat/completions, /v1/completions    streamed (server-sent events) or whole;  GET /v1/models
    POST /score                                   a reward model's scores of answers to a prompt;  GET lists the models
    POST /rewards/NAME                            its scores of answers to many prompts, as `--reward http://...` asks
    POST /logprobs/NAME                           log-probabilities of ids, as `--reference-url` wants them;  GET facts
    POST /feedback/thumb, /feedback/ranking       ratings of answers; on disk before they are acknowledged
    GET  /health, /metrics, / (the page)

A field that asks for what is not supported is refused by name, with advice; fields without effect are listed in the
header x-ignored-fields. Errors are OpenAI's objects. No path or name in a request is ever opened as a file, and models'
text is never read as markup.

Chat continues a last message of the assistant where `continue_final_message`, or `prefix` in that message, is true.
Completions take texts or ids, one or several; `echo` with `logprobs` scores the prompt, and alone with `max_tokens` 0.

schemas.py has the request bodies, prompt_building.py the prompts, streaming.py and response_formats.py the responses.

(Annotations are evaluated here, not kept as text: FastAPI reads those of the routes.)
"""

import secrets
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from amenable.seeds import mix
from amenable.serve.conversation import stop_strings
from amenable.serve.errors import APIError
from amenable.serve.login import add_login
from amenable.serve.openai.app_state import (
    AppState,
    chooser,
    model_info,
    model_list,
    model_of,
    prometheus,
    reward_model_of,
)
from amenable.serve.openai.errors import Json, add_errors
from amenable.serve.openai.feedback_routes import add_feedback
from amenable.serve.openai.prompt_building import chat_prompt_ids, completion_prompt_ids, prompt_messages, split_prefix
from amenable.serve.openai.response_formats import ChatFormat, TextFormat
from amenable.serve.openai.scheduler import GenerationRequest
from amenable.serve.openai.schemas import (
    ChatRequest,
    CompletionRequest,
    LogprobsRequest,
    RewardBatch,
    SamplingRequest,
    ScoreRequest,
)
from amenable.serve.openai.streaming import CompletionResponse
from amenable.serve.web_pages import add_static, static_routes
from amenable.train.examples import to_row

FILES = static_routes({"/": "chat.html"}, "chat.css", "chat.js", "chat-rank.js", "chat-store.js")
OPEN_PATHS = frozenset({*FILES, "/health", "/login"})
"""served without a token"""


def make_app(state: AppState) -> FastAPI:
    """Return the application, to be put behind `security.SecurityMiddleware`."""
    app = FastAPI(title="amenable", docs_url=None, redoc_url=None, default_response_class=Json)
    add_errors(app)
    add_static(app, FILES)
    add_models(app, state)
    add_feedback(app, state)
    add_login(app, "/login", lambda token: None if state.user_for_token(token) is None else {}, state.secure)
    return app


def add_models(app: FastAPI, state: AppState) -> None:
    """Add the routes to the models, their scores and their metrics."""

    @app.get("/health")
    async def health() -> dict[str, Any]:
        alive = all(served.scheduler.thread.is_alive() for served in state.models.values())
        if not alive:
            raise APIError(503, "a model has stopped")
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(prometheus(state), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return model_list(state, state.models)

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        model_of(state, name)
        return model_info(state, name)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        served = model_of(state, body.model)
        messages, prefix = split_prefix(body)
        limit = body.max_completion_tokens or body.max_tokens or served.max_new_tokens
        # in a thread: long texts must not block the event loop
        drop = body.truncation == "auto"
        ids, dropped = await run_in_threadpool(chat_prompt_ids, served, messages, limit, drop, prefix)
        stops = (*body.stops, *stop_strings(served.model))
        best_of = 1 if state.best_of is None else state.best_of.n
        if best_of > 1 and prefix:
            raise APIError(400, "answers are the best of several here, and none continues a message", "messages")
        samples = best_of * (body.n or 1)
        generation = GenerationRequest(ids, body.sampling(limit), seed_of(body), samples, stops, body.top_logprobs or 0)
        form, choose = ChatFormat(bool(body.logprobs)), chooser(state, served, messages, ids)
        response = CompletionResponse(served, [generation], body, form, bool(prefix), best_of, choose)
        return await response.response(request, {"x-dropped-messages": str(dropped), **ignored_by(body)})

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        served = model_of(state, body.model)
        limit = served.max_new_tokens if body.max_tokens is None else body.max_tokens
        prompts, added = await run_in_threadpool(completion_prompt_ids, served, body)
        form = TextFormat(body.logprobs is not None, body.echo, added)
        first = GenerationRequest(
            ids=(),
            sampling=body.sampling(max(1, limit)),
            seed=seed_of(body),
            samples=body.n or 1,
            stop=body.stops,
            top_logprobs=body.logprobs or 0,
            prompt_logprobs=form.echo and form.wants_logprobs,
            prompt_only=limit == 0,
        )
        seeds = [mix(first.seed, i) if i else first.seed for i in range(len(prompts))]
        requests = [replace(first, ids=ids, seed=seed) for ids, seed in zip(prompts, seeds)]
        return await CompletionResponse(served, requests, body, form).response(request, ignored_by(body))

    @app.get("/score")
    async def reward_models() -> dict[str, Any]:
        return model_list(state, state.reward_models)

    @app.post("/score")
    def score(body: ScoreRequest) -> dict[str, Any]:
        prompts = [tuple(prompt_messages(body.messages))] * len(body.completions)
        scores = reward_model_of(state, body.model).scores(prompts, body.completions, body.ended)
        rows = [{"object": "score", "index": i, "score": value} for i, value in enumerate(scores)]
        return {"object": "list", "model": body.model, "data": rows}

    @app.post("/rewards/{name}")
    def score_batch(name: str, body: RewardBatch) -> dict[str, Any]:
        prompts = [tuple(prompt_messages(turns)) for turns in body.prompts]
        return {"scores": reward_model_of(state, name).scores(prompts, body.completions, body.ended)}

    @app.get("/logprobs/{name}")
    def facts(name: str) -> dict[str, Any]:
        return model_of(state, name).facts

    @app.post("/logprobs/{name}")
    def logprobs(name: str, body: LogprobsRequest) -> dict[str, Any]:
        rows = [to_row(ids[:first], ids[first:]) for ids, first in zip(body.rows, body.first)]
        return {"logprobs": model_of(state, name).logprobs(rows, body.temperature)}


def seed_of(body: SamplingRequest) -> int:
    """Return the request's seed, or a random one."""
    return secrets.randbits(62) if body.seed is None else body.seed


def ignored_by(body: SamplingRequest) -> dict[str, str]:
    """Return the header that lists a request's fields without effect, if there are any."""
    return {"x-ignored-fields": ",".join(body.ignored)} if body.ignored else {}
