"""Models whose answers are written by the test, and judges whose verdicts are."""

from collections.abc import Callable, Sequence
from types import ModuleType

import pytest

from amenable.data.types import Conversation
from amenable.evaluation.tasks.form import Examinee
from amenable.rewards.model_judge import ModelJudge


def answer_with(monkeypatch: pytest.MonkeyPatch, form: ModuleType, answer: Callable[[str, int], str]) -> list[str]:
    """Let `answer`, of a prompt's last turn and the number of the sample, write the answers of a form's model; return
    the prompts that it receives."""
    received = list[str]()

    def reply(_: Examinee, conversations: Sequence[Conversation], samples: int = 0) -> list[list[str]]:
        prompts = [messages[-1].content for messages in conversations]
        received.extend(prompts)
        return [[answer(prompt, i) for i in range(max(samples, 1))] for prompt in prompts]

    monkeypatch.setattr(form, "reply", reply)
    return received


def judge_by(verdict: Callable[[str], bool]) -> ModelJudge:
    """A judge with the verdict of a function of its question."""
    return ModelJudge(lambda messages: f"Verdict: {'yes' if verdict(messages[0].content) else 'no'}", "mine", workers=1)
