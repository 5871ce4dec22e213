import pytest

from amenable.data import columns
from amenable.data.columns import Unusable
from amenable.data.types import Message

U = {"role": "user", "content": "Who?"}
A = {"role": "assistant", "content": "Tolan."}
B = {"role": "assistant", "content": "Nobody."}
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
        {"prompt": "Who?", "completions": ["Tolan.", "Nobody."], "ranking": [1, 2]},
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


def test_rankings_keep_ties_order_margin_and_annotator():
    row = {"prompt": "Who?", "completions": ["a", "b", "c"], "ranking": [2, 1, 2], "id": "r"}
    example = columns.ranking(row, "f:1")
    assert example.ranks == (2.0, 1.0, 2.0) and example.id == "r" and example.annotator is None and example.meta == {}
    pair = columns.ranking({"prompt": "Who?", "chosen": "a", "rejected": "b", "margin": 0.5}, "f:1")
    assert pair.margin == 0.5 and pair.meta == {}
    two = columns.ranking({"prompt": "Who?", "completions": ["a", "b"], "ranking": [2, 1], "margin": -1}, "f:1")
    assert two.margin == -1.0, "of the better one over the other, wherever it stands"
    three = columns.ranking({**row, "margin": 0.5}, "f:1")
    assert three.margin is None and three.meta == {"margin": 0.5}, "one number does not fit three pairs"


def test_a_common_beginning_cuts_no_word():
    example = columns.ranking({"chosen": "Q: name? Tolan", "rejected": "Q: name? Tomas"}, "f:1")
    assert example.prompt == (Message("user", "Q: name?"),) and example.completions == ("Tolan", "Tomas")


def test_labelled():
    row = columns.labelled({"prompt": "Who?", "completion": "Tolan.", "label": False, "by": "x"}, "f:1")
    assert (row.prompt, row.completion, row.label, row.meta) == (ASKED, "Tolan.", False, {"by": "x"})


def test_prompts_end_with_the_user_and_keep_the_solution():
    assert columns.prompt({"prompt": "Who?"}, "f:1").messages == ASKED
    assert columns.prompt({"messages": [U, A, U, B]}, "f:1").messages == (*ANSWERED, *ASKED)
    assert columns.prompt({"question": "Who?", "answer": "Tolan."}, "f:1").meta == {"answer": "Tolan."}
    assert columns.prompt({"prompt": "Who?", "kind": "qa"}, "f:1").meta == {"kind": "qa"}
    tied = {"prompt": "Who?", "completions": ["a", "a"], "ranking": [1, 1]}
    assert columns.prompt(tied, "f:1").messages == ASKED, "what is no preference is a prompt all the same"


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
        (columns.demonstration, {"messages": ["x"]}, "message 1 in messages is text"),
        (columns.demonstration, {"messages": [{"role": "tool", "content": "x"}]}, "unknown role 'tool' in message 1"),
        (columns.demonstration, {"messages": [{"content": "x"}]}, "unknown role None"),
        (columns.demonstration, {"messages": [U, {"role": "assistant", "content": None}]}, "message 2 .* is null"),
        (columns.demonstration, {"messages": []}, "empty"),
        (columns.demonstration, {"messages": [A]}, "assistant speaks before"),
        (columns.demonstration, {"messages": [U]}, "does not end with an answer"),
        (columns.demonstration, {"messages": [U, {"role": "assistant", "content": " "}]}, "the answer is empty"),
        (columns.demonstration, {"prompt": "Who?"}, "does not end with an answer"),
        (columns.demonstration, {"prompt": "", "completion": "x"}, "prompt is empty"),
        (columns.demonstration, {"prompt": "Who?", "completion": ["x"]}, "message 1 in completion"),
        (columns.demonstration, {"prompt": "Who?", "completion": [U]}, "not one reply of the assistant"),
        (columns.demonstration, {"prompt": "Who?", "completion": "x", "label": False}, "unwanted"),
        (columns.demonstration, {"prompt": "Who?", "chosen": "x", "rejected": "y"}, "a preference"),
        (columns.demonstration, {"instruction": "x", "output": "y", "history": ["z"]}, "history is not"),
        (columns.prompt, {"messages": [{"role": "system", "content": "x"}]}, "no turn of the user"),
        (columns.prompt, {"messages": [{"role": "user", "content": " "}]}, "the prompt is empty"),
        (columns.ranking, {"prompt": "Who?", "chosen": "x"}, "no columns 'chosen' and 'rejected'"),
        (columns.ranking, {"prompt": "Who?", "chosen": "x", "rejected": "x"}, "are the same"),
        (columns.ranking, {"prompt": "Who?", "chosen": "x", "rejected": " "}, "completion 2 of 2 is empty"),
        (columns.ranking, {"prompt": "Who?", "chosen": "x", "rejected": 3}, "rejected is a number"),
        (columns.ranking, {"prompt": "Who?", "chosen": "x", "rejected": "y", "margin": "wide"}, "margin is 'wide'"),
        (columns.ranking, {"chosen": "abc", "rejected": "xyz"}, "no beginning in common"),
        (columns.ranking, {"chosen": [U, A], "rejected": [U, A, U, B]}, "differ before the last reply"),
        (columns.ranking, {"prompt": "What?", "chosen": [U, A], "rejected": [U, B]}, "differ before the last reply"),
        (columns.ranking, {"chosen": [U], "rejected": [U]}, "chosen does not end with the assistant"),
        (columns.ranking, {"chosen": HH + "x", "rejected": "x"}, "rejected does not end with the assistant"),
        (columns.ranking, {"prompt": [U, A], "chosen": "x", "rejected": "y"}, "does not end with the user"),
        (columns.ranking, {"completions": ["x", "y"], "ranking": [1, 2]}, "no column 'prompt' or 'context'"),
        (columns.ranking, {"prompt": "Who?", "completions": ["x"], "ranking": [1]}, "two or more"),
        (columns.ranking, {"prompt": "Who?", "completions": ["x", "y"], "ranking": [1]}, "not a list of 2 ranks"),
        (columns.ranking, {"prompt": "Who?", "completions": ["x", "y"], "ranking": [1, "b"]}, "rank 'b' is not"),
        (columns.ranking, {"prompt": "Who?", "completions": ["x", "y"], "ranking": [1, float("nan")]}, "rank nan"),
        (columns.ranking, {"prompt": "Who?", "completions": ["x", "y"], "ranking": [True, 2]}, "rank True"),
        (columns.ranking, {"prompt": "Who?", "completions": ["x", "y"], "ranking": [2, 2]}, "all completions are tied"),
        (columns.ranking, {"prompt": "Who?", "completions": ["x", "x"], "ranking": [1, 2]}, "are the same"),
        (columns.labelled, {"prompt": "Who?", "completion": "x"}, "no column 'label'"),
        (columns.labelled, {"prompt": "Who?", "completion": "x", "label": "good"}, "label is 'good'"),
        (columns.labelled, {"prompt": "Who?", "completion": " ", "label": True}, "the answer is empty"),
    ],
)
def test_rows_that_cannot_be_used_say_why(reader, row, says):
    with pytest.raises(Unusable, match=says):
        reader(row, "f:1")
