"""Launcher of a command in several processes on this machine: starts them, forwards signals, and ends all
with the first that fails.

On several machines torchrun does the same: torchrun --nnodes 2 --nproc-per-node 8 ... -m amenable sft ...
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from amenable.ranks import GRACE, STORE
from amenable.train.graceful_stop import ask_to_stop, creation_flags, stop_signals

POLL = 0.05
"""seconds between two looks at the processes"""
Member = subprocess.Popen[bytes]


def launch(command: Sequence[str], count: int) -> int:
    """Run a command in `count` processes that train together, and return the exit code: that of the first process, or
    of the one whose failure ended it.

    Each has its share of the processor's cores, unless OMP_NUM_THREADS says otherwise.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        environment[STORE] = str(Path(folder) / "store")
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
        if sys.platform == "linux":
            environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
        members = [start(command, environment, number) for number in range(count)]
        with forwarded_signals(members):
            return wait(members)


def start(command: Sequence[str], environment: dict[str, str], number: int) -> Member:
    """Start the process of a rank, which gets signals from this one alone."""
    own = {**environment, "RANK": str(number), "LOCAL_RANK": str(number)}
    return subprocess.Popen(command, env=own, start_new_session=True, creationflags=creation_flags())


@contextlib.contextmanager
def forwarded_signals(members: Sequence[Member]) -> Iterator[None]:
    """Forward the signals that ask for a stop to the processes, in this context."""

    def forward(number: int, frame: Any) -> None:
        for member in members:
            if member.poll() is None:
                ask_to_stop(member)

    before = {number: signal.signal(number, forward) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for member in members:
            if member.poll() is None:
                member.kill()


def wait(members: Sequence[Member]) -> int:
    """Wait until all have ended, kill those that a failed one leaves, and return the exit code of the group.

    Where the first fails, it has shown why; to another's failure it may still add its own.
    """
    failed, since = None, 0.0
    while any(member.poll() is None for member in members):
        if failed is None:
            failed = next((number for number, member in enumerate(members) if member.poll()), None)
            since = time.monotonic()
        elif failed == 0 or is_killed(members[failed]) or time.monotonic() - since > GRACE + 1:
            for member in members:
                if member.poll() is None:
                    member.kill()
                    member.wait()
            break
        time.sleep(POLL)
    if failed is None:
        failed = next((number for number, member in enumerate(members) if member.returncode), 0)
    if is_killed(members[failed]):
        reason = f"process {failed} of {len(members)} was killed by signal {-members[failed].returncode}"
        print(f"amenable: {reason}; repeat the command to resume from what is saved", file=sys.stderr)
        return 1
    return max(members[0].returncode, 0) or members[failed].returncode


def is_killed(member: Member) -> bool:
    """Return True for a process that a signal has ended."""
    return (member.returncode or 0) < 0
