"""The comparison of rewards as sentences, tables and charts."""

from typing import Any

from amenable.recipes.reports import comparison_page, reward_comparison


def figures(accuracy: float, **more: Any) -> dict[str, Any]:
    by = {name: {"accuracy": accuracy + i / 10, "low": 0.4, "high": 0.9, "pairs": 40} for i, name in enumerate("ab")}
    own = {
        "accuracy": accuracy,
        "low": accuracy - 0.05,
        "high": accuracy + 0.05,
        "loss": 0.6,
        "brier": 0.2,
        "ece": 0.03,
    }
    lengths = {"accuracy_longer": 0.9, "accuracy_shorter": None}
    bins = [{"predicted": 0.6, "actual": 0.7, "count": 40}]
    return {**own, "pairs": 80, **lengths, "by_annotator": by, "calibration": bins, "worst": "a", **more}


def rankings(**models: dict[str, Any]) -> dict[str, Any]:
    pairs = [{"a": "x", "b": name, "value": 0.8, "low": 0.7, "high": 0.9} for name in list(models)[1:]]
    counts = {"rankings": 30, "left_out": 2, "pairs": 80, "group_by": "annotator"}
    return {**counts, "models": models, "best": "y", "agreement": pairs, "disputes": []}


LESS = {"value": -0.1, "low": -0.15, "high": -0.05}
LEVEL = {"value": -0.01, "low": -0.03, "high": 0.01}


def test_two_rewards() -> None:
    comparison = rankings(x=figures(0.6, difference=LESS), y=figures(0.7))
    assert reward_comparison.sentences(comparison) == [
        "y predicts people best: it orders 70% (65–75%) of 80 pairs as they did.",
        "x, paired with it: −10.00 (−15.00 to −5.00) percentage points.",
        "y does worst on a, of 2 by annotator: 70% (40–90%) of 40 pairs.",
        "x and y agree on 80% of the pairs (70–90%).",
    ]
    measures, annotators = reward_comparison.grids(comparison)
    assert [row[0] for row in measures.rows] == ["y", "x"] and measures.rows[0][2] == "–"
    assert measures.rows[1][-3:] == ("90%", "–", "a 60% (40–90%)") and "2 left out" in measures.note
    assert annotators.title == "Accuracy by annotator" and annotators.rows[0][0] == "a"


def test_several_rewards_and_their_page() -> None:
    comparison = rankings(x=figures(0.6, difference=LESS), y=figures(0.7), z=figures(0.69, difference=LEVEL))
    assert "z, paired with it: −1.00 (−3.00 to +1.00) percentage points, not shown to be worse." in (
        reward_comparison.sentences(comparison)
    )
    assert [grid.title for grid in reward_comparison.grids(comparison)][-1] == "Agreement"
    assert len(reward_comparison.charts(comparison)) == 1
    empty: dict[str, Any] = {
        name: [] for name in ("options", "inputs", "versions", "figures", "metrics", "evaluations", "claims", "notes")
    }
    answers = [{"text": "<b>", "rank": 1.0, "scores": {"x": 1.0, "y": -1.0, "z": 0.0}}] * 2
    comparison["disputes"] = [{"id": "r", "annotator": "a", "prompt": [], "strength": 1.0, "answers": answers}]
    whole = {**empty, "answers": None, "rankings": comparison}
    html = comparison_page.page(whole, [], "amenable compare x y z")
    assert comparison_page.title(whole) == "x · y · z" and "<h1>x · y · z</h1>" in html
    assert "Where they disagree most" in html and "&lt;b&gt;" in html and "Calibration" in html
    assert comparison_page.tiles(whole) == []


def test_sections_have_a_table_of_their_own() -> None:
    section = {"accuracy": 0.5, "low": 0.4, "high": 0.6, "pairs": 40}
    models = {"x": figures(0.6, by_section={"Chat": section, "score": section}), "y": figures(0.5, by_section={})}
    models["y"]["by_section"] = {"Chat": {**section, "accuracy": 0.55}, "score": section}
    grid = reward_comparison.grids(rankings(**{"x": models["x"], "y": {**models["y"], "difference": LESS}}))[1]
    assert grid.title == "Accuracy by section" and grid.heads == ("", "y", "x", "pairs")
    assert grid.rows[0] == ("Chat", "55% (40–60%)", "50% (40–60%)", "40") and grid.rows[1][0] == "score"


def test_many_annotators_are_cut_to_the_worst() -> None:
    many = {f"w{i:02}": {"accuracy": 1 - i / 100, "low": 0.1, "high": 1.0, "pairs": 9} for i in range(30)}
    grid = reward_comparison.group_grid({"x": figures(0.5, by_annotator=many)}, "by_annotator", "annotator")
    assert len(grid.rows) == 20 and grid.rows[0][0] == "w29" and grid.note.startswith("The lowest 20 of 30;")
