"""Work that processes share: every piece is done by one of them, and the others do other pieces meanwhile, or wait.

A piece whose process ends before it is done, however it ends, is free for the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from amenable.files import disk_errors
from amenable.train.lock import Lock

PAUSE = 0.2
"""seconds between two looks at the locks of others"""


def share_work(names: Iterable[str], locks: Path, work: Callable[[str], None], waits: Callable[[str], None]) -> None:
    """Do every piece of work, by its name, that no other process is at work on; return once all pieces are done.

    locks: the folder of the locks' files. work: does a piece unless another process has done it meanwhile. waits:
    called once, if nothing but pieces of other processes is left, with the name of one of these processes.
    """
    with disk_errors(locks, "allow writing there, or set AMENABLE_CACHE to another folder"):
        locks.mkdir(parents=True, exist_ok=True)
    left, waiting = list(names), False
    while left:
        busy, owner = list[str](), ""
        for name in left:
            lock = Lock(locks, name)
            if holder := lock.try_acquire():
                busy, owner = [*busy, name], holder
                continue
            try:
                work(name)
            finally:
                lock.release()
        if len(busy) == len(left):
            if not waiting:
                waits(owner)
            waiting = True
            time.sleep(PAUSE)
        left = busy
