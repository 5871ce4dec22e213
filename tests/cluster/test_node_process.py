"""A process of a node: its output and exit code, and its end with the actor that holds it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from amenable.cluster.node_process import NodeProcess

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nodes are Linux machines")


def program(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", f"import os, subprocess, sys, time\n{code}"]


def wait(process: NodeProcess) -> tuple[int, dict[int, bytes]]:
    """The exit code of a process, and what it has printed to each stream."""
    streams = {1: b"", 2: b""}
    while True:
        code, printed = process.poll()
        for number, text in printed:
            streams[number] += text
        if code is not None:
            return code, streams
        time.sleep(0.01)


def test_its_output_and_exit_code_are_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    process = NodeProcess()
    code = "print(os.getcwd(), os.environ['A'], 'RAY_AUTH_TOKEN' in os.environ)\nsys.exit('é')"
    process.start(program(code), {"A": "b"}, str(tmp_path))
    code, streams = wait(process)
    assert (code, streams[1].split()) == (1, [str(tmp_path).encode(), b"b", b"False"])
    assert streams[2].decode() == "é\n"


def test_a_process_that_was_never_started_ends_nothing() -> None:
    process = NodeProcess()
    process.request_stop()
    process.kill()
    assert process.poll() == (None, [])


def test_it_says_whether_a_port_is_in_use(tmp_path: Path) -> None:
    process = NodeProcess()
    port = process.free_port()
    assert not process.listens("127.0.0.1", port)
    listen = f"import socket\nserver = socket.create_server(('127.0.0.1', {port}))\ntime.sleep(60)"
    process.start(program(listen), {}, str(tmp_path))
    until = time.monotonic() + 20
    while not process.listens("127.0.0.1", port):
        assert time.monotonic() < until
        time.sleep(0.01)
    process.kill()
    assert wait(process)[0] == -signal.SIGKILL and not process.listens("127.0.0.1", port)


def test_it_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    process = NodeProcess()
    code = "import signal\nsignal.signal(15, lambda *_: sys.exit(130))\nprint('on', flush=True)\ntime.sleep(60)"
    process.start(program(code), {}, str(tmp_path))
    while not process.poll()[1]:
        time.sleep(0.01)
    process.request_stop()
    assert wait(process)[0] == 130


def test_all_that_it_has_started_ends_with_the_actor(tmp_path: Path) -> None:
    """The actor is killed: neither the process nor its child is left."""
    child = "child = subprocess.Popen(['sleep', '60'])\nprint(f'{os.getpid()} {child.pid}', flush=True)\ntime.sleep(60)"
    actor = (
        "import sys, time\n"
        "from amenable.cluster.node_process import NodeProcess\n"
        f"process = NodeProcess()\nprocess.start({program(child)!r}, {{}}, {str(tmp_path)!r})\n"
        "while not (printed := process.poll()[1]):\n    time.sleep(0.01)\n"
        "print(printed[0][1].decode(), flush=True)\ntime.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", actor], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    numbers = [int(number) for number in holder.stdout.readline().split()]
    assert len(numbers) == 2 and all(map(is_running, numbers))
    holder.kill()
    holder.wait()
    until = time.monotonic() + 20
    while any(map(is_running, numbers)):
        assert time.monotonic() < until
        time.sleep(0.01)


def is_running(number: int) -> bool:
    """True for a process that is there and not a zombie."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{number}/stat")
    return not status.exists() or ") Z " not in status.read_text()
