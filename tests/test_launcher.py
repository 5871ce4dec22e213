"""Launcher: several processes, their exit code, and the end of all with the first that fails."""

import os
import sys
import time

import pytest

from amenable import launcher
from amenable.ranks import LOST_CODE


def program(code: str) -> list[str]:
    return [sys.executable, "-c", f"import os, sys, time\nrank = os.environ['RANK']\n{code}"]


def test_every_process_has_its_rank(tmp_path: object, capfd: pytest.CaptureFixture[str]) -> None:
    assert launcher.launch(program("print(rank, os.environ['WORLD_SIZE'], os.environ['OMP_NUM_THREADS'])"), 2) == 0
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))
    assert sorted(capfd.readouterr().out.splitlines()) == [f"0 2 {threads}", f"1 2 {threads}"]


def test_the_first_process_decides_the_exit_code() -> None:
    assert launcher.launch(program("sys.exit(2 if rank == '0' else 1)"), 2) == 2
    assert launcher.launch(program("sys.exit(0 if rank == '0' else 5)"), 2) == 5


def test_a_failed_process_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "GRACE", -1.0)
    began = time.monotonic()
    assert launcher.launch(program("sys.exit(3) if rank == '1' else time.sleep(60)"), 2) == 3
    assert time.monotonic() - began < 30


def test_a_process_that_lost_another_is_an_error_like_others() -> None:
    assert launcher.launch(program(f"sys.exit({LOST_CODE})"), 1) == 1
    assert launcher.launch(program(f"sys.exit({LOST_CODE} if rank == '1' else 0)"), 2) == 1


def test_a_killed_process_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert launcher.launch(program("os.kill(os.getpid(), 9) if rank == '1' else time.sleep(60)"), 2) == 1
    assert "process 1 of 2 was killed by signal 9" in capfd.readouterr().err
