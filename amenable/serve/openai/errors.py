"""Errors in OpenAI's JSON form: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from amenable.errors import InputError
from amenable.serve.errors import APIError


class Json(JSONResponse):
    """JSON in ASCII: half a surrogate pair, which a request may hold, is no UTF-8."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


def add_errors(app: FastAPI) -> None:
    """Add handlers that answer every exception with an error object."""

    @app.exception_handler(APIError)
    async def api_error(_: Request, error: APIError) -> Response:
        headers = {"retry-after": str(error.retry_after)} if error.retry_after else None
        return Json(error_body(error), error.status, headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        errors = error.errors()
        if errors[0]["type"] == "json_invalid":
            return Json(error_object(400, "the body is not JSON"), 400)
        return Json(validation_error([{**field, "loc": field["loc"][1:]} for field in errors]), 400)

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
    """Return the error object of pydantic's errors in a body: the first invalid field, and the reason."""
    # a field of several types has an error for each: the one furthest down says most
    same = (error for error in errors if error["loc"][:1] == errors[0]["loc"][:1])
    furthest = max(same, key=lambda error: len(field_path(error)))
    param = ".".join(map(str, field_path(furthest))) or None
    message = f"{param}: {furthest['msg']}" if param else str(furthest["msg"])
    return error_object(400, message, param, furthest.get("ctx", {}).get("code"))


def field_path(error: Mapping[str, Any]) -> list[str | int]:
    """Return the path of the invalid field as the client knows it: without the names of a field's types."""
    field = error.get("ctx", {}).get("field")
    return [*(part for part in error["loc"] if not is_variant(part)), *([] if field is None else [field])]


def is_variant(part: Any) -> bool:
    """True where a part of an error's path is the name of one of a field's types, which no client knows."""
    return isinstance(part, str) and (
        "[" in part or part.startswith("constrained-") or part in ("str", "Part", "float", "int")
    )


def error_object(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Return OpenAI's error object; its type follows from the status."""
    names = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = "server_error" if status >= 500 else names.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_body(error: APIError) -> dict[str, Any]:
    """Return an error as its error object."""
    return error_object(error.status, error.message, error.param, error.code)
