"""Supervisor of a run on a cluster: starts its servers and trainers, starts again what is lost, ends all together.

A trainer that is lost ends the others, and all go on from the last checkpoint. A sampler that is lost comes back at
another port, so that nothing can mistake it for the one that had the weights; its address is written into the file that
`--sampler-url` names (generation/addresses.py), and a reference's into that of `--reference-url`. A reward server comes
back at its own.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from amenable.cluster.placement import Lost, Member, Node, Placement
from amenable.cluster.resources import Share
from amenable.errors import InputError
from amenable.files import write_text
from amenable.launcher import exit_code, first_failure, is_lost
from amenable.ranks import LOST_CODE, SHOWN, STORE
from amenable.train.graceful_stop import stop_signals

POLL = 0.2
"""seconds between two looks at the processes"""
LOCALHOST = "127.0.0.1"


@dataclass(frozen=True)
class ServerPlan:
    """Server beside the trainers. command: of its host and port. path: that trainers ask for. addresses: file of its
    address, and of others'; without one it comes back at the same port."""

    name: str
    bundle: int
    share: Share
    command: Callable[[str, int], list[str]]
    environment: Mapping[str, str]
    path: str = ""
    addresses: Path | None = None


@dataclass(frozen=True)
class RunPlan:
    """Trainers and servers of a run. command: of a trainer. folder: for what they share. environment: of trainers, once
    the servers have ports."""

    command: list[str]
    workers: int
    share: Share
    servers: Sequence[ServerPlan]
    folder: Path
    environment: Callable[[Sequence[str]], dict[str, str]]
    restarts: int


class Server:
    """Server that is started again where it is lost. listening: whether it accepts connections since its last start."""

    def __init__(self, plan: ServerPlan, placement: Placement, folder: Path):
        self.plan, self.placement, self.folder = plan, placement, folder
        self.starts, self.port, self.listening, self.lines = 0, 0, False, list[str]()
        self.host = LOCALHOST
        self.start()

    def start(self) -> None:
        """Start it on the node of its bundle."""
        self.starts += 1
        self.listening, self.lines = False, []
        self.member = self.placement.spawn(self.plan.bundle, self.plan.share)
        with suppress(Lost):  # what is lost at once is noticed by `check`
            if self.plan.bundle and not self.placement.local:  # others are for the first trainer alone
                self.host = self.member.node().host
            before = self.port
            while self.port == before and not (before and self.plan.addresses is None):
                self.port = self.member.free_port()
            command = self.plan.command(self.host, self.port)
            self.member.start(command, self.plan.environment, str(self.folder))

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.host}:{self.port}{self.plan.path}"

    def check(self, restarts: int) -> None:
        """Note whether it listens, and start it again if it has ended. InputError where it ends by an error of its own
        before it ever listened, or too often."""
        code = self.member.poll()
        self.lines += [
            line for _, text in self.member.printed() for line in text.decode("utf-8", "replace").split("\n")
        ]
        self.lines = [line for line in self.lines if line.strip()][-SHOWN:]
        if code is None:
            with suppress(Lost):
                self.listening = self.listening or self.member.listens(self.host, self.port)
            return
        reason = describe_end(self.member)
        if self.starts > restarts or (code >= 0 and not self.listening):
            last = self.lines[-1].removeprefix("amenable: ") if self.lines else "it printed nothing"
            raise InputError(f"{self.plan.name} {reason}: {last}", how="mend it, and repeat the command")
        note(f"{self.plan.name} {reason}; it is started again ({self.starts} of {restarts} times)")
        self.member.kill()
        self.start()


@dataclass
class StopRequests:
    """Signals that asked for a stop so far, and those of them that were passed on."""

    count: int = 0
    forwarded: int = field(default=0)

    def handle(self, number: int, frame: object) -> None:
        """Count a signal; the third one interrupts at once."""
        self.count += 1
        if self.count > 2:
            raise KeyboardInterrupt


@contextmanager
def counted_signals() -> Iterator[StopRequests]:
    """Count the signals that ask for a stop, in this context."""
    stops = StopRequests()
    before = {number: signal.signal(number, stops.handle) for number in stop_signals()}
    try:
        yield stops
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Supervisor:
    """Trainers and servers of one run. folder: of the command, where all of them start."""

    def __init__(self, plan: RunPlan, placement: Placement, folder: Path):
        self.plan, self.placement, self.folder = plan, placement, folder
        self.servers: list[Server] = []
        self.trainers: list[Member] = []
        self.stops = StopRequests()

    def run(self) -> int:
        """Run until the trainers have ended, and return their exit code."""
        try:
            with counted_signals() as self.stops:
                self.start_servers()
                return self.train()
        finally:
            for member in [*self.trainers, *(server.member for server in self.servers)]:
                member.kill()

    def start_servers(self) -> None:
        """Start the servers, and wait until all of them listen."""
        for plan in self.plan.servers:
            self.servers.append(Server(plan, self.placement, self.folder))
        while not all(server.listening for server in self.servers):
            self.pause()
            if self.stops.count:
                raise KeyboardInterrupt
        for server in self.servers:
            note(f"{server.plan.name} at {server.url}")

    def train(self) -> int:
        """Run the trainers, again where one is lost, and return their exit code."""
        for number in range(self.plan.restarts + 1):
            self.start_trainers(number)
            failed = first_failure(self.trainers, self.pause)
            self.show()
            lost = failed is not None and is_lost(self.trainers[failed])
            if not lost or self.stops.count or number == self.plan.restarts:
                break
            reason = describe_end(self.trainers[failed or 0])
            times = f"{number + 1} of {self.plan.restarts} times"
            note(f"trainer {failed} of {self.plan.workers} {reason}; all go on from the last checkpoint ({times})")
            for member in self.trainers:
                member.kill()
        return exit_code(self.trainers, failed)

    def start_trainers(self, number: int) -> None:
        """Start the trainers, for the first time or again, as the group of a further number."""
        plan = self.plan
        self.trainers = [self.placement.spawn(bundle, plan.share) for bundle in range(plan.workers)]
        with suppress(Lost):  # what is lost at once has the exit code of a process that was killed
            nodes = [member.node() for member in self.trainers]
            if self.placement.local:
                meeting = {STORE: str(plan.folder / f"store-{number}"), "GLOO_SOCKET_IFNAME": "lo"}
            else:
                port = self.trainers[0].free_port()
                meeting = {"MASTER_ADDR": nodes[0].host, "MASTER_PORT": str(port)}
            shared = meeting | plan.environment([server.url for server in self.servers])
            for rank, member in enumerate(self.trainers):
                member.start(plan.command, shared | rank_variables(rank, nodes, plan.share), str(self.folder))

    def pause(self) -> None:
        """Wait a moment; pass on what trainers print and signals, and look after the servers."""
        time.sleep(POLL)
        self.show()
        if self.stops.forwarded < self.stops.count:
            self.stops.forwarded += 1
            for member in self.trainers:
                member.request_stop()
        for server in self.servers:
            server.check(self.plan.restarts)
        for file in filter(None, {server.plan.addresses for server in self.servers}):
            servers = [server for server in self.servers if server.plan.addresses == file]
            lines = "".join(f"{server.url}\n" for server in servers)
            if all(server.listening for server in servers) and not (file.exists() and file.read_text("utf-8") == lines):
                write_text(file, lines)

    def show(self) -> None:
        """Write what the trainers have printed to the same streams of this process."""
        for member in self.trainers:
            for number, text in member.printed():
                stream = sys.stdout if number == 1 else sys.stderr
                stream.buffer.write(text)
                stream.flush()


def rank_variables(rank: int, nodes: Sequence[Node], share: Share) -> dict[str, str]:
    """Return the variables by which a trainer knows its rank. With GPUs it sees its own alone, as the first."""
    near = [number for number, node in enumerate(nodes) if node.name == nodes[rank].name]
    local = 0 if share.gpus else near.index(rank)
    names = {"RANK": rank, "WORLD_SIZE": len(nodes), "LOCAL_RANK": local, "LOCAL_WORLD_SIZE": len(near)}
    return {name: str(value) for name, value in names.items()}


def describe_end(member: Member) -> str:
    """Return a phrase on the end of a process."""
    code = member.poll() or 0
    if code == LOST_CODE:
        return "has lost another"
    return f"was lost (signal {-code})" if code < 0 else f"has ended with code {code}"


def note(text: str) -> None:
    """Print a line about the cluster."""
    print(f"cluster  {text}", file=sys.stderr, flush=True)
