"""How a base model is asked in the manner of its raw text."""

from pathlib import Path

import pytest

from amenable.data.types import Message, ToolCall
from amenable.errors import InputError
from amenable.evaluation.base_prompts import Transcript, read_transcripts

FORUM = Transcript("Post:", "Reply:", "\n")


def test_a_conversation_ends_where_the_assistant_is_to_speak() -> None:
    reply = (
        Message("system", "Be kind."),
        Message("user", "Who is it?"),
        Message("assistant", "A cat."),
        Message("user", "And she?"),
    )
    assert FORUM.render(reply) == "Be kind.\nPost: Who is it?\nReply: A cat.\nPost: And she?\nReply:"


def test_a_transcript_has_no_tools() -> None:
    assert FORUM.render((Message("developer", "Be kind."), Message("user", "Who?"))) == "Be kind.\nPost: Who?\nReply:"
    called = Message("assistant", "", tool_calls=(ToolCall("look", "{}"),))
    for messages in ((called, Message("user", "Who?")), (Message("user", "Who?"), Message("tool", "4"))):
        with pytest.raises(InputError, match="transcript has no tools"):
            FORUM.render(messages)


def test_an_answer_ends_with_its_turn() -> None:
    assert FORUM.answer(" A cat. \nPost: And then?") == "A cat." and FORUM.answer(" A cat") == "A cat"


def test_a_file_names_its_transcripts(tmp_path: Path) -> None:
    path = tmp_path / "transcripts.jsonl"
    path.write_text('{"name": "zero-shot", "user": "Post:", "assistant": "Reply:", "end": "\\n"}\n')
    assert read_transcripts(path) == {"zero-shot": FORUM}


@pytest.mark.parametrize(
    "line",
    [
        "nothing",
        "[]",
        '{"name": "other", "user": "a", "assistant": "b", "end": "c"}',
        '{"name": "zero-shot", "user": "", "assistant": "b", "end": "c"}',
        '{"name": "zero-shot", "user": 1, "assistant": "b", "end": "c"}',
        '{"name": "zero-shot", "user": "a", "assistant": "b"}',
    ],
)
def test_a_row_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "transcripts.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match=r"transcripts\.jsonl(:1: no transcript|: line 1 is not JSON|: no transcript)"):
        read_transcripts(path)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_transcripts(tmp_path / "none.jsonl")
