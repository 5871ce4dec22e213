"""The expected choice: by hand, and as a model that has read the text expects it."""

from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.evaluation.multiple_choice import Question, accuracy, choice_row, read_tasks
from amenable.functional.statistics import wilson
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.runtime import Runtime

COLOURS = {"rose": "red", "leaf": "green", "sea": "blue", "snow": "white", "frog": "green", "jay": "blue"}


def test_the_choice_alone_counts(words: Tokenizer) -> None:
    ids, counts = choice_row(words, "The rose is", " red.", 100)
    assert ids[0] == words.bos_id and words.decode(ids) == "The rose is red."
    assert words.decode([token for token, counted in zip(ids, counts) if counted]) == " red."


def test_a_token_across_the_border_counts(words: Tokenizer) -> None:
    ids, counts = choice_row(words, "The rose is r", "ed.", 100)
    told = words.decode([token for token, counted in zip(ids, counts) if counted])
    assert told.endswith("ed.") and words.decode(ids) == "The rose is red."


def test_a_long_context_loses_its_beginning(words: Tokenizer) -> None:
    whole, _ = choice_row(words, "A leaf is green. The rose is", " red.", 100)
    ids, counts = choice_row(words, "A leaf is green. The rose is", " red.", 8)
    assert ids == [words.bos_id, *whole[-7:]] and len(counts) == 8 and not counts[0]


def test_a_model_is_right_where_the_right_choice_is_likeliest_for_its_bytes(base: Path, runtime: Runtime) -> None:
    decoder, words = loading.load_policy(base, runtime)
    questions = [
        Question(f"The {thing} is", tuple(f" {one}." for one in ("red", "green", "blue", "white")), i % 4)
        for i, thing in enumerate(COLOURS)
    ]
    right = []
    for question in questions:
        rates = []
        for choice in question.choices:
            row = choice_row(words, question.context, choice, 64)
            (logps,) = forward.compute_logprobs(decoder, [row], runtime, 1000)
            rates.append(float(logps.sum()) / len(choice))
        right.append(max(range(4), key=rates.__getitem__) == question.answer)
    found = accuracy(decoder, words, questions, runtime, 50)
    assert found["right"] == right and found["accuracy"] == sum(right) / 6 and found["n"] == 6
    assert (found["low"], found["high"]) == wilson(sum(right), 6)


def test_what_was_read_is_known(base: Path, runtime: Runtime) -> None:
    decoder, words = loading.load_policy(base, runtime)
    choices = ("red", "green", "blue", "white")
    questions = [
        Question(f"The {thing} is", tuple(f" {one}." for one in choices), choices.index(colour))
        for thing, colour in COLOURS.items()
    ]
    assert accuracy(decoder, words, questions, runtime, 1000)["accuracy"] >= 4 / 6


def test_tasks_are_files(tmp_path: Path) -> None:
    row = '{"id": "a", "context": "The rose is", "choices": [" red", " blue"], "answer": 0}\n'
    for name in ("facts", "others"):
        (tmp_path / f"{name}.jsonl").write_text(row)
    question = Question("The rose is", (" red", " blue"), 0)
    assert read_tasks(tmp_path) == {"facts": [question], "others": [question]}
    assert read_tasks(tmp_path / "facts.jsonl") == {"facts": [question]}


@pytest.mark.parametrize(
    "row",
    [
        "{}",
        "[]",
        "no",
        '{"context": "a", "choices": ["b"], "answer": 0}',
        '{"context": "a", "choices": ["b", ""], "answer": 0}',
        '{"context": "a", "choices": ["b", "c"], "answer": 2}',
        '{"context": "a", "choices": ["b", "c"], "answer": true}',
        '{"context": 1, "choices": ["b", "c"], "answer": 0}',
    ],
)
def test_a_row_that_is_no_question_is_refused_by_its_line(row: str, tmp_path: Path) -> None:
    file = tmp_path / "facts.jsonl"
    file.write_text(f'\n{{"context": "a", "choices": ["b", "c"], "answer": 1}}\n{row}\n')
    with pytest.raises(InputError, match=r"facts\.jsonl(:3: no question with choices|: line 3 is not JSON)"):
        read_tasks(file)


def test_no_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tasks"):
        read_tasks(tmp_path)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="no questions"):
        read_tasks(tmp_path)
