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
    """Join the group of this process. InputError for a stage that does not train a model, or another number of
    processes than the options say."""
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
    processes.join()


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


def require_shares(elements: int) -> None:
    """Raise InputError where a step has fewer elements than there are processes."""
    if elements < world_size():
        problem = f"{world_size()} processes divide the {elements} row{'s' if elements != 1 else ''} of a step"
        raise InputError(problem, how="start fewer processes, or raise the batch size")


def describe_shares(sizes: Sequence[float]) -> str:
    """Return the plan's line on how evenly the processes divide a step of elements of these sizes; "" for one."""
    if processes.size() == 1:
        return ""
    largest = processes.imbalance(sizes, processes.size())
    return f"{processes.size()} processes; the largest share of the first step's tokens is {largest:.2f} of the mean"
