"""The report's figures by hand: differences, their correction, the worst answers first, and what the page says."""

from pathlib import Path
from typing import Any

import pytest

from amenable.evaluation.tasks.form import Metrics, measured_rows, metrics_of
from amenable.recipes.reports import quality_page


def metrics(right: list[bool], brier: list[float]) -> Metrics:
    examples = [
        {"prompt": f"Question {i}?", "answers": [f"answer {i}"], "note": f"note {i}"} for i in range(len(right))
    ]
    return {
        "form": "p-true",
        **measured_rows("right", {"right": right, "brier": brier}, examples, {"ece": (0.2, 0.1, 0.3)}),
    }


@pytest.fixture
def results() -> dict[str, dict[str, Metrics]]:
    """Two models on forty rows: the second is right on the first thirty, the first on the last ten."""
    first = metrics([i >= 30 for i in range(40)], [0.5] * 40)
    second = metrics([i < 30 for i in range(40)], [0.1 if i < 39 else 0.9 for i in range(40)])
    first["reliability"] = [{"predicted": 0.5, "actual": 0.25, "count": 40}]
    chosen = {"form": "arc", **metrics_of("acc", [True, False], {})}
    return {"known": {"a": first, "b": second}, "arc": {"a": chosen, "b": chosen}}


def test_figures(results: dict[str, dict[str, Metrics]]) -> None:
    figures = quality_page.collect(results, 3)
    assert figures["models"] == ["a", "b"] and set(figures["tests"]) == {"known", "arc", "answers"}
    known = figures["tests"]["known"]
    assert list(known["measures"]) == ["right", "brier", "ece"] and list(known["differences"]) == ["right", "brier"]
    right, brier = (known["differences"][name]["b"] for name in ("right", "brier"))
    assert right["value"] == 0.5 and right["n"] == 40 and right["p"] < 0.01
    assert brier["value"] == pytest.approx((39 * -0.4 + 0.4) / 40) and brier["p"] == pytest.approx(1 / 10001)
    assert brier["holm"] == pytest.approx(5 * brier["p"]), "right, brier, acc, repetition and empty, and not the words"
    assert right["holm"] == pytest.approx(4 * right["p"])
    assert figures["tests"]["answers"]["differences"]["words"]["b"]["holm"] is None
    assert figures["headline"] == ["'b' beside 'a' is better: right (+50 points, known); Brier score (−0.380, known)."]
    assert figures["tests"]["arc"]["differences"]["acc"]["b"]["value"] == 0.0


def test_the_worst_answers_come_first(results: dict[str, dict[str, Metrics]]) -> None:
    results["known"]["a"]["rows"]["right"][5] = results["known"]["b"]["rows"]["right"][5] = False
    rows = quality_page.collect(results, 2)["tests"]["known"]["examples"]
    assert [row["kind"] for row in rows] == ["worst", "worst", "different"]
    assert rows[0]["prompt"] == "Question 5?", "both are wrong"
    assert rows[1]["prompt"] == "Question 39?", "each is right once; the Brier score is the worst"
    answers = rows[0]["answers"]
    assert [(answer["model"], answer["value"]) for answer in answers] == [("a", False), ("b", False)]
    assert rows[0]["note"] == "note 5" and answers[0]["cases"] == [{"label": "", "text": "answer 5"}]


def test_page_and_table(
    results: dict[str, dict[str, Metrics]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results["known"]["b"]["texts"] = ["<b>again</b> " * 9] * 40
    quality_page.write(tmp_path, results, 2, "amenable quality --models a=x b=y")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Does it know what it knows" in page and "Other tests" in page and "Length and repetition" in page
    assert '<td class="good"><b>+50 points</b>' in page and "25% (14–40)" in page and "b − a" in page
    assert "confidence against share right" in page and "&lt;b&gt;" not in page and "40 answers" in page
    assert page.index("Does it know") < page.index("Other tests") < page.index("Length and repetition</h2>")
    shown = capsys.readouterr().err
    assert "known" in shown and "+50 points" in shown


def test_one_model_stands_alone(results: dict[str, dict[str, Metrics]], tmp_path: Path) -> None:
    single = {name: {"a": models["a"]} for name, models in results.items()}
    figures = quality_page.collect(single, 1)
    assert figures["headline"] == ["'a' on 3 tests; a second model would stand beside it, row by row."]
    assert figures["tests"]["known"]["differences"] == {"right": {}, "brier": {}}
    page = quality_page.page(figures, "amenable quality")
    assert "each model less" not in page and "Where the models differ" not in page


def test_numbers_as_text() -> None:
    row: dict[str, Any] = {"value": 0.004, "low": -0.5, "high": 0.5, "p": 0.3, "holm": 0.6, "n": 3}
    assert quality_page.gap_text("right", row) == "0 points"
    assert quality_page.gap_text("ece", {**row, "value": -0.25}) == "−0.250"
    assert quality_page.difference_cell("right", row) == {
        "text": "0 points",
        "note": "−50 to 50; p 0.3, corrected 0.6",
        "side": "",
    }
    surely = {**row, "value": 0.2, "holm": 0.01}
    assert quality_page.difference_cell("right", surely)["side"] == "good"
    assert quality_page.difference_cell("flips", surely)["side"] == "bad"
    assert quality_page.difference_cell("words", {**surely, "holm": None})["side"] == ""
    assert quality_page.difference_cell("right", None)["text"] == "–"
    assert quality_page.value_text("right", {"value": 0.5, "low": None, "high": None}) == "50%"
    assert quality_page.value_text("ece", {"value": 0.5, "low": 0.25, "high": 0.75}) == "0.500 (0.250–0.750)"


@pytest.mark.parametrize("model", ["a", "b"])
def test_a_measure_that_a_model_has_in_no_answer_is_none_of_its(
    results: dict[str, dict[str, Metrics]], model: str, tmp_path: Path
) -> None:
    del results["known"][model]["rows"]["brier"], results["known"][model]["metrics"]["brier"]
    known = quality_page.collect(results, 3)["tests"]["known"]
    assert known["measures"]["brier"][model] is None and known["differences"]["brier"] == {"b": None}
    quality_page.write(tmp_path, results, 3, "amenable quality")
    assert (tmp_path / "report.html").exists()
