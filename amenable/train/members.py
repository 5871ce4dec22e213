"""Processes of one run: each joins its group, and all have the same code, options, inputs and weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor

import amenable
from amenable import processes
from amenable.errors import InputError
from amenable.ranks import in_group, world_size


def join_processes(stage: str, config: Any) -> None:
    """Join the group of this process. InputError for a stage that does not train a model, another number of processes
    than the options say, or one that does not divide into groups which hold one model each."""
    wanted, group = getattr(config, "processes", None), world_size()
    if in_group() and wanted is None:
        raise InputError(f"'{stage}' runs in one process, and {group} were started", how="start it without torchrun")
    if in_group() and wanted not in (1, group):
        hint = "leave out --processes under torchrun"
        raise InputError(f"processes is {wanted} and {group} were started", how=hint)
    if not in_group() and (wanted or 1) > 1:
        hint = f"from Python start one: amenable {stage} --processes {wanted} ..., or torchrun"
        raise InputError(f"processes is {wanted}, which only the command line can start", how=hint)
    cluster = getattr(getattr(config, "placement", None), "cluster", "none")
    if cluster != "none":
        hint = f"from Python leave it out: amenable {stage} --cluster {cluster} ..."
        raise InputError(f"cluster is {cluster}, which only the command line can start", how=hint)
    tensor_parallel = getattr(config, "tensor_parallel", 1)
    if group % tensor_parallel:
        started = f"{group} process{'es' if group > 1 else ''} {'were' if group > 1 else 'was'} started"
        hint = f"start a multiple, such as --processes {tensor_parallel}"
        raise InputError(f"tensor_parallel is {tensor_parallel} and {started}", how=hint)
    processes.join(tensor_parallel)


def shared_facts(options: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what all processes of a run must have the same: the code, the options as YAML, the hashes of inputs."""
    sources = sorted(Path(amenable.__file__).parent.rglob("*.py"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()
    return {"code": digest, "options": options, **{name: fact["sha256"] for name, fact in inputs.items()}}


def weight_sums(models: Sequence[Mapping[str, Tensor]]) -> list[float]:
    """Return the sum of each matrix or vector of some models' weights, in double precision, without those that the
    processes divide."""
    whole = [value for weights in models for value in weights.values() if not isinstance(value, DTensor)]
    return [float(value.double().sum()) for value in whole]


@processes.data_parallel()
def data_rank() -> int:
    """Return the number of this process among those that have different rows: the same in all that hold one model."""
    return processes.number()


@processes.data_parallel()
def require_shares(elements: int) -> None:
    """Raise InputError where a step has fewer elements than there are processes, or groups of them that hold one
    model."""
    if elements < processes.size():
        problem = f"{processes.size()} {groups()} divide the {elements} row{'s' if elements != 1 else ''} of a step"
        raise InputError(problem, how="start fewer processes, or raise the batch size")


@processes.data_parallel()
def describe_shares(sizes: Sequence[float]) -> str:
    """Return the plan's line on how evenly the processes divide a step of elements of these sizes; "" for one."""
    count = processes.size()
    if count == 1:
        return ""
    largest = processes.imbalance(sizes, count)
    return f"{count} {groups()}; the largest share of the first step's tokens is {largest:.2f} of the mean"


def groups() -> str:
    """Return what divides the rows of a step: processes, or groups of them that hold one model."""
    count = processes.tensor_size()
    return "processes" if count == 1 else f"groups of {count} processes"


def describe_products() -> str:
    """Return the plan's line on products that processes divide; "" where each has them whole."""
    count = processes.tensor_size()
    return f"each product of the layers is divided among {count} processes" if count > 1 else ""
