"""What a run writes down."""

import io
import json
import os
import pty
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
import torch
from rich.console import Console
from rich.table import Table

from amenable.errors import InputError
from amenable.train import log as reply
from amenable.train.log import FILES, Log, tracked


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
    log.truncate_after(2)
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    assert len((tmp_path / "samples.jsonl").read_text("utf-8").splitlines()) == 4


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("done", [0, 1, 2])
def test_rows_that_will_be_made_again_are_dropped_from_every_file(tmp_path: Path, name: str, done: int) -> None:
    log = Log(tmp_path, "x")
    for step in (0, 1, 2, 3):
        log.rows(name, step, [{"v": step}])
    log.truncate_after(done)
    stored = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
    # what is measured before the first step is made by whoever takes the first step
    assert stored == [{"step": step, "v": step} for step in range(done + 1 if done else 0)]


def test_a_pipe_gets_plain_lines(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    log = Log(tmp_path, "sft")
    log.open(0, 2)
    log.advance(2, 100, {"loss": 0.25})
    log.close()
    reply = capsys.readouterr().err
    assert "2/2" in reply and "loss 0.25" in reply and "tok/s" in reply and "\x1b" not in reply


def test_the_latest_row_is_what_a_resumed_run_ends_with(tmp_path: Path) -> None:
    log = Log(tmp_path, "x")
    assert log.latest_row() == {}
    log.row(1, {"loss": 2.0})
    log.row(2, {"loss": 1.0, "eval/loss": 3.0})
    assert log.latest_row() == {"loss": 1.0, "eval/loss": 3.0}


def test_a_pipe_gets_paths_as_they_are(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    path = f"/{'long/' * 30}[a]/[bold]x"
    Log(tmp_path, "sft").info(f"done: {path}")
    assert capsys.readouterr().err == f"sft  done: {path}\n"


def test_an_answer_with_a_strange_end_of_line_is_one_row(tmp_path: Path) -> None:
    log = Log(tmp_path, "x")
    log.samples(1, [{"text": "a\u2028b\x85c"}])
    before = (tmp_path / "samples.jsonl").read_bytes()
    with (tmp_path / "samples.jsonl").open("ab") as file:
        file.write('{"step": 1, "text": "é'.encode()[:-1])  # torn in the middle of a character
    log.truncate_after(1)
    assert (tmp_path / "samples.jsonl").read_bytes() == before


def test_rows_made_when_all_is_done_replace_what_was_there(tmp_path: Path) -> None:
    log = Log(tmp_path, "x")
    for _ in range(2):
        log.replace("samples", 3, [{"text": "a"}])
    assert (tmp_path / "samples.jsonl").read_text() == '{"step": 3, "text": "a"}\n'


def test_a_session_has_its_begin_and_end(tmp_path: Path) -> None:
    log = Log(tmp_path, "stage")
    before = time.time()
    log.open(0, 3)
    log.session(3, 2.0)
    (row,) = log.read("timings")
    assert 0 < row["loaded_bytes"] <= row["peak_bytes"]
    assert row["step"] == 3 and row["ended"] - row["began"] == pytest.approx(2.0, abs=1e-4)
    assert before <= row["ended"] <= time.time()


def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"metrics\.jsonl: cannot be written \(No space left on device\)"):
        Log(tmp_path, "x").row(1, {"loss": 1.0})


def on_a_terminal(folder: Path) -> tuple[Log, io.StringIO]:
    """A log whose console takes itself for a terminal, and what it has shown."""
    log, screen = Log(folder, "dpo"), io.StringIO()
    log.console = Console(file=screen, force_terminal=True, width=100, highlight=False)
    return log, screen


def test_a_pass_is_a_bar_on_a_terminal_and_leaves_nothing_behind(tmp_path: Path) -> None:
    log, screen = on_a_terminal(tmp_path)
    bar = log.bar("reference")
    assert log.display is None, "nothing is shown before it begins"
    bar(0, 3)
    bar(1, 3)
    assert log.display is not None and [task.description for task in log.display.tasks] == ["reference"]
    bar(3, 3)
    assert log.display is None
    report = screen.getvalue()
    assert "reference" in report and "0/3" in report and report.endswith("\x1b[2K\x1b[?25h\r"), (
        "wiped, and the cursor is back"
    )
    bar(0, 0)
    assert log.display is None, "no work, no bar"


def test_a_pass_within_the_steps_is_a_bar_below_theirs(tmp_path: Path) -> None:
    log, screen = on_a_terminal(tmp_path)
    log.open(0, 4)
    assert log.display is not None
    validation = log.bar("validation")
    validation(0, 2)
    assert [task.description for task in log.display.tasks] == ["[bold]dpo", "validation"]
    validation(2, 2)
    assert [task.description for task in log.display.tasks] == ["[bold]dpo"]
    log.advance(1, 10, {"loss": 0.5})
    log.bar("answers")(1, 9)  # an exception ends it here
    log.close()
    last = screen.getvalue().rpartition("\r")[2]
    assert log.display is None and "1/4" in last and "loss 0.5" in last and "answers" not in last


def test_a_pass_is_a_line_now_and_then_in_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    log, now = Log(tmp_path, "dpo"), [100.0]
    monkeypatch.setattr(reply.time, "monotonic", lambda: now[0])
    bar = log.bar("reference")
    for done in range(41):
        bar(done, 40)
        now[0] += 1.0
    assert capsys.readouterr().err.splitlines() == [
        "dpo  reference 11/40  29 s left",
        "dpo  reference 22/40  18 s left",
        "dpo  reference 33/40  7 s left",
    ]
    quick = log.bar("scores")
    for done in range(9):
        quick(done, 8)
        now[0] += 1.0
    assert capsys.readouterr().err == "", "what takes less than ten seconds says nothing"


@pytest.mark.parametrize(("taken", "heard"), [(3, [0, 1, 2, 3]), (2, [0, 1, 3]), (1, [0, 3])])
def test_progress_is_told_of_every_part_that_is_taken_and_of_the_end(taken: int, heard: list[int]) -> None:
    report: list[tuple[int, int]] = []
    parts = tracked("abc", lambda done, total: report.append((done, total)))
    assert "".join(islice(parts, taken)) == "abc"[:taken]
    del parts
    assert report == [(done, 3) for done in heard]


def test_what_fails_between_the_steps_gives_the_cursor_back(tmp_path: Path) -> None:
    """In a real terminal: the message stands, the bar is gone, the cursor is there."""
    code = "import sys, pathlib; from amenable.train.log import Log; "
    code += "bar = Log(pathlib.Path(sys.argv[1]), 'dpo').bar('reference'); "
    code += "bar(0, 9); bar(1, 9); print('no room', file=sys.stderr); sys.exit(2)"
    mine, theirs = pty.openpty()
    command, environment = [sys.executable, "-c", code, str(tmp_path)], os.environ | {"TERM": "xterm"}
    done = subprocess.run(command, stderr=theirs, stdout=theirs, env=environment)
    os.close(theirs)
    screen = os.read(mine, 1 << 16).decode()
    os.close(mine)
    assert done.returncode == 2 and "no room" in screen and "reference" in screen
    assert screen.rfind("\x1b[?25h") > screen.rfind("\x1b[?25l") >= 0


def test_a_table_is_as_wide_as_it_is_in_a_pipe(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    table = Table("a" * 50, "b" * 50)
    Log(tmp_path, "x").show(table)
    report = capsys.readouterr().err
    assert "a" * 50 in report and "b" * 50 in report and "\x1b" not in report
