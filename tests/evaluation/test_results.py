"""What is kept of several entries, and how it is laid out in the files."""

from pathlib import Path
from typing import Any

import pytest

from amenable.data.types import Message, Prompt
from amenable.evaluation.entries import ModelEntry
from amenable.evaluation.metrics import Scorers
from amenable.evaluation.results import Results, answers_at
from amenable.evaluation.runner import ModelResults, Suites
from amenable.rewards.model_judge import ModelJudge
from amenable.train.runtime import Runtime

SUITES = Suites(
    {
        "test": [Prompt((Message("user", f"{name}?"),), id=name, meta={"kind": "open"}) for name in "pq"],
        "more": [Prompt((Message("user", "r?"),), id="r")],
    }
)


def row(text: str, reward: float) -> dict[str, Any]:
    return {"text": text, "ended": True, "reward": reward}


SFT = ModelResults(
    metrics={"test": {"reward": 1.5, "greedy": {"reward": 2.0}}, "more": {"reward": 0.0, "greedy": None}},
    answers={
        "test": {"sampled": [row("a", 1), row("b", 2)], "greedy": [row("c", 2), row("d", 2)]},
        "more": {"sampled": [row("e", 0)]},
    },
    curve=None,
    notes=[],
)
BEST = ModelResults(
    metrics={"test": {"reward": 3.0, "greedy": None}},
    answers={"test": {"sampled": [row("z", 3)], "greedy": None}},
    curve=[{"n": 1}],
    notes=[],
)


@pytest.fixture
def results() -> Results:
    """Two entries of one model."""
    result = Results()
    result.known["x"] = {"figures": {"bpb": 0.5, "text_bytes": 9}, "tasks": {"facts": {"accuracy": 0.7}}}
    result.add(ModelEntry("sft", Path("x")), SFT)
    result.add(ModelEntry("best", Path("x"), best_of=2), BEST)
    return result


def test_a_model_is_told_with_what_it_knows(results: Results, runtime: Runtime) -> None:
    report = results.evaluation(SUITES, Scorers(None, None, None, 1.0, runtime, 1000), 0)
    assert report["models"]["sft"] == {
        "reward": 1.5,
        "greedy": {"reward": 2.0, "bpb": 0.5},
        "bpb": 0.5,
        "text_bytes": 9,
    }
    assert report["models"]["best"] == {"reward": 3.0, "greedy": None, "bpb": 0.5, "text_bytes": 9}
    assert report["suites"] == {"more": {"sft": {"reward": 0.0, "greedy": None}}}
    assert report["tasks"] == {"facts": {"sft": {"accuracy": 0.7}, "best": {"accuracy": 0.7}}}
    assert report["best_of"] == {"best": [{"n": 1}]} and report["preference"] == []
    assert SFT.metrics["test"] == {"reward": 1.5, "greedy": {"reward": 2.0}}  # nothing was written into it


def test_prompts_show_who_answered_them(results: Results) -> None:
    first, second, more = results.side_by_side(SUITES)
    assert first == {
        "suite": "test",
        "id": "p",
        "kind": "open",
        "prompt": [{"role": "user", "content": "p?"}],
        "answers": {
            "sft": {"sampled": row("a", 1), "greedy": row("c", 2)},
            "best": {"sampled": row("z", 3), "greedy": None},
        },
    }
    assert list(second["answers"]) == ["sft"]  # the best of n answers only the first prompts
    assert more["suite"] == "more" and more["kind"] is None and more["answers"] == {"sft": {"sampled": row("e", 0)}}
    assert answers_at(1, {"sampled": [row("a", 1)], "greedy": None}) is None


def test_results_survive_a_checkpoint(results: Results) -> None:
    again = Results()
    again.load_state_dict(results.state_dict())
    assert again.side_by_side(SUITES) == results.side_by_side(SUITES) and again.known == results.known


def test_questions_to_a_judge_are_counted_over_models_and_checkpoints() -> None:
    judge = ModelJudge(lambda _: "Score: 3", "mine", workers=1)
    before, after = Results(), Results()
    before.known["x"] = {"figures": {"bpb": 0.5}, "tasks": {}}
    judge([SUITES.prompts["test"][0].messages], ["a"])
    before.add(ModelEntry("sft", Path("x")), SFT, judge)
    after.load_state_dict(before.state_dict())
    judge([SUITES.prompts["more"][0].messages], ["b"])
    after.count(judge)
    assert after.judge == {"questions": 2.0, "repeated": 0.0, "unclear": 0.0}
