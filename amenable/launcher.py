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
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from amenable.ranks import GRACE, LOST_CODE, STORE
from amenable.train.graceful_stop import creation_flags, request_stop, stop_signals

POLL = 0.05
"""seconds between two looks at the processes"""


class Member(Protocol):
    """Process of a group, here or on another machine, as subprocess.Popen has it."""

    returncode: Any

    def poll(self) -> int | None: ...

    def kill(self) -> None: ...

    def wait(self) -> Any: ...


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
            return exit_code(members, first_failure(members, partial(time.sleep, POLL)))


def start(command: Sequence[str], environment: dict[str, str], number: int) -> subprocess.Popen[bytes]:
    """Start the process of a rank, which gets signals from this one alone."""
    own = {**environment, "RANK": str(number), "LOCAL_RANK": str(number)}
    return subprocess.Popen(command, env=own, start_new_session=True, creationflags=creation_flags())


@contextlib.contextmanager
def forwarded_signals(members: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Forward the signals that ask for a stop to the processes, in this context."""

    def forward(number: int, frame: Any) -> None:
        for member in members:
            if member.poll() is None:
                request_stop(member)

    before = {number: signal.signal(number, forward) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for member in members:
            if member.poll() is None:
                member.kill()


def first_failure(members: Sequence[Member], pause: Callable[[], object]) -> int | None:
    """Wait until all have ended, and kill those that a failed one leaves; return the number of that one, None where all
    have done well. pause: called between two looks at them.

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
        pause()
    if failed is None:
        failed = next((number for number, member in enumerate(members) if member.returncode), None)
    return failed


def exit_code(members: Sequence[Member], failed: int | None) -> int:
    """Return the exit code of a group that has ended, by the number of the process that ended it: that of the first, or
    of this one. What was killed is named."""
    if failed is None:
        return 0
    if is_killed(members[failed]):
        reason = f"process {failed} of {len(members)} was killed by signal {-members[failed].returncode}"
        print(f"amenable: {reason}; repeat the command to resume from what is saved", file=sys.stderr)
        return 1
    codes = members[0].returncode, members[failed].returncode
    return next((code for code in codes if code > 0 and code != LOST_CODE), 1)


def is_lost(member: Member) -> bool:
    """Return True for a process that a signal has ended, or that lost another one."""
    return is_killed(member) or member.returncode == LOST_CODE


def is_killed(member: Member) -> bool:
    """Return True for a process that a signal has ended."""
    return (member.returncode or 0) < 0
