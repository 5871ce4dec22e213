"""One process at a time: the second is refused, and a crash of the first frees the folder."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.train.lock import Lock, is_held

OWNER = """
import sys
from pathlib import Path
from amenable.train.lock import Lock
lock = Lock(Path(sys.argv[1]))
lock.acquire()
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock of tmp_path until its input ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "taken\n"
        yield process
        process.kill()


def test_the_second_is_told_who_is_there_and_changes_nothing(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    before = (tmp_path / ".lock").read_bytes(), (tmp_path / ".lock").stat().st_mtime_ns
    with pytest.raises(InputError, match=rf"another process is at work here \(process {owner.pid} on "):
        Lock(tmp_path).acquire()
    assert is_held(tmp_path)
    assert before == ((tmp_path / ".lock").read_bytes(), (tmp_path / ".lock").stat().st_mtime_ns)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_killed_owner_leaves_it_free(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    assert not is_held(tmp_path)
    lock = Lock(tmp_path)
    lock.acquire()
    assert lock.held and f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()


def test_a_process_may_open_its_own_twice_and_gives_it_back(tmp_path: Path) -> None:
    first, second = Lock(tmp_path), Lock(tmp_path)
    first.acquire()
    second.acquire()
    first.release()
    second.release()
    assert not (first.held or second.held or is_held(tmp_path))


def test_a_folder_without_a_lock_is_free(tmp_path: Path) -> None:
    assert not is_held(tmp_path) and not is_held(tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_locks_of_a_folder_are_apart_by_their_names(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    assert Lock(tmp_path).try_acquire().startswith(f"process {owner.pid} on ")
    other = Lock(tmp_path, "other")
    assert other.try_acquire() == "" and other.held and (tmp_path / "other").exists()
