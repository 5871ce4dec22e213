"""What a run writes down."""

import json
from pathlib import Path

import pytest
import torch

from amenable.errors import InputError
from amenable.train.log import FILES, Log


def test_rows_are_plain_json_and_what_is_not_finite_is_null(tmp_path: Path) -> None:
    log = Log(tmp_path, "x")
    log.row(3, {"loss": torch.tensor(1.5), "bad": float("nan"), "count": 2, "name": "a"})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {
        "step": 3, "loss": 1.5, "bad": None, "count": 2, "name": "a",
    }  # fmt: skip


def test_keeping_until_a_step_drops_later_rows_and_torn_lines(tmp_path: Path) -> None:
    log = Log(tmp_path, "x")
    for step in (1, 2, 3):
        log.row(step, {"v": step})
        log.samples(step, [{"text": "é"}, {"text": "b"}])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "v"')
    log.keep_until(2)
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    assert len((tmp_path / "samples.jsonl").read_text("utf-8").splitlines()) == 4


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("done", [0, 1, 2])
def test_rows_that_will_be_made_again_are_dropped_from_every_file(tmp_path: Path, name: str, done: int) -> None:
    log = Log(tmp_path, "x")
    for step in (0, 1, 2, 3):
        log.rows(name, step, [{"v": step}])
    log.keep_until(done)
    kept = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
    # what is measured before the first step is made by whoever takes the first step
    assert kept == [{"step": step, "v": step} for step in range(done + 1 if done else 0)]


def test_a_pipe_gets_plain_lines(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    log = Log(tmp_path, "sft")
    log.open(0, 2)
    log.advance(2, 100, {"loss": 0.25})
    log.close()
    said = capsys.readouterr().err
    assert "2/2" in said and "loss 0.25" in said and "tok/s" in said and "\x1b" not in said


def test_the_latest_row_is_what_a_resumed_run_ends_with(tmp_path: Path) -> None:
    log = Log(tmp_path, "x")
    assert log.latest_row() == {}
    log.row(1, {"loss": 2.0})
    log.row(2, {"loss": 1.0, "val_loss": 3.0})
    assert log.latest_row() == {"loss": 1.0, "val_loss": 3.0}


def test_a_pipe_gets_paths_as_they_are(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    path = f"/{'long/' * 30}[a]/[bold]x"
    Log(tmp_path, "sft").say(f"done: {path}")
    assert capsys.readouterr().err == f"sft  done: {path}\n"


def test_an_answer_with_a_strange_end_of_line_is_one_row(tmp_path: Path) -> None:
    log = Log(tmp_path, "x")
    log.samples(1, [{"text": "a\u2028b\x85c"}])
    before = (tmp_path / "samples.jsonl").read_bytes()
    with (tmp_path / "samples.jsonl").open("ab") as file:
        file.write('{"step": 1, "text": "é'.encode()[:-1])  # torn in the middle of a character
    log.keep_until(1)
    assert (tmp_path / "samples.jsonl").read_bytes() == before


def test_rows_made_when_all_is_done_replace_what_was_there(tmp_path: Path) -> None:
    log = Log(tmp_path, "x")
    for _ in range(2):
        log.replace("samples", 3, [{"text": "a"}])
    assert (tmp_path / "samples.jsonl").read_text() == '{"step": 3, "text": "a"}\n'


def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"metrics\.jsonl: cannot be written \(No space left on device\)"):
        Log(tmp_path, "x").row(1, {"loss": 1.0})
