import pytest

from amenable.data.types import Message, ToolCall
from amenable.errors import InputError
from amenable.text.assistant_turns import Boundaries, assistant_turns, end_of_turn, gaps, hidden_thinking, thinking_end
from amenable.text.template import FORMS, render_template

CHATML = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>\n{% endfor %}"
ASK = "{% if add_generation_prompt %}<assistant>{% endif %}"
CONVERSATION = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "And?"), Message("assistant", ""))


def turns(template: str, messages=CONVERSATION, headers=("<assistant>",), marks=False):
    """Return what the assistant generates, turn by turn, and the turns."""
    text = render_template(template, messages, {}, False)
    hidden = hidden_thinking(text, messages, FORMS[0])
    located = assistant_turns(
        text,
        messages,
        Boundaries(headers, ("<end>",), marks),
        hidden,
        lambda i: render_template(template, messages[:i], {}, True),
    )
    return [str(text[turn.start : turn.stop]) for turn in located], located


def test_a_turn_is_from_its_header_to_its_end():
    texts, located = turns(CHATML)
    assert texts == ["Hello<end>", "<end>"]
    assert [(turn.message, turn.ended, turn.trained) for turn in located] == [(1, True, True), (3, True, True)]


def test_without_headers_a_turn_begins_where_its_prompt_ends():
    template = "{% for m in messages %}{{ '[' + m.content + ']' if m.role == 'user' else ' ' + m.content }}{% endfor %}"
    texts, located = turns(template, headers=())
    assert texts == [" Hello", " "] and not any(turn.ended for turn in located)


def test_marks_decide():
    template = (
        "{% for m in messages %}<{{ m.role }}>{% if m.content == 'Hello' %}{% generation %}{{ m.content }}"
        "{% endgeneration %}{% else %}{{ m.content }}{% endif %}<end>{% endfor %}"
    )
    texts, located = turns(template, marks=True)
    assert texts[0] == "Hello"
    assert [(turn.ended, turn.trained) for turn in located] == [(False, True), (False, False)]


def test_a_tool_call_is_a_part_of_its_turn():
    call = "{% for c in m.tool_calls %}call {{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}"
    template = CHATML.replace("{{ m.content }}", "{{ m.content }}" + call)
    calls = (ToolCall("look", '{"at": "<end>"}'),)
    messages = (CONVERSATION[0], Message("assistant", "Wait. ", tool_calls=calls), Message("tool", "x"))
    assert turns(template, messages)[0] == ['Wait. call look {"at": "<end>"}<end>']
    for wrong, says in (
        (CHATML, "leaves out a tool call of message 2 .assistant.: 'look'|'<end>'"),
        (template.replace("<end>", ""), "does not end message 2, which has tool calls"),
    ):
        with pytest.raises(InputError, match=says):
            turns(wrong, messages)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (CHATML.replace("<{{ m.role }}>", ">>"), "message 2 can't be masked exactly: the chat template writes"),
        (CHATML.replace("{{ m.content }}", "{{ m.content[:3] }}"), "leaves out a part of message 2 .assistant.: 'lo'"),
        (CHATML.replace("{{ m.content }}", "{{ '%s.' % m.content }}"), "leaves out a part of message 1 .user.: 'Hi'"),
        (CHATML.replace("{{ m.content }}", "{{ m.content }}{{ m.content }}"), "shows message 1 .user. twice"),
        (
            "{% set a = messages[1].content %}{{ a[:2] }}{{ messages[0].content }}{{ a[2:] }}{{ messages[2].content }}"
            "{{ messages[3].content }}",
            "mixes message 2 with others",
        ),
    ],
)
def test_what_cannot_be_masked_exactly_is_refused(template, says):
    with pytest.raises(InputError, match=says):
        turns(template)


def test_hidden_thinking_is_the_assistants_alone():
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content.split('</think>')[-1] }}<end>{% endfor %}"
    thinking = Message("assistant", "<think>\nHm.\n</think>\n\nHello")
    texts, (turn,) = turns(template, (CONVERSATION[0], thinking))
    assert texts == ["\n\nHello<end>"] and turn.hides_thinking and not turn.trained
    with pytest.raises(InputError, match=r"leaves out a part of message 1 .user.: '<think>"):
        turns(template, (Message("user", thinking.content), thinking))
    empty = Message("assistant", "<think>\n\n</think>\n\nHello")
    assert turns(template, (CONVERSATION[0], empty))[1][0].trained, "nothing was thought"


def test_parts():
    assert list(gaps([(1, 2), (2, 3), (5, 6)], 8)) == [(0, 1), (3, 5), (6, 8)]
    assert list(gaps([], 0)) == []
    assert (end_of_turn("a<x>b<y>", ("<y>", "<x>")), end_of_turn("a", ("<x>",))) == (4, None)
    assert [thinking_end("a</think>b", field) for field in ("content", "reasoning", "call 1")] == [9, 10, 0]
