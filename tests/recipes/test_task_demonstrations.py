"""Task files as demonstrations in files, always the same, and never over others."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.recipes import task_demonstrations
from amenable.recipes.task_demonstrations import Config
from tests.conftest import write_rows


@pytest.fixture
def config(tmp_path: Path) -> Config:
    questions = [{"passage": "A rose is red.", "question": f"is rose {i} red", "label": 1} for i in range(8)]
    reviews = [{"text": f"Soup {i}.", "label": i % 2} for i in range(4)]
    (tmp_path / "tasks").mkdir()
    write_rows(tmp_path / "tasks" / "questions.jsonl", questions)
    write_rows(tmp_path / "tasks" / "reviews.jsonl", reviews)
    return Config(tasks=(str(tmp_path / "tasks"),), labels=("bad", "good"), out=tmp_path / "out")


def test_a_file_for_each_task_and_varied_wordings(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    out = task_demonstrations.run(config)
    texts = {path.name: path.read_text("utf-8") for path in out.iterdir()}
    assert set(texts) == {"questions.jsonl", "reviews.jsonl"} and "8 demonstrations" in capsys.readouterr().out
    rows = [json.loads(line)["messages"] for line in texts["questions.jsonl"].splitlines()]
    assert {answer["content"] for _, answer in rows} == {"yes"}
    assert len({user["content"].replace(f"rose {i}", "rose") for i, (user, _) in enumerate(rows)}) > 1
    task_demonstrations.run(config)
    assert {path.name: path.read_text("utf-8") for path in out.iterdir()} == texts, "the same files again"
    other = task_demonstrations.run(replace(config, seed=1, out=config.out / "other"))
    assert (other / "questions.jsonl").read_text("utf-8") != texts["questions.jsonl"]


def test_nothing_is_written_over_other_demonstrations(config: Config) -> None:
    out = task_demonstrations.run(replace(config, max_rows=1))
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(InputError, match=r"holds other demonstrations.*another --out"):
        task_demonstrations.run(config)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_bad_options_are_refused_before_anything_is_written(config: Config) -> None:
    with pytest.raises(InputError, match="no tasks are given; give --tasks FILE"):
        task_demonstrations.run(Config())
    twice = replace(config, tasks=(*config.tasks, f"{config.tasks[0]}/reviews.jsonl"))
    with pytest.raises(InputError, match="two files are called 'reviews'"):
        task_demonstrations.run(twice)
    with pytest.raises(InputError, match="unknown form 'racee'"):
        task_demonstrations.run(replace(config, tasks=("racee:rows.jsonl",)))
    assert not config.out.exists()
