from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from amenable.data.types import Message
from amenable.serve import chat
from amenable.serve.bodies import Turn
from amenable.serve.prompts import asking, fitting, hopeless, prompts_of
from amenable.serve.refusals import Refused
from amenable.text.tokenizer import Tokenizer

ASKED: Any = [{"role": "user", "content": "Ann asks: name a red thing."}]


def test_the_oldest_turns_are_dropped_where_that_is_asked_for(http: httpx.Client) -> None:
    long = [
        {"role": role, "content": "name a red thing, or a blue thing, or a green one"} for role in ("user", "assistant")
    ]
    body = {"model": "tiny", "messages": [*long * 3, *ASKED], "max_tokens": 8}
    assert http.post("/v1/chat/completions", json=body).status_code == 400
    answered = http.post("/v1/chat/completions", json={**body, "truncation": "auto"})
    assert answered.status_code == 200
    assert int(answered.headers["x-dropped-messages"]) in (2, 4, 6)


def turn(role: Any, content: str = "a") -> Turn:
    return Turn(role=role, content=content)


def test_a_conversation_waits_for_the_assistant() -> None:
    said = [turn("system"), turn("user"), turn("assistant"), turn("user", "b")]
    assert asking(said)[-1] == Message("user", "b")
    for wrong in (said[:3], said[:1], [turn("user"), turn("system"), turn("user")], [turn("assistant"), turn("user")]):
        with pytest.raises(Refused) as refused:
            asking(wrong)
        assert (refused.value.status, refused.value.param) == (400, "messages")


@pytest.fixture
def reader(words: Tokenizer) -> Any:
    """A model that reads eight tokens."""
    decoder = SimpleNamespace(config=SimpleNamespace(vocab_size=words.vocab_size))
    return SimpleNamespace(tokenizer=words, context=8, speaker=SimpleNamespace(decoder=decoder))


def test_texts_begin_with_bos_and_ids_are_taken_as_they_are(reader: Any, words: Tokenizer) -> None:
    assert prompts_of(reader, "a rose") == [[words.bos_id, *words.encode("a rose")]]
    assert prompts_of(reader, ["a", ""]) == [[words.bos_id, *words.encode("a")], [words.bos_id]]
    assert prompts_of(reader, [5, 6]) == [[5, 6]]
    (typed,) = prompts_of(SimpleNamespace(**{**vars(reader), "context": 64}), words.eos)  # type: ignore[arg-type]
    assert words.eos_id not in typed


def test_what_the_model_cannot_read_is_refused(reader: Any, words: Tokenizer) -> None:
    assert fitting(reader, [1] * 7, "prompt") == [1] * 7
    with pytest.raises(Refused) as refused:
        fitting(reader, [1] * 8, "prompt")
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(Refused, match="unknown to the model"):
        fitting(reader, [words.vocab_size], "prompt")


def test_what_lies_too_far_back_is_dropped_in_pairs_at_once(reader: Any) -> None:
    turns = [Message("user" if i % 2 == 0 else "assistant", "a") for i in range(1001)]
    kept = len(turns) - hopeless(turns, reader)
    assert 8 <= kept <= 9 and hopeless(turns, reader) % 2 == 0
    assert hopeless(turns[:8], reader) == hopeless([], reader) == 0
    assert hopeless([turns[0], Message("assistant", "a rose " * 50)], reader) == 2


def test_a_very_long_conversation_costs_little(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = []
    render = chat.render_prompt
    monkeypatch.setattr(chat, "render_prompt", lambda *values: rendered.append(0) or render(*values))
    long = [{"role": role, "content": "a rose is red " * 30} for role in ("user", "assistant")]
    body = {"model": "tiny", "messages": [*long * 499, *ASKED], "max_tokens": 2, "truncation": "auto"}
    reply = http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200 and int(reply.headers["x-dropped-messages"]) == 998
    assert 1 <= len(rendered) < 10
