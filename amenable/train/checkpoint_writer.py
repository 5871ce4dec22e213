"""Writer of a run's checkpoints: at once, or from a copy of the state in a thread while training goes on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from amenable import processes
from amenable.models.sharded_files import is_writer
from amenable.ranks import is_first
from amenable.train import checkpoint
from amenable.train.checkpoint import Snapshot


class CheckpointWriter:
    """Writes checkpoints of a run, one at a time; of several processes each has one.

    in_thread: `save` returns once the state is copied; the next `save` waits for the write before it.
    """

    def __init__(self, folder: Path, keep: int, in_thread: bool = False):
        self.folder, self.keep, self.in_thread = folder, keep, in_thread
        self.pending: tuple[int, Future[dict[str, Any]]] | None = None
        """step of a checkpoint that a thread writes, and the thread's result"""

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a state as the checkpoint of a step, or begin to. InputError where this or the write before failed."""
        self.wait()
        snapshot = Snapshot.of(step, state)
        checkpoint.prepare(self.folder, step)
        if not self.in_thread:
            checkpoint.commit(self.folder, step, self.keep, partial(checkpoint.write, self.folder, snapshot))
            return
        executor = ThreadPoolExecutor(1, "checkpoint")
        self.pending = step, executor.submit(checkpoint.write, self.folder, copied(snapshot))
        executor.shutdown(wait=False)

    def poll(self) -> None:
        """Give the checkpoint that threads write its name, if all processes have written it."""
        if self.pending is not None and not processes.any_of(not self.pending[1].done()):
            self.wait()

    def wait(self) -> None:
        """Wait until the checkpoint that threads write is done. InputError where the write failed in any process."""
        if self.pending is not None:
            (step, written), self.pending = self.pending, None
            checkpoint.commit(self.folder, step, self.keep, written.result)


def copied(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot with copies, in the processor's memory, of the tensors that this process writes."""
    own = {name: value for name, value in snapshot.tensors.items() if is_first() or is_writer(value)}
    return replace(snapshot, tensors={name: copy_of(value) for name, value in own.items()})


def copy_of(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor, or of the part of it that this process holds, in the processor's memory."""
    return tensor.clone() if tensor.device.type == "cpu" else tensor.cpu()
