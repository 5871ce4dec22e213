from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from amenable.data import columns
from amenable.data.record import InvalidRow, Record, without_nulls
from amenable.data.types import Message

U = {"role": "user", "content": "Who?"}
A = {"role": "assistant", "content": "Tolan."}
B = {"role": "assistant", "content": "Nobody."}
EMPTY = {"role": "assistant", "content": ""}
ASKED = (Message("user", "Who?"),)
ANSWERED = (*ASKED, Message("assistant", "Tolan."))
HH = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Who?\n\nAssistant: "


def test_text():
    row = columns.text({"text": "Once", "title": "Tales", "id": 7}, "f:1")
    assert (row.text, row.id, row.meta) == ("Once", "7", {"title": "Tales"})
    assert columns.text({"text": "Once"}, "f:1").id == "f:1"


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [U, A]},
        {"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Tolan."}]},
        {"prompt": "Who?", "completion": "Tolan."},
        {"prompt": [U], "completion": [A]},
        {"prompt": "\n\nHuman: Who?\n\nAssistant:", "completion": "Tolan."},
        {"prompt": "Who?", "completion": "Tolan.", "label": True},
        {"instruction": "Who?", "input": "", "output": "Tolan."},
        {"question": "Who?", "answer": "Tolan."},
        {"instruction": "Who?", "context": "", "response": "Tolan."},
        {"input": "Who?", "output": "Tolan."},
        {"prompt": "Who?", "prompt_id": "7", "messages": [U, A]},
        {"prompt": "Who?", "completion": "Tolan.", "chosen": "", "completions": [], "messages": [], "system": ""},
    ],
)
def test_every_way_to_write_a_demonstration(row):
    assert columns.demonstration(row, "f:1").messages == ANSWERED
    assert columns.prompt(row, "f:1").messages == ASKED


def test_alpaca_in_full():
    row = {"instruction": "Sort", "input": "b a", "output": "a b", "system": "Be", "history": [["x", "y"]], "by": 3}
    example = columns.demonstration(row, "f:1")
    assert [(m.role, m.content) for m in example.messages] == [
        ("system", "Be"), ("user", "x"), ("assistant", "y"), ("user", "Sort\n\nb a"), ("assistant", "a b"),
    ]  # fmt: skip
    assert example.meta == {"by": 3}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [U], "chosen": [A], "rejected": [B]},
        {"prompt": "Who?", "chosen": "Tolan.", "rejected": "Nobody."},
        {"prompt": "Who?", "chosen": [U, A], "rejected": [U, B]},
        {"chosen": [U, A], "rejected": [U, B]},
        {"chosen": "Who? Tolan.", "rejected": "Who? Nobody."},
        {"chosen": "\n\nHuman: Who?\n\nAssistant: Tolan.", "rejected": "\n\nHuman: Who?\n\nAssistant: Nobody."},
        {"question": "Who?", "chosen": "Tolan.", "rejected": "Nobody."},
        {"instruction": "Who?", "input": "", "chosen": "Tolan.", "rejected": "Nobody."},
        {"context": "Who?", "chosen": "Tolan.", "rejected": "Nobody."},
        {
            "conversations": [{"from": "human", "value": "Who?"}],
            "chosen": A,
            "rejected": {"from": "gpt", "value": "Nobody."},
        },
        {"messages": [U], "chosen": "Tolan.", "rejected": "Nobody."},
        {"prompt": "Who?", "messages": [U, A], "chosen": [U, A], "rejected": [U, B], "completions": []},
        {"prompt": "Who?", "completions": ["Tolan.", "Nobody."], "ranking": [1, 2]},
        {"question": "Who?", "completions": ["Tolan.", "Nobody."], "ranking": [1, 2]},
        {"completions": [[U, A], [U, B]], "ranking": [1, 2]},
        {"context": "Who?", "completions": [{"rank": 0, "completion": "Tolan."}, {"rank": 1, "completion": "Nobody."}]},
        {"context": [U], "completions": [{"rank": 0, "completion": [A]}, {"rank": 1, "completion": [B]}]},
    ],
)
def test_every_way_to_write_a_comparison(row):
    example = columns.ranking({**row, "annotator": 5, "kind": "qa", "margin": None}, "f:1")
    assert example.prompt == ASKED
    assert example.completions == ("Tolan.", "Nobody.") and example.ranks == (1.0, 2.0)
    assert example.annotator == "5" and example.meta["kind"] == "qa" and example.id == "f:1"
    assert columns.prompt(row, "f:1").messages == ASKED


def test_only_the_last_reply_of_an_hh_dialogue_is_compared():
    example = columns.ranking({"chosen": HH + "Tolan.", "rejected": HH + "Nobody.\n\nStill nobody."}, "f:1")
    assert [(m.role, m.content) for m in example.prompt] == [
        ("user", "Hi"), ("assistant", "Hello!"), ("user", "Who?"),
    ]  # fmt: skip
    assert example.completions == ("Tolan.", "Nobody.\n\nStill nobody.")


def test_rankings_have_ties_order_margin_and_annotator():
    row = {"prompt": "Who?", "completions": ["a", "b", "c"], "ranking": [2, 1, 2], "id": "r"}
    example = columns.ranking(row, "f:1")
    assert example.ranks == (2.0, 1.0, 2.0) and example.id == "r" and example.annotator is None and example.meta == {}
    pair = columns.ranking({"prompt": "Who?", "chosen": "a", "rejected": "b", "margin": 0.5}, "f:1")
    assert pair.margin == 0.5 and pair.meta == {}
    two = columns.ranking({"prompt": "Who?", "completions": ["a", "b"], "ranking": [2, 1], "margin": -1}, "f:1")
    assert two.margin == -1.0, "of the better completion over the other, in any order"
    three = columns.ranking({**row, "margin": 0.5}, "f:1")
    assert three.margin is None and three.meta == {"margin": 0.5}, "one number does not fit three pairs"


def test_a_common_beginning_cuts_no_word():
    example = columns.ranking({"chosen": "Q: name? Tolan", "rejected": "Q: name? Tomas"}, "f:1")
    assert example.prompt == (Message("user", "Q: name?"),) and example.completions == ("Tolan", "Tomas")


def test_prompts_end_with_the_user_and_have_the_solution_in_meta():
    assert columns.prompt({"prompt": "Who?"}, "f:1").messages == ASKED
    assert columns.prompt({"messages": [U, A, U, B]}, "f:1").messages == (*ANSWERED, *ASKED)
    assert columns.prompt({"question": "Who?", "answer": "Tolan."}, "f:1").meta == {"answer": "Tolan."}
    assert columns.prompt({"prompt": "Who?", "kind": "qa"}, "f:1").meta == {"kind": "qa"}
    tied = {"prompt": "Who?", "completions": ["a", "a"], "ranking": [1, 1]}
    assert columns.prompt(tied, "f:1").messages == ASKED, "a row without a preference is still a prompt"


def texts_of(messages) -> list[str]:
    return [f"{message.role[0]} {message.content}" for message in messages]


@pytest.mark.parametrize(
    ("row", "asks"),
    [
        ({"system": "S", "conversations": [{"from": "human", "value": "Who?"}]}, ["s S", "u Who?"]),
        ({"system": "S", "messages": [{"role": "system", "content": "S"}, U]}, ["s S", "u Who?"]),
        ({"system": "S", "prompt": "Who?"}, ["s S", "u Who?"]),
        ({"system": "S", "question": "Who?"}, ["s S", "u Who?"]),
        ({"system": "S", "instruction": "Who?"}, ["s S", "u Who?"]),
        ({"instruction": "Who?", "context": "P"}, ["u Who?\n\nP"]),
        ({"question": "Who?", "context": "P"}, ["u Who?\n\nP"]),
        ({"prompt": "Who?", "input": "P"}, ["u Who?\n\nP"]),
        ({"prompt": [U], "context": "P"}, ["u Who?\n\nP"]),
        ({"input": "Who?", "context": "P"}, ["u Who?\n\nP"]),
        ({"instruction": "Say", "input": "I", "context": "P"}, ["u Say\n\nI\n\nP"]),
        ({"instruction": "Say", "question": "Who?", "context": "P"}, ["u Say\n\nWho?\n\nP"]),
        ({"instruction": "Take the a", "input": "a"}, ["u Take the a\n\na"]),
        ({"prompt": "P. Who?", "context": "P", "question": "Who?"}, ["u P. Who?"]),
        ({"prompt": "Who?", "history": [["Hi", "Hello"]]}, ["u Hi", "a Hello", "u Who?"]),
        (
            {"prompt": [{"role": "system", "content": "S"}, U], "history": [U, A]},
            ["s S", "u Who?", "a Tolan.", "u Who?"],
        ),
        ({"question": "Who?", "context": {"title": ["P"]}, "system": 3, "messages": 12}, ["u Who?"]),
        ({"prompt": 7, "instruction": "Who?"}, ["u Who?"]),
        ({"system_prompt": "S", "question": "Who?"}, ["s S", "u Who?"]),
    ],
)
def test_every_reader_reads_the_same_prompt(row, asks):
    for noun, more in {
        columns.prompt: {},
        columns.demonstration: {"completion": "x"},
        columns.ranking: {"chosen": "The ferry is here", "rejected": "The ferry is gone"},
    }.items():
        example = noun({**row, **more}, "f:1")
        messages = getattr(example, "messages", None) or example.prompt
        assert texts_of(messages)[: len(asks)] == asks, noun
        assert len(messages) == len(asks) + (noun is columns.demonstration)
    ranked = columns.ranking({**row, "completions": ["a", "b"], "ranking": [1, 2]}, "f:1")
    assert texts_of(ranked.prompt) == asks and ranked.completions == ("a", "b")


def test_dialogues_of_a_comparison_and_columns_that_agree_are_the_fuller_of_both():
    system, late = {"role": "system", "content": "S"}, [U, A, {"role": "user", "content": "And he?"}]
    for row, asks in (
        ({"system": "S", "chosen": [U, A], "rejected": [U, B]}, ["s S", "u Who?"]),
        ({"prompt": "Who?", "chosen": [system, U, A], "rejected": [system, U, B]}, ["s S", "u Who?"]),
        ({"prompt": "And he?", "chosen": [*late, A], "rejected": [*late, B]}, ["u Who?", "a Tolan.", "u And he?"]),
        ({"prompt": late, "chosen": [late[2], A], "rejected": [late[2], B]}, ["u Who?", "a Tolan.", "u And he?"]),
        ({"question": "Who?", "context": "P", "chosen": [U, A], "rejected": [U, B]}, ["u Who?\n\nP"]),
    ):
        assert texts_of(columns.ranking(row, "f:1").prompt) == asks


def test_an_empty_completion_may_be_rejected_tied_or_ranked():
    for row, completions in (
        ({"prompt": "Who?", "chosen": "Tolan.", "rejected": ""}, ("Tolan.", "")),
        ({"chosen": [U, A], "rejected": [U, EMPTY]}, ("Tolan.", "")),
        ({"chosen": HH + "Tolan.", "rejected": HH}, ("Tolan.", "")),
        ({"prompt": "Who?", "completions": ["", "Tolan."], "ranking": [1, 2]}, ("", "Tolan.")),
        ({"prompt": "Who?", "completions": ["", "Tolan.", "x"], "ranking": [2, 1, 2]}, ("", "Tolan.", "x")),
        ({"chosen": "Who? Tolan.", "rejected": "Who?"}, ("Tolan.", "")),
    ):
        assert columns.ranking(row, "f:1").completions == completions


def test_weights_exclude_a_turn_from_the_loss_and_change_nothing_else():
    for mark in ({"weight": 0}, {"weight": 0.0}, {"train": False}, {"weight": 0, "train": False}):
        messages = columns.demonstration(
            {"messages": [U, {**A, **mark}, U, {**B, "weight": 1, "train": True}]}, ""
        ).messages
        assert [message.trained for message in messages] == [True, False, True, True]
        assert messages == (*ANSWERED, *ASKED, Message("assistant", "Nobody.")) and hash(messages[1]) == hash(
            ANSWERED[1]
        )
    empty = columns.demonstration({"messages": [U, {**EMPTY, "weight": 0}, {**U, "weight": 7}, A]}, "").messages
    assert empty[1].content == "" and not empty[1].trained, "a turn outside the loss may be empty"


ROWS = {
    columns.text: [{"text": "Once"}],
    columns.demonstration: [
        {"messages": [U, {**A, "weight": 0}, U, B]},
        {"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Tolan."}]},
        {"prompt": "Who?", "completion": "Tolan."},
        {"instruction": "Who?", "input": "P", "output": "Tolan.", "history": [["x", "y"]]},
        {"question": "Who?", "answer": "Tolan."},
    ],
    columns.prompt: [{"prompt": [U]}, {"question": "Who?"}, {"chosen": [U, A], "rejected": [U, B]}],
    columns.ranking: [
        {"chosen": [U, A], "rejected": [U, B]},
        {"prompt": "Who?", "chosen": A, "rejected": [B]},
        {"question": "Who?", "completions": [[A], "Nobody."], "ranking": [1, 2], "annotator": "k", "margin": 2},
        {"context": [U], "completions": [{"rank": 1, "completion": "b"}, {"rank": 0, "completion": [A]}]},
        {"chosen": HH + "Tolan.", "rejected": HH + "Nobody."},
    ],
}
"""rows of every format, by reader"""
FORMATS = st.sampled_from([(noun, row) for noun, rows in ROWS.items() for row in rows])
TEXT_COLUMNS = [
    "prompt",
    "question",
    "instruction",
    "input",
    "context",
    "system",
    "system_prompt",
    "response",
    "answer",
]
TEXT_COLUMNS += ["messages", "conversations", "history", "source", "score", "ended", "text"]
VALUES = st.one_of(
    st.none(), st.integers(), st.text("ab .\n", max_size=6), st.just([]), st.just([U]), st.just({"a": 1})
)


def with_nulls(draw, value):
    """Return the value as parquet writes it: objects filled up with nulls, nulls among messages."""
    if isinstance(value, dict):
        nulls = draw(st.sets(st.sampled_from(["role", "content", "from", "value", "weight", "train", "name", "rank"])))
        return {**{key: with_nulls(draw, part) for key, part in value.items()}, **dict.fromkeys(nulls - value.keys())}
    if isinstance(value, list):
        parts = [with_nulls(draw, part) for part in value]
        turns = bool(value) and all(isinstance(part, dict) and "rank" not in part for part in value)
        return [*parts, None] if turns and draw(st.booleans()) else parts
    return value


@given(st.data(), FORMATS)
def test_nulls_change_nothing_wherever_they_stand(data, format):
    noun, row = format
    empty = data.draw(st.sets(st.sampled_from([*TEXT_COLUMNS, "messages", "chosen", "completion", "id", "margin"])))
    hollow = {name: data.draw(st.sampled_from([None, {"role": None, "content": None}])) for name in empty - row.keys()}
    assert noun({**with_nulls(data.draw, row), **hollow}, "f:1") == noun(row, "f:1")


@given(FORMATS, st.sampled_from(TEXT_COLUMNS), VALUES)
def test_another_column_is_used_or_named_and_nothing_else_changes(format, column, value):
    noun, row = format
    assume(column not in row)
    record, before = Record({**row, column: value}), noun(row, "f:1")
    try:
        after = noun(record, "f:1")
    except InvalidRow as reason:
        assert column in str(reason) or "differ" in str(reason), "a reason names what is wrong"
        return
    if column in record.unused():
        assert after.meta[column] == without_nulls(value)
        assert replace(after, meta={}) == replace(before, meta={})
    elif value not in (None, [], "") and not (isinstance(value, str) and not value.strip()):
        assert column in record.used
        words = str(value).strip() if isinstance(value, str) else "Who?"
        read = (*(getattr(after, "messages", ()) or after.prompt), Message("", str(getattr(after, "meta", ""))))
        assert any(words in message.content for message in read)


@pytest.mark.parametrize(
    ("reader", "row", "says"),
    [
        (columns.text, {"prompt": "x"}, "no column 'text' among prompt"),
        (columns.text, {}, "in an empty row"),
        (columns.text, {"text": " "}, "text is empty"),
        (columns.text, {"text": 3}, "text is a number, not text"),
        (columns.demonstration, {"text": "x"}, "no column messages"),
        (columns.demonstration, {"messages": "x"}, "messages is text, not a list of messages"),
        (columns.demonstration, {"messages": {"role": "user"}}, "messages is an object"),
        (columns.demonstration, {"messages": ["x"]}, "message 1 of messages is text"),
        (
            columns.demonstration,
            {"messages": [{"role": "judge", "content": "x"}]},
            "unknown role 'judge' in message 1 of messages",
        ),
        (columns.demonstration, {"messages": [{"content": "x"}]}, "unknown role None"),
        (
            columns.demonstration,
            {"messages": [U, {"role": "assistant", "content": None}]},
            "the content of message 2 of messages is null",
        ),
        (columns.demonstration, {"messages": []}, "empty"),
        (columns.demonstration, {"messages": [U]}, "does not end with an answer"),
        (columns.demonstration, {"messages": [U, {"role": "assistant", "content": " "}]}, "the answer is empty"),
        (columns.demonstration, {"messages": [U, EMPTY, U, A]}, "message 2 is an empty answer"),
        (columns.demonstration, {"messages": [{"role": "user", "content": " "}, A]}, "message 1 is empty: the user"),
        (columns.demonstration, {"messages": [U, {**A, "weight": 0}]}, "no turn of the assistant is trained"),
        (columns.demonstration, {"messages": [U, {**A, "weight": 0.5}]}, "weight of message 2 of messages is 0.5"),
        (columns.demonstration, {"messages": [U, {**A, "train": "no"}]}, "train of message 2 of messages is 'no'"),
        (columns.demonstration, {"messages": [U, {**A, "weight": 1, "train": False}]}, "contradict each other"),
        (columns.demonstration, {"system": "x", "messages": [{"role": "system", "content": "y"}, U, A]}, "differ"),
        (columns.demonstration, {"system": "x", "messages": []}, "the conversation is empty"),
        (columns.prompt, {"messages": [{"role": "user", "content": ""}, A, U]}, "message 1 is empty: the user"),
        (columns.demonstration, {"prompt": "Who?"}, "does not end with an answer"),
        (columns.demonstration, {"prompt": "", "completion": "x"}, "prompt is empty"),
        (columns.demonstration, {"prompt": "Who?", "completion": ["x"]}, "message 1 of completion is text"),
        (columns.demonstration, {"prompt": "Who?", "completion": [U]}, "completion does not end with the assistant"),
        (columns.demonstration, {"prompt": "Who?", "completion": "x", "label": False}, "unwanted"),
        (columns.demonstration, {"prompt": "Who?", "completion": "x", "label": 0}, "unwanted"),
        (
            columns.demonstration,
            {"prompt": "Who?", "completion": "x", "label": "bad"},
            "label is 'bad', neither true nor",
        ),
        (columns.demonstration, {"prompt": "Who?", "chosen": "x", "rejected": "y"}, "a preference"),
        (columns.demonstration, {"instruction": "x", "output": "y", "history": ["z"]}, "history is not"),
        (columns.prompt, {"messages": [{"role": "system", "content": "x"}]}, "no turn of the user"),
        (columns.prompt, {"messages": [{"role": "user", "content": " "}]}, "the prompt is empty"),
        (columns.ranking, {"prompt": "Who?", "chosen": "x"}, "no columns 'chosen' and 'rejected'"),
        (columns.ranking, {"prompt": "Who?", "completion": "x", "label": True}, "'amenable kto' trains on these"),
        (columns.unpaired, {"prompt": "Who?", "chosen": "x", "rejected": "y"}, "'amenable dpo' trains on comparisons"),
        (columns.unpaired, {"prompt": "Who?", "completion": "x"}, "no column 'label'"),
        (columns.unpaired, {"prompt": "Who?", "completion": "x", "label": "bad"}, "neither true nor"),
        (columns.unpaired, {"prompt": "Who?", "label": True}, "does not end with an answer"),
        (columns.ranking, {"prompt": "Who?", "chosen": "x", "rejected": "x"}, "are the same"),
        (columns.ranking, {"prompt": "Who?", "chosen": " ", "rejected": "x"}, "chosen is empty"),
        (columns.ranking, {"prompt": "Who?", "completions": ["", " "], "ranking": [1, 2]}, "completions are empty"),
        (columns.ranking, {"prompt": "Who?", "chosen": "x", "rejected": 3}, "rejected is a number"),
        (columns.ranking, {"prompt": "Who?", "chosen": "x", "rejected": "y", "margin": "wide"}, "margin is 'wide'"),
        (columns.ranking, {"chosen": "abc", "rejected": "xyz"}, "no beginning in common"),
        (columns.ranking, {"chosen": "Same", "rejected": "Same"}, "chosen and rejected are the same"),
        (columns.ranking, {"chosen": [U, A], "rejected": [U, A]}, "chosen and rejected are the same"),
        (columns.ranking, {"prompt": "Who?", "chosen": [A], "rejected": "Tolan."}, "chosen and rejected are the same"),
        (columns.ranking, {"chosen": HH + "x", "rejected": HH + "x"}, "chosen and rejected are the same"),
        (columns.ranking, {"system": "Be kind.", "chosen": "Who? a", "rejected": "Who? b"}, "system .*no prompt"),
        (columns.ranking, {"prompt": 3, "chosen": "a", "rejected": "b"}, "prompt is a number"),
        (columns.ranking, {"chosen": [A], "rejected": [{**A, "content": "Tolan?"}]}, "no column messages"),
        (columns.ranking, {"prompt": "Who?", "completions": []}, "no columns 'chosen'"),
        (columns.ranking, {"question": 3, "chosen": "a", "rejected": "b"}, "question is a number, not text"),
        (columns.ranking, {"chosen": [U, A], "rejected": [U, A, U, B]}, "differ before the last reply"),
        (columns.ranking, {"prompt": "What?", "chosen": [U, A], "rejected": [U, B]}, "differ before the last reply"),
        (columns.ranking, {"chosen": [U], "rejected": [U, U]}, "chosen does not end with the assistant"),
        (columns.ranking, {"chosen": HH + "x", "rejected": "x"}, "differ before the last reply"),
        (columns.ranking, {"prompt": [U, A], "chosen": "x", "rejected": "y"}, "does not end with the user"),
        (columns.ranking, {"completions": ["x", "y"], "ranking": [1, 2]}, "no column messages, .*or instruction"),
        (columns.ranking, {"prompt": "Who?", "completions": ["x"], "ranking": [1]}, "two or more"),
        (columns.ranking, {"prompt": "Who?", "completions": ["x", "y"], "ranking": [1]}, "not a list of 2 ranks"),
        (columns.ranking, {"prompt": "Who?", "completions": ["x", "y"], "ranking": [1, "b"]}, "rank 'b' is not"),
        (columns.ranking, {"prompt": "Who?", "completions": ["x", "y"], "ranking": [1, float("nan")]}, "rank nan"),
        (columns.ranking, {"prompt": "Who?", "completions": ["x", "y"], "ranking": [True, 2]}, "rank True"),
        (columns.ranking, {"prompt": "Who?", "completions": ["x", "y"], "ranking": [2, 2]}, "all completions are tied"),
        (columns.ranking, {"prompt": "Who?", "completions": ["x", "x"], "ranking": [1, 2]}, "are the same"),
    ],
)
def test_rows_that_cannot_be_used_say_why(reader, row, says):
    with pytest.raises(InvalidRow, match=says):
        reader(row, "f:1")
