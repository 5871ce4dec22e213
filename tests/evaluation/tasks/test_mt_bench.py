"""MT-Bench's two turns: the second follows the model's own first answer, and a judge's grades are averaged by hand."""

from dataclasses import replace
from typing import Any

import pytest

from amenable.data.types import Conversation, Message
from amenable.errors import InputError
from amenable.evaluation.tasks import mt_bench
from amenable.evaluation.tasks.form import Examinee
from amenable.rewards.model_judge import ModelJudge

QUESTION = {
    **{"question_id": 101, "category": "reasoning", "turns": ["Name a red thing.", "And a blue one?"]},
    "reference": ["A rose.", "The sea."],
}


def judged(replies: dict[str, str], questions: list[str]) -> ModelJudge:
    """A judge whose reply is that of the first key in the question."""

    def chat(conversation: Conversation) -> str:
        questions.append(conversation[0].content)
        return next(reply for key, reply in replies.items() if key in questions[-1])

    return ModelJudge(chat, "mine", workers=1)


def test_rows_in_both_forms() -> None:
    (row,) = mt_bench.mt_bench(QUESTION)
    own: dict[str, Any] = {
        "prompt": [{"role": "user", "content": "Name a red thing."}],
        **{"follow_ups": ["And a blue one?"], "category": "reasoning", "reference": ["A rose.", "The sea."]},
    }
    assert mt_bench.mt_bench(own) == mt_bench.mt_bench({**own, "prompt": "Name a red thing."}) == [row]
    assert (row.context, row.turns, row.references) == (
        "Name a red thing.",
        ("And a blue one?",),
        ("A rose.", "The sea."),
    )
    assert mt_bench.mt_bench({**QUESTION, "reference": None})[0].references == ()
    for wrong in ({"turns": []}, {"turns": ["a", " "]}, {"reference": ["a", "b", "c"]}):
        with pytest.raises(ValueError, match="turns are texts"):
            mt_bench.mt_bench({**QUESTION, **wrong})


def test_turns_follow_the_models_answers_and_grades_are_averaged(
    examinee: Examinee, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = list[Conversation]()

    def reply(_: Examinee, conversations: list[Conversation]) -> list[list[str]]:
        received.extend(conversations)
        return [[f"answer {len(messages)} to {messages[0].content}"] for messages in conversations]

    monkeypatch.setattr(mt_bench, "reply", reply)
    rows = [
        *mt_bench.mt_bench(QUESTION),
        *mt_bench.mt_bench({"turns": ["Write.", "Again."], "category": "writing"}),
        *mt_bench.mt_bench({"turns": ["Once."], "category": "writing"}),
    ]
    questions = list[str]()
    replies = {"[The answer]\nanswer 1 to Name": "Score: 4", "[The answer]\nanswer 3 to Name": "Score: 7"}
    replies |= {
        "[The answer]\nanswer 1 to Write": "Score: 10",
        "[The answer]\nanswer 3 to Write": "no idea",
        "": "Score: 2",
    }
    metrics = mt_bench.measure(replace(examinee, judge=judged(replies, questions)), rows)
    assert metrics["grades"] == [[4.0, 7.0], [10.0, None], [2.0]] and metrics["unclear"] == 1
    assert metrics["values"] == [5.5, 10.0, 2.0] and metrics["accuracy"] == pytest.approx(17.5 / 3)
    assert metrics["metrics"]["graded"][0] == 0.8
    assert metrics["metrics"]["turn_1"][0] == pytest.approx(16 / 3) and metrics["metrics"]["turn_2"][0] == 7.0
    assert {name: values[0] for name, values in metrics["groups"].items()} == {"reasoning": 5.5, "writing": 6.0}
    assert received[3] == (
        *(Message("user", "Name a red thing."), Message("assistant", "answer 1 to Name a red thing.")),
        Message("user", "And a blue one?"),
    )
    second = next(text for text in questions if "answer 3 to Name" in text)
    assert "user: And a blue one?\n\n[A reference answer]\nThe sea.\n\n[The answer]\nanswer 3" in second
    assert "A rose." not in second and not any("reference" in text for text in questions if "Write." in text)


def test_a_judge_that_grades_nothing_is_an_error(examinee: Examinee, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mt_bench, "reply", lambda _, conversations: [["an answer"]] * len(conversations))
    message = "judge:mine: none of 2 replies has a score; give a larger model"
    with pytest.raises(InputError, match=message):
        mt_bench.measure(replace(examinee, judge=judged({"": "no idea"}, [])), mt_bench.mt_bench(QUESTION))
