from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.testclient import TestClient

from amenable.errors import InputError
from amenable.serve.errors import APIError
from amenable.serve.openai.errors import Json, add_errors, error_body, error_object


class Asked(BaseModel):
    count: int
    words: str | list[str] = ""


@pytest.fixture
def client() -> TestClient:
    app = FastAPI(default_response_class=Json)
    add_errors(app)

    @app.post("/ask")
    def ask(body: Asked) -> None:
        """Nothing wrong."""

    def raising(error: Exception) -> Any:
        def route() -> None:
            raise error

        return route

    for path, error in (
        ("/busy", APIError(429, "busy", code="overloaded", retry_after=7)),
        ("/unknown", APIError(404, "no such model", "model", "model_not_found")),
        ("/impossible", InputError("cannot be", "there", "do this")),
        ("/broken", RuntimeError("secret")),
    ):
        app.add_api_route(path, raising(error))
    return TestClient(app, raise_server_exceptions=False)


def test_every_error_is_an_object(client: TestClient) -> None:
    busy = client.get("/busy")
    assert busy.status_code == 429 and busy.headers["retry-after"] == "7"
    assert busy.json() == error_object(429, "busy", code="overloaded")
    assert client.get("/unknown").json()["error"]["code"] == "model_not_found"
    impossible = client.get("/impossible")
    assert impossible.status_code == 400 and "cannot be" in impossible.json()["error"]["message"]
    broken = client.get("/broken")
    assert broken.status_code == 500 and "secret" not in broken.text
    assert broken.json()["error"]["type"] == "server_error"
    for path, status in (("/nowhere", 404), ("/ask", 405)):
        reply = client.get(path)
        assert reply.status_code == status and reply.json()["error"]["type"] == "invalid_request_error"


def test_a_mistake_is_named_by_its_field_as_the_client_knows_it(client: TestClient) -> None:
    assert client.post("/ask", json={"count": "x"}).json()["error"]["param"] == "count"
    assert client.post("/ask", json={"count": 1, "words": [2]}).json()["error"]["param"] == "words.0"
    reply = client.post("/ask", content=b"{", headers={"content-type": "application/json"}).json()["error"]
    assert (reply["message"], reply["param"]) == ("the body is not JSON", None)


def test_kinds_of_errors() -> None:
    kinds = {
        401: "authentication_error",
        403: "permission_error",
        429: "rate_limit_error",
        413: "invalid_request_error",
    }
    for status, kind in {**kinds, 500: "server_error", 503: "server_error"}.items():
        assert error_body(APIError(status, "why"))["error"] == {
            "message": "why",
            "type": kind,
            "param": None,
            "code": None,
        }


def test_half_a_surrogate_pair_is_answered() -> None:
    assert Json({"a": "\ud800"}).body == b'{"a": "\\ud800"}'
