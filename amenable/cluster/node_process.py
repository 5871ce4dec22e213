"""A process on a node of a cluster, held by an actor: what it starts ends with it, however it ends."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import IO

CHUNK = 1 << 16
"""bytes of what a process prints that are read at once"""
GUARD = "read -r _; kill -KILL -{group} 2>/dev/null"
"""program of a shell that ends a group of processes once its standard input is closed: when the actor ends"""
OWN = "RAY_"
"""beginning of the variables of the actor's environment that its process does not get"""


class NodeProcess:
    """Actor that runs one process on its node. Each method but `kill` returns at once."""

    process: subprocess.Popen[bytes] | None = None

    def free_port(self) -> int:
        """Return a port of the node that is free now."""
        with socket.create_server(("", 0)) as listener:
            return int(listener.getsockname()[1])

    def start(self, command: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
        """Start a command in a folder, with further variables of the environment."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
        self.printed: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            command,
            env={**inherited, **environment},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        guard = ["sh", "-c", GUARD.format(group=self.process.pid)]
        self.guard = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True)
        streams = enumerate((self.process.stdout, self.process.stderr), start=1)
        self.readers = [threading.Thread(target=self.read, args=stream, daemon=True) for stream in streams]
        for reader in self.readers:
            reader.start()

    def read(self, number: int, stream: IO[bytes]) -> None:
        """Read what the process prints to standard output, 1, or standard error, 2, until it is closed."""
        while chunk := os.read(stream.fileno(), CHUNK):
            self.printed.put((number, chunk))

    def poll(self) -> tuple[int | None, list[tuple[int, bytes]]]:
        """Return the exit code, None while the process runs, and (stream, bytes) of all that it has printed since the
        last call."""
        if self.process is None:
            return None, []
        code = self.process.poll()
        if code is not None:
            for reader in self.readers:
                reader.join(1.0)
        return code, [self.printed.get() for _ in range(self.printed.qsize())]

    def listens(self, host: str, port: int) -> bool:
        """Return True if anything accepts connections at a port of the node, by one of its addresses."""
        with contextlib.suppress(OSError), socket.create_connection((host, port), 1.0):
            return True
        return False

    def request_stop(self) -> None:
        """Ask the process to save and stop."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def kill(self) -> None:
        """End the process and all that it has started, and wait for it."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
