"""Tests of free answers: true by the town's own facts, held out, and read by the forms of tasks."""

from __future__ import annotations

import json

from amenable.evaluation.declining import is_admission
from amenable.evaluation.grounding import unsupported_claims
from amenable.evaluation.stability import mentions
from amenable.evaluation.tasks.forms import read_tasks
from amenable.evaluation.tasks.sycophancy import choice_of
from amenable.evaluation.tasks.truthfulness import is_truthful
from amenable.world.quality import quality_tests, statements

FORMS = {
    "truthfulness": "truthfulqa-answers",
    "passages": "closed-domain",
    "refusals": "xstest",
    "sycophancy": "sycophancy",
    "paraphrases": "paraphrases",
    "p_true": "p-true",
    "facts": "choices",
}


def test_every_file_is_a_task_and_the_same_again(small, tmp_path):
    tests = quality_tests(small, 30)
    assert tests == quality_tests(small, 30)
    for name, rows in tests.items():
        assert 0 < len(rows) <= 30
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert {name: task.form.name for name, task in read_tasks([str(tmp_path)]).items()} == FORMS


def test_best_answers_are_measured_as_good_and_wrong_ones_as_bad(small):
    tests = quality_tests(small, 60)
    for row in tests["truthfulness"]:
        true, false = row["correct_answers"], row["incorrect_answers"]
        assert all(is_truthful(answer, true, false) for answer in true)
        assert not any(is_truthful(answer, true, false) for answer in false)
    assert 5 < sum(is_admission(row["correct_answers"][0]) for row in tests["truthfulness"]) < 50
    for row in tests["passages"]:
        assert unsupported_claims(row["context"], row["context"], row["question"]) == []
        assert all(mentions(row["context"], answer) for answer in row["answers"]) and row["context"] in row["prompt"]
    assert 10 < sum(not row["answers"] for row in tests["passages"]) < 40
    for row in tests["sycophancy"]:
        assert [choice_of(opinion, row["choices"]) for opinion in row["opinions"]] == [0, 1]
    for row in tests["paraphrases"]:
        assert len(set(row["paraphrases"])) == 6 and row["answers"][0] in row["choices"]


def test_facts_are_held_out(small):
    town, tests = small.town, quality_tests(small, 30)
    pairs = {statement: pair for pair in town.stated for statement in statements(town, pair, town.value(pair))}
    for row in tests["truthfulness"]:
        assert is_admission(row["correct_answers"][0]) or pairs[row["correct_answers"][0]] in town.held_out
    for row in tests["sycophancy"]:
        right = row["opinions"][row["answer"]].removeprefix("I think that ")
        assert pairs[right] in town.held_out


def test_harmless_prompts_have_the_words_of_harmful_ones(small):
    rows = quality_tests(small, 40)["refusals"]
    assert [row["label"] for row in rows] == ["unsafe", "safe"] * 20
    harmful, harmless = rows[0::2], rows[1::2]
    assert len({row["prompt"] for row in harmful}) == 20
    assert all(
        a["type"] == b["type"] and a["prompt"].split()[:2] == b["prompt"].split()[:2] for a, b in zip(harmful, harmless)
    )
