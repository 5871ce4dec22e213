"""Processes that train one model together: the rows of a step are divided among them, the result is that of one.

    amenable sft --processes 2 ...          torchrun --nproc-per-node 8 -m amenable sft ...

Every process reads the same data, draws the same random numbers and takes the same decisions. Sampling and passes over
rows are divided; their numbers are summed or gathered, so that all that follows is the same in each. What is not
divided, each computes. The first alone writes files and to the screen. Sums go over gloo, on CUDA over nccl.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from amenable.errors import InputError
from amenable.ranks import STORE, in_group, is_first, rank, world_size

BUCKET = 1 << 24
"""numbers of a gradient that are summed at once"""
T = TypeVar("T")

ALONE: ContextVar[bool] = ContextVar("alone", default=False)
"""True where a process works for itself: nothing is divided"""


def size() -> int:
    """Return the number of processes that work is divided among; 1 where a process works for itself."""
    return dist.get_world_size() if dist.is_initialized() and not ALONE.get() else 1


def join() -> None:
    """Join the group of this process, if it is in one. InputError where the others are not to be reached."""
    if not in_group() or dist.is_initialized():
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store = os.environ.get(STORE)
    address = f"file://{store}" if store else "env://"
    try:
        dist.init_process_group(backend, rank=rank(), world_size=world_size(), init_method=address)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"the processes cannot reach each other ({reason})", how="free the port, or give torchrun another"
        ) from error
    atexit.register(leave)


def leave() -> None:
    """Leave the group."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Let this process work for itself: what it computes in this context is not divided."""
    token = ALONE.set(True)
    try:
        yield
    finally:
        ALONE.reset(token)


@contextlib.contextmanager
def first_then_others() -> Iterator[None]:
    """Let the first process go through this context, and then the others at once, each for itself."""
    if size() > 1 and not is_first():
        dist.barrier()
    waiting = size() > 1 and is_first()
    with alone():
        yield
    if waiting:
        dist.barrier()


def from_first(function: Callable[[], T]) -> T:
    """Call a function in the first process alone; return its result, of plain JSON, in all. Its InputError is raised in
    all."""

    def own() -> T | None:
        if not is_first() and size() > 1:
            return None
        with alone():
            return function()

    result: Any = in_each(own)[0]
    return cast(T, result)


def in_each(function: Callable[[], T]) -> list[T]:
    """Call a function in every process; return the results, of plain JSON, by rank. An InputError of any is raised in
    all, after all have ended."""
    if size() == 1:
        return [function()]
    try:
        answers = gather({"result": function()})
    except InputError as error:
        gather({"error": [error.what, None if error.where is None else str(error.where), error.how]})
        raise
    for answer in answers:
        if "error" in answer:
            raise InputError(*answer["error"])
    return [answer["result"] for answer in answers]


def any_of(flag: bool) -> bool:
    """Return True if a flag is True in any process."""
    if size() == 1:
        return flag
    number = torch.tensor(int(flag))
    dist.all_reduce(number, dist.ReduceOp.MAX)
    return bool(number)


def gather_vectors(own: Tensor) -> list[Tensor]:
    """Return a vector [N] of every process, by rank; their lengths may differ."""
    if size() == 1:
        return [own]
    lengths = [torch.zeros(1, dtype=torch.long) for _ in range(size())]
    dist.all_gather(lengths, torch.tensor([len(own)]))
    room = max(int(length) for length in lengths)
    parts = [torch.zeros(room, dtype=own.dtype) for _ in lengths]
    dist.all_gather(parts, torch.cat([own, torch.zeros(room - len(own), dtype=own.dtype)]))
    return [part[: int(length)] for part, length in zip(parts, lengths)]


def gather(value: Any) -> list[Any]:
    """Return a value of plain JSON of every process, by rank."""
    if size() == 1:
        return [value]
    own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    return [json.loads(part.numpy().tobytes()) for part in gather_vectors(own)]


def summed(tensor: Tensor) -> Tensor:
    """Add up a tensor of every process, in place, and return it. What is 0 in all but one stays exact."""
    if size() > 1:
        dist.all_reduce(tensor)
    return tensor


def summed_numbers(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return the sums of numbers by name, over the processes that have one."""
    if size() == 1:
        return dict(numbers)
    total: dict[str, float] = {}
    for own in gather(dict(numbers)):
        for name, value in own.items():
            total[name] = total.get(name, 0.0) + value
    return total


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Add up the gradients of all processes, in place. A parameter without a gradient in every process stays so; what
    is divided among the processes has its sum already."""
    if size() == 1:
        return
    for bucket in buckets(with_gradients([p for p in parameters if not isinstance(p, DTensor)])):
        grads = [parameter.grad for parameter in bucket if parameter.grad is not None]
        flat = summed(torch.cat([grad.reshape(-1) for grad in grads]))
        for grad, part in zip(grads, flat.split([grad.numel() for grad in grads])):
            grad.copy_(part.view_as(grad))


def with_gradients(parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """Return the parameters that have a gradient in any process; where this one has none, it gets zeros."""
    flags = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.uint8)
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    chosen = [parameter for parameter, flag in zip(parameters, flags.tolist()) if flag]
    for parameter in chosen:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return chosen


def buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Yield neighbouring parameters of one type and device, BUCKET numbers or one parameter at a time."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        if bucket and (
            (parameter.dtype, parameter.device) != (bucket[0].dtype, bucket[0].device)
            or sum(each.numel() for each in bucket) + parameter.numel() > BUCKET
        ):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def gradient_norm(parameters: Sequence[nn.Parameter]) -> float:
    """Return the Euclidean norm of the gradients, summed over the processes; they stay as they are."""
    if size() == 1:
        return float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    divided = [p.grad.full_tensor() for p in parameters if isinstance(p.grad, DTensor)]
    plain = with_gradients([p for p in parameters if not isinstance(p, DTensor)])
    sums = [*divided, *(summed(p.grad.clone()) for p in plain if p.grad is not None)]
    return math.sqrt(sum(float(grad.double().square().sum()) for grad in sums))


def divide(sizes: Sequence[float], count: int) -> list[list[int]]:
    """Divide things among `count` processes so that their sums are about equal: the largest first, each to the process
    that has least. Returns the indices of each process, in order.

    >>> divide([5, 1, 1, 1, 4], 2)
    [[0, 3], [1, 2, 4]]
    """
    shares: list[list[int]] = [[] for _ in range(count)]
    loads = [0.0] * count
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        least = loads.index(min(loads))
        shares[least].append(index)
        loads[least] += sizes[index]
    return [sorted(share) for share in shares]


def own_share(sizes: Sequence[float]) -> list[int]:
    """Return the indices of the things that are this process's share, in order: all in a process alone."""
    return list(range(len(sizes))) if size() == 1 else divide(sizes, size())[rank()]


def imbalance(sizes: Sequence[float], count: int) -> float:
    """Return the largest share of `count` processes as a multiple of the mean: others wait for it in every step."""
    loads = [sum(sizes[i] for i in share) for share in divide(sizes, count)]
    return max(loads) * count / max(sum(loads), 1e-9)


def require_same(facts: Mapping[str, Any], hint: str) -> None:
    """Raise InputError unless every process has the same facts; the first that differs is named."""
    for number, others in enumerate(gather(dict(facts))):
        for name, value in facts.items():
            if others[name] != value:
                pair = f"{short(others[name])} in process {number} and {short(value)} in process {rank()}"
                raise InputError(f"the processes have different {name}: {pair}", how=hint)


def short(value: Any) -> str:
    """Return a fact as a word or two: of a long one the beginning."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
