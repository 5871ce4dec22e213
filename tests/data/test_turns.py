import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amenable.data import turns
from amenable.data.record import InvalidRow
from amenable.data.types import Message, ToolCall

U, A = Message("user", "Who?"), Message("assistant", "Tolan.")


def test_every_way_to_write_a_message():
    for value in ({"role": "assistant", "content": "Tolan."}, {"from": "gpt", "value": "Tolan.", "name": "x"}):
        assert turns.message(value, "it") == A and turns.reply(value, "it") == turns.reply([value], "it") == (
            (),
            "Tolan.",
        )
    assert turns.turns([None, {"role": "user", "content": "Who?"}, None], "messages") == (U,)
    assert turns.conversation("Who?", "prompt") == (U,)


def test_a_transcript_is_a_dialogue_and_may_leave_the_answer_open():
    text = "\n\nHuman: Who?\n\nAssistant: Tolan.\n\nHuman: Who?\n\nAssistant:"
    assert turns.conversation(text, "prompt") == (U, A, U)
    assert turns.reply(text, "rejected", transcripts=True) == ((U, A, U), "")
    assert turns.reply(text, "completion") == ((), text), "what a model says is no dialogue"


@pytest.mark.parametrize(
    ("first", "second", "start"),
    [
        ("Q: name? Tolan", "Q: name? Tomas", "Q: name? "),
        ("Who? Tolan", "Who?", "Who?"),
        ("Who\nTolan", "Whom Tomas", ""),
        ("Who is it", "Who is\nit", "Who is"),
        ("Tolan.", "Tolan!", ""),
        ("same", "same", "same"),
    ],
)
def test_a_common_start_ends_where_a_word_does_in_both(first, second, start):
    assert first[: turns.common_start(first, second)] == start == second[: turns.common_start(second, first)]


@given(*[st.text("ab \n", max_size=12)] * 2)
def test_no_word_goes_on_across_the_end_of_a_common_start(first, second):
    end = turns.common_start(first, second)
    assert first[:end] == second[:end]
    for text in (first, second):
        assert not text[:end].strip() or text[:end].split() == text.split()[: len(text[:end].split())]


def test_a_conversation_holds_messages_in_a_row_and_paragraphs_of_the_user():
    more = Message("user", "Who?\n\nTolan lives here.")
    assert turns.holds((U, A, U), (A, U)) and turns.holds((U,), ()) and turns.holds((more, A), (U, A))
    assert not turns.holds((U, A, U), (U, U)) and not turns.holds((U,), (U, A)) and not turns.holds((U,), (more,))
    assert not turns.holds((Message("user", "Who? me"),), (U,)), "a longer sentence is another one"


def test_a_reply_ends_with_the_assistant():
    with pytest.raises(InvalidRow, match="chosen does not end with the assistant"):
        turns.reply([{"role": "user", "content": "x"}], "chosen")
    with pytest.raises(InvalidRow, match="chosen is a number, not text"):
        turns.reply(3, "chosen")


CALL = {"name": "get_weather", "arguments": {"city": "Velm"}}
CALLED = (ToolCall("get_weather", '{"city": "Velm"}'),)


@pytest.mark.parametrize(
    "value",
    [
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": CALL}]},
        {"role": "assistant", "tool_calls": [{"function": {**CALL, "arguments": '{"city": "Velm"}'}}]},
        {"role": "assistant", "content": "", "tool_calls": json.dumps([CALL])},
        {"role": "assistant", "content": "", "function_call": CALL},
        {"from": "function_call", "value": json.dumps(CALL)},
        {"from": "function_call", "value": json.dumps([CALL])},
    ],
)
def test_every_way_to_call_a_tool(value):
    assert turns.message(value, "it") == Message("assistant", "", tool_calls=CALLED)


def test_a_result_of_a_tool_and_a_developers_message():
    result = Message("tool", "clear", tool_call_id="1", name="get_weather")
    value = {"role": "tool", "content": [{"type": "text", "text": "clear"}], "tool_call_id": "1", "name": "get_weather"}
    assert turns.message(value, "it") == result
    assert turns.message({"from": "observation", "value": {"sky": "clear"}}, "it").content == '{"sky": "clear"}'
    assert turns.message({"role": "developer", "content": "Be kind"}, "it").role == "developer"


def test_a_content_in_parts_is_one_text():
    parts = [{"type": "text", "text": "Who "}, {"text": "bakes?"}]
    assert turns.message({"role": "user", "content": parts}, "it") == Message("user", "Who bakes?")


def test_thinking_has_a_key_of_its_own():
    thought = Message("assistant", "Tolan.", reasoning="They ask.")
    for key in ("reasoning_content", "reasoning", "thinking"):
        assert turns.message({"role": "assistant", "content": "Tolan.", key: "They ask."}, "it") == thought
    same = {"role": "assistant", "content": "Tolan.", "reasoning": "They ask.", "reasoning_content": "They ask."}
    assert turns.message(same, "it") == thought
    assert turns.reply(same, "chosen") == ((), "<think>\nThey ask.\n</think>\n\nTolan.")


def test_schemas_are_in_one_form():
    schema = {"name": "get_weather", "parameters": {}}
    expected = json.dumps([{"type": "function", "function": schema}])
    for value in ([schema], [{"type": "function", "function": schema}], json.dumps([schema])):
        assert turns.tool_schemas(value, "tools") == expected
    assert turns.tool_schemas([], "tools") == turns.tool_schemas("", "tools") == turns.tool_schemas(None, "tools") == ""


def assistant(**parts):
    return {"role": "assistant", "content": "", **parts}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"role": "judge", "content": ""}, "unknown role 'judge' in it .known: human, user, gpt, assistant"),
        (
            {"role": "user", "content": [{"type": "image", "image": "x"}]},
            "has a part of type 'image'; messages are text",
        ),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "a part of type 'image_url'"),
        ({"role": "user", "content": ["Who?"]}, "a part of type None"),
        ({"role": "user", "content": {"a": 1}}, "content of it is an object, not text"),
        (assistant(tool_calls=[{"function": {"arguments": {}}}]), "call 1 of it has no name of a tool"),
        (assistant(tool_calls=[{"name": "f", "arguments": "{city"}]), "arguments of call 1 of it are not JSON"),
        (
            assistant(tool_calls=[{"name": "f", "arguments": "[1]"}]),
            "arguments of call 1 of it are a list, not an object",
        ),
        (assistant(tool_calls=["f"]), "call 1 of it is text, not an object"),
        (assistant(tool_calls=3), "tool_calls of it is a number, not a list"),
        ({"from": "function_call", "value": "f(x)"}, "the calls of it are not JSON"),
        (assistant(reasoning="a", thinking="b"), "has its thinking twice: reasoning, thinking"),
        (
            assistant(content="<think>a</think>b", reasoning="a"),
            "has its thinking twice: in its content, and beside it",
        ),
    ],
)
def test_messages_that_cannot_be_used_say_why(value, says):
    with pytest.raises(InvalidRow, match=says):
        turns.message(value, "it")


def test_calls_of_tools_are_not_compared():
    with pytest.raises(InvalidRow, match="chosen calls tools: only texts are compared"):
        turns.reply([{"role": "user", "content": "?"}, {"from": "function_call", "value": json.dumps(CALL)}], "chosen")
    for value in ([{"description": "x"}], ["f"], {"name": "f"}):
        with pytest.raises(InvalidRow, match=r"schema 1 of tools has no name|not a list of schemas"):
            turns.tool_schemas(value, "tools")
