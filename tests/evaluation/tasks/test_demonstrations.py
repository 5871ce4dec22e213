"""Rows of tasks as instructions: choices, labels and worked answers, in wordings that a number chooses."""

from pathlib import Path
from typing import Any

import pytest

from amenable.data.sources import read_demonstrations
from amenable.errors import InputError
from amenable.evaluation.tasks import demonstrations
from amenable.evaluation.tasks.demonstrations import CHOICE_TEMPLATES, Instruction, parse_spec, read_instructions
from tests.conftest import write_rows
from tests.evaluation.tasks.test_choices import ARC, HELLASWAG, MMLU, RACE
from tests.evaluation.tasks.test_forms import OWN, PIQA
from tests.evaluation.tasks.test_generated import INSTRUCTED, PROBLEM

BOOLQ = {"passage": "A rose is red.", "question": "is a rose red", "label": 1}


def read_single(tmp_path: Path, row: dict[str, Any], form: str | None = None) -> Instruction:
    (instruction,) = read_instructions(write_rows(tmp_path / "rows.jsonl", [row]), form)
    return instruction


@pytest.mark.parametrize(("row", "answer"), [(BOOLQ, "yes"), (OWN, "red"), (PIQA, "b")])
def test_the_right_choice_is_the_answer_to_every_wording(tmp_path: Path, row: dict[str, Any], answer: str) -> None:
    instruction = read_single(tmp_path, row)
    prompts = set()
    for draw in range(len(CHOICE_TEMPLATES)):
        user, assistant = instruction.render(draw)["messages"]
        assert assistant == {"role": "assistant", "content": answer} and instruction.context in user["content"]
        assert all(choice in user["content"] for choice in instruction.choices)
        prompts.add(user["content"])
    assert len(prompts) == len(CHOICE_TEMPLATES), "the wordings differ"


@pytest.mark.parametrize("row", [ARC, HELLASWAG, RACE])
def test_tests_of_choices_are_read(tmp_path: Path, row: dict[str, Any]) -> None:
    instruction = read_single(tmp_path, row)
    assert instruction.answer in instruction.choices and not instruction.context.endswith("Answer:")


def test_choices_that_a_context_lists_are_answered_by_letter(tmp_path: Path) -> None:
    user, assistant = read_single(tmp_path, MMLU).render(0)["messages"]
    assert assistant["content"] in "ABCD" and user["content"].endswith("Answer with a letter.")
    assert user["content"].count("\nA. ") == 1


def test_a_problem_is_answered_by_its_steps(tmp_path: Path) -> None:
    instruction = read_single(tmp_path, PROBLEM)
    assert instruction.context == PROBLEM["question"] and instruction.answer == PROBLEM["answer"]
    assert instruction.render(0)["messages"][0]["content"] == PROBLEM["question"]


def test_labelled_texts_have_the_labels_of_their_file_as_choices(tmp_path: Path) -> None:
    rows = [{"text": f"Soup {i}.", "label": ("neg", "pos")[i % 2]} for i in range(3)]
    file = write_rows(tmp_path / "reviews.jsonl", rows)
    assert [each.answer for each in read_instructions(file)] == ["neg", "pos", "neg"]
    assert read_instructions(file, labels=("bad", "good"))[1].render(2)["messages"][0]["content"] == (
        "Choose the right answer: bad; good.\n\nSoup 1."
    )
    assert len(read_instructions(file, limit=1)) == 1 and len(read_instructions(file, limit=1)[0].choices) == 2


def test_two_texts_are_premise_and_hypothesis(tmp_path: Path) -> None:
    pair = {"premise": "A rose.", "hypothesis": "A plant.", "label": "yes"}
    assert read_single(tmp_path, pair).context == "Premise: A rose.\nHypothesis: A plant."
    assert parse_spec("entailment:pairs.jsonl") == ("entailment", Path("pairs.jsonl"))
    assert parse_spec("arc:rows.jsonl") == ("arc", Path("rows.jsonl"))


def test_sft_reads_what_is_rendered(tmp_path: Path) -> None:
    (row,) = read_demonstrations(write_rows(tmp_path / "sft.jsonl", [read_single(tmp_path, BOOLQ).render(0)])).rows
    assert row.messages[-1].content == "yes"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([INSTRUCTED], "a row of 'ifeval' has no right answer to learn"),
        ([{"text": "a", "label": 0}, {"text": "b", "label": 1}], "its labels are numbers: 0, 1"),
        ([{"text": "a", "label": "x"}, {"text": " ", "label": "y"}], "no row of 'classification': text is empty"),
        ([{"line": "a"}], "no known task has the columns line"),
    ],
)
def test_rows_without_an_answer_are_refused(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_instructions(write_rows(tmp_path / "rows.jsonl", rows))


def test_a_name_is_given_for_each_label(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{"text": str(i), "label": i} for i in range(2)])
    with pytest.raises(InputError, match=r"3 names for 2 labels.*name each of 0, 1, in this order"):
        read_instructions(file, labels=("a", "b", "c"))
    assert demonstrations.labelled_form({"label": 1, "question": "q"}) is None
