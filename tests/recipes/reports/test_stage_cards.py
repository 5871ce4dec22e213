from pathlib import Path

from amenable.claims.stage_folders import ORDER, Stage, find_stage, read_stages
from amenable.recipes.reports import stage_cards


def test_every_command_of_a_demo_is_told() -> None:
    assert [stage_cards.report_of(command).title for command in ORDER][2:4] == ["Pretraining", "Fine-tuning"]


def test_a_finished_stage(demo_run: Path) -> None:
    stages = read_stages(demo_run)
    report = {stage.name: stage_cards.card(stage) for stage in stages}
    assert report["pretrain"]["facts"][:2] == [("bits per byte", "0.301"), ("loss", "0.810")]
    assert report["pretrain"]["facts"][-1] == ("tokens a second", "15,900")
    assert report["pretrain"]["spark"] is not None and report["world"]["spark"] is None
    assert (report["pretrain"]["state"], report["pretrain"]["seconds"]) == ("done", "1 min 24 s")
    assert report["ppo"]["command"] == f"amenable ppo --config {demo_run}/ppo/config.yaml"
    assert report["world"]["facts"][0] == ("documents", "10,000"), "figures by their own names"


def test_a_second_run_of_a_command_goes_by_its_folder(demo_run: Path) -> None:
    (demo_run / "ppo-ptx").mkdir()
    (demo_run / "ppo-ptx" / "config.yaml").write_text("command: ppo\n")
    stage = find_stage(read_stages(demo_run), "ppo-ptx")
    assert stage is not None
    report = stage_cards.card(stage)
    assert (report["title"], report["command_title"], report["seconds"]) == ("PPO-ptx", "PPO", "not finished")


def test_a_planned_stage_is_still_to_come_and_repeated_from_the_plan(demo_run: Path) -> None:
    (demo_run / "plan").mkdir()
    (demo_run / "plan" / "over.yaml").write_text(f"command: ppo\nmodel: {demo_run}/sft\nout: {demo_run}/over\n")
    stage = find_stage(read_stages(demo_run), "over")
    assert stage is not None
    report = stage_cards.card(stage)
    assert (report["state"], report["reads"]) == ("to come", ["sft"])
    assert report["command"] == f"amenable ppo --config {demo_run}/plan/over.yaml"


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
    report = stage_cards.card(Stage("ppo", "ppo", Path("ppo"), {}, {}, {"seconds": 1.0, "health": health}, []))
    assert report["fine"] == "entropy holds, EOS is said"
    assert report["warnings"] == ["no answer ends (2 of 9 steps, first at 4); raise the limit"]
    assert stage_cards.card(Stage("ppo", "ppo", Path("ppo"), {}, {}, None, []))["warnings"] == []


def test_a_confusion_matrix_is_that_of_finished_json() -> None:
    figures = {"n": 3, "labels": ["no", "yes"], "confusion": [[1, 0], [1, 1]]}
    assert stage_cards.confusion({"validation": figures}, "validation") == figures
    for finished, key in (({"validation": {"n": 3}}, "validation"), ({}, "validation"), ({"validation": figures}, "")):
        assert stage_cards.confusion(finished, key) is None
