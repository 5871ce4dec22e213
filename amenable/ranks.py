"""Rank of this process in a group that trains together, from the environment that torchrun, or `--processes`, gives it.

Without torch: the command line reads it before anything is imported.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
import traceback
from collections.abc import Callable

STORE = "AMENABLE_PROCESS_STORE"
"""variable of the environment: by which processes of `--processes` reach each other, without a port"""
GRACE = 3.0
"""seconds that a process other than the first waits before it shows its error: the first has the same error as a rule,
and ends the group with it"""
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo", "NCCL")
"""words in the error of a sum that another process did not come to"""
LOST_CODE = 75
"""exit code of a process that lost another one (EX_TEMPFAIL: to be tried again)"""
SHOWN = 30
"""last lines that a process other than the first shows of what it printed"""


def in_group() -> bool:
    """Return True for a process that was started as one of several."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def rank() -> int:
    """Return the number of this process in its group, from 0."""
    return int(os.environ["RANK"]) if in_group() else 0


def is_first() -> bool:
    """Return True for the process that writes files and to the screen."""
    return rank() == 0


def world_size() -> int:
    """Return the number of processes of the group."""
    return int(os.environ["WORLD_SIZE"]) if in_group() else 1


def local_rank() -> int:
    """Return the number of this process on its machine, from 0: that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if in_group() else 0


def local_world_size() -> int:
    """Return the number of processes of the group on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if in_group() else 1


def as_member(command: Callable[[], int]) -> int:
    """Run a command, which returns its exit code, as a process of its group, if it is in one.

    What a process other than the first prints is held back, and shown where it ends by an error, after GRACE seconds. A
    sum that another process did not come to is that one's error: it is shown if nothing ends this process before.
    """
    if not in_group():
        return command()
    held = io.StringIO()
    try:
        with contextlib.ExitStack() as stack:
            if not is_first():
                stack.enter_context(contextlib.redirect_stderr(held))
                stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            code = command()
    except Exception as error:
        if is_first() and not is_lost(error):
            raise
        held.write("another process has ended, without a word\n" if is_lost(error) else traceback.format_exc())
        code = LOST_CODE if is_lost(error) else 1
    if code in (0, 130):
        return code
    if not is_first() or held.getvalue():
        time.sleep(GRACE)
        print("\n".join([f"in process {rank()}:", *held.getvalue().splitlines()[-SHOWN:]]), file=sys.stderr)
    return end_at_once(code)


def end_at_once(code: int) -> int:
    """End this process without Python's teardown, in which it could wait for a process that waits for it, and in which
    threads of its group's sums may still run."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def is_lost(error: BaseException) -> bool:
    """Return True for the error of a sum that another process, which has ended, did not come to."""
    return isinstance(error, RuntimeError) and any(word in str(error) for word in LOST)
