"""Routes of the labelling page: requests are checked, then answered by the task queue.

A person is known by a token in a cookie that scripts cannot read; on this machine alone, without a token, it is the
owner. The routes serve JSON and the page's own files, which are read once at the start: no path of a request is ever
opened. The sources of completions, and which tasks are gold items, are never sent to a browser.

(Annotations are evaluated here, not kept as text: those of the routes name functions that are made in place.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from amenable.errors import InputError
from amenable.feedback import annotators, export_import
from amenable.feedback.annotators import Person
from amenable.feedback.store import Event, turns
from amenable.serve.errors import APIError
from amenable.serve.labelling.schemas import (
    AssignmentRequest,
    InstructionsRequest,
    NextRequest,
    RankRequest,
    SkipRequest,
    SuggestRequest,
    Turn,
    WriteRequest,
)
from amenable.serve.labelling.task_queue import Assignment, TaskQueue
from amenable.serve.labelling.tasks import Kind
from amenable.serve.login import add_login
from amenable.serve.security import COOKIE, headers_of, token_of
from amenable.serve.web_pages import add_static, static_routes

FILES = static_routes(
    {"/": "label.html", "/owner": "owner.html"},
    "label.css",
    "label.js",
    "label-rank.js",
    "label-write.js",
    "clip.js",
    "owner.js",
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
"""flags of a completion (Ouyang et al., 2022, table 3)"""
REASONS = ("unclear", "cannot tell", "needs knowledge that I lack", "harmful to read", "another reason")

SuggestFn = Callable[[Sequence[dict[str, str]], int], dict[str, Any]]
"""(conversation so far, number of the suggestion) -> {"text", "model", sampling settings}"""


@dataclass
class LabelApp:
    """Everything that the routes use."""

    queue: TaskQueue
    kinds: tuple[Kind, ...]
    instructions: Callable[[], str]
    figures: Callable[[], dict[str, Any]]
    suggest: SuggestFn | None = None
    one_key: bool = False
    """comparisons are answered by one key, without strength, ratings and flags"""
    clips: bool = False
    """answers are clips, which the page draws; where none is left it asks again, as more will come"""
    goal: int = 0
    """labels of a kind that the page asks for; 0 is one for each task"""
    is_complete: Callable[[], bool] = lambda: False
    """True once there are enough labels: no further task is given"""
    thanks: str = "Every task of this kind is answered, or in somebody’s hands. Thank you."
    """shown where no task is left"""
    local_owner: bool = True
    """a request without a token is the owner's: only where nobody else can reach the page"""
    people: dict[str, Person] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queue.on_event = lambda event: annotators.apply(self.people, event)

    def authenticate(self, token: str | None) -> Person:
        """Return the person of a request. Raises APIError 401 for a missing or unknown token."""
        with self.queue.lock:
            self.queue.refresh()
            if not token and self.local_owner:
                return Person("owner", "owner")
            person = annotators.person_for_token(self.people.values(), token) if token else None
        if person is None:
            raise APIError(401, "This token is not known here." if token else "A token is needed.")
        return person

    def knows_token(self, token: str) -> bool:
        """True for a token that somebody holds, or held a moment ago: `authenticate` decides."""
        if annotators.person_for_token(tuple(self.people.values()), token) is not None:
            return True
        with self.queue.lock:
            self.queue.refresh()
            return annotators.person_for_token(self.people.values(), token) is not None


PersonOf = Callable[[Request], Person]


def make_app(label_app: LabelApp) -> FastAPI:
    """Return the application, to be put behind `security.SecurityMiddleware`."""
    app = FastAPI(title="amenable label", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(APIError, error_response)
    app.add_exception_handler(RequestValidationError, error_response)
    app.add_exception_handler(InputError, error_response)
    add_static(app, FILES)

    def person_of(request: Request) -> Person:
        return label_app.authenticate(token_of(headers_of(request.scope)))

    def owner_of(person: Annotated[Person, Depends(person_of)]) -> Person:
        if not person.is_owner:
            raise APIError(403, "Only an owner may see this.")
        return person

    add_account(app, label_app, person_of)
    add_tasks(app, label_app, person_of)
    add_writing(app, label_app, person_of)
    add_owner(app, label_app, owner_of)
    return app


def error_response(request: Request, error: Exception) -> JSONResponse:
    """Return an error as {"error": message}."""
    if isinstance(error, APIError):
        return JSONResponse({"error": error.message}, error.status)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        return JSONResponse({"error": f"{path}: {first['msg']}"}, 422)
    return JSONResponse({"error": str(error)}, 422)


def add_account(app: FastAPI, label_app: LabelApp, person_of: PersonOf) -> None:
    """Add login, logout, and what the page needs to know of the person and the server."""

    def find_user(token: str) -> dict[str, str]:
        person = label_app.authenticate(token)
        return {"name": person.name, "role": person.role}

    add_login(app, "/api/enter", find_user)

    @app.post("/api/leave")
    def logout() -> JSONResponse:
        response = JSONResponse({})
        response.delete_cookie(COOKIE, httponly=True, samesite="strict", path="/")
        return response

    @app.get("/api/me")
    def me(person: Annotated[Person, Depends(person_of)]) -> dict[str, Any]:
        return {
            **{"name": person.name, "role": person.role, "kinds": label_app.kinds, "flags": FLAGS, "reasons": REASONS},
            **{"instructions": label_app.instructions(), "suggests": label_app.suggest is not None},
            **{"lease": label_app.queue.policy.timeout, "entered": bool(person.hash), "one_key": label_app.one_key},
            **{"thanks": label_app.thanks, "clips": label_app.clips},
        }


def add_tasks(app: FastAPI, label_app: LabelApp, person_of: PersonOf) -> None:
    """Add the routes to get a task, to rank, skip, undo, and to renew an assignment."""
    queue = label_app.queue

    @app.post("/api/next")
    def next_task(body: NextRequest, person: Annotated[Person, Depends(person_of)]) -> dict[str, Any]:
        if body.kind not in label_app.kinds:
            raise APIError(404, "Such tasks are not given here.")
        qualify = not person.is_owner
        assignment = None if label_app.is_complete() else queue.next(person.name, body.kind, qualify)
        task = None if assignment is None else task_view(assignment, label_app)
        return {"task": task, "progress": progress_view(label_app, person, body.kind)}

    @app.post("/api/rank")
    def rank(body: RankRequest, person: Annotated[Person, Depends(person_of)]) -> dict[str, Any]:
        assignment = queue.get_assignment(person.name, body.assignment)
        return ack(queue.answer(person.name, assignment.id, "ranking", ranking_payload(assignment, body)))

    @app.post("/api/skip")
    def skip(body: SkipRequest, person: Annotated[Person, Depends(person_of)]) -> dict[str, Any]:
        if body.reason not in REASONS:
            raise APIError(422, "This is not one of the reasons.")
        payload = {"reason": body.reason, "notes": body.notes, "seconds": body.seconds}
        return ack(queue.answer(person.name, body.assignment, "skip", payload))

    @app.post("/api/undo")
    def undo(person: Annotated[Person, Depends(person_of)]) -> dict[str, Any]:
        assignment = queue.undo(person.name)
        progress = progress_view(label_app, person, assignment.task.kind)
        return {"task": task_view(assignment, label_app), "progress": progress}

    @app.post("/api/hold")
    def renew(body: AssignmentRequest, person: Annotated[Person, Depends(person_of)]) -> dict[str, Any]:
        queue.renew(person.name, body.assignment)
        return {}


def add_writing(app: FastAPI, label_app: LabelApp, person_of: PersonOf) -> None:
    """Add the routes for demonstrations and conversations, and for a model's suggestions."""
    queue = label_app.queue

    @app.post("/api/suggest")
    def suggest(body: SuggestRequest, person: Annotated[Person, Depends(person_of)]) -> dict[str, Any]:
        assignment = queue.get_assignment(person.name, body.assignment)
        if label_app.suggest is None or assignment.task.kind not in ("demonstrate", "converse"):
            raise APIError(404, "Nothing is suggested here.")
        if assignment.answer is not None:
            raise APIError(409, "This task has an answer already.")
        messages = conversation(assignment, body.turns)
        if not messages or messages[-1]["role"] != "user":
            raise APIError(422, "An answer is suggested once something has been asked.")
        suggestion = label_app.suggest(messages, len(suggestions(queue, assignment.id)))
        meta = {"assignment": assignment.id, "annotator": person.name, "turn": len(body.turns), "asked": messages}
        identity = queue.store.append("suggestion", {**suggestion, **meta}, queue.clock())
        return {"suggestion": identity, "text": suggestion["text"]}

    @app.post("/api/write")
    def write(body: WriteRequest, person: Annotated[Person, Depends(person_of)]) -> dict[str, Any]:
        assignment = queue.get_assignment(person.name, body.assignment)
        kind = {"demonstrate": "demonstration", "converse": "conversation"}.get(assignment.task.kind)
        if kind is None:
            raise APIError(422, "This task is answered with an order.")
        return ack(queue.answer(person.name, assignment.id, kind, writing_payload(queue, assignment, body)))


def add_owner(app: FastAPI, label_app: LabelApp, owner_of: Callable[..., Person]) -> None:
    """Add the routes for owners alone: figures, exported labels, and the instructions."""

    @app.get("/api/owner/figures", dependencies=[Depends(owner_of)])
    def figures() -> dict[str, Any]:
        return label_app.figures()

    @app.post("/api/owner/instructions", dependencies=[Depends(owner_of)])
    def instructions(body: InstructionsRequest) -> dict[str, Any]:
        label_app.queue.store.append("instructions", {"text": body.text}, label_app.queue.clock())
        return {}

    @app.get("/api/owner/export/{kind}", dependencies=[Depends(owner_of)])
    def export(kind: Literal["rankings", "pairs", "demonstrations"]) -> Response:
        text = "".join(f"{line}\n" for line in export_import.lines(label_app.queue.store, kind))
        headers = {"content-disposition": f'attachment; filename="{kind}.jsonl"'}
        return Response(text, media_type="application/jsonl", headers=headers)


def ack(event_id: int) -> dict[str, Any]:
    """Return the acknowledgement of an answer that is on disk."""
    return {"kept": event_id}


def progress_view(label_app: LabelApp, person: Person, kind: Kind) -> dict[str, int]:
    """Return the person's number of labels of a kind, all people's, and how many there are to be."""
    progress = label_app.queue.progress(person.name, kind)
    return {**progress, "tasks": label_app.goal or progress["tasks"]}


def task_view(assignment: Assignment, label_app: LabelApp) -> dict[str, Any]:
    """Return a task for the browser: completions in the order shown, without sources and purpose."""
    return {
        **{"assignment": assignment.id, "kind": assignment.task.kind, "former": previous_answer_view(assignment)},
        "prompt": prompt_turns(assignment),
        "completions": [assignment.task.completions[i] for i in assignment.order],
        "ended": [assignment.task.ended[i] for i in assignment.order],
        "seconds": max(0.0, label_app.queue.clock() - assignment.shown),
    }


def previous_answer_view(assignment: Assignment) -> dict[str, Any] | None:
    """Return a retracted answer in the order shown, None where there is none."""
    if assignment.previous_answer is None:
        return None
    payload = assignment.previous_answer.payload
    view: dict[str, Any] = {key: payload[key] for key in ("notes", "strength", "reason") if key in payload}
    for theirs, ours in (("ranks", "ranking"), ("ratings", "ratings"), ("flags", "flags")):
        if payload.get(ours):
            view[theirs] = [payload[ours][i] for i in assignment.order]
    if "messages" in payload:
        used = {each["turn"]: each["suggestion"] for each in payload["suggestions"] if each["kept"] != "refused"}
        turns = payload["messages"][len(assignment.task.prompt) :]
        view["turns"] = [{**turn, "suggestion": used.get(i)} for i, turn in enumerate(turns)]
    return view


def prompt_turns(assignment: Assignment) -> list[dict[str, str]]:
    return turns(assignment.task.prompt)


def ranking_payload(assignment: Assignment, body: RankRequest) -> dict[str, Any]:
    """Return a ranking as it is stored: its lists in the order of the completions, with the order shown."""
    task, k = assignment.task, len(assignment.task.completions)
    if task.kind not in ("rank", "compare"):
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
    shown_at = {i: position for position, i in enumerate(assignment.order)}
    ranks = [body.ranks[shown_at[i]] for i in range(k)]
    return {
        "prompt": prompt_turns(assignment),
        "completions": list(task.completions),
        # 1, 2, 2, 4: one more than the number of better ones
        "ranking": [1 + sum(other < rank for other in ranks) for rank in ranks],
        "id": f"label-{assignment.id}",
        "meta": {"ended": list(task.ended)},
        **task.source_fields,
        "shown_order": list(assignment.order),
        "strength": body.strength,
        "ratings": [body.ratings[shown_at[i]] for i in range(k)] if body.ratings else [],
        "flags": [sorted(set(body.flags[shown_at[i]])) for i in range(k)] if body.flags else [],
        "notes": body.notes,
        "seconds": body.seconds,
    }


def conversation(assignment: Assignment, turns: Sequence[Turn]) -> list[dict[str, str]]:
    """Return the task's prompt and the turns after it. Raises APIError 422 where roles do not alternate."""
    messages = prompt_turns(assignment)
    for turn in turns:
        expected = "user" if not messages or messages[-1]["role"] != "user" else "assistant"
        if turn.role != expected or not turn.content.strip():
            raise APIError(422, "Person and assistant take turns, and each says something.")
        messages.append({"role": turn.role, "content": turn.content})
    return messages


def writing_payload(queue: TaskQueue, assignment: Assignment, body: WriteRequest) -> dict[str, Any]:
    """Return a demonstration or conversation as it is stored, with each suggestion: taken, edited or refused."""
    messages = conversation(assignment, body.turns)
    if messages[-1]["role"] != "assistant":
        raise APIError(422, "The last word is the assistant's.")
    if assignment.task.kind == "demonstrate" and len(body.turns) != 1:
        raise APIError(422, "A demonstration is one answer.")
    events = {event.id: event for event in suggestions(queue, assignment.id)}
    used = {turn.suggestion: i for i, turn in enumerate(body.turns) if turn.suggestion is not None}
    if not set(used) <= set(events):
        raise APIError(422, "There is no such suggestion for this task.")
    outcomes = []
    for identity, event in events.items():
        turn, text, outcome = used.get(identity, event.payload["turn"]), event.payload["text"], "refused"
        if identity in used:
            outcome = "taken" if body.turns[turn].content.strip() == text.strip() else "edited"
        outcomes.append({"suggestion": identity, "turn": turn, "text": text, "kept": outcome})
    meta = {"id": f"label-{assignment.id}", "suggestions": outcomes, "notes": body.notes, "seconds": body.seconds}
    return {"messages": messages, **meta}


def suggestions(queue: TaskQueue, assignment_id: int) -> list[Event]:
    """Return the suggestions of an assignment."""
    events = queue.store.events("suggestion", after=assignment_id)
    return [event for event in events if event.payload["assignment"] == assignment_id]
