"""Lock of a run directory, or of work that several processes share: one process at a time.

The operating system releases the lock when its owner ends, however it ends; the file stays. `lockf` locks belong to the
process, so opening a run twice in one process does not conflict.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

from amenable.errors import InputError
from amenable.files import disk_errors

NAME = ".lock"
FAR = 1 << 20
"""byte that is locked on Windows, where a locked byte cannot be read: beyond the owner's name"""


class Lock:
    """Lock of a folder, with its owner's name in a file."""

    def __init__(self, folder: Path, name: str = NAME):
        self.folder, self.name = folder, name
        self.handle: int | None = None

    @property
    def held(self) -> bool:
        return self.handle is not None

    def acquire(self) -> None:
        """Acquire the lock of an existing folder. InputError if another process holds it."""
        if owner := self.try_acquire():
            problem = f"another process is at work here ({owner})"
            raise InputError(problem, self.folder, "wait until it ends, or stop it")

    def try_acquire(self) -> str:
        """Acquire the lock of an existing folder and return ""; or return the name of the process that holds it."""
        if self.held:
            return ""
        with disk_errors(self.folder):
            handle = os.open(self.folder / self.name, os.O_RDWR | os.O_CREAT, 0o644)
        if not lock(handle):
            owner = os.read(handle, 200).decode("utf-8", "replace") or "unknown"
            os.close(handle)
            return owner
        self.handle = handle
        with disk_errors(self.folder):
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        return ""

    def release(self) -> None:
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


def is_held(folder: Path) -> bool:
    """Return True if another process holds the lock of a folder."""
    try:
        handle = os.open(folder / NAME, os.O_RDWR)
    except OSError:
        return False
    try:
        return not lock(handle)
    finally:
        os.close(handle)


def lock(handle: int) -> bool:
    """Lock an open file without waiting; return False if another process holds it. Disks without locks never do."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, FAR, os.SEEK_SET)
            try:
                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            finally:
                os.lseek(handle, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True
