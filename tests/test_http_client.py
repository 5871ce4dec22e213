"""Requests over HTTP: errors in one line that says how to mend them, pauses that a server asks for, no key repeated."""

from typing import Any

import pytest

from amenable import http_client
from amenable.errors import InputError
from amenable.http_client import get, post, require_listener, seconds_of
from tests.conftest import ChatAPI

BODY = b'{"messages": [{"content": "Hi"}], "seed": 1}'


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (400, "it takes JSON, without a redirect"),
        (401, "set OPENAI_API_KEY to a key of this server"),
        (403, "the key may not do this"),
        (404, "check the address and the name of the model"),
        (429, r"\(3 tries\); wait, send fewer requests at once"),
        (500, r"\(3 tries\); look at the server's log"),
    ],
)
def test_an_error_is_a_line_with_a_hint_and_without_the_key(chat_api: ChatAPI, status: int, hint: str) -> None:
    chat_api.reply = lambda body: (status, {}, b"wrong: sk-secret is\n no good")
    with pytest.raises(InputError, match=rf"answered {status}: wrong: \.\.\. is no good.*{hint}") as error:
        post(f"{chat_api.url}/x", BODY, 5.0, (0.0, 0.0), {"authorization": "Bearer sk-secret"})
    assert "sk-secret" not in str(error.value) and "\n" not in str(error.value)
    assert len(chat_api.requests) == (3 if status in (429, 500) else 1)


def test_a_server_that_is_busy_says_for_how_long(chat_api: ChatAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(http_client.time, "sleep", slept.append)
    replies: list[tuple[int, dict[str, str], Any]] = [
        (429, {"retry-after": "7"}, b""),
        (503, {}, b""),
        (200, {}, b"fine"),
    ]
    chat_api.reply = lambda body: replies.pop(0)
    assert post(f"{chat_api.url}/x", BODY, 5.0, (1.0, 4.0)) == b"fine" and slept == [0.0, 7.0, 4.0]
    assert [seconds_of(text) for text in ("9999", "-1", "Wed, 21 Oct 2015", None)] == [http_client.MAX_PAUSE, 0, 0, 0]


def test_a_get_and_addresses_that_are_none(chat_api: ChatAPI) -> None:
    assert b"wise" in get(f"{chat_api.url}/models", 5.0, ())
    require_listener(chat_api.url)
    for url, problem in (
        ("http://127.0.0.1:9/v1", "cannot be reached: .*; start the server, or mend the address"),
        ("ftp://127.0.0.1/", "is no address of HTTP"),
        ("http://127.0.0.1:x/", "is no address"),
    ):
        with pytest.raises(InputError, match=problem):
            require_listener(url)
    with pytest.raises(InputError, match=r"gave no answer: .* \(1 tries\)"):
        get("http://127.0.0.1:9/v1/models", 5.0, ())
