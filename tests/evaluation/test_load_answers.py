"""Answers out of run directories: by model, decoding and suite, several folders as one."""

import json
from pathlib import Path
from typing import Any

import pytest

from amenable.errors import InputError
from amenable.evaluation.load_answers import read_answers


def write(folder: Path, rows: list[dict[str, Any]], finished: bool = True) -> Path:
    folder.mkdir()
    (folder / "samples.jsonl").write_text("".join(json.dumps({"step": 1, **row}) + "\n" for row in rows))
    if finished:
        (folder / "finished.json").write_text("{}")
    return folder


def row(suite: str | None, name: str, **answers: Any) -> dict[str, Any]:
    report = {"id": name, "kind": "open", "prompt": [{"role": "user", "content": "?"}], "answers": answers}
    return report if suite is None else {"suite": suite, **report}


def test_folders_are_read_as_one(tmp_path: Path) -> None:
    first = write(tmp_path / "one", [row("test", "p", sft={"sampled": {"text": "a"}, "greedy": {"text": "b"}})])
    best = row("test", "p", best={"sampled": {"text": "c"}, "greedy": None})
    second = write(tmp_path / "two", [best, row("closed", "p", ppo={"greedy": {"text": "d"}})])
    answers = read_answers([first, second])
    assert answers.models == ["sft", "best", "ppo"]
    assert answers.of("sft") == {"p": {"text": "a"}} and answers.of("sft", "greedy") == {"p": {"text": "b"}}
    assert answers.of("best") == {"p": {"text": "c"}} and answers.of("best", "greedy") == {}
    assert answers.of("ppo", "greedy", "closed") == {"p": {"text": "d"}}
    assert answers.of("ppo") == answers.of("nobody") == {}
    assert list(answers.prompts) == [("test", "p"), ("closed", "p")]
    request = {"suite": "test", "id": "p", "kind": "open", "prompt": [{"role": "user", "content": "?"}]}
    assert answers.prompts["test", "p"] == request


def test_rows_without_a_suite_are_of_the_test(tmp_path: Path) -> None:
    folder = write(tmp_path / "old", [row(None, "p", sft={"sampled": {"text": "a"}})])
    assert read_answers([folder]).of("sft", suite="test") == {"p": {"text": "a"}}


def test_one_name_in_two_folders_is_refused(tmp_path: Path) -> None:
    folders = [write(tmp_path / name, [row("test", "p", sft={"sampled": {"text": name}})]) for name in ("one", "two")]
    with pytest.raises(InputError, match=r"one and .*two: both have a model 'sft'"):
        read_answers(folders)


def test_what_is_not_finished_is_passed_over(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", [row("test", "p", sft={"sampled": {"text": "a"}})], finished=False)
    assert read_answers([folder, tmp_path / "none"]).models == []
