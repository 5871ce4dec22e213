"""Rows of published data sets as examples of a task."""

import json

import pytest

from amenable.data import sources
from amenable.data.record import InvalidRow, LeftOutRow
from amenable.data.task_columns import (
    TaskExample,
    choice_index,
    classification,
    entailment,
    multiple_choice,
    similarity,
)
from amenable.errors import InputError

RACE = {"article": "A town.", "question": "Where?", "options": ["here", "there", "far"], "answer": "B", "id": 7}
ARC = {"question": "Why?", "choices": {"text": ["so", "as"], "label": ["1", "2"]}, "answerKey": "2", "id": "m1"}


@pytest.mark.parametrize(
    ("read", "row", "texts", "label"),
    [
        (classification, {"text": "Fine.", "label": "pos"}, ("Fine.",), "pos"),
        (classification, {"sentence": "Fine.", "label": 1, "idx": 3}, ("Fine.",), "1"),
        (classification, {"text": "Fine.", "label": True}, ("Fine.",), "1"),
        (entailment, {"premise": "A.", "hypothesis": "B.", "label": 2}, ("A.", "B."), "2"),
        (entailment, {"sentence1": "A.", "sentence2": "B.", "label": "entailment"}, ("A.", "B."), "entailment"),
        (entailment, {"question": "A?", "sentence": "B.", "label": 0.0}, ("A?", "B."), "0"),
        (similarity, {"question1": "A?", "question2": "B?", "label": 0}, ("A?", "B?"), "0"),
        (similarity, {"sentence1": "A.", "sentence2": "B.", "label": 3.8}, ("A.", "B."), 3.8),
        (similarity, {"sentence1": "A.", "sentence2": "B.", "label": "3.8"}, ("A.", "B."), 3.8),
        (multiple_choice, RACE, ("A town.\nWhere?", "here", "there", "far"), 1.0),
        (multiple_choice, ARC, ("Why?", "so", "as"), 1.0),
        (multiple_choice, {"context": "A", "choices": ["b", "c"], "answer": 0}, ("A", "b", "c"), 0.0),
    ],
)
def test_columns_of_published_data_sets(read, row, texts, label):
    example = read(row, "file:1")
    assert (example.texts, example.label) == (texts, label)
    assert example.id == str(row.get("id", "file:1"))


@pytest.mark.parametrize(
    ("read", "row", "reason"),
    [
        (classification, {"txt": "Fine.", "label": 1}, "no column 'text' or 'sentence' among txt, label"),
        (classification, {"sentence1": "A", "sentence2": "B", "label": 1}, "are two texts, for --task entailment"),
        (classification, {"text": " ", "label": 1}, "text is empty"),
        (classification, {"text": "Fine."}, "no column 'label'"),
        (classification, {"text": "Fine.", "label": 0.5}, "label is 0.5, not the number or name of a class"),
        (classification, {"text": "Fine.", "label": [1]}, r"label is \[1\]"),
        (entailment, {"premise": "A.", "label": 2}, "no two texts .premise and hypothesis"),
        (multiple_choice, {"question": "A", "answer": 0}, "no column options or choices"),
        (multiple_choice, {"question": "A", "choices": ["b"], "answer": 0}, "not a list of two or more"),
        (multiple_choice, {"question": "A", "choices": ["b", ""], "answer": 0}, "choices 2 is empty"),
        (multiple_choice, {"question": "A", "choices": ["b", "c"], "answer": "D"}, "'D' is none of its 2 choices"),
        (multiple_choice, {"question": "A", "choices": ["b", "c"]}, "no column answer or answerKey"),
    ],
)
def test_rows_that_cannot_be_used(read, row, reason):
    with pytest.raises(InvalidRow, match=reason):
        read(row, "file:1")


def test_hidden_labels_are_left_out():
    with pytest.raises(LeftOutRow, match="hidden"):
        classification({"sentence": "A.", "label": -1}, "file:1")


def test_files_of_a_task_with_columns_of_other_names(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("review,stars\nFine.,1\nBad.,0\n", "utf-8")
    loaded = sources.read_task(file, "classification", columns=("text=review", "label=stars"))
    assert [(row.texts, row.label) for row in loaded.rows] == [(("Fine.",), "1"), (("Bad.",), "0")]
    with pytest.raises(InputError, match="unknown target 'chosen'"):
        sources.read_task(file, "classification", columns=("chosen=review",))
    pairs = tmp_path / "rows.jsonl"
    pairs.write_text(json.dumps(RACE) + "\n", "utf-8")
    (row,) = sources.read_task(pairs, "multiple-choice").rows
    assert row == TaskExample(("A town.\nWhere?", "here", "there", "far"), 1.0, "7")


@pytest.mark.parametrize(("value", "position"), [(0, 0), ("2", 2), ("B", 1)])
def test_a_right_choice_is_a_number_digits_or_a_label(value, position):
    assert choice_index(value, "ABC", 3) == position


@pytest.mark.parametrize("value", [3, -1, "3", "D", "", True, None, 1.0])
def test_an_answer_that_is_no_choice(value):
    with pytest.raises(ValueError, match="is none of its 3 choices"):
        choice_index(value, "ABC", 3)
