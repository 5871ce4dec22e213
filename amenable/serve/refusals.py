"""Answers that are errors, as OpenAI's clients read them: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import json
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
        # a field of several types is wrong in several ways: the one that came furthest says most
        found = max((one for one in wrong if one["loc"][:2] == wrong[0]["loc"][:2]), key=lambda one: len(one["loc"]))
        param = ".".join(str(place) for place in found["loc"][1:] if not is_variant(place)) or None
        return Json(error_object(400, f"{param}: {found['msg']}" if param else str(found["msg"]), param), 400)

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
