"""Battles of two hidden models, and the routes of `arena`.

    POST /api/battle         begin: a pair is drawn;  GET /api/battle/ID: its turns so far
    POST /api/say            a message to both models; their answers, streamed side by side (server-sent events)
    POST /api/vote           left, right, tie or both_bad; on disk before it is acknowledged with the models' names
    GET  /api/leaderboard    ratings and win rates; / and /leaderboard are the pages

A battle is stored as the models answered here, never as a browser reports it. Names are sent with the acknowledgement
of a vote, not before; a second vote on a battle changes nothing and is answered with the first.

(Annotations are evaluated here, not kept as text: FastAPI reads those of the routes.)
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.feedback.store import Event
from amenable.feedback.votes import Choice
from amenable.seeds import mix
from amenable.serve.battles.arena_state import SIDES, Arena, Battle, Side
from amenable.serve.conversation import fit_prompt, stop_strings
from amenable.serve.errors import APIError
from amenable.serve.login import add_login
from amenable.serve.openai.app_state import ServedModel
from amenable.serve.openai.errors import Json, add_errors
from amenable.serve.openai.fields import Body
from amenable.serve.openai.scheduler import (
    ActiveRequest,
    Failed,
    Finished,
    GenerationRequest,
    QueueFull,
    Scheduler,
    StreamEvent,
)
from amenable.serve.openai.streaming import EventStream, server_sent_event
from amenable.serve.web_pages import add_static, static_routes

FILES = static_routes(
    {"/": "arena.html", "/leaderboard": "arena-board.html"}, "arena.css", "arena.js", "arena-board.js"
)
OPEN_PATHS = frozenset({*FILES, "/login"})
"""served without a token"""
MAX_TURNS = 50


class SideBySideReply:
    """A message to both models of a battle, and their answers as one stream."""

    def __init__(self, arena: Arena, battle: Battle, text: str):
        self.arena, self.battle, self.text = arena, battle, text
        self.served: dict[Side, ServedModel] = {side: arena.state.models[battle.models[side]] for side in SIDES}
        self.answers: dict[Side, str] = {"left": "", "right": ""}
        self.ended: dict[Side, bool] = {}
        """of complete answers: True for one that ended by itself, not at the limit"""
        self.dropped = 0
        self.failed = self.closed = False
        self.active: list[tuple[Scheduler, ActiveRequest]] = []
        self.queue: asyncio.Queue[tuple[Side, StreamEvent]] = asyncio.Queue()

    def response(self) -> Response:
        """Submit to both models and return the stream. Raises APIError, without a turn, where one refuses."""
        try:
            self.submit()
        except BaseException as error:
            self.failed = True
            self.close()
            if isinstance(error, QueueFull):
                raise APIError(429, str(error), code="overloaded", retry_after=error.retry_after) from None
            raise
        return EventStream(self.server_sent_events(), self.close, {})

    def submit(self) -> None:
        """Submit the message to both models."""
        loop = asyncio.get_running_loop()
        for side, request in [(side, self.request(side)) for side in SIDES]:

            def on_event(event: StreamEvent, side: Side = side) -> None:
                loop.call_soon_threadsafe(self.queue.put_nowait, (side, event))

            scheduler = self.served[side].scheduler
            self.active.append((scheduler, scheduler.submit(request, on_event)))

    def request(self, side: Side) -> GenerationRequest:
        """Return the request to one model: its own conversation so far, then the message."""
        turns, served, sampling = self.battle.turns, self.served[side], self.arena.sampling
        messages = [m for turn in turns for m in (Message("user", turn["user"]), Message("assistant", turn[side]))]
        try:
            ids, dropped = fit_prompt(served.model, [], messages, Message("user", self.text), sampling.max_new_tokens)
        except InputError:
            # its message would name the model
            raise APIError(400, "the message is too long for one of the models", "text", "too_long") from None
        self.dropped = max(self.dropped, dropped)
        seed = mix(self.battle.seed, 2 * len(turns) + SIDES.index(side))
        return GenerationRequest(ids, sampling, seed, stop=stop_strings(served.model))

    async def server_sent_events(self) -> AsyncIterator[str]:
        """Yield {side, text}, {side, ended}, and last {done} or {error}; none holds a model's name."""
        if self.dropped:
            yield server_sent_event({"dropped": self.dropped})
        while len(self.ended) < len(SIDES):
            side, event = await self.queue.get()
            if isinstance(event, Failed):
                self.failed = True
                yield server_sent_event({"error": "one of the models has failed; the message is not kept"})
                return
            text = event.tail if isinstance(event, Finished) else event.text
            text = text if self.answers[side] else text.lstrip()
            self.answers[side] += text
            if text:
                yield server_sent_event({"side": side, "text": text})
            if isinstance(event, Finished):
                self.ended[side] = event.completion.finish_reason != "length"
                yield server_sent_event({"side": side, "ended": self.ended[side]})
        self.add_turn()
        yield server_sent_event({"done": True})

    def add_turn(self) -> None:
        """Add the turn to the battle and release it, once. A message without any answer is dropped."""
        if self.closed:
            return
        self.closed = True
        answers: dict[str, str] = {side: self.answers[side].strip() for side in SIDES}
        if not self.failed and (any(answers.values()) or self.ended):
            ended = {side: self.ended.get(side, False) for side in SIDES}
            stopped = len(self.ended) < len(SIDES)
            self.battle.turns.append({"user": self.text, **answers, "ended": ended, "stopped": stopped})
        self.arena.release(self.battle)

    def close(self) -> None:
        """Cancel unfinished answers and keep the text so far, however the stream ended."""
        for scheduler, active in self.active:
            scheduler.cancel(active)
        self.add_turn()


Identity = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9a-f]+$")]


class BeginRequest(Body):
    """No fields: the server draws the models."""


class SayRequest(Body):
    battle: Identity
    text: Annotated[str, Field(min_length=1, max_length=20_000)]


class VoteRequest(Body):
    battle: Identity
    vote: Choice
    seconds: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """time the person spent on the battle"""


def make_app(arena: Arena) -> FastAPI:
    """Return the application, to be put behind `security.SecurityMiddleware`."""
    app = FastAPI(title="amenable arena", docs_url=None, redoc_url=None, openapi_url=None, default_response_class=Json)
    add_errors(app)
    add_static(app, FILES)
    add_battles(app, arena)
    add_board(app, arena)
    user_for_token = arena.state.user_for_token
    add_login(app, "/login", lambda token: None if user_for_token(token) is None else {}, arena.state.secure)
    return app


def add_battles(app: FastAPI, arena: Arena) -> None:
    """Add the routes of a battle."""

    @app.post("/api/battle")
    def begin(body: BeginRequest, request: Request) -> dict[str, Any]:
        return battle_view(arena.begin(arena.state.user_of(request.scope)))

    @app.get("/api/battle/{identity}")
    def battle(identity: str, request: Request) -> dict[str, Any]:
        person = arena.state.user_of(request.scope)
        vote = arena.stored_vote(person, identity)
        if vote is not None:
            judged = verdict(vote, False)
            return {"battle": identity, "turns": vote.payload["turns"], "busy": False, "judged": judged}
        return battle_view(arena.get_battle(person, identity))

    @app.post("/api/say")
    async def say(body: SayRequest, request: Request) -> Response:
        if not body.text.strip():
            raise APIError(400, "the message is empty", "text")
        battle = await run_in_threadpool(arena.acquire, arena.state.user_of(request.scope), body.battle)
        if len(battle.turns) >= MAX_TURNS:
            arena.release(battle)
            raise APIError(409, f"{MAX_TURNS} messages are enough: judge, and begin another", "battle", "full")
        return SideBySideReply(arena, battle, body.text.strip()).response()

    @app.post("/api/vote")
    def vote(body: VoteRequest, request: Request) -> dict[str, Any]:
        return verdict(*arena.vote(arena.state.user_of(request.scope), body.battle, body.vote, body.seconds))


def battle_view(battle: Battle) -> dict[str, Any]:
    """Return an unjudged battle for the browser: without the models' names."""
    return {"battle": battle.id, "turns": battle.turns, "busy": battle.busy, "judged": None}


def verdict(event: Event, new: bool) -> dict[str, Any]:
    """Return the acknowledgement of a vote that is on disk, with the models' names."""
    return {"event": event.id, "new": new, "vote": event.payload["vote"], "models": event.payload["models"]}


def add_board(app: FastAPI, arena: Arena) -> None:
    """Add the leaderboard's route."""

    @app.get("/api/leaderboard")
    def board(length_controlled: bool = False) -> dict[str, Any]:
        board = arena.board(length_controlled)
        return {**board, "waiting": [name for name in arena.origins if name not in board["win_rates"]]}
