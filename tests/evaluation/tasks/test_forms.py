"""Task files by their columns; shots; what is refused, in one line."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.errors import InputError
from amenable.evaluation.prompting import PromptingOptions
from amenable.evaluation.shots import Selection
from amenable.evaluation.tasks.form import Examinee
from amenable.evaluation.tasks.forms import FORMS, parse_task, read_tasks, task_inputs, without_tasks
from amenable.evaluation.tasks.options import TaskOptions
from amenable.rewards.model_judge import ModelJudge
from tests.evaluation.tasks.test_behaviour import ROW as BEHAVIOUR
from tests.evaluation.tasks.test_bias import PAIR, QUESTION
from tests.evaluation.tasks.test_choices import ARC, HELLASWAG, MMLU, RACE
from tests.evaluation.tasks.test_closed_domain import ROW as PASSAGE
from tests.evaluation.tasks.test_generated import INSTRUCTED, PROBLEM
from tests.evaluation.tasks.test_mt_bench import QUESTION as TURNS
from tests.evaluation.tasks.test_paraphrases import ROW as WORDINGS
from tests.evaluation.tasks.test_refusals import ROW as SAFE
from tests.evaluation.tasks.test_self_knowledge import ROW as KNOWN
from tests.evaluation.tasks.test_sycophancy import ROW as OPINIONS
from tests.evaluation.tasks.test_truthfulness import ROW as ANSWERS
from tests.evaluation.tasks.test_truthfulqa import ROW

OWN = {"id": "a", "context": "The rose is", "choices": [" red", " blue"], "answer": 0}
PIQA = {"goal": "g", "sol1": "a", "sol2": "b", "label": 1}
ROWS: dict[str, dict[str, Any]] = {
    "arc": {"id": "1", **ARC},
    "hellaswag": {"ind": 1, **HELLASWAG},
    "mmlu": MMLU,
    "piqa": PIQA,
    "boolq": {"passage": "P.", "question": "is it", "label": 1},
    "race": RACE,
    "choices": OWN,
    "truthfulqa": ROW,
    "lambada": {"text": "The rose is red"},
    "gsm8k": PROBLEM,
    "ifeval": INSTRUCTED,
    "mt-bench": TURNS,
    "crows-pairs": PAIR,
    "bbq": QUESTION,
    "behaviour": BEHAVIOUR,
    "truthfulqa-answers": ANSWERS,
    "closed-domain": PASSAGE,
    "xstest": SAFE,
    "sycophancy": OPINIONS,
    "paraphrases": WORDINGS,
    "p-true": KNOWN,
}


def test_forms_are_recognised_by_their_columns(write: Callable[..., Path], tmp_path: Path) -> None:
    for name, row in ROWS.items():
        write(name, row)
    tasks = read_tasks([str(tmp_path)], has_judge=True)
    assert {name: task.form.name for name, task in tasks.items()} == {name: name for name in ROWS}
    assert set(ROWS) == {form.name for form in FORMS}


def test_every_form_measures_a_model(write: Callable[..., Path], tmp_path: Path, examinee: Examinee) -> None:
    for name, row in ROWS.items():
        write(name, row)
    judge = ModelJudge(lambda _: f"Score: {len(_[0].content) % 10 + 1}", "mine", workers=1)
    for task in read_tasks([str(tmp_path)], has_judge=True).values():
        metrics = task.evaluate(replace(examinee, judge=judge))
        assert metrics["form"] == task.form.name and metrics["n"] >= 1
        ends = [(low, value, high) for value, low, high in metrics["metrics"].values() if low is not None]
        assert all(low <= value <= high for low, value, high in ends) and (ends or task.form.name == "mt-bench")


def test_a_file_is_one_task_and_may_be_cut(write: Callable[..., Path]) -> None:
    file = write("some", OWN, {**OWN, "answer": 1}, OWN)
    assert [row.right for row in read_tasks([f"choices:{file}"])["some"].rows] == [(0,), (1,), (0,)]
    assert len(read_tasks([str(file)], TaskOptions(task_rows=2))["some"].rows) == 2


def test_shots_are_the_first_examples_of_a_file(write: Callable[..., Path]) -> None:
    test = write("test", ARC)
    train = write("train", *[{**ARC, "question": f"Why {i}?"} for i in range(3)])
    prompting = PromptingOptions((train,), 2)
    tasks = read_tasks([str(test), str(write("other", PIQA))], None, prompting)
    (row,) = tasks["test"].rows
    shots = "Question: Why 0?\nAnswer: no\n\nQuestion: Why 1?\nAnswer: no\n\n"
    assert row.requests[0].context == f"{shots}Question: Why?\nAnswer:"
    assert tasks["other"].rows[0].shots == ()
    with pytest.raises(InputError, match="3 examples for 4 shots"):
        read_tasks([str(test)], None, PromptingOptions((train,), 4))
    more = write("more", {**ARC, "question": "More?"})
    (row,) = read_tasks([str(test)], None, PromptingOptions((train, more)))["test"].rows
    assert len(row.shots) == 4 and row.shots[-1].context == "Question: More?\nAnswer:", "of all files of the form"
    piqa = [str(write("piqa", PIQA))]
    with pytest.raises(InputError, match=r"train\.jsonl: the examples have the form of no task; give rows in the"):
        read_tasks(piqa, None, prompting)
    assert read_tasks(piqa, None, prompting, has_prompts=True)["piqa"].rows[0].shots == ()


@pytest.mark.parametrize(("selection", "last"), [("similar", 4), ("random", None), ("balanced", None)])
def test_shots_are_chosen_for_each_row(selection: Selection, last: int | None, write: Callable[..., Path]) -> None:
    rows = [{**ARC, "question": f"Why {word}?", "answerKey": "AB"[i % 2]} for i, word in enumerate("pqrst")]
    train, test = write("train", *rows), write("test", *({**ARC, "question": f"Is it {w}?"} for w in "tttuvwxyz"))
    (task,) = read_tasks([str(test)], None, PromptingOptions((train,), 2, selection)).values()
    assert all(len(set(row.shots)) == 2 for row in task.rows)
    assert task.rows[0].shots == task.rows[2].shots, "equal rows have equal examples"
    if last is not None:
        assert task.rows[0].shots[-1].context == f"Question: {rows[last]['question']}\nAnswer:"
    else:
        assert len({row.shots for row in task.rows}) > 3
    if selection == "balanced":
        assert all({shot.label for shot in row.shots} == {"0", "1"} for row in task.rows)


def test_a_prefix_comes_before_all_examples(write: Callable[..., Path]) -> None:
    train, problem = write("train", {**PROBLEM, "question": "2 + 2?", "answer": "#### 4"}), write("test", PROBLEM)
    prompting = PromptingOptions((train,), prefix="Solve:")
    tasks = read_tasks([str(problem), str(write("mmlu", MMLU))], None, prompting)
    (row,) = tasks["test"].rows
    assert row.whole == "Solve:\n\nQuestion: 2 + 2?\nAnswer: #### 4\n\nQuestion: 1 + 1?\nAnswer:"
    assert [(each.role, each.content) for each in row.messages] == [
        ("system", "Solve:"),
        ("user", "Question: 2 + 2?\nAnswer:"),
        ("assistant", "#### 4"),
        ("user", "Question: 1 + 1?\nAnswer:"),
    ]
    assert tasks["mmlu"].rows[0].requests[0].context.startswith("Solve:\n\nThe following are multiple choice")


def test_rows_that_lose_their_beginning_are_counted(write: Callable[..., Path], examinee: Examinee) -> None:
    """The context is 64 tokens, of which a generated answer takes 12; the last token of a choice is not read."""
    words = examinee.model.tokenizer
    rows = [{**OWN, "context": "The rose is" + " red" * count} for count in range(40, 70)]
    prompting = PromptingOptions((write("train", {**OWN, "context": "A"}),))
    for options in (prompting, PromptingOptions()):
        (task,) = read_tasks([str(write("test", *rows))], None, options).values()
        lengths = [len(words.added_ids) + len(words.encode(row.whole)) for row in task.rows]
        assert 65 in lengths and task.count_cut(examinee) == sum(length > 65 for length in lengths) > 0
        tight = replace(examinee, generation=replace(examinee.generation, max_new_tokens=60))
        assert task.count_cut(tight) == task.count_cut(examinee), "nothing is generated"
    (problem,) = read_tasks([str(write("problem", PROBLEM))]).values()
    assert problem.count_cut(tight) == 1 and problem.count_cut(examinee) == 0


def test_examples_of_no_task_are_for_prompts(write: Callable[..., Path]) -> None:
    tasks = read_tasks([str(write("test", ARC))])
    own, problems, turns = (
        write("own", ARC),
        write("problems", PROBLEM),
        write("turns", {"prompt": "a", "completion": "b"}),
    )
    assert without_tasks((own, problems, turns), tasks) == (problems, turns)
    assert without_tasks((own,), tasks) == (own,) and without_tasks((), tasks) == ()


def test_options_that_no_task_reads_are_refused(write: Callable[..., Path]) -> None:
    arc, problem = str(write("arc", ARC)), str(write("problem", PROBLEM))
    for options, specs, message in (
        (TaskOptions(calibrate=True), [problem], "no task reads --calibrate; tests that do are arc, hellaswag, mmlu"),
        (
            TaskOptions(self_consistency=3),
            [arc],
            "no task reads --self-consistency; tests that do are gsm8k, para",
        ),
        (TaskOptions(chat_template=True), [arc], "no task reads --chat-template; tests that do are gsm8k"),
    ):
        with pytest.raises(InputError, match=message):
            read_tasks(specs, options)
    with pytest.raises(InputError, match="turns: a judge grades its answers; give --reward judge:URL:MODEL"):
        read_tasks([str(write("turns", TURNS))])
    for options in (TaskOptions(calibrate=True), TaskOptions(self_consistency=3), TaskOptions(chat_template=True)):
        assert read_tasks([arc, problem], options)


def test_rows_that_training_files_hold_are_counted(
    write: Callable[..., Path], examinee: Examinee, tmp_path: Path
) -> None:
    long = "the old miller of the town by the river sold his white horse to a"
    train = write("train", {"text": f"Once {long} baker."})
    test = write("test", {"text": f"{long} baker"}, {"text": "The rose is red"})
    options = TaskOptions(train_data=(train,))
    (task,) = read_tasks([str(test)], options).values()
    assert task.contaminated == (True, False) and task.describe() == "lambada, 2 rows, 1 of them contaminated"
    metrics = task.evaluate(examinee)
    assert metrics["contaminated"] == 1 and metrics["metrics"]["clean"][0] == float(metrics["right"][1])
    assert task_inputs([f"lambada:{test}"], options) == {
        f"task lambada:{test}": test,
        f"train data {train}": train,
    }


def test_an_example_that_is_in_the_test_is_refused(write: Callable[..., Path]) -> None:
    train = write("train", {**ARC, "question": "Other?"}, {**ARC, "question": " WHY?"})
    pairs = write("pairs", PAIR), PromptingOptions((write("more", {**PAIR, "sent_more": "Other."}),))
    assert read_tasks([str(pairs[0])], None, pairs[1])["pairs"].rows[0].shots, "sentences have no context"
    with pytest.raises(InputError, match=r"train\.jsonl: example 2 is a row of the test 'test'; take examples"):
        read_tasks([str(write("test", ARC))], None, PromptingOptions((train,), 1))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{**OWN, "choices": [" red", ""]}], "line 1.*a choice is empty"),
        ([OWN, {**OWN, "answer": 2}], "line 2.*the answer 2 is none of its 2 choices"),
        ([{**OWN, "answer": True}], "the answer is the index of a choice"),
        ([{**OWN, "choices": [" red"]}], "at least two choices"),
        ([{**OWN, "context": 1}], "context must be text"),
        ([{**MMLU, "choices": ["a", ""]}], "a choice is empty"),
        ([{**ARC, "answerKey": "E"}], "the answer 'E' is none of its 2 choices"),
        ([{**ARC, "choices": {"text": ["a"]}}], "it has no 'label'"),
        ([{**RACE, "problems": "[{"}], "no row of 'race'"),
        ([OWN, PIQA], "a row of 'piqa' among rows of 'choices'"),
        ([{"question": "q", "choice": ["a"], "answer": 0}], "the nearest form, mmlu, has question, choices, answer"),
        ([], "no rows"),
    ],
)
def test_bad_rows_are_refused_by_their_line(
    rows: list[dict[str, Any]], message: str, write: Callable[..., Path]
) -> None:
    with pytest.raises(InputError, match=message):
        read_tasks([str(write("bad", *rows))])


def test_an_unknown_form_is_answered_with_the_nearest(write: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown form 'helaswag' of a task.*the nearest is hellaswag"):
        parse_task("helaswag:x.jsonl")
    with pytest.raises(InputError, match="the test 'arc' needs its file; write arc:FILE"):
        parse_task("arc")
    with pytest.raises(InputError, match="no known task has the columns"):
        read_tasks([f"arc:{write('own', OWN)}"])
    with pytest.raises(InputError, match="no such file or folder"):
        read_tasks([str(tmp_path / "none.jsonl")])
    (tmp_path / "more").mkdir()
    twice = [str(write("own", OWN)), str(write("more/own", OWN))]
    with pytest.raises(InputError, match="two tasks are called 'own'"):
        read_tasks(twice)
