import json
from pathlib import Path

import pytest

from amenable.claims.stage_folders import (
    ORDER,
    find_stage,
    missing,
    number,
    paths_of,
    read_stages,
    seed_folders,
    unfinished,
)
from amenable.data.files import read_json_lines
from amenable.errors import InputError


def test_stages_come_in_the_order_they_happened(demo_run: Path) -> None:
    assert [stage.name for stage in read_stages(demo_run)] == list(ORDER)


def test_a_second_run_of_a_command_follows_the_first(demo_run: Path) -> None:
    (demo_run / "another-ppo").mkdir()
    (demo_run / "another-ppo" / "config.yaml").write_text("command: ppo\n")
    names = [stage.name for stage in read_stages(demo_run)]
    assert names[7:10] == ["ppo", "another-ppo", "dpo"]


def test_what_is_no_stage_is_passed_over(demo_run: Path) -> None:
    (demo_run / "plan").mkdir()
    (demo_run / "plan" / "ppo.yaml").write_text("command: ppo\n")
    (demo_run / "other").mkdir()
    (demo_run / "other" / "config.yaml").write_text("command: bake\n")
    assert len(read_stages(demo_run)) == len(ORDER)


def test_an_unfinished_run_names_what_is_to_come(demo_run: Path) -> None:
    (demo_run / "ppo" / "finished.json").unlink()
    for name in ("evaluate", "sample"):
        (demo_run / name).rename(demo_run.parent / name)
    stages = read_stages(demo_run)
    assert missing(stages) == ["sample", "ppo", "evaluate"]
    assert unfinished(stages) == ["ppo", "evaluate"], "sampling was left out: later stages went on without it"


def test_with_a_plan_every_stage_of_it_is_wanted(demo_run: Path) -> None:
    (demo_run / "plan").mkdir()
    for name, command in (("sft", "sft"), ("over", "ppo"), ("notes", "bake")):
        (demo_run / "plan" / f"{name}.yaml").write_text(f"command: {command}\n")
    (demo_run / "sample").rename(demo_run.parent / "sample")
    stages = read_stages(demo_run)
    assert unfinished(stages) == ["over"], "sampling was never planned"
    over = find_stage(stages, "over")
    assert over is not None and over.planned and over.finished is None and not over.folder.exists()
    assert [stage.name for stage in stages][6:8] == ["ppo", "over"], "in the order they will happen"
    (demo_run / "dpo" / "finished.json").unlink()
    assert unfinished(read_stages(demo_run)) == ["over", "dpo"], "one begun by hand is to be finished too"


def test_seeds_come_by_number(tmp_path: Path) -> None:
    for name in ("seed-10", "seed-2", "seed-x", "other"):
        (tmp_path / name).mkdir()
    assert [folder.name for folder in seed_folders(tmp_path)] == ["seed-2", "seed-10"]


def test_paths_among_options() -> None:
    report = {
        "data": "a/b.jsonl",
        "models": ["x=c/d@best-of-16", "y=e/f"],
        "deep": {"g": "h/i"},
        "name": "plain",
        "n": 2,
    }
    assert paths_of(report) == ["a/b.jsonl", "c/d", "e/f", "h/i"]


def test_a_folder_that_is_no_demo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no stage of a demo"):
        read_stages(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        read_stages(tmp_path / "nowhere")


@pytest.mark.parametrize(("name", "text"), [("finished.json", "{"), ("config.yaml", "a: [")])
def test_a_broken_file_is_named(demo_run: Path, name: str, text: str) -> None:
    (demo_run / "sft" / name).write_text(text)
    with pytest.raises(InputError, match=rf"sft/{name}: not readable"):
        read_stages(demo_run)


def test_a_torn_last_line_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"step": 1}\n[2]\n{"step": 2}\n{"st')
    assert read_json_lines(tmp_path / "rows.jsonl") == [{"step": 1}, {"step": 2}]


def test_a_curve_leaves_out_rows_without_a_number(demo_run: Path) -> None:
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}, {"step": 3}, {"step": 4, "loss": 1.0}]
    (demo_run / "sft" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sft = next(stage for stage in read_stages(demo_run) if stage.name == "sft")
    assert sft.curve("loss") == [(1, 2.0), (4, 1.0)]


def test_number_finds_plain_and_nested_names() -> None:
    values = {"a.b": 1, "a": {"c": {"d": 2.5}}, "flag": True, "text": "3", "endless": float("inf")}
    assert number(values, "a.b") == 1
    assert number(values, "a.c.d") == 2.5
    assert [number(values, key) for key in ("a.c", "flag", "text", "endless", "x.y")] == [None] * 5
    assert number(None, "a") is None
