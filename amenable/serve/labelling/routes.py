"""The routes of the labelling page, for `label` to serve: what a browser asks, checked, and put to the desk of tasks.

Who asks is known by a token, in a cookie that scripts cannot read; on this machine alone, without a token, it is the
owner. What leaves here is JSON and the page's own few files, which are read once at the start: no path of a request is
ever opened. Who wrote an answer, and which items are tests, stays here.

(Annotations are evaluated here, not kept as text: those of the routes name functions that are made in place.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from amenable.errors import InputError
from amenable.feedback import annotators, export_import
from amenable.feedback.annotators import Person
from amenable.feedback.store import Event
from amenable.serve.errors import APIError
from amenable.serve.labelling.task_queue import Assignment, Desk, Kind
from amenable.serve.login import add_login
from amenable.serve.openai.fields import Body
from amenable.serve.security import COOKIE, headers_of, token_of
from amenable.serve.web_pages import add_static, static_routes

FILES = static_routes(
    {"/": "label.html", "/owner": "owner.html"}, "label.css", "label.js", "label-rank.js", "label-write.js", "owner.js"
)
FLAGS = (
    "fails to follow the instruction",
    "inappropriate",
    "hallucination",
    "violates an explicit constraint",
    "sexual",
    "violent",
    "encourages harm",
    "denigrates a group",
    "gives harmful advice",
    "expresses opinion",
    "moral judgement",
)
"""what may be wrong with an answer (Ouyang et al., 2022, table 3)"""
REASONS = ("unclear", "cannot tell", "needs knowledge that I lack", "harmful to read", "another reason")

Suggest = Callable[[Sequence[dict[str, str]], int], dict[str, Any]]
"""(conversation so far, which suggestion it is) -> {"text", "model", ...how it was drawn}"""


@dataclass
class Office:
    """Everything that the routes need."""

    desk: Desk
    kinds: tuple[Kind, ...]
    instructions: Callable[[], str]
    figures: Callable[[], dict[str, Any]]
    suggest: Suggest | None = None
    local_owner: bool = True
    """whether someone without a token is the owner: only where nobody else can reach the page"""
    people: dict[str, Person] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.desk.watch = lambda event: annotators.apply(self.people, event)

    def user_for_token(self, token: str | None) -> Person:
        """The person who asks; Refused where nobody is known by the token."""
        with self.desk.lock:
            self.desk.refresh()
            if not token and self.local_owner:
                return Person("owner", "owner")
            person = annotators.person_for_token(self.people.values(), token) if token else None
        if person is None:
            raise APIError(401, "This token is not known here." if token else "A token is needed.")
        return person

    def authenticate(self, token: str) -> bool:
        """Whether a token is somebody's; quick for one that is known already. What it opens `whose` decides."""
        if annotators.person_for_token(tuple(self.people.values()), token) is not None:
            return True
        with self.desk.lock:
            self.desk.refresh()
            return annotators.person_for_token(self.people.values(), token) is not None


Text = Annotated[str, Field(max_length=20_000)]
Seconds = Annotated[float, Field(ge=0, le=1e6)]
Rating = Annotated[int, Field(ge=1, le=7)]
Flags = Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=99)]


class Next(Body):
    kind: Kind


class Named(Body):
    """An assignment."""

    assignment: Annotated[int, Field(ge=1, le=2**53)]


class Ranked(Named):
    """Everything is in the order in which the answers were shown."""

    ranks: Annotated[list[Annotated[int, Field(ge=1, le=99)]], Field(min_length=2, max_length=99)]
    """1 the best, ties share a rank"""
    strength: Annotated[int, Field(ge=-4, le=4)] | None = None
    """of a comparison: below 0 the left one is better, 0 equal, above 0 the right one"""
    ratings: Annotated[list[Rating | None], Field(max_length=99)] = Field(default_factory=list)
    flags: Annotated[list[Flags], Field(max_length=99)] = Field(default_factory=list)
    notes: Text = ""
    seconds: Seconds = 0.0


class Turn(Body):
    role: Literal["user", "assistant"]
    content: Annotated[str, Field(min_length=1, max_length=20_000)]
    suggestion: int | None = None
    """the suggestion that the words began as"""


class Written(Named):
    turns: Annotated[list[Turn], Field(min_length=1, max_length=100)]
    notes: Text = ""
    seconds: Seconds = 0.0


class Skipped(Named):
    reason: Annotated[str, Field(max_length=100)]
    notes: Text = ""
    seconds: Seconds = 0.0


class Asked(Named):
    turns: Annotated[list[Turn], Field(max_length=100)] = Field(default_factory=list)


class Instructions(Body):
    text: Annotated[str, Field(max_length=100_000)]


def make_app(office: Office) -> FastAPI:
    """The application, without what stands before it."""
    app = FastAPI(title="amenable label", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(APIError, told)
    app.add_exception_handler(RequestValidationError, told_plainly)
    app.add_exception_handler(InputError, told_plainly)
    add_static(app, FILES)

    def who(request: Request) -> Person:
        return office.user_for_token(token_of(headers_of(request.scope)))

    def owner(person: Annotated[Person, Depends(who)]) -> Person:
        if not person.is_owner:
            raise APIError(403, "Only an owner may see this.")
        return person

    add_entrance(app, office, who)
    add_tasks(app, office, who)
    add_writing(app, office, who)
    add_owners(app, office, owner)
    return app


def told(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, APIError)
    return JSONResponse({"error": error.message}, error.status)


def told_plainly(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return JSONResponse({"error": f"{where}: {first['msg']}"}, 422)
    return JSONResponse({"error": str(error)}, 422)


def add_entrance(app: FastAPI, office: Office, who: Callable[[Request], Person]) -> None:
    """Coming in with a token, going out, and what one needs to know inside."""

    def find_user(token: str) -> dict[str, str]:
        person = office.user_for_token(token)
        return {"name": person.name, "role": person.role}

    add_login(app, "/api/enter", find_user)

    @app.post("/api/leave")
    def leave() -> JSONResponse:
        reply = JSONResponse({})
        reply.delete_cookie(COOKIE, httponly=True, samesite="strict", path="/")
        return reply

    @app.get("/api/me")
    def me(person: Annotated[Person, Depends(who)]) -> dict[str, Any]:
        return {
            **{"name": person.name, "role": person.role, "kinds": office.kinds, "flags": FLAGS, "reasons": REASONS},
            **{"instructions": office.instructions(), "suggests": office.suggest is not None},
            **{"lease": office.desk.rules.lease, "entered": bool(person.hash)},
        }


def add_tasks(app: FastAPI, office: Office, who: Callable[[Request], Person]) -> None:
    """Getting tasks, answering them with an order, leaving them, taking an answer back."""
    desk = office.desk

    @app.post("/api/next")
    def next_task(body: Next, person: Annotated[Person, Depends(who)]) -> dict[str, Any]:
        if body.kind not in office.kinds:
            raise APIError(404, "Such tasks are not given here.")
        found = desk.next(person.name, body.kind, screened=not person.is_owner)
        return {"task": found and on_screen(found, office), "progress": desk.progress(person.name, body.kind)}

    @app.post("/api/rank")
    def rank(body: Ranked, person: Annotated[Person, Depends(who)]) -> dict[str, Any]:
        one = desk.own(person.name, body.assignment)
        return done(desk.answer(person.name, one.id, "ranking", ranking_said(one, body)))

    @app.post("/api/skip")
    def skip(body: Skipped, person: Annotated[Person, Depends(who)]) -> dict[str, Any]:
        if body.reason not in REASONS:
            raise APIError(422, "This is not one of the reasons.")
        said = {"reason": body.reason, "notes": body.notes, "seconds": body.seconds}
        return done(desk.answer(person.name, body.assignment, "skip", said))

    @app.post("/api/undo")
    def undo(person: Annotated[Person, Depends(who)]) -> dict[str, Any]:
        one = desk.undo(person.name)
        return {"task": on_screen(one, office), "progress": desk.progress(person.name, one.task.kind)}

    @app.post("/api/hold")
    def hold(body: Named, person: Annotated[Person, Depends(who)]) -> dict[str, Any]:
        desk.hold(person.name, body.assignment)
        return {}


def add_writing(app: FastAPI, office: Office, who: Callable[[Request], Person]) -> None:
    """Demonstrations and conversations, and what a model suggests for them."""
    desk = office.desk

    @app.post("/api/suggest")
    def suggest(body: Asked, person: Annotated[Person, Depends(who)]) -> dict[str, Any]:
        one = desk.own(person.name, body.assignment)
        if office.suggest is None or one.task.kind not in ("demonstrate", "converse"):
            raise APIError(404, "Nothing is suggested here.")
        if one.answer is not None:
            raise APIError(409, "This task has an answer already.")
        so_far = conversation_of(one, body.turns)
        if not so_far or so_far[-1]["role"] != "user":
            raise APIError(422, "An answer is suggested once something has been asked.")
        made = office.suggest(so_far, len(suggestions(desk, one.id)))
        about = {"assignment": one.id, "annotator": person.name, "turn": len(body.turns), "asked": so_far}
        identity = desk.store.append("suggestion", {**made, **about}, desk.clock())
        return {"suggestion": identity, "text": made["text"]}

    @app.post("/api/write")
    def write(body: Written, person: Annotated[Person, Depends(who)]) -> dict[str, Any]:
        one = desk.own(person.name, body.assignment)
        kind = {"demonstrate": "demonstration", "converse": "conversation"}.get(one.task.kind)
        if kind is None:
            raise APIError(422, "This task is answered with an order.")
        return done(desk.answer(person.name, one.id, kind, written_said(desk, one, body)))


def add_owners(app: FastAPI, office: Office, owner: Callable[..., Person]) -> None:
    """What owners see: how the work goes, the labels themselves, and the instructions, which they may change."""

    @app.get("/api/owner/figures", dependencies=[Depends(owner)])
    def figures() -> dict[str, Any]:
        return office.figures()

    @app.post("/api/owner/instructions", dependencies=[Depends(owner)])
    def instructions(body: Instructions) -> dict[str, Any]:
        office.desk.store.append("instructions", {"text": body.text}, office.desk.clock())
        return {}

    @app.get("/api/owner/export/{what}", dependencies=[Depends(owner)])
    def export(what: Literal["rankings", "pairs", "demonstrations"]) -> Response:
        text = "".join(f"{line}\n" for line in export_import.lines(office.desk.store, what))
        headers = {"content-disposition": f'attachment; filename="{what}.jsonl"'}
        return Response(text, media_type="application/jsonl", headers=headers)


def done(identity: int) -> dict[str, Any]:
    """The acknowledgement: sent only where the answer is on disk."""
    return {"kept": identity}


def on_screen(one: Assignment, office: Office) -> dict[str, Any]:
    """What a browser is told of a task: no sources, no purpose, answers in the order in which they are shown."""
    former = None if one.former is None else former_said(one)
    return {
        **{"assignment": one.id, "kind": one.task.kind, "former": former},
        "prompt": [{"role": message.role, "content": message.content} for message in one.task.prompt],
        "completions": [one.task.completions[i] for i in one.order],
        "seconds": max(0.0, office.desk.clock() - one.shown),
    }


def former_said(one: Assignment) -> dict[str, Any]:
    """An answer that was taken back, in the order in which the answers are shown."""
    assert one.former is not None
    payload = one.former.payload
    said: dict[str, Any] = {key: payload[key] for key in ("notes", "strength", "reason") if key in payload}
    for theirs, ours in (("ranks", "ranking"), ("ratings", "ratings"), ("flags", "flags")):
        if payload.get(ours):
            said[theirs] = [payload[ours][i] for i in one.order]
    if "messages" in payload:
        kept = payload["suggestions"]
        ids = {entry["turn"]: entry["suggestion"] for entry in kept if entry["kept"] != "refused"}
        turns = payload["messages"][len(one.task.prompt) :]
        said["turns"] = [{**turn, "suggestion": ids.get(place)} for place, turn in enumerate(turns)]
    return said


def ranking_said(one: Assignment, body: Ranked) -> dict[str, Any]:
    """A ranking as the store keeps it: everything in the order of the completions, and the order they were shown in."""
    k = len(one.task.completions)
    if one.task.kind not in ("rank", "compare"):
        raise APIError(422, "This task is answered in words.")
    for name, values in (("ranks", body.ranks), ("ratings", body.ratings), ("flags", body.flags)):
        if len(values) != k and (values or name == "ranks"):
            raise APIError(422, f"{len(values)} {name} of {k} answers.")
    if not {flag for flags in body.flags for flag in flags} <= set(FLAGS):
        raise APIError(422, "This is not one of the flags.")
    if body.strength is not None:
        sign = (body.strength > 0) - (body.strength < 0)
        if k != 2 or sign != (body.ranks[0] > body.ranks[1]) - (body.ranks[0] < body.ranks[1]):
            raise APIError(422, "The strength and the ranks say different things.")
    place = {shown: position for position, shown in enumerate(one.order)}
    ranks = [body.ranks[place[i]] for i in range(k)]
    return {
        "prompt": [{"role": message.role, "content": message.content} for message in one.task.prompt],
        "completions": list(one.task.completions),
        # 1, 2, 2, 4: one more than how many are better
        "ranking": [1 + sum(other < rank for other in ranks) for rank in ranks],
        "id": f"label-{one.id}",
        "meta": {"ended": list(one.task.ended)},
        **one.task.origins,
        "shown_order": list(one.order),
        "strength": body.strength,
        "ratings": [body.ratings[place[i]] for i in range(k)] if body.ratings else [],
        "flags": [sorted(set(body.flags[place[i]])) for i in range(k)] if body.flags else [],
        "notes": body.notes,
        "seconds": body.seconds,
    }


def conversation_of(one: Assignment, said: Sequence[Turn]) -> list[dict[str, str]]:
    """The task's prompt and what was written after it; speakers take turns."""
    messages = [{"role": message.role, "content": message.content} for message in one.task.prompt]
    for turn in said:
        expected = "user" if not messages or messages[-1]["role"] != "user" else "assistant"
        if turn.role != expected or not turn.content.strip():
            raise APIError(422, "Person and assistant take turns, and each says something.")
        messages.append({"role": turn.role, "content": turn.content})
    return messages


def written_said(desk: Desk, one: Assignment, body: Written) -> dict[str, Any]:
    """A demonstration or conversation as the store keeps it, with what was suggested and what became of it."""
    messages = conversation_of(one, body.turns)
    if messages[-1]["role"] != "assistant":
        raise APIError(422, "The last word is the assistant's.")
    if one.task.kind == "demonstrate" and len(body.turns) != 1:
        raise APIError(422, "A demonstration is one answer.")
    made = {event.id: event for event in suggestions(desk, one.id)}
    used = {turn.suggestion: place for place, turn in enumerate(body.turns) if turn.suggestion is not None}
    if not set(used) <= set(made):
        raise APIError(422, "There is no such suggestion for this task.")
    fates = []
    for identity, event in made.items():
        place = used.get(identity, event.payload["turn"])
        kept = "refused"
        if identity in used:
            kept = "taken" if body.turns[place].content.strip() == event.payload["text"].strip() else "edited"
        fates.append({"suggestion": identity, "turn": place, "text": event.payload["text"], "kept": kept})
    about = {"id": f"label-{one.id}", "suggestions": fates, "notes": body.notes, "seconds": body.seconds}
    return {"messages": messages, **about}


def suggestions(desk: Desk, assignment: int) -> list[Event]:
    """What was suggested for a task."""
    events = desk.store.events("suggestion", after=assignment)
    return [event for event in events if event.payload["assignment"] == assignment]
