from typing import Any

import pytest
from pydantic import ValidationError

from amenable.data.types import Message
from amenable.serve.bodies import ChatBody, CompletionBody, LoginBody, RankingBody, ScoreBody, ThumbBody, Turn

TURN = {"role": "user", "content": "Ann asks: name a red thing."}
CHAT: dict[str, Any] = {"model": "tiny", "messages": [TURN]}


def test_what_is_said_becomes_settings() -> None:
    body = ChatBody(**CHAT, temperature=0, top_p=0.5, top_k=3, min_p=0.1, stop=["a", "b"])
    drawn = body.sampling(7)
    assert (drawn.temperature, drawn.top_p, drawn.top_k, drawn.min_p, drawn.max_new_tokens) == (0, 0.5, 3, 0.1, 7)
    assert body.stops == ("a", "b")
    usual = ChatBody(**CHAT, stop="a")
    assert (usual.sampling(1).temperature, usual.sampling(1).top_p, usual.stops) == (1.0, 1.0, ("a",))
    assert CompletionBody(model="tiny", prompt="a").stops == ()


def test_turns_in_parts_and_developers_are_read() -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "rose"}]
    assert Turn(role="user", content=parts).message == Message("user", "a rose")
    assert Turn(role="developer", content="Be kind.").message == Message("system", "Be kind.")


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1}, {"temperature": float("nan")}, {"temperature": "1"}, {"top_p": 0}, {"top_p": 1.01},
        {"top_k": -1}, {"n": 0}, {"n": 17}, {"n": True}, {"max_tokens": 0}, {"max_tokens": 1.5}, {"seed": 2**63},
        {"stop": ""}, {"stop": ["a"] * 17}, {"logprobs": 2}, {"top_logprobs": 21}, {"presence_penalty": 0.5},
        {"model": ""}, {"messages": []}, {"messages": [{"role": "tool", "content": "x"}]}, {"tools": []},
        {"messages": [{**TURN, "name": "x"}]}, {"messages": [{"role": "user", "content": "x" * 200_001}]},
        {"stream_options": {"include_usage": True, "more": 1}}, {"truncation": "yes"},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_out_of_bounds_or_unknown_is_refused(wrong: dict[str, Any]) -> None:
    ChatBody(**CHAT)
    with pytest.raises(ValidationError):
        ChatBody(**{**CHAT, **wrong})


def test_the_other_bodies_have_bounds_too() -> None:
    rank = {"id": "r1", "messages": [TURN], "completions": ["a", "b"], "ranking": [1, 2]}
    RankingBody(**rank)
    for body, values in (
        (RankingBody, {**rank, "ranking": [1, 10]}),
        (RankingBody, {**rank, "completions": ["a"]}),
        (RankingBody, {**rank, "seconds": float("inf")}),
        (RankingBody, {**rank, "id": "../x"}),
        (ThumbBody, {"id": "a'; DROP TABLE events; --", "model": "m", "messages": [TURN], "up": True}),
        (ThumbBody, {"id": "a", "model": "m", "messages": [TURN], "up": 1}),
        (LoginBody, {"token": "a; Secure"}),
        (LoginBody, {"token": "a\r\nset-cookie: x"}),
        (ScoreBody, {"model": "m", "messages": [TURN], "completions": []}),
        (CompletionBody, {"model": "m", "prompt": []}),
        (CompletionBody, {"model": "m", "prompt": [-1]}),
        (CompletionBody, {"model": "m", "prompt": ["a", 1]}),
    ):
        with pytest.raises(ValidationError):
            body(**values)


FILL = 200_000


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (CompletionBody, {"prompt": ["a"] * FILL}),
        (CompletionBody, {"prompt": [{}] * FILL}),
        (ChatBody, {"messages": [{}] * FILL}),
        (ChatBody, {"messages": [{"role": "user", "content": [{}] * 100}] * 1000}),
        (ChatBody, {f"x{i}": 1 for i in range(FILL)}),
        (ChatBody, {"stop": [1] * FILL}),
        (RankingBody, {"ranking": [0] * FILL}),
        (RankingBody, {"sampling": {f"x{i}": "a" for i in range(FILL)}}),
    ],
    ids=lambda value: getattr(value, "__name__", None) or next(iter(value)),
)
def test_a_large_mistake_is_not_written_out_item_by_item(kind: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        kind(**{"model": "m", **wrong})
    assert refused.value.error_count() < 20
