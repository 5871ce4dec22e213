"""Routes for thumbs and rankings of answers: they are stored as events, on disk before they are acknowledged.

The same feedback sent twice, by its id, is stored once.

(Annotations are evaluated here, not kept as text: FastAPI reads those of the routes.)
"""

import time
from typing import Any

from fastapi import FastAPI, Request

from amenable.data.types import Ranking, conversation_error, message_fields
from amenable.feedback.store import payload_of
from amenable.serve.errors import APIError
from amenable.serve.openai.app_state import AppState
from amenable.serve.openai.prompt_building import prompt_messages
from amenable.serve.openai.schemas import RankingRequest, ThumbRequest


def add_feedback(app: FastAPI, state: AppState) -> None:
    """Add the two routes."""

    @app.post("/feedback/thumb")
    def thumb(body: ThumbRequest, request: Request) -> dict[str, Any]:
        messages = [turn.message for turn in body.messages]
        error = conversation_error(messages) or (
            None if messages[-1].role == "assistant" else "the last message is not an answer"
        )
        if error:
            raise APIError(400, error, "messages")
        payload = {
            "messages": [message_fields(message) for message in messages],
            "up": body.up,
            "model": body.model,
            "sampling": body.sampling,
            "annotator": state.user_of(request.scope),
            "id": body.id,
        }
        return store_once("thumb", payload, body.id)

    @app.post("/feedback/ranking")
    def ranking(body: RankingRequest, request: Request) -> dict[str, Any]:
        count = len(body.completions)
        if len(body.ranking) != count or (body.models and len(body.models) != count):
            raise APIError(400, f"{len(body.ranking)} ranks for {count} answers", "ranking")
        meta = {"models": body.models, "sampling": body.sampling, "source": "serve"}
        prompt = tuple(prompt_messages(body.messages))
        ranks = tuple(float(rank) for rank in body.ranking)
        user = state.user_of(request.scope)
        row = Ranking(prompt, tuple(body.completions), ranks, f"serve-{body.id}", user, meta)
        order = {"shown_order": list(range(count)), "seconds": body.seconds, "replaces": None}
        return store_once("ranking", {**payload_of(row), **order}, body.id)

    def store_once(kind: str, payload: dict[str, Any], once: str) -> dict[str, Any]:
        if state.store is None:
            raise APIError(404, "no feedback is kept here", code="no_store")
        event, new = state.store.append_once(kind, payload, time.time(), f"serve-{kind}-{payload['annotator']}-{once}")
        return {"event": event, "new": new}
