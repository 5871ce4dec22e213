from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from amenable.serve.login import add_login
from amenable.serve.openai.errors import add_errors
from amenable.serve.security import token_of

USERS = {"abc-_1": {"name": "Ann"}, "none": {}}


def client_of(secure: bool = False, scheme: str = "http") -> TestClient:
    app = FastAPI()
    add_errors(app)
    add_login(app, "/login", lambda token: USERS.get(token), secure)
    return TestClient(app, base_url=f"{scheme}://127.0.0.1")


def test_a_known_token_becomes_a_cookie() -> None:
    reply = client_of().post("/login", json={"token": "abc-_1"})
    assert (reply.status_code, reply.json()) == (200, {"name": "Ann"})
    cookie = reply.headers["set-cookie"]
    assert token_of({"cookie": cookie.split(";")[0]}) == "abc-_1"
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Secure" not in cookie
    reply = client_of().post("/login", json={"token": "none"})
    assert (reply.status_code, reply.content) == (204, b"") and "set-cookie" in reply.headers


def test_the_cookie_is_secure_over_https_and_on_request() -> None:
    for client in (client_of(secure=True), client_of(scheme="https")):
        assert client.post("/login", json={"token": "none"}).headers["set-cookie"].endswith("; Secure")


@pytest.mark.parametrize("token", ["", "abc", "x y", "a\r\nset-cookie: b=c", "é", "none\n"])
def test_an_unknown_token_is_refused(token: str) -> None:
    reply = client_of().post("/login", json={"token": token})
    assert reply.status_code == 401 and "set-cookie" not in reply.headers


def test_a_token_is_checked_before_it_is_looked_up() -> None:
    app: Any = FastAPI()
    add_errors(app)
    add_login(app, "/login", lambda token: {})
    client = TestClient(app)
    assert client.post("/login", json={"token": "a; Domain=evil"}).status_code == 401
    assert client.post("/login", json={"token": "x" * 201}).status_code == 400
