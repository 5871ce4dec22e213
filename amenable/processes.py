"""Processes that train one model together: the rows of a step are divided among them, the result is that of one.

    amenable sft --processes 2 ...          torchrun --nproc-per-node 8 -m amenable sft ...

Every process reads the same data, draws the same random numbers and takes the same decisions. Sampling and passes over
rows are divided; their numbers are summed or gathered, so that all that follows is the same in each. What is not
divided, each computes. The first alone writes files and to the screen. Sums go over gloo, on CUDA over nccl.

Where the products of a model are divided too (tensor parallel, models/tensor_parallel.py), some neighbouring processes
hold one model and train on the same rows: they count as one in the context `data_parallel`.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from amenable.errors import InputError
from amenable.ranks import STORE, in_group, is_first, rank, world_size

BUCKET = 1 << 24
"""numbers of a gradient that are summed at once"""
T = TypeVar("T")

DATA, TENSOR = "data", "tensor"
"""dimensions of the mesh of processes: of those that have different rows, and of those that hold parts of one model"""
MESH: ContextVar[DeviceMesh | None] = ContextVar("mesh", default=None)
"""the processes as data x tensor, where they divide products; else None"""
DIVIDES: ContextVar[Literal["all", "data", "none"]] = ContextVar("divides", default="all")
"""which processes divide work: all, one of each that hold one model, or none where a process works for itself"""


def size() -> int:
    """Return the number of processes that work is divided among; 1 where a process works for itself."""
    return dist.get_world_size(group()) if dist.is_initialized() and DIVIDES.get() != "none" else 1


def number() -> int:
    """Return the number of this process among those that work is divided among, from 0."""
    return dist.get_rank(group()) if size() > 1 else 0


def group() -> ProcessGroup | None:
    """Return the processes that work is divided among; None is all."""
    mesh = MESH.get()
    return None if mesh is None or DIVIDES.get() != "data" else mesh.get_group(DATA)


def tensor_size() -> int:
    """Return the number of processes that hold the parts of one model's products; 1 in a process for itself."""
    mesh = MESH.get()
    return 1 if mesh is None or DIVIDES.get() == "none" else mesh[TENSOR].size()


def mesh_on(device: str) -> DeviceMesh | None:
    """Return the processes as data x tensor, for tensors on a kind of device; None where they divide no products."""
    mesh = MESH.get()
    if mesh is None or mesh.device_type == device:
        return mesh
    groups = [mesh.get_group(name) for name in (DATA, TENSOR)]
    return DeviceMesh.from_group(groups, device, mesh=mesh.mesh, mesh_dim_names=(DATA, TENSOR))


def join(tensor_parallel: int = 1) -> None:
    """Join the group of this process, if it is in one. InputError where the others are not to be reached.

    tensor_parallel: number of neighbouring processes that hold one model; it divides that of all.
    """
    if not in_group():
        return
    if not dist.is_initialized():
        initialize()
    if tensor_parallel != tensor_size():
        shape = world_size() // tensor_parallel, tensor_parallel
        divided = tensor_parallel > 1
        MESH.set(init_device_mesh("cpu", shape, mesh_dim_names=(DATA, TENSOR)) if divided else None)


def initialize() -> None:
    """Start the group of this process. InputError where the others are not to be reached."""
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
    MESH.set(None)
    if dist.is_initialized():
        dist.destroy_process_group()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Let this process work for itself: what it computes in this context is not divided."""
    with dividing("none"):
        yield


@contextlib.contextmanager
def data_parallel() -> Iterator[None]:
    """Let processes that hold one model count as one, in this context: they have the same rows."""
    with dividing("none" if DIVIDES.get() == "none" else "data"):
        yield


@contextlib.contextmanager
def dividing(members: Literal["all", "data", "none"]) -> Iterator[None]:
    """Let these processes divide work, in this context."""
    token = DIVIDES.set(members)
    try:
        yield
    finally:
        DIVIDES.reset(token)


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
    dist.all_reduce(number, dist.ReduceOp.MAX, group())
    return bool(number)


def gather_vectors(own: Tensor) -> list[Tensor]:
    """Return a vector [N] of every process, by rank; their lengths may differ."""
    if size() == 1:
        return [own]
    lengths = [torch.zeros(1, dtype=torch.long) for _ in range(size())]
    dist.all_gather(lengths, torch.tensor([len(own)]), group())
    room = max(int(length) for length in lengths)
    parts = [torch.zeros(room, dtype=own.dtype) for _ in lengths]
    dist.all_gather(parts, torch.cat([own, torch.zeros(room - len(own), dtype=own.dtype)]), group())
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
        dist.all_reduce(tensor, group=group())
    return tensor


def summed_numbers(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return the sums of numbers by name, over the processes that have one: where those that hold one model count as
    one, over the first of each, so that all go on from the same bits."""
    if size() * tensor_size() == 1:
        return dict(numbers)
    every = tensor_size() if DIVIDES.get() == "data" else 1
    total: dict[str, float] = {}
    with dividing("all"):
        parts = gather(dict(numbers))[::every]
    for own in parts:
        for name, value in own.items():
            total[name] = total.get(name, 0.0) + value
    return total


@data_parallel()
def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Add up the gradients of all processes, in place. A parameter without a gradient in every process stays so; what
    FSDP divides has its sum already. Processes that hold one model have the same rows, which count once; of what each
    has whole all take the gradient of the first, as a device may round it in another way."""
    if size() > 1:
        for bucket in buckets(with_gradients([p for p in parameters if not is_summed(p)])):
            reduce_gradients(bucket, group())
    mesh = MESH.get()
    if mesh is not None and tensor_size() > 1:
        copies = [p for p in parameters if p.grad is not None and not is_product(p)]
        if mesh[TENSOR].get_local_rank() > 0:
            for parameter in copies:
                local_part(cast(Tensor, parameter.grad)).zero_()
        for bucket in buckets(copies):
            reduce_gradients(bucket, mesh.get_group(TENSOR))


def reduce_gradients(parameters: Sequence[nn.Parameter], among: ProcessGroup | None) -> None:
    """Add up gradients, or the parts of them that this process holds, in place; `among` None is all processes."""
    grads = [local_part(parameter.grad) for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([grad.reshape(-1) for grad in grads])
    dist.all_reduce(flat, group=among)
    for grad, part in zip(grads, flat.split([grad.numel() for grad in grads])):
        grad.copy_(part.view_as(grad))


def is_product(parameter: Tensor) -> bool:
    """Return True for a parameter of which the processes that hold one model have different parts."""
    if not isinstance(parameter, DTensor) or TENSOR not in (parameter.device_mesh.mesh_dim_names or ()):
        return False
    return not parameter.placements[-1].is_replicate()


def is_summed(parameter: Tensor) -> bool:
    """Return True for a parameter that FSDP divides: its backward pass adds up gradients."""
    return isinstance(parameter, DTensor) and parameter.device_mesh.mesh_dim_names != (TENSOR,)


def local_part(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds, all of one that is whole; its memory is the tensor's."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def with_gradients(parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """Return the parameters that have a gradient in any process; where this one has none, it gets zeros."""
    flags = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.uint8)
    dist.all_reduce(flags, dist.ReduceOp.MAX, group())
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
            or sum(local_part(each).numel() for each in bucket) + local_part(parameter).numel() > BUCKET
        ):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


@data_parallel()
def gradient_norm(parameters: Sequence[nn.Parameter]) -> float:
    """Return the Euclidean norm of the gradients, summed over the processes; they stay as they are."""
    if size() * tensor_size() == 1:
        return float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    having = [p for p in parameters if is_summed(p) and p.grad is not None]
    having += with_gradients([p for p in parameters if not is_summed(p)])
    return math.sqrt(sum(float(summed_gradient(p).double().square().sum()) for p in having))


def summed_gradient(parameter: nn.Parameter) -> Tensor:
    """Return a parameter's whole gradient, of all processes; it stays as it is."""
    grad = cast(Tensor, parameter.grad)
    if is_summed(parameter):
        return full_tensor(cast(DTensor, grad))
    own = summed(local_part(grad).clone())
    return full_tensor(of_part(own, grad)) if isinstance(grad, DTensor) else own


def full_tensor(tensor: DTensor) -> Tensor:
    """Return the whole of a tensor that processes divide. Of one that both FSDP and products divide the parts are put
    together among those that have different rows first, as FSDP has divided them last."""
    if len(tensor.placements) > 1 and type(tensor.placements[0]) is not Shard:
        tensor = tensor.redistribute(placements=[Replicate(), *tensor.placements[1:]])
    return tensor.full_tensor()


def total_norm(tensors: Sequence[Tensor]) -> float:
    """Return the Euclidean norm of tensors which are all whole, or divided among the same processes; each of these has
    to call it."""
    if len(tensors) == 1 and not isinstance(tensors[0], DTensor):
        return float(torch.linalg.vector_norm(tensors[0]))
    norm = nn.utils.get_total_norm([local_part(tensor) for tensor in tensors if is_first_copy(tensor)])
    if not isinstance(tensors[0], DTensor):
        return float(norm)
    square = norm.to(tensors[0].to_local().device).square()
    for group in tensors[0].device_mesh.get_all_groups():
        dist.all_reduce(square, group=group)
    return float(square.sqrt())


def is_first_copy(tensor: Tensor) -> bool:
    """Return False for a part of a tensor that another process, of those that it is divided among, counts."""
    if not isinstance(tensor, DTensor):
        return True
    numbers = zip(tensor.placements, tensor.device_mesh.get_coordinate() or ())
    return not any(number for placement, number in numbers if placement.is_replicate())


def of_part(own: Tensor, like: DTensor) -> DTensor:
    """Return the tensor of which this process has the part `own`, divided as another of its shape is."""
    return DTensor.from_local(own, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())


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
    return list(range(len(sizes))) if size() == 1 else divide(sizes, size())[number()]


def imbalance(sizes: Sequence[float], count: int) -> float:
    """Return the largest share of `count` processes as a multiple of the mean: others wait for it in every step."""
    loads = [sum(sizes[i] for i in share) for share in divide(sizes, count)]
    return max(loads) * count / max(sum(loads), 1e-9)


def require_same(facts: Mapping[str, Any], hint: str) -> None:
    """Raise InputError unless every process has the same facts; the first that differs is named."""
    for process, others in enumerate(gather(dict(facts))):
        for name, value in facts.items():
            if others[name] != value:
                pair = f"{short(others[name])} in process {process} and {short(value)} in process {rank()}"
                raise InputError(f"the processes have different {name}: {pair}", how=hint)


def short(value: Any) -> str:
    """Return a fact as a word or two: of a long one the beginning."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
