"""Rewards over HTTP, by a real server on this machine."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.rewards.remote import SERVED, remote_reward, served_at
from amenable.rewards.spec import load_reward
from amenable.train.runtime import Runtime

PROMPTS = [(Message("system", "Be brief."), Message("user", "Hi")), (Message("user", "Who?"),)]
COMPLETIONS = ["Hello", "Né"]
Reply = tuple[int, dict[str, str], bytes]


class Server:
    """An endpoint that keeps what it gets, and answers as it is set to, one reply after another."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.replies: list[Reply | Callable[[Any], Reply]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.requests.append((self.path, self.headers["content-type"], body))
                reply = outer.replies.pop(0)
                status, headers, data = reply(body) if callable(reply) else reply
                if not status:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that has gone away is no news."""

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/score?kind=a"

    def __enter__(self) -> "Server":
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def scores(*values: Any) -> Reply:
    return 200, {}, json.dumps({"scores": values}).encode()


def test_a_batch_goes_out_and_scores_come_back(server: Server) -> None:
    server.replies.append(lambda body: scores(*map(len, body["completions"])))
    reward = remote_reward(server.url)
    assert reward(PROMPTS, COMPLETIONS, ended=[True, False], target=["x", None]) == [5.0, 2.0]
    ((path, kind, body),) = server.requests
    assert (path, kind) == ("/score?kind=a", "application/json")
    assert body == {
        "prompts": [
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
            [{"role": "user", "content": "Who?"}],
        ],
        "completions": COMPLETIONS,
        "ended": [True, False],
        "target": ["x", None],
    }


def test_it_tries_again_after_trouble_of_the_server(server: Server) -> None:
    server.replies += [(503, {}, b"warming up"), (429, {}, b""), (0, {}, b""), scores(1, 2)]
    assert remote_reward(server.url, pauses=(0.0, 0.0, 0.0))(PROMPTS, COMPLETIONS) == [1.0, 2.0]
    assert len(server.requests) == 4


def test_every_completion_is_scored_once_in_batches_that_are_tried_again(server: Server) -> None:
    """The second of three requests fails twice, once after its work was done: its scores count once."""

    def lengths(body: Any) -> Reply:
        return scores(*(float(text.split()[1]) for text in body["completions"]))

    server.replies += [lengths, lambda body: (0, *lengths(body)[1:]), (502, {}, b""), lengths, lengths]
    completions = [f"answer {number}" for number in range(600)]
    reward = remote_reward(server.url, pauses=(0.0, 0.0))
    assert reward(PROMPTS[:1] * 600, completions, row=list(range(600))) == [float(number) for number in range(600)]
    bodies = [body for _, _, body in server.requests]
    assert [len(body["completions"]) for body in bodies] == [256, 256, 256, 256, 88]
    assert bodies[1] == bodies[2] == bodies[3]
    assert [row for body in (bodies[0], bodies[3], bodies[4]) for row in body["row"]] == list(range(600))


def test_long_completions_go_out_in_smaller_requests(server: Server) -> None:
    server.replies += [lambda body: scores(*map(len, body["completions"]))] * 3
    completions = ["x" * 400_000, "y" * 400_001, "z" * 400_002, "v" * 1_000_000]
    assert remote_reward(server.url)(PROMPTS[:1] * 4, completions) == [*map(float, map(len, completions))]
    assert [len(body["completions"]) for _, _, body in server.requests] == [2, 1, 1]


def test_the_server_of_a_reward_models_folder_is_asked(
    server: Server, monkeypatch: pytest.MonkeyPatch, runtime: Runtime
) -> None:
    monkeypatch.setenv(SERVED, json.dumps({"runs/reward": server.url}))
    assert served_at("runs/reward/") == server.url and served_at("runs/other") is None
    server.replies.append(scores(3, 4))
    reward = load_reward(("runs/reward=2",), runtime)
    assert reward(PROMPTS, COMPLETIONS) == [6.0, 8.0]
    assert reward.notes == [f"runs/reward is scored at {server.url}"]


def test_it_gives_up_with_the_last_reason(server: Server) -> None:
    server.replies += [(500, {}, b"first"), (500, {}, b"out of\nmemory")]
    with pytest.raises(InputError, match=r"/score\?kind=a: answered 500: out of memory \(2 tries\)"):
        remote_reward(server.url, pauses=(0.0,))(PROMPTS, COMPLETIONS)


def test_a_server_that_hangs_is_left_after_the_time_out(server: Server) -> None:
    release = threading.Event()

    def hang(body: Any) -> Reply:
        release.wait(10)
        return scores(1, 2)

    server.replies += [hang, hang]
    with pytest.raises(InputError, match=r"gave no answer: .*timed out \(2 tries\)"):
        remote_reward(server.url, timeout=0.2, pauses=(0.0,))(PROMPTS, COMPLETIONS)
    release.set()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((404, {}, b"no such route"), "answered 404: no such route; check the address"),
        ((302, {"location": "file:///etc/passwd"}, b""), "answered 302: file:///etc/passwd; .*without a redirect"),
        ((307, {"location": "http://127.0.0.1:1/"}, b""), "answered 307"),
        ((200, {}, b"<html>"), "answered '<html>', not"),
        ((200, {}, b"[1, 2]"), r"answered '\[1, 2\]', not"),
        (scores(1.0), "returned 1 scores for 2 completions"),
        (scores(1.0, None), "scored completion 2 of 2 with None"),
        ((200, {}, b'{"scores": [1, NaN]}'), "scored completion 2 of 2 with nan"),
    ],
)
def test_other_answers_are_told_at_once(reply: Reply, message: str, server: Server) -> None:
    server.replies.append(reply)
    with pytest.raises(InputError, match=message):
        remote_reward(server.url)(PROMPTS, COMPLETIONS)
    assert len(server.requests) == 1


def test_a_column_that_is_no_json(server: Server) -> None:
    with pytest.raises(InputError, match=r"a column cannot be sent as JSON: .*set"):
        remote_reward(server.url)(PROMPTS, COMPLETIONS, words=[{"a"}, {"b"}])
    assert not server.requests


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///etc/passwd", "is no address of HTTP"),
        ("ftp://127.0.0.1/x", "is no address of HTTP"),
        ("http:///x", "is no address of HTTP"),
        ("http://127.0.0.1:99999/", "is no address: Port out of range"),
    ],
)
def test_what_is_no_address_of_http(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        remote_reward(url)


def test_nobody_listens() -> None:
    with Server() as server:
        url = server.url
    with pytest.raises(InputError, match=r"cannot be reached: .*; start the server"):
        remote_reward(url)
