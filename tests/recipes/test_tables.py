from pathlib import Path

import pytest

from amenable.recipes import tables
from amenable.recipes.figures import figures_of
from amenable.recipes.folders import read_stages


@pytest.fixture
def figures(demo_run: Path) -> dict:
    return figures_of(read_stages(demo_run))


def cells(table: dict, label: str) -> list[dict]:
    return next(row["cells"] for row in table["rows"] if row["label"] == label)


def test_the_best_of_a_row_is_marked_whichever_way_is_better(figures: dict) -> None:
    table = tables.model_table(figures, "sampled")
    assert table["names"] == ["base", "sft", "ppo", "dpo"]
    assert [cell["best"] for cell in cells(table, "Gold")] == [False, False, True, False]
    assert [cell["best"] for cell in cells(table, "Hallucinates")] == [False, False, False, True]
    assert [cell["best"] for cell in cells(table, "Rude")] == [False, False, True, True], "both are 0%"
    assert not any(cell["best"] for cell in cells(table, "Length, words")), "neither way is better"
    assert cells(table, "Gold")[2] == {"text": "0.57", "best": True, "note": "±0.12"}
    assert cells(table, "KL to SFT, nats")[0]["text"] == "–"


def test_greedy_has_its_own_table(figures: dict) -> None:
    assert [cell["text"] for cell in cells(tables.model_table(figures, "greedy"), "Gold")] == [
        "−2.40",
        "0.70",
        "1.18",
        "1.21",
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
    assert not greedy["rows"][2][1][3]["clear"], "PPO against DPO, greedy: 47 to 55 %"


def test_no_judgement_no_matrix(figures: dict) -> None:
    assert tables.preference_matrix({**figures, "preference": []}, "greedy") is None


def test_a_bar_starts_at_zero() -> None:
    # scale -3 .. 1: zero lies at 75 %
    made = tables.bar("x", -2.0, -3.0, 1.0, 0)
    assert (made["left"], made["width"], made["zero"]) == (25.0, 50.0, 75.0)
    made = tables.bar("x", 0.6, 0, 1, 0, (0.5, 0.7), share=True)
    assert (made["left"], made["width"], made["whisker"], made["text"]) == (0.0, 60.0, [50.0, 70.0], "60%")
    made = tables.bar("x", None, 0, 1, 0)
    assert (made["width"], made["text"], made["whisker"]) == (0.0, "–", None)


def test_every_kind_has_a_bar_for_every_model(figures: dict) -> None:
    sampled, greedy = tables.kind_bars(figures)
    assert (sampled["decoding"], greedy["decoding"]) == ("sampled", "greedy")
    kinds = dict(sampled["panels"])
    assert len(kinds) == 8 and "follow up" in kinds
    # brainstorm is the third of the fixture's kinds: gold - 0.25
    assert [bar["text"] for bar in kinds["brainstorm"]] == ["−3.17", "−0.75", "0.32", "−0.14"]


def test_the_reward_model_stands_beside_its_yardsticks(demo_run: Path, figures: dict) -> None:
    reward = next(stage for stage in read_stages(demo_run) if stage.name == "reward")
    panels = tables.reward_bars(figures, reward)
    assert [panel["note"] for panel in panels] == ["910 pairs", "880 pairs", "", ""]
    assert [bar["text"] for bar in panels[1]["bars"]] == ["70%", "73%", "41%"]
    assert [bar["name"] for bar in panels[3]["bars"]] == ["Ada", "Bo"]
    assert tables.calibration(reward).count("<title>") == 16
    assert tables.calibration(None) is None
