import json
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from amenable.data.types import Message, ToolCall
from amenable.serve import conversation
from amenable.serve.errors import APIError
from amenable.serve.openai.prompt_building import (
    chat_prompt_ids,
    completion_prompt_ids,
    min_dropped_turns,
    prompt_messages,
    require_fit,
    split_prefix,
)
from amenable.serve.openai.schemas import ChatRequest, CompletionRequest, Turn
from amenable.text.chat import render, render_prompt
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
    answer = [turn("system"), turn("user"), turn("assistant"), turn("user", "b")]
    assert prompt_messages(answer)[-1] == Message("user", "b")
    with pytest.raises(APIError, match="two system messages: one system message may come first"):
        prompt_messages([turn("system"), turn("developer"), turn("user")])
    for wrong in (answer[:3], answer[:1], [turn("user"), turn("system"), turn("user")]):
        with pytest.raises(APIError) as refused:
            prompt_messages(wrong)
        assert (refused.value.status, refused.value.param) == (400, "messages")


def chat(*turns: Turn, **switches: Any) -> ChatRequest:
    return ChatRequest(model="m", messages=[turn.model_dump(exclude_none=True) for turn in turns], **switches)


SPOKEN = (turn("user", "a"), turn("assistant", "The sea"))


def test_a_last_message_of_the_assistant_is_continued_where_that_is_asked_for() -> None:
    expected = ([Message("user", "a")], "The sea")
    assert split_prefix(chat(*SPOKEN, continue_final_message=True)) == expected
    assert split_prefix(chat(*SPOKEN, continue_final_message=True, add_generation_prompt=False)) == expected
    prefix = Turn(role="assistant", content="The sea", prefix=True)
    assert split_prefix(chat(SPOKEN[0], prefix)) == expected
    for usual in ({}, {"continue_final_message": False}, {"add_generation_prompt": True}):
        assert split_prefix(chat(SPOKEN[0], **usual)) == ([Message("user", "a")], "")


@pytest.mark.parametrize(
    ("body", "param", "advice"),
    [
        (chat(*SPOKEN), "messages", "continue_final_message"),
        (chat(*SPOKEN, add_generation_prompt=False), "add_generation_prompt", "leave it out"),
        (chat(*SPOKEN, continue_final_message=True, add_generation_prompt=True), "add_generation_prompt", "false"),
        (chat(SPOKEN[0], continue_final_message=True), "continue_final_message", "leave it out"),
        (chat(SPOKEN[1], continue_final_message=True), "messages", "before any user"),
        (chat(*SPOKEN, SPOKEN[1], continue_final_message=True), "messages", "in turns"),
        (chat(Turn(role="user", content="a", prefix=True)), "messages.0.prefix", "last message of the assistant"),
    ],
)
def test_what_cannot_be_continued_is_refused_with_the_switch(body: ChatRequest, param: str, advice: str) -> None:
    with pytest.raises(APIError, match=advice) as refused:
        split_prefix(body)
    assert refused.value.param == param


@pytest.mark.parametrize("template", [True, False])
def test_a_continued_answer_is_read_as_far_as_it_goes(reader: Any, words: Tokenizer, template: bool) -> None:
    if not template:
        reader.tokenizer = reader.model.tokenizer = Tokenizer(
            words._backend, bos=words.bos, eos=words.eos, pad=words.pad
        )
    reader.context = 64
    tokenizer, messages = reader.tokenizer, [Message("user", "a thing?")]
    whole = render(tokenizer, [*messages, Message("assistant", "The sea")]).ids
    assert chat_prompt_ids(reader, messages, 4, False, "The sea") == (whole[:-1], 0)
    assert chat_prompt_ids(reader, messages, 4, False) == (render_prompt(tokenizer, messages), 0)


def test_what_is_continued_counts_where_the_oldest_turns_are_dropped(reader: Any, words: Tokenizer) -> None:
    reader.context = 32
    reader.model.decoder.config.context_length = 32
    messages = [Message("user", "a"), Message("assistant", "b")] * 4 + [Message("user", "c")]
    for prefix in ("", "The sea and the sky"):
        ids, dropped = chat_prompt_ids(reader, messages, 8, True, prefix)
        tail = words.encode(prefix)
        assert ids == [*render_prompt(words, messages[dropped:]), *tail] and len(ids) <= 24
        assert dropped == 0 or len(render_prompt(words, messages[dropped - 2 :])) + len(tail) > 24
    assert dropped > 0


@pytest.fixture
def reader(words: Tokenizer) -> Any:
    """A model that reads eight tokens."""
    decoder = SimpleNamespace(num_tokens=words.vocab_size, config=SimpleNamespace(context=8))
    model = SimpleNamespace(decoder=decoder, tokenizer=words, entry=SimpleNamespace(name="tiny"))
    return SimpleNamespace(tokenizer=words, context=8, model=model)


def completion(prompt: Any, **settings: Any) -> CompletionRequest:
    return CompletionRequest(model="m", prompt=prompt, **settings)


def test_texts_begin_with_bos_and_ids_are_taken_as_they_are(reader: Any, words: Tokenizer) -> None:
    assert completion_prompt_ids(reader, completion("a rose")) == ([[words.bos_id, *words.encode("a rose")]], 1)
    assert completion_prompt_ids(reader, completion(["a", ""])) == (
        [[words.bos_id, *words.encode("a")], [words.bos_id]],
        1,
    )
    assert completion_prompt_ids(reader, completion([5, 6])) == ([[5, 6]], 0)
    assert completion_prompt_ids(reader, completion([[5, 6], [7]])) == ([[5, 6], [7]], 0)
    longer: Any = SimpleNamespace(**{**vars(reader), "context": 64})
    ((typed,), _) = completion_prompt_ids(longer, completion(words.eos))
    assert words.eos_id not in typed


def test_what_the_model_cannot_read_is_refused(reader: Any, words: Tokenizer) -> None:
    assert require_fit(reader, [1] * 7, "prompt") == [1] * 7
    with pytest.raises(APIError) as refused:
        require_fit(reader, [1] * 8, "prompt")
    assert refused.value.code == "context_length_exceeded"
    assert completion_prompt_ids(reader, completion([1] * 8, max_tokens=0, echo=True)) == ([[1] * 8], 0)
    with pytest.raises(APIError, match="9 tokens are more than a context of 8"):
        completion_prompt_ids(reader, completion([1] * 9, max_tokens=0, echo=True))
    with pytest.raises(APIError, match="unknown to the model"):
        require_fit(reader, [words.vocab_size], "prompt")


def test_what_lies_too_far_back_is_dropped_in_pairs_at_once(reader: Any) -> None:
    turns = [Message("user" if i % 2 == 0 else "assistant", "a") for i in range(1001)]
    stored = len(turns) - min_dropped_turns(turns, reader)
    assert 8 <= stored <= 9 and min_dropped_turns(turns, reader) % 2 == 0
    assert min_dropped_turns(turns[:8], reader) == min_dropped_turns([], reader) == 0
    assert min_dropped_turns([turns[0], Message("assistant", "a rose " * 50)], reader) == 2


def test_a_very_long_conversation_costs_little(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = []
    original = conversation.render_prompt
    monkeypatch.setattr(conversation, "render_prompt", lambda *values: rendered.append(0) or original(*values))
    long = [{"role": role, "content": "a rose is red " * 30} for role in ("user", "assistant")]
    body = {"model": "tiny", "messages": [*long * 499, *ASKED], "max_tokens": 2, "truncation": "auto"}
    reply = http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200 and int(reply.headers["x-dropped-messages"]) == 998
    assert 1 <= len(rendered) < 10


CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}


def test_tools_their_calls_and_results_are_context() -> None:
    turns = [
        {"role": "user", "content": "Is it clear?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "I look."},
        {"role": "tool", "content": "yes", "tool_call_id": "1"},
    ]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    messages, prefix = split_prefix(ChatRequest(model="m", messages=turns, tools=tools))
    assert prefix == "" and json.loads(messages[0].tools) == tools
    assert messages[1:] == [
        Message("assistant", "", reasoning="I look.", tool_calls=(ToolCall("look", '{"at": "sky"}', "1"),)),
        Message("tool", "yes", tool_call_id="1"),
    ]
    with pytest.raises(APIError, match="answers the call 2, which is none of 1"):
        split_prefix(ChatRequest(model="m", messages=[*turns[:2], {**turns[2], "tool_call_id": "2"}]))
