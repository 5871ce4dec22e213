import pytest

from amenable.data.record import InvalidRow, Record
from amenable.feedback.hints import Hints
from amenable.feedback.open_assistant import is_message, is_tree, tree_labels, trees_of


def node(name, text, role="assistant", rank=None, replies=(), **more):
    about = {"message_id": name, "message_tree_id": "t", "text": text, "role": role, "lang": "en"}
    return {**about, "user_id": f"u{name}", "rank": rank, "replies": list(replies), **more}


TREE = {
    "message_tree_id": "t",
    "tree_state": "ready_for_export",
    "prompt": node(
        "1", "Why?", "prompter", replies=[
            node("2", "Because.", rank=1, replies=[
                node("5", "Really?", "prompter", rank=0, replies=[node("7", "Yes.", rank=0), node("8", "No.", rank=0)]),
                node("6", "Thanks.", "prompter", rank=1),
            ]),
            node("3", "Since it is so.", rank=0),
            node("4", "No idea."),
        ],
    ),
}  # fmt: skip


def read(row):
    return list(tree_labels(Record(row), "file:1", Hints()))


def flat(tree):
    """The messages of a tree as rows, parents named."""
    rows, waiting = [], [(tree["prompt"], None)]
    while waiting:
        one, parent = waiting.pop()
        rows.append({**{key: value for key, value in one.items() if key != "replies"}, "parent_id": parent})
        waiting += [(reply, one["message_id"]) for reply in one["replies"]]
    return rows


def test_ranked_replies_are_rankings_wherever_they_stand():
    first, second = read(TREE)
    assert ([turn.role for turn in first.prompt], first.completions, first.ranks, first.id) == (
        ["user"], ("Because.", "Since it is so."), (2.0, 1.0), "1",
    )  # fmt: skip
    assert [turn.content for turn in second.prompt] == ["Why?", "Because.", "Really?"]
    assert (second.completions, second.ranks, second.id) == (("Yes.", "No."), (1.0, 1.0), "5")
    assert first.meta["replies"]["user_id"] == ["u2", "u3"] and first.meta["tree_state"] == "ready_for_export"


def test_the_flat_table_holds_the_same_whatever_its_order():
    rows = flat(TREE)
    assert all(is_message(row) and not is_tree(row) for row in rows) and is_tree(TREE)
    for order in (rows, rows[::-1]):
        ((number, tree),), rejected = trees_of(list(enumerate(order, start=1)))
        assert rejected == []
        assert order[number - 1]["message_id"] == "1"
        result = {one.id: dict(zip(one.completions, one.ranks)) for one in read(tree)}
        assert result == {one.id: dict(zip(one.completions, one.ranks)) for one in read(TREE)}


def test_messages_that_reply_to_each_other_or_to_nobody_there_are_told():
    rows = [node("1", "a"), node("2", "b"), node("3", "Why?", "prompter")]
    for row, parent in zip(rows, ("2", "1", "gone")):
        row["parent_id"] = parent
    trees, rejected = trees_of(list(enumerate([*rows, rows[0], {**rows[0], "message_id": None}], start=1)))
    assert sorted(number for number, _ in trees) == [2, 3] and [number for number, _ in rejected] == [4, 5]
    assert all(isinstance(label, InvalidRow) for _, tree in trees for label in read(tree))


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        (node("1", "Why?", "prompter", replies=[node("2", "x", rank=0)]), "no message in it has two ranked replies"),
        (7, "a message is a number"),
        (node("1", "Why?", "narrator"), "unknown role 'narrator'"),
        (node("1", 3, "prompter"), "the text of a message is a number"),
        ({**node("1", "Why?", "prompter"), "replies": 3}, "the replies to a message are a number"),
        (
            node("1", "Why?", "prompter", replies=[node("2", 3, rank=0), node("3", "x", rank=1)]),
            "is a number, not text",
        ),
        (
            node("1", "?", "prompter", replies=[node(n, n, "prompter", rank=2) for n in "23"]),
            "replies to a prompter",
        ),
    ],
)
def test_what_is_no_tree_says_why(prompt, why):
    result = read({**TREE, "prompt": prompt})
    assert all(isinstance(one, InvalidRow) for one in result) and any(why in str(one) for one in result)
