import dataclasses

import pytest

from amenable.data import turns
from amenable.data.types import (
    Demonstration,
    LabeledCompletion,
    Message,
    Prompt,
    Ranking,
    ToolCall,
    conversation_error,
    example_from_json,
    example_to_json,
    last_trained,
    message_fields,
    prompt_row,
)
from amenable.errors import InputError

U, A, S = Message("user", "hi"), Message("assistant", "hello"), Message("system", "be kind")


def test_examples_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Demonstration((U, A)).id = "other"  # type: ignore[misc]


def test_every_completion_has_a_rank():
    Ranking((U,), ("a", "b", "c"), (1, 2, 2))
    with pytest.raises(InputError, match="row 7: 3 completions and 2 ranks"):
        Ranking((U,), ("a", "b", "c"), (1, 2), id="row 7")


def test_a_margin_belongs_to_a_pair_and_is_finite():
    assert Ranking((U,), ("a", "b"), (1, 2), margin=-0.5).margin == -0.5
    for completions, ranks, margin in ((("a", "b", "c"), (1, 2, 2), 0.5), (("a", "b"), (1, 2), float("inf"))):
        with pytest.raises(InputError, match="row 7: a margin of"):
            Ranking((U,), completions, ranks, id="row 7", margin=margin)


@pytest.mark.parametrize("messages", [(U,), (U, A), (S, U), (S,), (U, A, U), (U, U, A, A), (A,), (S, A)])
def test_conversations_without_error(messages):
    assert conversation_error(messages) is None


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ((), "empty"),
        ((S, Message("developer", "be brief"), U), "two system"),
        ((U, Message("tool", "4")), "message 2 is a tool's, and no message of the assistant comes before it"),
        ((S, S, U), "two system"),
        ((U, S), "not the first"),
        ((Message("User", "hi"),), "unknown role 'User'"),
    ],
)
def test_conversations_with_an_error(messages, says):
    assert says in (conversation_error(messages) or "")


def test_the_last_exchange_is_all_that_the_assistant_says_to_the_users_last_message():
    call, result = Message("assistant", "", tool_calls=(ToolCall("look", "{}"),)), Message("tool", "4")
    off = Message("assistant", "no", trained=False)
    for messages, expected in (
        ((U, A, U, call, result, A), [3, 5]),
        ((U, A, U, off, result, A), [5]),
        ((U, A, U, off), [1]),
        ((A,), [0]),
    ):
        changed = last_trained(messages, "exchange")
        assert [i for i, turn in enumerate(changed) if turn.role == "assistant" and turn.trained] == expected


def test_a_message_is_written_as_it_is_read():
    call = ToolCall("look", '{"at": "sky"}', "1")
    messages = (
        Message("user", "Is it clear?", tools='[{"type": "function", "function": {"name": "look"}}]'),
        Message("assistant", "", trained=False, reasoning="I look.", tool_calls=(call,)),
        Message("tool", "yes", tool_call_id="1", name="look"),
    )
    again = turns.turns([message_fields(message) for message in messages], "messages")
    assert again == messages and [message.trained for message in again] == [True, False, True]
    assert message_fields(U) == {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        (
            (
                U,
                Message("assistant", "", tool_calls=(ToolCall("f", "{}", "1"),)),
                Message("tool", "", tool_call_id="2"),
            ),
            "2",
        ),
        ((U, A, U, Message("tool", "")), "no message of the assistant comes before it"),
    ],
)
def test_a_tools_result_that_answers_no_call(messages, says):
    assert says in (conversation_error(messages) or "")
    assert conversation_error((U, A, Message("tool", "4"), Message("tool", "5"), A)) is None


def test_only_the_last_trained_turn_stays_trained():
    off = Message("assistant", "no", trained=False)
    for messages, expected in (
        ((U, A, U, A), [3]),
        ((U, A, U, off), [1]),
        ((U, off, U, A), [3]),
        ((U, off), []),
        ((S, U, A), [2]),
    ):
        changed = last_trained(messages)
        assert changed == messages
        assert [i for i, turn in enumerate(changed) if turn.role == "assistant" and turn.trained] == expected


@pytest.mark.parametrize(
    "example",
    [
        Demonstration((S, U, Message("assistant", "", False, "hm", (ToolCall("f", "{}", "1"),)), A), "a", {"n": [1.5]}),
        Ranking((U,), ("x", "é\u2028"), (1.0, 2.0), "b", "ann", {"ended": [True, False]}, 0.5),
        LabeledCompletion((U, A, U), "x", False, "c", {"deep": {"k": None}}),
    ],
)
def test_examples_come_back_from_json(example):
    back = example_from_json(type(example), example_to_json(example).encode())
    assert back == example and repr(back) == repr(example)


def test_a_prompt_as_a_row_keeps_its_columns():
    row = prompt_row(Prompt((S, U), "p1", {"kind": "greeting"}))
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    assert row == {"prompt": messages, "id": "p1", "kind": "greeting"}
