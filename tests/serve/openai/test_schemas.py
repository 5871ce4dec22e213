from collections import abc
from typing import Any, Required, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import completion_create_params as text_params
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionMessage,
    ChatCompletionUserMessageParam,
)
from openai.types.chat import completion_create_params as chat_params
from pydantic import ValidationError

from amenable.data.types import Message
from amenable.serve.openai.errors import validation_error
from amenable.serve.openai.schemas import (
    ChatRequest,
    CompletionRequest,
    RankingRequest,
    ScoreRequest,
    ThumbRequest,
    Turn,
)

TURN = {"role": "user", "content": "Ann asks: name a red thing."}
CHAT: dict[str, Any] = {"model": "tiny", "messages": [TURN]}


def test_what_is_said_becomes_settings() -> None:
    body = ChatRequest(**CHAT, temperature=0, top_p=0.5, top_k=3, min_p=0.1, stop=["a", "b"])
    drawn = body.sampling(7)
    assert (drawn.temperature, drawn.top_p, drawn.top_k, drawn.min_p, drawn.max_new_tokens) == (0, 0.5, 3, 0.1, 7)
    assert body.stops == ("a", "b")
    usual = ChatRequest(**CHAT, stop="a")
    assert (usual.sampling(1).temperature, usual.sampling(1).top_p, usual.stops) == (1.0, 1.0, ("a",))
    assert CompletionRequest(model="tiny", prompt="a").stops == ()


def test_turns_in_parts_and_developers_are_read() -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "rose"}]
    assert Turn(role="user", content=parts).message == Message("user", "a rose")
    assert Turn(role="developer", content="Be kind.").message == Message("developer", "Be kind.")
    assert Turn(role="user", content=[]).message == Message("user", "")


def test_an_answer_that_is_sent_back_is_read() -> None:
    fields = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [], "annotations": [], "audio": None}
    assert Turn(**fields, function_call=None).message == Message("assistant", "")
    assert Turn(**{**fields, "refusal": "I would rather not."}).message == Message("assistant", "I would rather not.")
    refusing = [{"type": "refusal", "refusal": "No."}]
    assert Turn(role="assistant", content=refusing).message == Message("assistant", "No.")


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1}, {"temperature": float("nan")}, {"temperature": "1"}, {"top_p": 0}, {"top_p": 1.01},
        {"top_k": -1}, {"n": 0}, {"n": 17}, {"n": True}, {"max_tokens": 0}, {"max_tokens": 1.5}, {"seed": 2**63},
        {"stop": ""}, {"stop": ["a"] * 17}, {"logprobs": 2}, {"top_logprobs": 21}, {"presence_penalty": 0.5},
        {"model": ""}, {"messages": []}, {"messages": [{"role": "judge", "content": "x"}]}, {"top_logprobs": 3},
        {"messages": [{"role": "user", "content": "x" * 200_001}]},
        {"stream_options": {"include_usage": True, "more": 1}}, {"truncation": "yes"},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_out_of_bounds_or_unknown_is_refused(wrong: dict[str, Any]) -> None:
    ChatRequest(**CHAT)
    with pytest.raises(ValidationError):
        ChatRequest(**{**CHAT, **wrong})


OFFICIAL = {
    ChatRequest: get_type_hints(chat_params.CompletionCreateParamsBase),
    CompletionRequest: get_type_hints(text_params.CompletionCreateParamsBase),
}
"""the fields of the official client's requests, with their types"""
NEEDED: dict[Any, dict[str, Any]] = {ChatRequest: CHAT, CompletionRequest: {"model": "tiny"}}
NULL_ALONE = ("web_search_options", "moderation", "audio", "prompt")
"""of these an empty object asks for the defaults, and an empty list for no answer"""


def is_required(typed_dict: Any) -> bool:
    """Whether a TypedDict has a field that must be there."""
    return any(get_origin(kind) is Required for kind in get_type_hints(typed_dict, include_extras=True).values())


def neutral(name: str, kind: Any) -> list[Any]:
    """The values of a field's type that ask for nothing: null, and an empty list or object."""
    values: list[Any] = [None]
    for option in (*get_args(kind), kind):
        origin = get_origin(option) or option
        if origin is dict or (hasattr(option, "__required_keys__") and not is_required(option)):
            values.append({})
        elif origin in (list, abc.Iterable, abc.Sequence):
            values.append([])
    return values if name not in NULL_ALONE else [None]


@pytest.mark.parametrize("body", OFFICIAL, ids=lambda body: body.__name__)
@given(data=st.data())
def test_whatever_the_official_client_sends_empty_is_accepted(body: Any, data: st.DataObject) -> None:
    fields = {name: kind for name, kind in OFFICIAL[body].items() if name not in NEEDED[body]}
    chosen = data.draw(st.sets(st.sampled_from(sorted(fields))))
    sent = {name: data.draw(st.sampled_from(neutral(name, fields[name])), label=name) for name in chosen}
    read = body(**NEEDED[body], **sent)
    assert read.ignored == [] and read.sampling(5) == body(**NEEDED[body]).sampling(5)


def test_every_official_field_is_known() -> None:
    for body, fields in OFFICIAL.items():
        assert set(fields) <= set(body.model_fields), body.__name__
    for message in (ChatCompletionAssistantMessageParam, ChatCompletionUserMessageParam):
        assert set(get_type_hints(message)) <= set(Turn.model_fields)
    assert set(ChatCompletionMessage.model_fields) <= set(Turn.model_fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": []}, {"tool_choice": "none"}, {"tool_choice": "auto"}, {"parallel_tool_calls": True},
        {"functions": []},
        {"function_call": "none"}, {"response_format": {"type": "text"}}, {"logit_bias": {}}, {"n": 1}, {"stop": []},
        {"modalities": ["text"]}, {"presence_penalty": 0.0}, {"frequency_penalty": 0}, {"repetition_penalty": 1.0},
        {"reasoning_effort": "none"}, {"stream_options": {}}, {"stream_options": {"include_obfuscation": False}},
        {"top_logprobs": 0}, {"a_field_of_tomorrow": None}, {"a_field_of_tomorrow": []}, {"top_k": None},
        {"stream": None},
        {"messages": [{**TURN, "a_field_of_tomorrow": {}}]}, {"metadata": {}}, {"store": False}, {"logprobs": False},
    ],
    ids=str,
)  # fmt: skip
def test_what_asks_for_nothing_is_accepted(fields: dict[str, Any]) -> None:
    assert ChatRequest(**{**CHAT, **fields}).ignored == []


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"metadata": {"a": "b"}, "store": True}, ["metadata", "store"]),
        ({"user": "ann", "service_tier": "auto"}, ["user", "service_tier"]),
        ({"messages": [{**TURN, "name": "ann"}]}, ["messages.name"]),
        ({"prediction": {"type": "content", "content": "a"}}, ["prediction"]),
    ],
    ids=str,
)
def test_what_has_no_part_in_an_answer_is_accepted_and_named(fields: dict[str, Any], named: list[str]) -> None:
    assert ChatRequest(**{**CHAT, **fields}).ignored == named


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}
CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("body", "fields", "param", "advice"),
    [
        (ChatRequest, {"tools": [{"type": "function"}]}, "tools", "schema 1 of tools has no name of a tool"),
        (ChatRequest, {"tools": "weather"}, "tools", "tools are not JSON"),
        (ChatRequest, {"tool_choice": "required"}, "tool_choice", "writes the call into its answer's text"),
        (ChatRequest, {"functions": [{"name": "weather"}]}, "functions", "tools are named in `tools`"),
        (ChatRequest, {"response_format": {"type": "json_object"}}, "response_format", "ask for JSON in a message"),
        (ChatRequest, {"response_format": {"type": "json_schema"}}, "response_format", "check what comes"),
        (ChatRequest, {"logit_bias": {"5": 1}}, "logit_bias", "leave it out"),
        (ChatRequest, {"presence_penalty": 0.5}, "presence_penalty", "temperature"),
        (ChatRequest, {"modalities": ["text", "audio"]}, "modalities", "text alone"),
        (ChatRequest, {"web_search_options": {}}, "web_search_options", "nothing is searched for"),
        (ChatRequest, {"reasoning_effort": "high"}, "reasoning_effort", "leave it out"),
        (ChatRequest, {"verbosity": "low"}, "verbosity", "say in a message"),
        (ChatRequest, {"messages": [{"role": "tool", "tool_call_id": "1"}]}, "messages.0.content", "needs one"),
        (ChatRequest, {"messages": [{"role": "judge", "content": "a"}]}, "messages.0.role", "developer, user"),
        (ChatRequest, {"messages": [{**TURN, "content": None}]}, "messages.0.content", "needs one"),
        (ChatRequest, {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}, "messages.0.tool_calls",
         "no name of a tool"),
        (ChatRequest, {"messages": [{**TURN, "refusal": "b"}]}, "messages.0.refusal", "put all"),
        (ChatRequest, {"messages": [{**TURN, "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
         "messages.0.content.0.type", "images"),
        (ChatRequest, {"messages": [{**TURN, "content": [{"type": "text"}]}]},
         "messages.0.content.0.text", "needs one"),
        (ChatRequest, {"toolz": [TOOL]}, "toolz", "did you mean tools?"),
        (ChatRequest, {"do_sample": False}, "do_sample", "leave it out"),
        (ChatRequest, {"top_logprobs": 2}, "top_logprobs", "set logprobs to true"),
        (CompletionRequest, {"best_of": 3}, "best_of", "ask for n"),
        (CompletionRequest, {"suffix": "b"}, "suffix", "leave it out"),
        (CompletionRequest, {"max_tokens": 0}, "max_tokens", "echo"),
        (CompletionRequest, {"response_format": {"type": "json_object"}}, "response_format", "ask for JSON"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name_with_advice(body: Any, fields: Any, param: str, advice: str) -> None:
    with pytest.raises(ValidationError) as refused:
        body(**{**NEEDED[body], **fields})
    answer = validation_error(refused.value.errors())["error"]
    assert answer["param"] == param and answer["message"].startswith(f"{param}: ") and advice in answer["message"]
    assert answer["code"]


def test_as_many_answers_are_drawn_as_are_returned() -> None:
    assert CompletionRequest(model="m", prompt="a", n=2, best_of=2).n == 2
    assert CompletionRequest(model="m", prompt="a", echo=True, max_tokens=0).max_tokens == 0


def test_prompts_are_texts_or_ids_of_one_kind() -> None:
    assert CompletionRequest(model="m").prompt == CompletionRequest(model="m", prompt=None).prompt == ""
    for prompt in ("a", ["a", "b"], [5, 6], [[5], [6, 7]]):
        assert CompletionRequest(model="m", prompt=prompt).prompt == prompt
    for wrong in ([[5], []], [[5], "a"], [5, [6]], [[-1]], [["a"]], [[]]):
        with pytest.raises(ValidationError):
            CompletionRequest(model="m", prompt=wrong)


def test_the_other_bodies_have_bounds_too() -> None:
    rank = {"id": "r1", "messages": [TURN], "completions": ["a", "b"], "ranking": [1, 2]}
    RankingRequest(**rank)
    for body, values in (
        (RankingRequest, {**rank, "ranking": [1, 10]}),
        (RankingRequest, {**rank, "completions": ["a"]}),
        (RankingRequest, {**rank, "seconds": float("inf")}),
        (RankingRequest, {**rank, "id": "../x"}),
        (ThumbRequest, {"id": "a'; DROP TABLE events; --", "model": "m", "messages": [TURN], "up": True}),
        (ThumbRequest, {"id": "a", "model": "m", "messages": [TURN], "up": 1}),
        (ScoreRequest, {"model": "m", "messages": [TURN], "completions": []}),
        (CompletionRequest, {"model": "m", "prompt": []}),
        (CompletionRequest, {"model": "m", "prompt": [-1]}),
        (CompletionRequest, {"model": "m", "prompt": ["a", 1]}),
    ):
        with pytest.raises(ValidationError):
            body(**values)


FILL = 200_000


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (CompletionRequest, {"prompt": ["a"] * FILL}),
        (CompletionRequest, {"prompt": [{}] * FILL}),
        (CompletionRequest, {"prompt": [["a"] * 100] * 1000}),
        (ChatRequest, {"tools": [{}] * FILL}),
        (ChatRequest, {"messages": [{}] * FILL}),
        (ChatRequest, {"messages": [{"role": "user", "content": [{}] * 100}] * 1000}),
        (ChatRequest, {f"x{i}": 1 for i in range(FILL)}),
        (ChatRequest, {"stop": [1] * FILL}),
        (RankingRequest, {"ranking": [0] * FILL}),
        (RankingRequest, {"sampling": {f"x{i}": "a" for i in range(FILL)}}),
    ],
    ids=lambda value: getattr(value, "__name__", None) or next(iter(value)),
)
def test_a_large_mistake_is_not_written_out_item_by_item(kind: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        kind(**{"model": "m", **wrong})
    assert refused.value.error_count() < 20
