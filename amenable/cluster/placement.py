"""Nodes of a cluster as a run sees them: a member is a process that was placed on one of them."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from amenable import launcher
from amenable.cluster.resources import Share

KILLED = -int(getattr(signal, "SIGKILL", 9))
"""exit code of a process that was lost with its node or actor"""


class Node(NamedTuple):
    """Node of a cluster: its name, which no other has, and its address."""

    name: str
    host: str


class Lost(Exception):
    """The actor, or the node, of a process has ended."""


class Member(launcher.Member, Protocol):
    """Process on a node. returncode: None until `poll` has noticed its end. Methods that need its actor raise Lost
    where that has ended; `poll` counts the process as killed then."""

    def node(self) -> Node:
        """Return the node that it is on."""
        ...

    def free_port(self) -> int:
        """Return a port of the node that is free now."""
        ...

    def start(self, command: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
        """Start a command in a folder of the node, with further variables of the environment."""
        ...

    def listens(self, host: str, port: int) -> bool:
        """Return True if the node accepts connections at a port."""
        ...

    def printed(self) -> list[tuple[int, bytes]]:
        """Return (stream, bytes) of what it had printed up to the last `poll`, once."""
        ...

    def request_stop(self) -> None:
        """Ask it to save and stop."""
        ...


class Placement(Protocol):
    """Resources that are reserved for a run, in bundles of one node each. local: all of them are of this machine."""

    local: bool

    def spawn(self, bundle: int, share: Share) -> Member:
        """Return a process to be started in a bundle, with a share of its resources."""
        ...
