import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.data.types import Conversation, Message, Prompt
from amenable.errors import InputError
from amenable.feedback.judges import Judge
from amenable.feedback.model_judge import ModelJudge, endpoint, read_verdict

PROMPT = Prompt((Message("user", "name a red thing"),))
CHANCE = torch.Generator()


def shown(conversation: Conversation) -> tuple[str, str]:
    """The two answers in a question."""
    text = conversation[-1].content
    first, _, rest = text.partition("[Answer A]\n")[2].partition("\n\n[Answer B]\n")
    return first, rest.partition("\n\nWhich answer")[0]


def likes_long(conversation: Conversation) -> str:
    first, second = map(len, shown(conversation))
    return f"I thought.\nVerdict: {'tie' if first == second else 'A' if first > second else 'B'}"


def test_ranks_follow_the_models_words_with_ties() -> None:
    judge: Judge = ModelJudge(likes_long, "long")
    assert judge(PROMPT, ["a", "ccc", "bb", "dd", "bb"], [True] * 5, CHANCE) == [5, 1, 2, 2, 2]


def test_a_judge_that_looks_at_the_place_alone_prefers_none() -> None:
    judge = ModelJudge(lambda _: "A", "first")
    assert judge(PROMPT, ["a", "b", "c"], [True] * 3, CHANCE) == [1, 1, 1]
    assert judge.calls == 6


def test_what_was_asked_is_remembered_by_name_and_rubric(tmp_path: Path) -> None:
    memory = tmp_path / "deep" / "judge.jsonl"
    first = ModelJudge(likes_long, "long", cache_file=memory)
    ranks = first(PROMPT, ["a", "bb", "ccc"], [True] * 3, CHANCE)
    with memory.open("a") as file:
        file.write('{"question": "cut sho')

    def never(_: Conversation) -> str:
        raise AssertionError("asked again")

    again = ModelJudge(never, "long", cache_file=memory)
    assert again(PROMPT, ["a", "bb", "ccc"], [True] * 3, CHANCE) == ranks == [3, 2, 1]
    assert again.calls == 0
    for other in (ModelJudge(never, "another", cache_file=memory), ModelJudge(never, "long", "be brief", memory)):
        with pytest.raises(AssertionError, match="asked again"):
            other(PROMPT, ["a", "bb"], [True] * 2, CHANCE)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Verdict: A", 1.0), ("**Verdict:** B.", 0.0), ("verdict - TIE", 0.5), ("a", 1.0), ("Answer B.", 0.0),
        ("Verdict: A? no.\nVerdict: B", 0.0), ("Both are fine", None), ("", None), ("Verdict: Apple", None),
    ],
)  # fmt: skip
def test_verdicts(text: str, verdict: float | None) -> None:
    assert read_verdict(text) == verdict


def test_words_without_a_verdict_are_ties_and_counted() -> None:
    judge = ModelJudge(lambda _: "who knows", "lost")
    assert judge(PROMPT, ["a", "b"], [True] * 2, CHANCE) == [1, 1]
    assert judge.unclear == 2


class Api(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        bad = body["model"] != "wise" or self.headers["authorization"] != "Bearer secret"
        text = likes_long((Message("user", body["messages"][-1]["content"]),))
        said: Any = {"error": "no"} if bad else {"choices": [{"message": {"content": text}}]}
        self.send_response(404 if bad else 200)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def api() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_an_endpoint_judges(api: str) -> None:
    judge = ModelJudge(endpoint(api, "wise", "secret"), "wise")
    assert judge(PROMPT, ["a", "bb"], [True] * 2, CHANCE) == [2, 1]
    with pytest.raises(InputError, match="answered 404"):
        ModelJudge(endpoint(api, "unwise", "secret"), "unwise")(PROMPT, ["a", "bb"], [True] * 2, CHANCE)


def test_an_endpoint_that_is_not_there_is_told() -> None:
    with pytest.raises(InputError, match="gave no answer"):
        endpoint("http://127.0.0.1:9/v1", "m", seconds=2)(PROMPT.messages)
    with pytest.raises(InputError, match="not an address"):
        endpoint("file:///etc/passwd", "m")
