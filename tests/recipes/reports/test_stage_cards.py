from pathlib import Path

from amenable.claims.stage_folders import ORDER, Stage, find_stage, read_stages
from amenable.recipes.reports import stage_cards


def test_every_command_of_a_demo_is_told() -> None:
    assert [stage_cards.report_of(command).title for command in ORDER][2:4] == ["Pretraining", "Fine-tuning"]


def test_a_finished_stage(demo_run: Path) -> None:
    stages = read_stages(demo_run)
    told = {stage.name: stage_cards.card(stage) for stage in stages}
    assert told["pretrain"]["facts"][:2] == [("bits per byte", "0.301"), ("loss", "0.810")]
    assert told["pretrain"]["facts"][-1] == ("tokens a second", "15,900")
    assert told["pretrain"]["spark"] is not None and told["world"]["spark"] is None
    assert (told["pretrain"]["state"], told["pretrain"]["seconds"]) == ("done", "1 min 24 s")
    assert told["ppo"]["command"] == f"amenable ppo --config {demo_run}/ppo/config.yaml"
    assert told["world"]["facts"][0] == ("documents", "10,000"), "figures by their own names"


def test_a_second_run_of_a_command_goes_by_its_folder(demo_run: Path) -> None:
    (demo_run / "ppo-ptx").mkdir()
    (demo_run / "ppo-ptx" / "config.yaml").write_text("command: ppo\n")
    stage = find_stage(read_stages(demo_run), "ppo-ptx")
    assert stage is not None
    told = stage_cards.card(stage)
    assert (told["title"], told["command_title"], told["seconds"]) == ("PPO-ptx", "PPO", "not finished")


def test_a_planned_stage_is_still_to_come_and_repeated_from_the_plan(demo_run: Path) -> None:
    (demo_run / "plan").mkdir()
    (demo_run / "plan" / "over.yaml").write_text(f"command: ppo\nmodel: {demo_run}/sft\nout: {demo_run}/over\n")
    stage = find_stage(read_stages(demo_run), "over")
    assert stage is not None
    told = stage_cards.card(stage)
    assert (told["state"], told["reads"]) == ("to come", ["sft"])
    assert told["command"] == f"amenable ppo --config {demo_run}/plan/over.yaml"


def test_options_by_dotted_name_without_paths() -> None:
    config = {
        "command": "ppo",
        "model": "runs/sft",
        "seed": 0,
        "optimizer": {"learning_rate": 2e-4},
        "suites": ["a", "b"],
        "validation": None,
        "device": {"threads": 1},
    }
    assert stage_cards.options(config) == [("seed", "0"), ("optimizer.learning_rate", "0.0002"), ("suites", "a, b")]


def test_what_the_guards_found_is_told() -> None:
    warning = {"what": "no answer ends", "how": "raise the limit", "steps": 2, "of": 9, "first_step": 4}
    health = {"fine": ["entropy holds", "EOS is said"], "warnings": [warning]}
    told = stage_cards.card(Stage("ppo", "ppo", Path("ppo"), {}, {}, {"seconds": 1.0, "health": health}, []))
    assert told["fine"] == "entropy holds, EOS is said"
    assert told["warnings"] == ["no answer ends (2 of 9 steps, first at 4); raise the limit"]
    assert stage_cards.card(Stage("ppo", "ppo", Path("ppo"), {}, {}, None, []))["warnings"] == []


def test_a_confusion_matrix_is_that_of_finished_json() -> None:
    figures = {"n": 3, "labels": ["no", "yes"], "confusion": [[1, 0], [1, 1]]}
    assert stage_cards.confusion({"validation": figures}, "validation") == figures
    for finished, key in (({"validation": {"n": 3}}, "validation"), ({}, "validation"), ({"validation": figures}, "")):
        assert stage_cards.confusion(finished, key) is None
