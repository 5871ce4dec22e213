"""Answers that are errors, as OpenAI's clients read them: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from amenable.errors import InputError
from amenable.serve.security import Refusal


class Refused(Exception):
    """An answer that is an error, as OpenAI's clients read it."""

    def __init__(self, status: int, why: str, param: str | None = None, code: str | None = None, wait: int = 0):
        super().__init__(why)
        self.status, self.why, self.param, self.code, self.wait = status, why, param, code, wait


class Json(JSONResponse):
    """JSON in ASCII: half a surrogate pair, which a request may hold, is no UTF-8."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


def add_errors(app: FastAPI) -> None:
    """Whatever goes wrong is told as OpenAI's clients expect it."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        headers = {"retry-after": str(error.wait)} if error.wait else None
        return Json(error_object(error.status, error.why, error.param, error.code), error.status, headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        wrong = error.errors()
        if wrong[0]["type"] == "json_invalid":
            return Json(error_object(400, "the body is not JSON"), 400)
        return Json(validation_error([{**fault, "loc": fault["loc"][1:]} for fault in wrong]), 400)

    @app.exception_handler(InputError)
    async def impossible(_: Request, error: InputError) -> Response:
        return Json(error_object(400, str(error)), 400)

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        return Json(error_object(error.status_code, str(error.detail)), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> Response:
        return Json(error_object(500, "the server failed; its log says why"), 500)


def validation_error(errors: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The error object of what pydantic found wrong in a body: a field by its name, and what is wrong with it."""
    # a field of several types is wrong in several ways: the one that came furthest says most
    same = (error for error in errors if error["loc"][:1] == errors[0]["loc"][:1])
    furthest = max(same, key=lambda error: len(place_of(error)))
    param = ".".join(map(str, place_of(furthest))) or None
    why = f"{param}: {furthest['msg']}" if param else str(furthest["msg"])
    return error_object(400, why, param, furthest.get("ctx", {}).get("code"))


def place_of(error: Mapping[str, Any]) -> list[str | int]:
    """Where in a body an error lies, as the client knows it: without the names of a field's types."""
    field = error.get("ctx", {}).get("field")
    return [*(place for place in error["loc"] if not is_variant(place)), *([] if field is None else [field])]


def is_variant(place: Any) -> bool:
    """Whether a part of an error's place is the name of one of a field's types, which no client knows."""
    return isinstance(place, str) and (
        "[" in place or place.startswith("constrained-") or place in ("str", "Part", "float", "int")
    )


def error_object(status: int, why: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    names = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = "server_error" if status >= 500 else names.get(status, "invalid_request_error")
    return {"error": {"message": why, "type": kind, "param": param, "code": code}}


def said(refusal: Refusal) -> dict[str, Any]:
    """A refusal of the guard in the same form."""
    return error_object(refusal.status, refusal.why)
