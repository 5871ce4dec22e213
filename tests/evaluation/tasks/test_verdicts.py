"""A judge's yes or no, and what is none."""

import pytest

from amenable.data.types import Conversation
from amenable.evaluation.tasks.verdicts import ENDING, clear, read_yes_or_no, verdicts
from amenable.rewards.model_judge import ModelJudge


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("It is. Verdict: yes", 1.0),
        ("Verdict: yes? No. Verdict: **No**", 0.0),
        ("yes.", 1.0),
        ("Yes, it is so.", None),
        ("", None),
    ],
)
def test_the_last_verdict_counts(text: str, value: float | None) -> None:
    assert read_yes_or_no(text) == value


def test_a_question_without_a_verdict_is_repeated_and_then_has_none() -> None:
    received = list[Conversation]()

    def chat(conversation: Conversation) -> str:
        received.append(conversation)
        return {"a": "Verdict: yes", "b": "Verdict: no"}.get(conversation[0].content[:1], "hm")

    judge = ModelJudge(chat, "mine", workers=1)
    assert verdicts(judge, ["a?", "b?", "c?"]) == [True, False, None]
    assert judge.unclear == 1 and len(received) == 5 and received[0][0].content == f"a? {ENDING}"
    assert verdicts(None, ["a?"]) == [None]
    assert clear(judge, [True, False, None]) == [True, True, False] and clear(None, [None]) == [None]
