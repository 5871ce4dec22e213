"""Nodes of a cluster by Ray: resources that are reserved for a run, and actors there that hold its processes.

Without an address Ray is started on this machine and ends with the run. Its ports take no request without a token that
is drawn for the run (Ray opens them on all interfaces), and it has no dashboard.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from amenable.cluster.node_process import NodeProcess
from amenable.cluster.placement import KILLED, Lost, Member, Node
from amenable.cluster.resources import Share
from amenable.errors import InputError
from amenable.http_client import require_listener

RESERVE_SECONDS = 60.0
"""seconds in which a cluster has to have room for a run"""
KILL_SECONDS = 10.0
"""seconds in which an actor has to end its process"""
POLL = 0.05
"""seconds between two looks at an actor that ends"""
START = "give host:port of a cluster, which `ray start --head` starts"
ROOM = "lower what --cluster-resources names, or wait until the cluster is free"
LOCAL = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}
"""variables of the environment of a Ray that is started here"""


def require_ray() -> None:
    """Raise InputError unless Ray is installed."""
    if importlib.util.find_spec("ray") is None:
        raise InputError("--cluster ray needs Ray", how="pip install 'amenable[ray]'")


class RayProcess(NodeProcess):
    """Actor of Ray that runs one process."""

    def node(self) -> tuple[str, str]:
        """Return the name and the address of the node."""
        import ray

        return ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()


class RayPlacement:
    """Resources of Ray that a run has reserved: the bundles of its trainers and servers."""

    def __init__(self, ray: Any, group: Any, local: bool):
        self.ray, self.group, self.local = ray, group, local

    def spawn(self, bundle: int, share: Share) -> Member:
        """Start an actor in a bundle, and return the process that it will hold."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        strategy = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=bundle)
        options = {"num_cpus": share.cpus, "num_gpus": share.gpus, "max_restarts": 0}
        actor = self.ray.remote(RayProcess).options(scheduling_strategy=strategy, **options).remote()
        return RayMember(self.ray, actor)


class RayMember:
    """A process that an actor of Ray holds. Once the actor is lost, the process counts as killed."""

    def __init__(self, ray: Any, actor: Any):
        self.ray, self.actor = ray, actor
        self.returncode: int | None = None
        self.unread: list[tuple[int, bytes]] = []

    def call(self, method: str, *arguments: Any, seconds: float | None = None) -> Any:
        """Return the result of a method of the actor."""
        try:
            return self.ray.get(getattr(self.actor, method).remote(*arguments), timeout=seconds)
        except self.ray.exceptions.RayActorError as error:
            raise Lost from error

    def node(self) -> Node:
        """Return the node that the actor is on. InputError where none has room for it."""
        try:
            return Node(*self.call("node", seconds=RESERVE_SECONDS))
        except self.ray.exceptions.GetTimeoutError:
            raise InputError(f"no node has room for a process within {RESERVE_SECONDS:.0f} s", how=ROOM) from None

    def free_port(self) -> int:
        """Return a port of the node that is free now."""
        return self.call("free_port")

    def start(self, command: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
        """Start a command in a folder of the node."""
        self.call("start", list(command), dict(environment), folder)

    def listens(self, host: str, port: int) -> bool:
        """Return True if the node accepts connections at a port."""
        return self.call("listens", host, port)

    def poll(self) -> int | None:
        """Return the exit code of the process, None while it runs."""
        if self.returncode is None:
            try:
                self.returncode, printed = self.call("poll")
                self.unread += printed
            except Lost:
                self.returncode = KILLED
        return self.returncode

    def printed(self) -> list[tuple[int, bytes]]:
        """Return (stream, bytes) of what the process had printed up to the last `poll`, once."""
        printed, self.unread = self.unread, []
        return printed

    def request_stop(self) -> None:
        """Ask the process to save and stop."""
        self.actor.request_stop.remote()

    def kill(self) -> None:
        """End the process, and then the actor."""
        self.poll()
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.get(self.actor.kill.remote(), timeout=KILL_SECONDS)
        self.ray.kill(self.actor)

    def wait(self) -> None:
        """Wait until the actor has ended."""
        while self.poll() is None:
            time.sleep(POLL)


@contextlib.contextmanager
def ray_placement(bundles: Sequence[Mapping[str, float]], address: str) -> Iterator[RayPlacement]:
    """Connect to the Ray of an address, or start it here, and reserve bundles of resources while this context lasts.
    InputError where there is no such cluster, or no room in it."""
    require_ray()
    if address not in ("", "auto"):
        require_cluster(address)
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        if not address:
            for name, value in {**LOCAL, "RAY_AUTH_TOKEN": secrets.token_hex(32)}.items():
                os.environ.setdefault(name, value)  # read when Ray is imported
        import ray

        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        options |= {"address": address} if address else {"include_dashboard": False, "_temp_dir": folder}
        try:
            ray.init(**options)
            yield RayPlacement(ray, reserved(ray, bundles), local=not address)
        except ConnectionError as error:
            raise InputError(f"no Ray is there ({' '.join(str(error).split())[:200]})", address, START) from None
        finally:
            ray.shutdown()


def require_cluster(address: str) -> None:
    """Require that anything listens at an address of a cluster: Ray itself would wait for it for minutes."""
    try:
        require_listener(f"http://{address}")
    except InputError as error:
        raise InputError(error.what, address, START) from None


def reserved(ray: Any, bundles: Sequence[Mapping[str, float]]) -> Any:
    """Return a placement group of bundles of resources. InputError where the cluster has not these."""
    from ray.util.placement_group import placement_group

    needed = {name: sum(bundle.get(name, 0.0) for bundle in bundles) for name in ("CPU", "GPU")}
    group = placement_group([dict(bundle) for bundle in bundles], strategy="PACK")
    try:
        ray.get(group.ready(), timeout=RESERVE_SECONDS)
    except ray.exceptions.GetTimeoutError:
        total = ray.cluster_resources()
        present = ", ".join(f"{total.get(name, 0):g} {name}s" for name in needed)
        wanted = ", ".join(f"{amount:g} {name}s" for name, amount in needed.items())
        raise InputError(f"the run needs {wanted}, and Ray has {present} for all", how=ROOM) from None
    return group
