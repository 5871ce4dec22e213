"""The table of ablations: differences are paired by example, whatever the order of their rows."""

import pytest

from amenable.recipes.reports import ablations_page


def rows(predicted, labels, order=1):
    predictions = [
        {"id": f"r{i}", "texts": [f"t{i}"], "label": label, "predicted": value}
        for i, (value, label) in enumerate(zip(predicted, labels))
    ]
    return predictions[::order]


def figures(value, **others):
    return {"n": 20, "accuracy": {"value": value, "low": value - 0.1, "high": value + 0.1}, **others}


def test_paired_classes():
    labels = ["a"] * 20
    first, second = ["a"] * 10 + ["b"] * 10, ["a"] * 19 + ["b"]
    gap = ablations_page.paired(rows(first, labels), rows(second, labels, -1))
    assert gap["value"] == pytest.approx(0.45) and 0 < gap["low"] < 0.45 < gap["high"]
    assert gap["p"] == pytest.approx(2 / 2**9) and gap["n"] == 20 and gap["metric"] == "accuracy"


def test_paired_numbers():
    labels = [float(i) for i in range(30)]
    noisy = [value + (-1) ** i * 15.0 for i, value in enumerate(labels)]
    gap = ablations_page.paired(rows(noisy, labels), rows(labels, labels, -1))
    assert gap["metric"] == "pearson" and 0 < gap["low"] < gap["value"] < gap["high"] and "p" not in gap


def test_a_table_and_a_headline(tmp_path, capsys):
    metrics = {
        "as is": figures(0.8, majority=0.5, labels=["a", "b"], confusion=[[8, 2], [2, 8]]),
        "words": figures(0.5),
    }
    labels = ["a"] * 20
    predicted = {"as is": rows(["a"] * 16 + ["b"] * 4, labels), "words": rows(["b"] * 10 + ["a"] * 10, labels)}
    ablations_page.write(tmp_path, metrics, predicted, "amenable classify-ablations")
    page = (tmp_path / "ablations.html").read_text("utf-8")
    assert "words" in page and "amenable classify-ablations" in page and ">8<" in page
    grid = ablations_page.table(metrics, {"words": ablations_page.paired(*predicted.values())})
    assert grid.rows[0] == ("as is", "0.800 (0.700 to 0.900)", "–", "–") and "majority 0.50" in grid.note
    assert grid.rows[1][2].startswith("−0.30")
    assert ablations_page.headline("as is", {"words": {"value": 0.1, "low": -0.1, "high": 0.2}}) == [
        "No classifier can be told from 'as is' on these examples."
    ]
    assert "words" in capsys.readouterr().err
