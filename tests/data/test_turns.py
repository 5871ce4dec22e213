import pytest
from hypothesis import given
from hypothesis import strategies as st

from amenable.data import turns
from amenable.data.record import InvalidRow
from amenable.data.types import Message

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
