"""What people say of answers, into the store: thumbs and rankings. And coming in with a token.

It is on disk when the page hears so, and the same thing said twice is kept once.

(Annotations are evaluated here, not kept as text: FastAPI reads those of the routes.)
"""

import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from amenable.data.types import Ranking, conversation_error
from amenable.feedback.store import payload_of
from amenable.serve import security
from amenable.serve.openai.app_state import House
from amenable.serve.openai.errors import Refused
from amenable.serve.openai.prompt_building import asking
from amenable.serve.openai.schemas import LoginBody, RankingBody, ThumbBody


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
        wrong = conversation_error(messages) or (
            None if messages[-1].role == "assistant" else "the last message is not an answer"
        )
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
