"""Supervisor of a run on a cluster, on nodes that are processes of this machine: starts, losses, stops and ends."""

import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.cluster import supervisor
from amenable.cluster.node_process import NodeProcess
from amenable.cluster.placement import KILLED, Lost, Node
from amenable.cluster.resources import Share
from amenable.cluster.supervisor import RunPlan, ServerPlan, Supervisor, rank_variables
from amenable.errors import InputError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nodes are Linux machines")
LISTEN = """
import socket
server = socket.create_server(('127.0.0.1', int(sys.argv[1])))
time.sleep(60)
"""


class LocalMember:
    """A process of this machine."""

    def __init__(self, name: str):
        self.held, self.name = NodeProcess(), name
        self.returncode: int | None = None
        self.unread: list[tuple[int, bytes]] = []

    def node(self) -> Node:
        return Node(self.name, "127.0.0.1")

    def free_port(self) -> int:
        return self.held.free_port()

    def start(self, command: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
        self.held.start(command, environment, folder)

    def listens(self, host: str, port: int) -> bool:
        return self.held.listens(host, port)

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode, printed = self.held.poll()
            self.unread += printed
        return self.returncode

    def printed(self) -> list[tuple[int, bytes]]:
        printed, self.unread = self.unread, []
        return printed

    def request_stop(self) -> None:
        self.held.request_stop()

    def kill(self) -> None:
        self.held.kill()

    def wait(self) -> None:
        while self.poll() is None and self.held.process is not None:
            time.sleep(0.01)


class LocalPlacement:
    """Nodes of this machine; `members` are all that were placed."""

    def __init__(self, local: bool = True) -> None:
        self.local, self.members = local, list[LocalMember]()

    def spawn(self, bundle: int, share: Share) -> LocalMember:
        self.members.append(LocalMember(f"node {bundle // 2}"))
        return self.members[-1]


def program(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", f"import os, sys, time\n{code}"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, LocalPlacement]]:
    """run(code of a trainer): its exit code, and where its processes were."""
    monkeypatch.setattr(supervisor, "POLL", 0.02)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # or lines of two processes could mix

    def run(code: str, workers: int = 2, local: bool = True, **changes: Any) -> tuple[int, LocalPlacement]:
        plan = RunPlan(program(code), workers, Share(), (), tmp_path, lambda urls: {}, 2)
        placement = LocalPlacement(local)
        try:
            return Supervisor(replace(plan, **changes), placement, tmp_path).run(), placement
        finally:
            started = [member.held.process for member in placement.members if member.held.process is not None]
            assert all(process.poll() is not None for process in started), "nothing is left"

    return run


def server_of(code: str, addresses: Path | None = None) -> ServerPlan:
    return ServerPlan("sampler 0", 2, Share(), lambda host, port: [*program(code), str(port)], {}, "", addresses)


def test_trainers_have_ranks_and_are_shown(run: Any, capfd: pytest.CaptureFixture[str]) -> None:
    code, _ = run("print(os.environ['RANK'], os.environ['WORLD_SIZE'], os.environ['AMENABLE_PROCESS_STORE'])")
    lines = sorted(capfd.readouterr().out.splitlines())
    assert code == 0 and [line[:3] for line in lines] == ["0 2", "1 2"] and lines[0].endswith("store-0")


def test_trainers_of_a_cluster_meet_at_the_first_ones_node(run: Any, capfd: pytest.CaptureFixture[str]) -> None:
    code, _ = run("print(os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT']) > 0)", local=False)
    assert code == 0 and capfd.readouterr().out == "127.0.0.1 True\n" * 2


def test_ranks_on_a_node_are_counted_from_0_and_gpus_are_the_first_of_their_own() -> None:
    nodes = [Node(name, name) for name in "abab"]
    variables = [rank_variables(rank, nodes, Share()) for rank in range(4)]
    assert [each["LOCAL_RANK"] for each in variables] == ["0", "0", "1", "1"]
    assert {each["LOCAL_WORLD_SIZE"] for each in variables} == {"2"}
    assert rank_variables(3, nodes, Share(gpus=1))["LOCAL_RANK"] == "0"


LOSE = """
if os.environ['RANK'] == '1' and not os.path.exists('lost'):
    open('lost', 'w').close()
    os.kill(os.getpid(), 9)
time.sleep(0.1)
"""


def test_a_lost_trainer_starts_all_again(run: Any, capfd: pytest.CaptureFixture[str]) -> None:
    code, placement = run(LOSE + "print('done')\ntime.sleep(0.3 if os.path.exists('lost') else 60)")
    shown = capfd.readouterr()
    assert code == 0 and shown.out.endswith("done\ndone\n") and len(placement.members) == 4
    assert "trainer 1 of 2 was lost (signal 9); all go on from the last checkpoint (1 of 2 times)" in shown.err


def test_a_trainer_that_is_lost_at_its_start(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its actor is gone before the others have begun."""
    node, calls = LocalMember.node, list[str]()

    def lose_first(member: LocalMember) -> Node:
        calls.append(member.name)
        if len(calls) > 1:
            return node(member)
        member.returncode = KILLED
        raise Lost

    monkeypatch.setattr(LocalMember, "node", lose_first)
    code, placement = run("time.sleep(0.1)")
    assert code == 0 and len(placement.members) == 4 and len(calls) == 3


def test_a_trainer_that_lost_another_starts_all_again(run: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """As where a node is gone, and its processes say nothing more."""
    code, placement = run("""
if os.environ['RANK'] == '0' and not os.path.exists('lost'):
    open('lost', 'w').close()
    sys.exit(75)
""")
    assert code == 0 and len(placement.members) == 4
    assert "trainer 0 of 2 has lost another; all go on from the last checkpoint" in capfd.readouterr().err


def test_losses_have_a_limit(run: Any, capfd: pytest.CaptureFixture[str]) -> None:
    code, placement = run("os.kill(os.getpid(), 9)", workers=1)
    assert code == 1 and len(placement.members) == 3
    assert "process 0 of 1 was killed by signal 9; repeat the command" in capfd.readouterr().err


def test_an_error_of_a_trainer_is_the_runs(run: Any, capfd: pytest.CaptureFixture[str]) -> None:
    code, placement = run("print('amenable: no such file', file=sys.stderr)\nsys.exit(2)", workers=1)
    assert code == 2 and len(placement.members) == 1 and capfd.readouterr().err == "amenable: no such file\n"


@pytest.mark.parametrize("fixed", [False, True])
def test_a_lost_server_comes_back(fixed: bool, run: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A sampler at another port, which is written into the file; another server at its own. The trainer ends it, and
    waits until it is there again."""
    count = tmp_path / "count"
    server = f"open({str(count)!r}, 'a').write(f'{{os.getpid()}} {{sys.argv[1]}}\\n')\n{LISTEN}"
    trainer = (
        "lines = lambda: open('count').read().splitlines()\n"
        "os.kill(int(lines()[0].split()[0]), 9)\n"
        "while len(lines()) < 2:\n    time.sleep(0.02)\n"
        "port = lines()[1].split()[1]\n"
        f"while not {fixed} and not open('samplers').read().endswith(f':{{port}}\\n'):\n    time.sleep(0.02)"
    )
    servers = (server_of(server, None if fixed else tmp_path / "samplers"),)
    assert run(trainer, workers=1, servers=servers)[0] == 0
    first, second = (line.split()[1] for line in count.read_text().splitlines())
    assert (first == second) == fixed and (tmp_path / "samplers").exists() != fixed
    err = capfd.readouterr().err
    assert f"sampler 0 at http://127.0.0.1:{first}" in err
    assert "sampler 0 was lost (signal 9); it is started again (1 of 2 times)" in err


def test_trainers_get_the_addresses_of_servers(run: Any, capfd: pytest.CaptureFixture[str]) -> None:
    def addresses(urls: Sequence[str]) -> dict[str, str]:
        return {"URLS": " ".join(urls)}

    run("print(os.environ['URLS'])", workers=1, servers=(server_of(LISTEN), server_of(LISTEN)), environment=addresses)
    assert capfd.readouterr().out.count("http://127.0.0.1:") == 2


def test_a_server_that_cannot_start_ends_the_run_with_its_last_line(run: Any) -> None:
    fails = "print('amenable: runs/x: no such model folder', file=sys.stderr)\nsys.exit(2)"
    with pytest.raises(InputError, match=r"sampler 0 has ended with code 2: runs/x: no such model folder; mend"):
        run("time.sleep(60)", servers=(server_of(fails),))


def test_a_server_is_lost_so_many_times(run: Any) -> None:
    with pytest.raises(InputError, match=r"sampler 0 was lost \(signal 9\): it printed nothing"):
        run("time.sleep(60)", servers=(server_of("os.kill(os.getpid(), 9)"),))


def test_a_stop_is_passed_on(run: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """The trainers end by themselves, with the exit code of a run that was stopped, and servers with them."""
    code = (
        "import signal\n"
        "signal.signal(15, lambda *_: sys.exit(130))\n"
        "os.kill(os.getppid(), 15) if os.environ['RANK'] == '1' else None\n"
        "time.sleep(60)"
    )
    began = time.monotonic()
    assert run(code, servers=(server_of(LISTEN),))[0] == 130
    assert time.monotonic() - began < 30


def test_the_third_signal_interrupts() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with supervisor.counted_signals() as stops, pytest.raises(KeyboardInterrupt):
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
    assert stops.count == 3
    assert signal.getsignal(signal.SIGTERM) is before
