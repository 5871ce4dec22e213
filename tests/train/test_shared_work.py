"""Work of several processes: every piece once, side by side; another does the piece of a process that is killed."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.train.shared_work import share_work

PROCESS = """
import os, sys, time
from pathlib import Path
from amenable.train.shared_work import share_work

folder = Path(sys.argv[1])

def work(name):
    if not (folder / name).exists():
        print("begins", name, flush=True)
        sys.stdin.readline()
        (folder / name).write_text(str(os.getpid()))

share_work(sys.argv[2:], folder / "locks", work, lambda owner: print("waits for", owner, flush=True))
print("ends", flush=True)
"""


def start(folder: Path, *names: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROCESS, str(folder), *names]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_processes_do_different_pieces_and_wait_for_each_other(tmp_path: Path) -> None:
    first, second = start(tmp_path, "a", "b"), start(tmp_path, "a", "b")
    try:
        assert {line(first), line(second)} == {"begins a", "begins b"}
        go_on(first)
        assert line(first).startswith(f"waits for process {second.pid} on ")
        go_on(second)
        assert line(first) == line(second) == "ends"
        assert {(tmp_path / name).read_text() for name in "ab"} == {str(first.pid), str(second.pid)}
    finally:
        first.kill(), second.kill()


def test_the_piece_of_a_killed_process_is_done_by_another(tmp_path: Path) -> None:
    first = start(tmp_path, "a")
    assert line(first) == "begins a"
    second = start(tmp_path, "a")
    try:
        assert line(second).startswith(f"waits for process {first.pid} on ")
        first.send_signal(signal.SIGKILL)
        assert line(second) == "begins a"
        go_on(second)
        assert line(second) == "ends" and (tmp_path / "a").read_text() == str(second.pid)
    finally:
        first.kill(), second.kill()


def test_an_error_ends_the_work_and_frees_the_piece(tmp_path: Path) -> None:
    done = list[str]()

    def work(name: str) -> None:
        if name == "b":
            raise InputError("no row can be read")
        done.append(name)

    for _ in range(2):
        with pytest.raises(InputError, match="no row can be read"):
            share_work(["a", "b", "c"], tmp_path / "locks", work, print)
    assert done == ["a", "a"]


def test_locks_that_cannot_be_written_are_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written .*set AMENABLE_CACHE"):
        share_work(["a"], tmp_path / "file" / "locks", print, print)
