"""Two hundred clients that take their time, and one that does not: it is served meanwhile, and they are let go."""

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from amenable.serve import security
from amenable.serve.security import Limits

SLOW = 200
PATIENCE = 12.0
"""seconds"""
HASTE = Limits(seconds=1.0, idle_seconds=1, per_minute=10**6)
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Ann asks: name a red thing."}], "max_tokens": 4}


class Siege:
    """So many at once; a fourth each: mute, first lines bit by bit, a body bit by bit, idle after an answer."""

    def __init__(self, port: int, path: str):
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        body = f"{head}Content-Type: application/json\r\nContent-Length: 5000\r\n\r\n"
        idle = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        self.lines = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) for _ in range(SLOW)]
        self.kinds = [("mute", "head", "body", "idle")[i % 4] for i in range(SLOW)]
        for line, kind in zip(self.lines, self.kinds):
            line.sendall({"mute": "", "head": head, "body": body, "idle": idle}[kind].encode())
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.drip)
        self.thread.start()

    def drip(self) -> None:
        """A byte each, now and then, so that nobody looks dead. Bodies fall silent, so that they hear the answer."""
        began = time.monotonic()
        while not self.done.wait(0.1):
            spoken = {"head": b"x", "body": b" " if time.monotonic() - began < 0.5 else b""}
            for line, kind in zip(self.lines, self.kinds):
                with contextlib.suppress(OSError):
                    line.sendall(spoken.get(kind, b""))

    def answers(self) -> dict[str, list[bytes]]:
        """What each was told until its connection was closed, by kind."""
        result: dict[str, list[bytes]] = {kind: [] for kind in self.kinds}
        for line, kind in zip(self.lines, self.kinds):
            report = b""
            # who is still speaking when the door closes may hear nothing
            with contextlib.suppress(ConnectionResetError):
                while part := line.recv(65536):
                    report += part
            result[kind].append(report)
        return result

    def end(self) -> None:
        self.done.set()
        self.thread.join(5)
        for line in self.lines:
            line.close()


def withstands(port: int, path: str, ask: Callable[[], None]) -> None:
    """Somebody is served while the slow hold on, and afterwards; everybody slow is let go, or reading ends in a fault.

    How long each may take is PATIENCE and not one second, so that a busy machine is no fault.
    """
    siege = Siege(port, path)
    try:
        for _ in range(5):
            ask()
        answers = siege.answers()
        assert set(answers["mute"]) == set(answers["head"]) == {b""}
        assert all(report.startswith(b"HTTP/1.1 200") for report in answers["idle"])
        assert all(report.startswith(b"HTTP/1.1 408") for report in answers["body"])
    finally:
        siege.end()
    ask()


def test_chat_is_served_while_two_hundred_dawdle(serve_config: Any, run_server: Any, tmp_path: Any) -> None:
    with run_server(replace(serve_config, labels_db=tmp_path / "s.db"), HASTE) as server:

        def ask() -> None:
            assert httpx.post(f"{server.url}/v1/chat/completions", json=CHAT, timeout=PATIENCE).status_code == 200

        withstands(server.port, "/v1/chat/completions", ask)


def test_labels_are_kept_while_two_hundred_dawdle(run_labelling: Any) -> None:
    with run_labelling(20, HASTE) as (port, _):

        def ask() -> None:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
                task = client.post("/api/next", json={"kind": "rank"}).json()["task"]
                spoken = {"assignment": task["assignment"], "ranks": [1, 2, 3]}
                assert client.post("/api/rank", json=spoken).json()["kept"]

        withstands(port, "/api/rank", ask)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


def test_a_busy_connection_outlives_the_time_for_one_request(run_guard: Any) -> None:
    with run_guard(security.SecurityMiddleware(nothing, limits=Limits(seconds=0.3, per_minute=10**6))) as (port, _):
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        line.connect()
        first, began = line.sock, time.monotonic()
        while time.monotonic() - began < 1.0:
            line.request("GET", "/")
            assert line.getresponse().read() == b"" and line.sock is first
            time.sleep(0.02)
        line.close()


def test_an_answer_that_takes_too_long_is_given_up(run_guard: Any) -> None:
    async def never(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] == "/begun":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await receive()

    with run_guard(security.SecurityMiddleware(never, limits=Limits(answer_seconds=0.2))) as (port, _):
        reply = httpx.get(f"http://127.0.0.1:{port}/")
        assert reply.status_code == 503 and reply.headers["retry-after"] == "5"
        assert reply.json() == {"error": "the answer took too long"}
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"http://127.0.0.1:{port}/begun")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such limit")
def test_a_client_that_reads_nothing_is_given_up(run_guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not ended.is_set():
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            if (await receive())["type"] == "http.disconnect":
                ended.set()

    monkeypatch.setattr(security, "SEND_TIMEOUT", 1)
    with run_guard(security.SecurityMiddleware(endless)) as (port, _), socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect(("127.0.0.1", port))
        line.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert ended.wait(5)
