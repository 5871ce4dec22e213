"""What a server lets through: tried from outside, over a socket, as an attacker would."""

import json
import socket
import threading
from dataclasses import replace
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest

from amenable.feedback import annotators
from amenable.feedback.store import Store
from amenable.serve import security
from amenable.serve.security import Limits, SecurityMiddleware, token_of

ASKED = [{"role": "user", "content": "Ann asks: name a red thing."}]
BODY = {"model": "tiny", "messages": ASKED, "max_tokens": 4}
CHAT = "/v1/chat/completions"


def raw(port: int, data: bytes, seconds: float = 5) -> bytes:
    """What is answered to these bytes, until the server closes or says no more."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as line:
        line.sendall(data)
        result = b""
        try:
            while part := line.recv(65536):
                result += part
                if b"\r\n\r\n" in result and b"connection: close" not in result.lower():
                    return result
        except TimeoutError:
            pass
        return result


def test_every_answer_has_the_headers(served) -> None:
    for path in ("/", "/chat.js", "/health", "/nowhere"):
        headers = httpx.get(served.url + path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


def test_the_page_has_no_inline_script_or_style(served) -> None:
    page = httpx.get(served.url).text
    assert page.count("<script") == 1 and '<script type="module" src="/chat.js"></script>' in page
    assert "<style" not in page and " style=" not in page and " on" not in page.replace(" only", "").split("<body>")[0]
    for name in ("chat", "chat-store", "chat-rank", "elements"):
        script = httpx.get(f"{served.url}/{name}.js").text
        assert not any(
            word in script for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")
        )


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80", "[::", ""])
def test_another_name_for_this_address_is_refused(served, host: str) -> None:
    assert httpx.get(f"{served.url}/v1/models", headers={"host": host}).status_code in (400, 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_another_site_changes_nothing(served, headers: dict[str, str]) -> None:
    before = len(served.store.events())
    thumb = {"id": "x1", "model": "tiny", "messages": [*ASKED, {"role": "assistant", "content": "a"}], "up": True}
    assert httpx.post(f"{served.url}/feedback/thumb", json=thumb, headers=headers).status_code == 403
    assert httpx.post(served.url + CHAT, json=BODY, headers=headers).status_code == 403
    assert len(served.store.events()) == before


def test_forms_are_refused(served) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        reply = httpx.post(served.url + CHAT, content=json.dumps(BODY), headers={"content-type": kind})
        assert reply.status_code == 415


def test_large_bodies_are_refused_unread(served) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    answer = raw(served.port, f"{head}Content-Length: 10485760\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413")

    def endless():
        for _ in range(160):
            yield b"x" * 65536

    try:
        reply = httpx.post(
            served.url + CHAT, content=endless(), headers={"content-type": "application/json"}, timeout=20
        )
        assert reply.status_code == 413
    except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        pass  # it closed the door while we were still speaking
    assert httpx.get(f"{served.url}/health").status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"model": NaN}', b'{"a":' * 20_000,
        b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}', b'{"\\ud800": 1}',
        b'{"model": "tiny", "messages": [{"role": "tool", "content": "x"}]}', b"1" * 6000,
        b'{"model": "tiny", "messages": [{"role": "system", "content": "x"}]}',
    ],
)  # fmt: skip
def test_malformed_bodies_are_the_clients_mistake(served, content: bytes) -> None:
    for path in (CHAT, "/v1/completions", "/score", "/feedback/thumb", "/login"):
        reply = httpx.post(served.url + path, content=content, headers={"content-type": "application/json"})
        assert reply.status_code == 400, (path, reply.text)
        assert reply.json()["error"]["message"]


def test_a_conversation_of_nothing_is_refused(served) -> None:
    reply = httpx.post(served.url + CHAT, json={"model": "tiny", "messages": []})
    assert reply.status_code == 400 and reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/..%2f..%2fetc/passwd", "/chat.js/../../serve.py", "/pages/chat.html", "//etc/passwd",
     "/v1/models/../../../etc/passwd", "/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/serve.py", "/%00"],
)  # fmt: skip
def test_no_path_is_a_file(served, path: str) -> None:
    answer = raw(served.port, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404"), answer[:200]
    assert b"root:" not in answer and b"def run" not in answer


def test_script_comes_back_as_json_text(served) -> None:
    evil = "<script>alert(1)</script>"
    reply = httpx.post(served.url + CHAT, json={**BODY, "model": evil})
    assert reply.status_code == 404 and reply.headers["content-type"] == "application/json"
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_a_client_that_asks_too_often_waits(serve_config, run_server, tmp_path) -> None:
    with (
        run_server(replace(serve_config, labels_db=tmp_path / "s.db", rate_limit_per_minute=20)) as server,
        httpx.Client() as client,
    ):
        codes = [client.get(f"{server.url}/v1/models").status_code for _ in range(25)]
        assert codes[:20] == [200] * 20 and 429 in codes[20:]
        refused = client.get(f"{server.url}/v1/models")
        assert refused.headers["retry-after"] == "5" and refused.json()["error"]["type"] == "rate_limit_error"


def test_what_may_be_asked_comes_back(runtime) -> None:
    now = [0.0]
    guard = SecurityMiddleware(None, limits=Limits(per_minute=60), clock=lambda: now[0])  # type: ignore[arg-type]
    assert sum(guard.within_rate_limit("a") for _ in range(100)) == 60
    assert guard.within_rate_limit("b")
    now[0] = 2.0
    assert [guard.within_rate_limit("a") for _ in range(3)] == [True, True, False]


def test_tokens_open_the_door_and_revoked_ones_do_not(serve_config, run_server, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("amenable.serve.tokens.CACHE_SECONDS", 0.0)
    with Store(tmp_path / "s.db") as store:
        token = annotators.add(store, "Ann", "annotator", 0.0)
    config = replace(serve_config, labels_db=tmp_path / "s.db", require_tokens=True)
    with run_server(config) as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/").status_code == client.get("/health").status_code == 200
        for path in ("/v1/models", "/metrics", "/openapi.json"):
            assert client.get(path).status_code == 401
        assert client.post(CHAT, json=BODY).json()["error"]["type"] == "authentication_error"
        assert client.post(CHAT, json=BODY, headers={"authorization": f"Bearer {token[:-1]}x"}).status_code == 401
        assert client.post(CHAT, json=BODY, headers={"authorization": f"Bearer {token}"}).status_code == 200
        assert client.post("/login", json={"token": "x" * 40}).status_code == 401
        reply = client.post("/login", json={"token": token})
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(reply.headers["set-cookie"].split("; "))
        assert client.get("/v1/models").status_code == 200
        thumb = {"id": "x1", "model": "tiny", "messages": [*ASKED, {"role": "assistant", "content": "a"}], "up": True}
        client.post("/feedback/thumb", json=thumb).raise_for_status()
        assert server.store.events("thumb")[-1].payload["annotator"] == "Ann"
        annotators.revoke(server.store, "Ann", 1.0)
        assert client.get("/v1/models").status_code == 401


def test_tokens_in_headers() -> None:
    assert token_of({"authorization": "Bearer abc"}) == "abc" == token_of({"cookie": "a=b; amenable_token=abc"})
    for headers in ({}, {"authorization": "Basic abc"}, {"authorization": "Bearer "}, {"cookie": "\x00=;;=,"}):
        assert token_of(headers) is None


def test_many_at_once_get_their_own_answers(served) -> None:
    body: Any = {**BODY, "max_tokens": 12}
    alone = [httpx.post(served.url + CHAT, json={**body, "seed": i}).json()["choices"] for i in range(8)]
    together: dict[int, Any] = {}

    def ask(i: int) -> None:
        together[i] = httpx.post(served.url + CHAT, json={**body, "seed": i}, timeout=30).json()["choices"]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [together[i] for i in range(8)] == alone


def test_a_port_in_use_is_told(served) -> None:
    connection = HTTPConnection("127.0.0.1", served.port)
    connection.connect()
    with pytest.raises(security.InputError, match="cannot be opened"):
        security.listen("127.0.0.1", served.port)
    connection.close()


def test_the_icon_that_browsers_ask_for_is_there(served) -> None:
    for path in ("/favicon.ico", "/icon.svg"):
        reply = httpx.get(f"{served.url}{path}")
        assert reply.status_code == 200 and reply.headers["content-type"].startswith("image/svg+xml")
