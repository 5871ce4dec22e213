import json

import pytest

from amenable.data.model_comparisons import (
    Verdict,
    compared,
    dialogues,
    flagged,
    is_comparison,
    preferred,
    verdict_of,
    winning,
)
from amenable.data.record import InvalidRow


def talk(*texts):
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 9, texts)]


ARENA = {
    "question_id": "q1", "model_a": "north", "model_b": "south", "winner": "model_b", "judge": "cy",
    "conversation_a": talk("Why?", "Because."), "conversation_b": talk("Why?", "Since."), "language": "English",
}  # fmt: skip
LMSYS = {
    "id": 30192, "model_a": "north", "model_b": "south",
    "prompt": '["Why?","And then?"]', "response_a": '["Because.","No."]', "response_b": '["Because.","Yes."]',
    "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0,
}  # fmt: skip
ALPACA = {
    "instruction": "Why?", "output_1": "Because.", "generator_1": "north", "output_2": "Since.", "generator_2": "south",
    "dataset": "helpful", "annotator": "judge", "preference": 2.0, "raw_completion": "The second is better.",
}  # fmt: skip


@pytest.mark.parametrize("row", [ARENA, LMSYS, ALPACA])
def test_each_form_says_that_the_second_won(row):
    assert is_comparison(row)
    prompt, answers, verdict = compared(row)
    assert (verdict.models, verdict.score, verdict.both_bad) == (("north", "south"), 0.0, False)
    assert answers in (["Because.", "Since."], ["No.", "Yes."]) and prompt[0].content == "Why?"


def test_the_turns_and_the_passage_before_the_answers_are_the_prompt():
    assert [turn.content for turn in compared(LMSYS)[0]] == ["Why?", "Because.", "And then?"]
    assert compared({**ALPACA, "input": "Of ducks."})[0][0].content == "Why?\n\nOf ducks."


def test_both_bad_is_a_tie():
    for winner in ("tie (bothbad)", "both_bad"):
        assert verdict_of({**ARENA, "winner": winner}) == Verdict(("north", "south"), 0.5, True, "cy")
    assert verdict_of({**ARENA, "winner": "tie"}) == Verdict(("north", "south"), 0.5, False, "cy")


@pytest.mark.parametrize(
    ("winner", "models", "score"),
    [
        ("model_a", ("x", "y"), 1.0),
        ("Model_B", ("x", "y"), 0.0),
        ("tie", ("x", "y"), 0.5),
        ("A", ("x", "y"), 1.0),
        ("b", ("x", "y"), 0.0),
        ("y", ("x", "y"), 0.0),
        ("A", ("B", "A"), 0.0),
        ("B", ("B", "A"), 1.0),
        ("a", ("a", "b"), 1.0),
        ("a", ("A", "B"), 1.0),
        ("b", ("x", "b"), 0.0),
        ("model_a", ("model_a", "model_b"), 1.0),
    ],
)
def test_a_winner_is_a_side_or_a_name(winner, models, score):
    assert winning(winner, models) == score


@pytest.mark.parametrize(
    ("winner", "models"),
    [
        ("model_a", ("model_b", "model_a")),
        ("tie", ("tie", "x")),
        ("a", ("B", "A")),
        ("north", ("x", "y")),
        ("", ("x", "y")),
    ],
)
def test_a_winner_that_says_two_things_or_nothing_is_refused(winner, models):
    with pytest.raises(InvalidRow, match="the winner"):
        winning(winner, models)


@pytest.mark.parametrize("column", ["model_a", "model_b"])
@pytest.mark.parametrize("name", [None, "", " ", ["x"], True, {}])
def test_nobody_is_rated_without_a_name(column, name):
    with pytest.raises(InvalidRow, match=column):
        verdict_of({**ARENA, column: name})
    assert verdict_of({**ARENA, column: 7}).models.count("7") == 1


@pytest.mark.parametrize("flags", [(1, 1, 0), (0, 0, 0), (2, 0, 0), ("yes", 0, 0), (None, None, None), (0.3, 0.3, 0.4)])
def test_one_column_of_the_winner_is_one(flags):
    with pytest.raises(InvalidRow, match=r"one of the columns of the winner must be 1|no column 'winner'"):
        names = ("winner_model_a", "winner_model_b", "winner_tie")
        verdict_of({"model_a": "x", "model_b": "y", **dict(zip(names, flags))})
    assert flagged({"winner_model_a": 1.0, "winner_model_b": 0.0, "winner_tie": 0.0}) == 1.0
    assert flagged({"winner_model_a": "0", "winner_model_b": "1", "winner_tie": "0"}) == 0.0
    assert flagged({"winner_model_a": False, "winner_model_b": False, "winner_tie": True}) == 0.5


def test_preferences_between_one_and_two():
    assert [preferred(value) for value in (1, 1.25, 1.5, 0, 2.0)] == [1.0, 0.75, 0.5, 0.5, 0.0]
    for value in (None, 2.5, -1, True, "1", 0.5):
        with pytest.raises(InvalidRow, match="not from 1 to 2"):
            preferred(value)


def test_conversations_that_part_are_no_ranking_but_a_comparison():
    row = {**LMSYS, "response_a": json.dumps(["Because of that.", "No."])}
    assert verdict_of(row).score == 0.0
    for bad, reason in (
        (row, "differ before the last answers; 'amenable ratings"),
        ({name: ARENA[name] for name in ("model_a", "model_b", "winner")}, "no texts of the two answers"),
        ({**ARENA, "conversation_a": talk("Why?")}, "does not end with an answer"),
    ):
        with pytest.raises(InvalidRow, match=reason):
            compared(bad)


def test_texts_of_answers_are_lists_only_where_the_form_has_lists():
    assert dialogues({"prompt": "x", "response_a": '["a"]', "response_b": "b"})[0][1].content == '["a"]'
    first, second = dialogues({**LMSYS, "prompt": "[not json", "response_a": "one", "response_b": "[null]"})
    assert (first[0].content, first[1].content, second[1].content) == ("[not json", "one", "")
    with pytest.raises(InvalidRow, match="2 prompts and 1 answers"):
        dialogues({**LMSYS, "response_a": "one"})
    with pytest.raises(InvalidRow, match="half of a character"):
        dialogues({**LMSYS, "response_a": '["\\ud800", "x"]'})
    assert dialogues({"model_a": "x"}) is None
