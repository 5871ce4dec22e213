from pathlib import Path

import pytest

from amenable.claims.stage_folders import read_stages
from amenable.recipes.reports import tables
from amenable.recipes.reports.report_data import collect


@pytest.fixture
def figures(demo_run: Path) -> dict:
    return collect(read_stages(demo_run))


def cells(table: dict, label: str) -> list[dict]:
    return next(row["cells"] for row in table["rows"] if row["label"] == label)


def test_the_best_of_a_row_is_marked_whichever_way_is_better(figures: dict) -> None:
    table = tables.model_table(figures, "sampled")
    assert table["names"] == ["base", "sft", "dpo", "ppo"]
    assert [cell["best"] for cell in cells(table, "Gold")] == [False, False, False, True]
    assert [cell["best"] for cell in cells(table, "Hallucinates")] == [False, False, True, False]
    assert [cell["best"] for cell in cells(table, "Rude")] == [False, False, True, True], "both are 0%"
    assert not any(cell["best"] for cell in cells(table, "Length, words")), "neither way is better"
    assert cells(table, "Gold")[3] == {"text": "0.57", "best": True, "note": "±0.12"}
    assert cells(table, "KL to SFT, nats")[0]["text"] == "–"


def test_greedy_has_its_own_table(figures: dict) -> None:
    assert [cell["text"] for cell in cells(tables.model_table(figures, "greedy"), "Gold")] == [
        "−2.40",
        "0.70",
        "1.21",
        "1.18",
    ]


def test_rows_that_nobody_measured_are_left_out_and_levels_are_not_best(figures: dict) -> None:
    for one in figures["models"].values():
        one["gold"], one["rude"] = None, 0.5
    table = tables.model_table(figures, "sampled")
    assert "Gold" not in [row["label"] for row in table["rows"]]
    assert not any(cell["best"] for cell in cells(table, "Rude"))


def test_the_matrix_is_its_own_mirror(figures: dict) -> None:
    matrix = tables.preference_matrix(figures, "sampled")
    assert matrix is not None and matrix["n"] == 24
    rows = {name: dict(zip(matrix["names"], cells)) for name, cells in matrix["rows"]}
    assert rows["ppo"]["ppo"] is None
    assert rows["ppo"]["sft"]["wins"] == "62%" and rows["ppo"]["sft"]["span"] == "58–66%"
    assert rows["sft"]["ppo"]["wins"] == "38%" and rows["sft"]["ppo"]["side"] == "bad"
    assert rows["ppo"]["sft"]["tint"] == rows["sft"]["ppo"]["tint"] == round(0.12 / 0.4 * 70)
    assert rows["ppo"]["sft"]["clear"]
    greedy = tables.preference_matrix(figures, "greedy")
    assert greedy is not None
    assert not greedy["rows"][3][1][2]["clear"], "PPO against DPO, greedy: 47 to 55 %"


def test_no_judgement_no_matrix(figures: dict) -> None:
    assert tables.preference_matrix({**figures, "preference": []}, "greedy") is None


def test_a_bar_is_a_share_of_the_width() -> None:
    bar = tables.share_bar("x", 0.6, 2, 0.5, 0.7)
    assert (bar["width"], bar["whisker"], bar["text"], bar["note"]) == (60.0, [50.0, 70.0], "60%", "50–70%")
    bar = tables.share_bar("x", None, 0)
    assert (bar["width"], bar["text"], bar["whisker"], bar["note"]) == (0.0, "–", [], "")


def test_every_kind_has_a_cell_for_every_model(figures: dict) -> None:
    sampled, greedy = (tables.kind_table(figures, decoding) for decoding in ("sampled", "greedy"))
    assert sampled is not None and greedy is not None
    rows = dict(sampled["rows"])
    assert len(rows) == 8 and "follow up" in rows
    # brainstorm is the third of the fixture's kinds: gold - 0.25
    assert [cell["text"] for cell in rows["brainstorm"]] == ["−3.17", "−0.75", "−0.14", "0.32"]
    assert [cell["side"] for cell in rows["brainstorm"]] == ["bad", "bad", "bad", "good"]
    # open questions, the first kind, of the base model: -2.92 - 0.75 lies furthest from zero
    assert rows["open question"][0]["tint"] == 70
    assert rows["brainstorm"][3]["tint"] == round(70 * 0.32 / 3.67)
    for one in figures["models"].values():
        one["gold_by_kind"] = None
    assert tables.kind_table(figures, "sampled") is None


def test_a_suite_tells_what_it_is_about_first(figures: dict) -> None:
    table = tables.suite_table(figures)
    assert table is not None and table["names"] == ["sft", "ppo"]
    (part,) = table["parts"]
    assert part["title"] == "Asked to be respectful"
    assert [row["label"] for row in part["rows"]] == ["Rude", "Helps with harm", "Gold"]
    assert tables.suite_table({"suites": {}}) is None


def test_a_model_that_a_suite_did_not_ask_has_empty_cells(figures: dict) -> None:
    figures["suites"]["mine"] = {"base": figures["models"]["base"]}
    table = tables.suite_table(figures)
    assert table is not None and table["names"] == ["base", "sft", "ppo"]
    assert [cell["text"] for cell in table["parts"][1]["rows"][0]["cells"]] == ["−2.92", "–", "–"]


def test_tasks_by_accuracy_with_half_their_interval(figures: dict) -> None:
    table = tables.task_table(figures)
    assert table is not None
    (row,) = table["rows"]
    assert [cell["text"] for cell in row["cells"]] == ["40%", "50%", "70%", "60%"], "base, SFT, DPO, PPO"
    assert [cell["best"] for cell in row["cells"]] == [False, False, True, False]
    assert row["cells"][0]["note"] == "±15"
    assert tables.task_table({"tasks": {}}) is None


def test_the_reward_model_stands_beside_its_yardsticks(demo_run: Path, figures: dict) -> None:
    reward = next(stage for stage in read_stages(demo_run) if stage.name == "reward")
    panels = tables.reward_bars(figures, reward)
    assert [panel["note"] for panel in panels] == ["910 pairs", "880 pairs", "", ""]
    assert [bar["text"] for bar in panels[1]["bars"]] == ["70%", "73%", "41%"]
    assert [bar["name"] for bar in panels[3]["bars"]] == ["Ada", "Bo"]
    assert tables.calibration(reward).count("<title>") == 16
    assert tables.calibration(None) is None


def test_accuracy_by_the_gap_of_the_scores(demo_run: Path) -> None:
    stage = next(stage for stage in read_stages(demo_run) if stage.name == "reward")
    bars = tables.margin_bars(stage)
    # the fourth bin: predicted 0.70, log odds 0.847; actual 0.665
    assert (bars[3]["name"], bars[3]["width"]) == ("gap 0.85", 66.5)
    assert tables.margin_bars(None) == []


def test_reward_models_side_by_side(demo_run: Path) -> None:
    stages = read_stages(demo_run)
    assert stages[6].finished is not None
    stages[6].finished["heldout"]["loss"] = 0.5678
    assert tables.reward_models(stages) == [
        {"name": "reward", "accuracies": ["–", "72%", "70%"], "losses": ["–", "–", "0.568"]}
    ]
