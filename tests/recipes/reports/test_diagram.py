import re
from pathlib import Path

from amenable.claims.stage_folders import Stage
from amenable.recipes.reports import diagram


def stage(name: str, *reads: str, command: str = "sft") -> Stage:
    """A stage of a demo that was made elsewhere and moved to /here since."""
    config = {"command": command, "out": f"runs/demo/{name}", "data": [f"runs/demo/{one}/x.jsonl" for one in reads]}
    return Stage(name, command, Path("/here") / name, config, {}, None, [])


def request(name: str, *models: str) -> Stage:
    config = {"out": f"runs/demo/{name}", "models": [f"m=runs/demo/{one}@few-shot" for one in models]}
    return Stage(name, "evaluate", Path("/here") / name, {**config, "world": "runs/demo/world"}, {}, None, [])


PIPELINE = (
    stage("world"),
    stage("sft", "world"),
    stage("reward", "sft", "world"),
    stage("ppo", "sft", "reward", "world"),
    stage("dpo", "sft"),
    request("evaluate", "ppo", "dpo"),
)


def test_stages_build_on_those_whose_folders_they_name() -> None:
    result = diagram.stage_parents(PIPELINE)
    assert result["ppo"] == {"sft", "reward", "world"} and result["world"] == set()
    assert result["evaluate"] == {"ppo", "dpo"}, "of an evaluation the models alone"


def test_what_lies_outside_is_no_stage() -> None:
    result = diagram.stage_parents(
        [stage("world"), Stage("a", "sft", Path("a"), {"out": "x/a", "data": "y/world"}, {}, None, [])]
    )
    assert result["a"] == set()


def test_arrows_that_follow_from_others_are_left_out() -> None:
    result = diagram.direct_parents(diagram.stage_parents(PIPELINE))
    assert result["ppo"] == {"reward"} and result["reward"] == {"sft"} and result["dpo"] == {"sft"}


def test_a_stage_stands_after_all_it_reads() -> None:
    assert diagram.column_of_each(diagram.direct_parents(diagram.stage_parents(PIPELINE))) == {
        "world": 0,
        "sft": 1,
        "reward": 2,
        "dpo": 2,
        "ppo": 3,
        "evaluate": 4,
    }


def test_a_circle_is_cut() -> None:
    assert set(diagram.column_of_each({"a": {"b"}, "b": {"a"}}).values()) == {0, 1}


def test_boxes_keep_apart_and_within_the_drawing() -> None:
    drawn = diagram.draw(PIPELINE)
    places = {place.name: place for place in drawn.boxes}
    assert [place.name for place in drawn.boxes] == [stage.name for stage in PIPELINE]
    assert places["world"].x == 0 and places["evaluate"].x + drawn.box_width == diagram.WIDTH
    assert places["reward"].x == places["dpo"].x
    assert abs(places["reward"].y - places["dpo"].y) >= diagram.BOX_HEIGHT + diagram.SPACING
    assert all(place.y >= 0 and place.y + diagram.BOX_HEIGHT <= drawn.height + 1e-6 for place in drawn.boxes)
    assert len(drawn.arrows) == 6  # world-sft, sft-reward, sft-dpo, reward-ppo, ppo-evaluate, dpo-evaluate


def test_a_long_arrow_runs_clear_of_the_boxes_it_passes() -> None:
    drawn = diagram.draw(PIPELINE)
    passed = next(place for place in drawn.boxes if place.name == "ppo")
    lanes = [arrow for arrow in drawn.arrows if arrow.count("C") == 3]
    assert len(lanes) == 1, "from DPO past PPO to the evaluation"
    x, y = map(float, re.findall(r"([-\d.]+) ([-\d.]+)(?=C)", lanes[0])[1])
    assert abs(x - passed.x) < 0.1
    assert not passed.y <= y <= passed.y + diagram.BOX_HEIGHT


def test_one_stage_alone_is_a_drawing() -> None:
    drawn = diagram.draw([stage("world")])
    assert drawn.boxes == [diagram.Box("world", 0.0, 0.0)] and drawn.arrows == []
    assert (drawn.box_width, drawn.height) == (diagram.MAX_BOX_WIDTH, diagram.BOX_HEIGHT)


def test_an_evaluation_stands_in_the_last_column() -> None:
    drawn = diagram.draw([*PIPELINE, request("evaluate-sft", "sft")])
    places = {place.name: place for place in drawn.boxes}
    assert places["evaluate-sft"].x == places["evaluate"].x
