"""One process at a time in a run directory.

The lock is the system's, not the file's: it is free as soon as its owner has ended, however it ended; the file stays.
It is asked for with lockf, which is of the process: whoever opens a run twice in one process has it already.
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
"""the byte that is locked on Windows, where a locked byte cannot be read: behind the owner's name"""


class Lock:
    """The lock of a folder; the file in it tells who has it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.handle: int | None = None

    @property
    def held(self) -> bool:
        return self.handle is not None

    def acquire(self) -> None:
        """Take the lock of a folder that exists. InputError where another process has it."""
        if self.held:
            return
        with disk_errors(self.folder):
            handle = os.open(self.folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
        if not lock(handle):
            owner = os.read(handle, 200).decode("utf-8", "replace") or "it has not said who it is"
            os.close(handle)
            raise InputError(
                f"another process is at work here ({owner})", self.folder, "wait until it ends, or stop it"
            )
        self.handle = handle
        with disk_errors(self.folder):
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())

    def release(self) -> None:
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


def is_held(folder: Path) -> bool:
    """Whether another process is at work in a folder."""
    try:
        handle = os.open(folder / NAME, os.O_RDWR)
    except OSError:
        return False
    try:
        return not lock(handle)
    finally:
        os.close(handle)


def lock(handle: int) -> bool:
    """Lock an open file without waiting; False where another process has it. A disk that knows no locks has none."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, FAR, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True
