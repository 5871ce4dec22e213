"""The report of a model trained on a person's clicks, from labels and answers that were worked out beforehand."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from amenable.recipes.reports import personal_page
from amenable.recipes.rounds_labels import Round

QUESTION = [{"role": "user", "content": "What is a lemon?"}]


def label(number: int, ranking: list[int], ended: list[bool], texts: tuple[str, str] = ("Yellow.", "A yellow fruit.")):
    prompt = [{"role": "user", "content": f"{number}?"}]
    row = {"id": f"q{number}", "prompt": prompt, "completions": list(texts), "ranking": ranking, "ended": ended}
    return {**row, "annotator": "owner", "seconds": 3.0}


LABELS = [
    label(0, [1, 2], [True, False]),
    label(1, [1, 2], [True, True]),
    label(2, [2, 1], [True, False]),
    label(3, [1, 1], [True, False]),
    label(0, [1, 2], [True, False]),
    label(4, [1, 2], [True, True]),
    label(4, [2, 1], [True, True]),
]


def answer(text: str, kl: float) -> dict[str, Any]:
    tokens = len(text.split())
    return {"text": text, "ended": tokens < 4, "kl": kl, "tokens": tokens, "ref_logp": -math.log(2) * tokens}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Six questions, answered in four words before and in two after, and the labels of a round."""
    before, after = answer("A yellow round fruit", 0.0), answer("<b>Yellow</b> fruit", 1.5)
    rows = [
        {
            "id": f"t{i}",
            "prompt": QUESTION,
            "answers": {
                name: {d: each for d in ("sampled", "greedy")}
                for name, each in (("before", before), ("round-1", after))
            },
        }
        for i in range(6)
    ]
    prompts = [{"id": f"t{i}", "prompt": QUESTION, "reference": "A yellow fruit." if i else None} for i in range(6)]
    for path, lines in (
        ("prompts/test.jsonl", prompts),
        ("evaluate-1/samples.jsonl", rows),
        ("round-1/people/labels.jsonl", LABELS),
        ("round-1/labels/validation.jsonl", LABELS[:2]),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_labels_and_answers_are_counted(run: Path, capsys: pytest.CaptureFixture) -> None:
    turns = [Round(run / "round-1", "people", policy_stage="dpo")]
    personal_page.write(run, "evaluate-1", turns, 1.0, "amenable personalize")
    figures = json.loads((run / "report.json").read_text("utf-8"))
    labels = figures["labels"]
    assert (labels["comparisons"], labels["prompts"], labels["decided"], labels["contradictions"]) == (7, 5, 4, 1)
    assert labels["repeated_alike"]["wins"] == 0.5 and labels["seconds"] == 21.0
    assert (labels["shorter"]["wins"], labels["shorter"]["n"]) == (0.75, 4)
    assert (labels["ended"]["wins"], labels["ended"]["n"]) == (pytest.approx(2 / 3), 3)
    after = figures["models"]["round-1"]["sampled"]
    assert after["words"] == 2 and after["change"]["value"] == -2 and after["ended"] == 1 and after["kl"] == 1.5
    assert after["perplexity"] == pytest.approx(2)
    assert figures["models"]["before"]["greedy"]["change"] is None
    printed = capsys.readouterr().err
    assert (
        "The shorter answer was preferred in 75% (30–95%) of 4: too few to tell from chance, about 12 more" in printed
    )
    assert "That is above the budget of 1 nats: training measures the KL on its 2 held-out comparisons" in printed
    page = (run / "report.html").read_text("utf-8")
    assert "&lt;b&gt;Yellow" in page and "<b>Yellow" not in page and "… cut off" in page


def test_without_repeats_references_and_decisions_the_figures_are_left_out(run: Path) -> None:
    (run / "round-1" / "people" / "labels.jsonl").write_text(json.dumps(LABELS[3]) + "\n")
    file = run / "prompts" / "test.jsonl"
    file.write_text("".join(json.dumps({"id": f"t{i}", "prompt": QUESTION}) + "\n" for i in range(6)))
    figures = personal_page.collect(run, "evaluate-1", [Round(run / "round-1", "people", policy_stage="dpo")], 2.0)
    assert {figures["labels"][key] for key in ("shorter", "ended", "repeated_alike")} == {None}
    assert figures["models"]["round-1"]["sampled"]["content"] is None and len(figures["headline"]) == 2


def test_a_share_of_a_half_is_decided_by_no_number() -> None:
    row = {"wins": 0.5, "low": 0.2, "high": 0.8, "n": 6}
    assert personal_page.preference_line(row, "the shorter answer").endswith("no number at this rate will.")
    assert "too few" not in personal_page.preference_line({"wins": 0.9, "low": 0.7, "high": 0.97, "n": 30}, "it")
