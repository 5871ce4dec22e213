"""Battles of two hidden models, and the routes of `arena`.

    POST /api/battle         begin: a pair is drawn;  GET /api/battle/ID: what was said in it so far
    POST /api/say            a message to both; their answers, streamed side by side (server-sent events)
    POST /api/vote           left, right, tie or both_bad; on disk when it is acknowledged, and then the names are told
    GET  /api/leaderboard    ratings and win rates; / and /leaderboard are the pages

What is kept of a battle is what the models said here, never what a browser says they said. Names leave here with the
acknowledgement of a vote, not before; a vote that comes again changes nothing, and is told what was kept.

(Annotations are evaluated here, not kept as text: FastAPI reads those of the routes.)
"""

import asyncio
import json
import random
import secrets
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.feedback.leaderboard import RatingConfig, leaderboard
from amenable.feedback.ratings import groups_of
from amenable.feedback.store import Event, Store
from amenable.feedback.votes import Choice, comparisons
from amenable.generation.sampling import Sampling
from amenable.seeds import mix
from amenable.serve import security
from amenable.serve.chat import Speaker
from amenable.serve.openai.app_state import House, Served
from amenable.serve.openai.errors import Json, Refused, add_errors
from amenable.serve.openai.scheduler import Asked, Busy, Ended, Failed, News, Scheduler
from amenable.serve.openai.scheduler import Request as Submitted
from amenable.serve.openai.schemas import Body, LoginBody
from amenable.serve.openai.streaming import Streamed
from amenable.serve.web_pages import add_static, static_routes
from amenable.text.chat import PLAIN_STOP

FILES = static_routes(
    {"/": "arena.html", "/leaderboard": "arena-board.html"}, "arena.css", "arena.js", "arena-ask.js", "arena-board.js"
)
OPEN_PATHS = frozenset({*FILES, "/login"})
"""what is shown to those without a token"""
Side = Literal["left", "right"]
SIDES: tuple[Side, ...] = ("left", "right")
MOST_TURNS = 50
MOST_OPEN = 20
"""battles that one person may have begun and not judged; the oldest are forgotten"""
FORGOTTEN = 6 * 3600.0
"""seconds after which a battle that nobody goes on with is"""


@dataclass
class Battle:
    """Two models and what was said to both. turns: {user, left, right, ended: {left, right}, stopped}."""

    id: str
    person: str
    models: dict[Side, str]
    seed: int
    begun: float
    turns: list[dict[str, Any]] = field(default_factory=list)
    busy: bool = False
    """while answers are under way"""


@dataclass
class Arena:
    """The models, the battles under way, and the votes of the store. origins: folder and sha256 of each, by name."""

    house: House
    store: Store
    origins: Mapping[str, Mapping[str, str]]
    sampling: Sampling
    terms: RatingConfig
    clock: Callable[[], float]
    draw: random.Random = field(default_factory=random.SystemRandom)
    battles: dict[str, Battle] = field(default_factory=dict)
    votes: dict[str, Event] = field(default_factory=dict)
    """by battle"""
    seen: int = 0
    boards: dict[tuple[int, bool], dict[str, Any]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    counting: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, person: str) -> Battle:
        """A new battle of two models."""
        with self.lock:
            self.refresh()
            self.forget(person)
            pair = drawn_pair(list(self.origins), self.fought(), self.draw)
            self.draw.shuffle(pair)
            models: dict[Side, str] = {"left": pair[0], "right": pair[1]}
            battle = Battle(secrets.token_hex(12), person, models, secrets.randbits(62), self.clock())
            self.battles[battle.id] = battle
            return battle

    def refresh(self) -> None:
        """Take in the votes that were kept since, by whatever process."""
        for event in self.store.events("vote", after=self.seen):
            self.votes[event.payload["battle"]] = event
            self.seen = event.id

    def forget(self, person: str) -> None:
        """Let go of battles that nobody goes on with."""
        old = [one.id for one in self.battles.values() if one.begun < self.clock() - FORGOTTEN]
        own = [one.id for one in self.battles.values() if one.person == person]
        for identity in {*old, *own[: max(0, len(own) - MOST_OPEN + 1)]}:
            if not self.battles[identity].busy:
                del self.battles[identity]

    def fought(self) -> Counter[tuple[str, str]]:
        """Battles by pair: those judged, and those under way in which something was said."""
        held = [event.payload["models"] for event in self.votes.values()]
        held += [one.models for one in self.battles.values() if one.turns and one.id not in self.votes]
        return Counter(in_order(models["left"], models["right"]) for models in held)

    def own(self, person: str, identity: str) -> Battle:
        """Somebody's own battle; another's is as unknown as one that never was."""
        battle = self.battles.get(identity)
        if battle is None or battle.person != person:
            raise Refused(404, "this battle is not known here any more; begin another", "battle", "no_battle")
        return battle

    def kept(self, person: str, identity: str) -> Event | None:
        """The vote that somebody gave in a battle, from before a restart too."""
        with self.lock:
            self.refresh()
            event = self.votes.get(identity)
        return event if event is not None and event.payload["annotator"] == person else None

    def take(self, person: str, identity: str) -> Battle:
        """A battle to go on with, for one request at a time; `let_go` gives it back."""
        with self.lock:
            battle = self.own(person, identity)
            self.refresh()
            if identity in self.votes:
                raise Refused(409, "this battle has been judged; begin another", "battle", "judged")
            if battle.busy:
                raise Refused(409, "the answers are still under way", "battle", "under_way")
            battle.busy = True
            return battle

    def let_go(self, battle: Battle) -> None:
        with self.lock:
            battle.busy = False

    def vote(self, person: str, identity: str, choice: Choice, seconds: float) -> tuple[Event, bool]:
        """Keep a vote; returns the one that stands, and whether it is new. It is on disk then."""
        with self.lock:
            known = self.kept(person, identity)
            if known is not None:
                return known, False
            battle = self.own(person, identity)
            if battle.busy:
                raise Refused(409, "the answers are still under way", "battle", "under_way")
            if not battle.turns:
                raise Refused(409, "there is nothing to judge yet: ask something first", "battle", "nothing_said")
            said = self.said(battle, choice, seconds)
            try:
                _, new = self.store.append_once("vote", said, self.clock(), f"vote {identity}")
            except InputError:
                raise Refused(503, "the vote could not be written to the disk", code="not_kept") from None
            self.refresh()
            return self.votes[identity], new

    def said(self, battle: Battle, choice: Choice, seconds: float) -> dict[str, Any]:
        """A vote as the store keeps it."""
        return {
            "annotator": battle.person,
            "battle": battle.id,
            "models": battle.models,
            "origins": {side: dict(self.origins[name]) for side, name in battle.models.items()},
            "vote": choice,
            "turns": battle.turns,
            "sampling": asdict(self.sampling),
            "seed": battle.seed,
            "begun": battle.begun,
            "seconds": seconds,
        }

    def board(self, length_controlled: bool) -> dict[str, Any]:
        """The leaderboard; made anew where a vote has come since."""
        with self.lock:
            self.refresh()
            key = (self.seen, length_controlled)
        with self.counting:
            if key not in self.boards:
                terms = replace(self.terms, length_controlled=length_controlled)
                self.boards = {known: board for known, board in self.boards.items() if known[0] == key[0]}
                self.boards[key] = leaderboard(comparisons(self.store, ("arena",)), terms)
            return self.boards[key]


def in_order(a: str, b: str) -> tuple[str, str]:
    return (a, b) if a < b else (b, a)


def drawn_pair(names: Sequence[str], fought: Mapping[tuple[str, str], int], draw: random.Random) -> list[str]:
    """Two models: first such as have not met, not even through others; then those that met least; else at random."""
    pairs = [in_order(a, b) for a, b in combinations(names, 2)]
    met = [pair for pair in pairs if fought.get(pair, 0)]
    group = {name: number for number, group in enumerate(groups_of(names, met)) for name in group}
    battles = Counter(name for pair in met for name in pair for _ in range(fought[pair]))
    rank = {(a, b): (group[a] == group[b], fought.get((a, b), 0), battles[a] + battles[b]) for a, b in pairs}
    least = min(rank.values())
    return list(draw.choice([pair for pair in pairs if rank[pair] == least]))


class Exchange:
    """A message to both models of a battle, and their answers as they come."""

    def __init__(self, arena: Arena, battle: Battle, text: str):
        self.arena, self.battle, self.text = arena, battle, text
        self.served: dict[Side, Served] = {side: arena.house.models[battle.models[side]] for side in SIDES}
        self.said: dict[Side, str] = {"left": "", "right": ""}
        self.ended: dict[Side, bool] = {}
        """of those that are complete: whether by themselves, and not at the limit"""
        self.dropped = 0
        self.failed = self.closed = False
        self.requests: list[tuple[Scheduler, Submitted]] = []
        self.waiting: asyncio.Queue[tuple[Side, News]] = asyncio.Queue()

    def response(self) -> Response:
        """Submit to both, and stream. Refused, and as if nothing had been said, where one has no room."""
        try:
            self.submit()
        except BaseException as error:
            self.failed = True
            self.close()
            if isinstance(error, Busy):
                raise Refused(429, str(error), code="overloaded", wait=error.seconds) from None
            raise
        return Streamed(self.events(), self.close, {})

    def submit(self) -> None:
        """Ask both models."""
        loop = asyncio.get_running_loop()
        for side, asked in [(side, self.asked(side)) for side in SIDES]:

            def tell(news: News, side: Side = side) -> None:
                loop.call_soon_threadsafe(self.waiting.put_nowait, (side, news))

            scheduler = self.served[side].scheduler
            self.requests.append((scheduler, scheduler.submit(asked, tell)))

    def asked(self, side: Side) -> Asked:
        """One side's conversation so far, which ends with the message."""
        turns, served, sampling = self.battle.turns, self.served[side], self.arena.sampling
        before = [said for turn in turns for said in (Message("user", turn["user"]), Message("assistant", turn[side]))]
        speaker = Speaker(served.name, served.speaker.decoder, served.tokenizer, before)
        try:
            ids, dropped = speaker.fit([], Message("user", self.text), sampling.max_new_tokens)
        except InputError:
            # its own words would name the model
            raise Refused(400, "the message is too long for one of the models", "text", "too_long") from None
        self.dropped = max(self.dropped, dropped)
        seed = mix(self.battle.seed, 2 * len(turns) + SIDES.index(side))
        return Asked(ids, sampling, seed, stop=PLAIN_STOP if served.speaker.is_plain else ())

    async def events(self) -> AsyncIterator[str]:
        """Server-sent events: {side, text}, {side, ended}, and last {done} or {error}. None tells a name."""
        if self.dropped:
            yield line({"dropped": self.dropped})
        while len(self.ended) < len(SIDES):
            side, new = await self.waiting.get()
            if isinstance(new, Failed):
                self.failed = True
                yield line({"error": "one of the models has failed; the message is not kept"})
                return
            text = new.rest if isinstance(new, Ended) else new.text
            text = text if self.said[side] else text.lstrip()
            self.said[side] += text
            if text:
                yield line({"side": side, "text": text})
            if isinstance(new, Ended):
                self.ended[side] = new.completion.finish_reason != "length"
                yield line({"side": side, "ended": self.ended[side]})
        self.keep()
        yield line({"done": True})

    def keep(self) -> None:
        """Put what both said into the battle, once, and let it go on. What nobody answered was never asked."""
        if self.closed:
            return
        self.closed = True
        said: dict[str, str] = {side: self.said[side].strip() for side in SIDES}
        if not self.failed and (any(said.values()) or self.ended):
            ended = {side: self.ended.get(side, False) for side in SIDES}
            stopped = len(self.ended) < len(SIDES)
            self.battle.turns.append({"user": self.text, **said, "ended": ended, "stopped": stopped})
        self.arena.let_go(self.battle)

    def close(self) -> None:
        """However it ended: take the answers back, keep what came."""
        for scheduler, request in self.requests:
            scheduler.cancel(request)
        self.keep()


def line(event: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(event)}\n\n"


Identity = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9a-f]+$")]


class BeginBody(Body):
    """Nothing: the models are drawn here."""


class SayBody(Body):
    battle: Identity
    text: Annotated[str, Field(min_length=1, max_length=20_000)]


class VoteBody(Body):
    battle: Identity
    vote: Choice
    seconds: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """that the person spent on the battle"""


def make_app(arena: Arena) -> FastAPI:
    """The application, to be put behind a `security.Guard`."""
    app = FastAPI(title="amenable arena", docs_url=None, redoc_url=None, openapi_url=None, default_response_class=Json)
    add_errors(app)
    add_static(app, FILES)
    add_battles(app, arena)
    add_board(app, arena)
    return app


def add_battles(app: FastAPI, arena: Arena) -> None:
    """Coming in, and what is done in a battle."""

    def who(request: Request) -> str:
        return arena.house.whose(security.token_of(security.headers_of(request.scope))) or "?"

    @app.post("/login")
    async def login(body: LoginBody) -> Response:
        if arena.house.whose(body.token) is None:
            raise Refused(401, "this token is not known here")
        return Response(status_code=204, headers={"set-cookie": security.cookie(body.token, arena.house.secure)})

    @app.post("/api/battle")
    def begin(body: BeginBody, request: Request) -> dict[str, Any]:
        return on_screen(arena.begin(who(request)))

    @app.get("/api/battle/{identity}")
    def battle(identity: str, request: Request) -> dict[str, Any]:
        person = who(request)
        judged = arena.kept(person, identity)
        if judged is not None:
            payload = judged.payload
            return {"battle": identity, "turns": payload["turns"], "busy": False, "judged": verdict(judged, False)}
        return on_screen(arena.own(person, identity))

    @app.post("/api/say")
    async def say(body: SayBody, request: Request) -> Response:
        if not body.text.strip():
            raise Refused(400, "the message is empty", "text")
        battle = await run_in_threadpool(arena.take, who(request), body.battle)
        if len(battle.turns) >= MOST_TURNS:
            arena.let_go(battle)
            raise Refused(409, f"{MOST_TURNS} messages are enough: judge, and begin another", "battle", "full")
        return Exchange(arena, battle, body.text.strip()).response()

    @app.post("/api/vote")
    def vote(body: VoteBody, request: Request) -> dict[str, Any]:
        return verdict(*arena.vote(who(request), body.battle, body.vote, body.seconds))


def on_screen(battle: Battle) -> dict[str, Any]:
    """What a browser is told of a battle that is not judged: no names."""
    return {"battle": battle.id, "turns": battle.turns, "busy": battle.busy, "judged": None}


def verdict(event: Event, new: bool) -> dict[str, Any]:
    """The acknowledgement of a vote: it is on disk, and these were the models."""
    return {"event": event.id, "new": new, "vote": event.payload["vote"], "models": event.payload["models"]}


def add_board(app: FastAPI, arena: Arena) -> None:
    """How the models stand."""

    @app.get("/api/leaderboard")
    def board(length_controlled: bool = False) -> dict[str, Any]:
        found = arena.board(length_controlled)
        return {**found, "waiting": [name for name in arena.origins if name not in found["win_rates"]]}
