"""Branches for Windows and macOS, by faking what the platform says: locks, signals, memory, syncs, paths, streams."""

import errno
import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path, PureWindowsPath
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from amenable import cli, files
from amenable.errors import InputError
from amenable.recipes import doctor
from amenable.rewards import sandbox
from amenable.rewards.spec import split_weight
from amenable.serve import security
from amenable.train import graceful_stop, lock, memory_limit, runtime


def fake(monkeypatch: pytest.MonkeyPatch, platform: str, **modules: Any) -> None:
    """Let Python say that it runs on `platform`, where these modules are."""
    monkeypatch.setattr(sys, "platform", platform)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("other", [False, True])
def test_windows_locks_a_byte_beyond_the_owners_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: bool
) -> None:
    positions: list[int] = []

    def locking(handle: int, mode: int, count: int) -> None:
        positions.append(os.lseek(handle, 0, os.SEEK_CUR))
        if other:
            raise OSError(errno.EACCES, "locked")

    fake(monkeypatch, "win32", msvcrt=SimpleNamespace(locking=locking, LK_NBLCK=2))
    (tmp_path / ".lock").write_text("process 7 on there")
    held = lock.Lock(tmp_path)
    if other:
        with pytest.raises(InputError, match=r"another process is at work here \(process 7 on there\)"):
            held.acquire()
        assert lock.is_held(tmp_path) and (tmp_path / ".lock").read_text() == "process 7 on there"
    else:
        held.acquire()
        assert held.held and (tmp_path / ".lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}"
        held.release()
    assert positions and set(positions) == {lock.FAR}


def test_windows_asks_by_ctrl_break_and_hears_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    process: Any = SimpleNamespace(send_signal=sent.append, terminate=lambda: sent.append(-1))
    assert graceful_stop.creation_flags() == 0
    graceful_stop.request_stop(process)
    fake(monkeypatch, "win32")
    monkeypatch.setattr(signal, "CTRL_BREAK_EVENT", 1, raising=False)
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0x200, raising=False)
    assert graceful_stop.creation_flags() == 0x200
    graceful_stop.request_stop(process)
    assert sent == [-1, 1]
    notes: list[str] = []
    with graceful_stop.GracefulStop(lambda: notes.append("stopping")) as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.requested and notes == ["stopping"]
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_a_handler_that_is_not_pythons_is_given_back_as_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(signal, "signal", lambda number, handler: calls.append(handler))
    with graceful_stop.GracefulStop(lambda: None):
        pass
    assert calls[-2:] == [signal.SIG_DFL] * 2


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_memory_is_what_psutil_says_where_linux_files_are_missing(
    monkeypatch: pytest.MonkeyPatch, platform: str, tmp_path: Path
) -> None:
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=5 << 20))
    psutil = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=3 << 30), Process=lambda: process)
    usage = SimpleNamespace(ru_maxrss=5 << 20)
    resource = SimpleNamespace(getrusage=lambda who: usage, RUSAGE_SELF=0)
    fake(monkeypatch, platform, psutil=psutil, resource=resource if platform == "darwin" else None)
    assert memory_limit.system_bytes(tmp_path) == 3 << 30
    assert memory_limit.peak_bytes() == 5 << 20  # macOS counts bytes, where Linux counts KiB
    fake(monkeypatch, platform, psutil=None)
    assert memory_limit.system_bytes(tmp_path) is None
    assert memory_limit.peak_bytes() == (None if platform == "win32" else 5 << 20)


def test_syncs_of_windows_and_macos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[Any] = []
    fcntl = ModuleType("fcntl")
    fcntl.F_FULLFSYNC = 51  # type: ignore[attr-defined]
    fcntl.fcntl = lambda handle, command: calls.append(command)  # type: ignore[attr-defined]
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append("fsync"))
    fake(monkeypatch, "darwin", fcntl=fcntl)
    files.write_text(tmp_path / "a", "x")
    assert calls == [51, 51] and (tmp_path / "a").read_text() == "x"

    def refuse(handle: int, command: int) -> None:
        raise OSError(errno.ENOTSUP, "not on this disk")

    fcntl.fcntl = refuse  # type: ignore[attr-defined]
    files.write_text(tmp_path / "a", "y")
    assert calls == [51, 51, "fsync", "fsync"]
    fake(monkeypatch, "win32", fcntl=None)
    files.write_text(tmp_path / "a", "z")
    assert calls == [51, 51, "fsync", "fsync", "fsync"], "the file, not its folder"


def test_the_hash_of_a_folder_is_the_same_on_every_system(tmp_path: Path) -> None:
    for name in ("b/c.txt", "B.txt", "b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    lines = [f"{name}:{hashlib.sha256(name.encode()).hexdigest()}\n" for name in ("B.txt", "b/c.txt", "b.txt")]
    assert files.hash_of(tmp_path) == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_rewards_are_imported_where_there_is_no_resource_module() -> None:
    """As on Windows, where code cannot be run, and everything else can."""
    code = "import sys; sys.modules['resource'] = sys.modules['fcntl'] = None; import amenable.rewards.spec"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_code_is_refused_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(InputError, match="code cannot be run on this system; use Linux or macOS, or WSL"):
        sandbox.require_sandbox(sandbox.Limits())


def test_windows_ports_are_for_one_server(monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[Any] = []
    sock = SimpleNamespace(setsockopt=lambda *option: options.append(option), bind=lambda _: 0, listen=lambda _: 0)
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", -5, raising=False)
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT", raising=False)
    monkeypatch.setattr(socket, "socket", lambda *kinds: sock)
    security.listen("127.0.0.1", 0)
    assert options == [(socket.SOL_SOCKET, -5, 1)]


def test_a_pipe_of_another_encoding_shows_question_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow, wide = (io.TextIOWrapper(io.BytesIO(), encoding=name, errors="strict") for name in ("cp1252", "utf8"))
    cli.replace_unknown_characters(narrow, wide, None)
    assert (narrow.errors, wide.errors) == ("replace", "strict")
    narrow.write("π ok")
    narrow.flush()
    assert narrow.buffer.getvalue() == b"? ok"  # type: ignore[attr-defined]


def test_macos_names_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, "darwin")
    monkeypatch.setattr(subprocess, "run", lambda *command, **options: SimpleNamespace(stdout="Apple M3\n"))
    assert runtime.processor_name() == "Apple M3"

    def missing(*command: Any, **options: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    assert runtime.processor_name() not in ("", "Apple M3")


def test_packages_of_other_systems_are_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = ["numpy>=1", "psutil>=6; sys_platform != 'linux'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: requirements)
    monkeypatch.setattr(doctor, "check_needed", lambda requirement: requirement)
    for platform, names in (("linux", ["numpy>=1"]), ("win32", ["numpy>=1", "psutil>=6"])):
        fake(monkeypatch, platform)
        assert list(doctor.check_packages("amenable")) == names


def test_the_folder_of_a_windows_drive_is_no_weight_and_no_label() -> None:
    folder = str(PureWindowsPath("C:/runs/reward"))
    assert split_weight(f"{folder}=0.5") == (folder, 0.5)
