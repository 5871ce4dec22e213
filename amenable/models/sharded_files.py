"""Tensors that are divided among processes, in safetensors files: each process writes its part, and any number of
processes, one too, read what they hold (torch.distributed.checkpoint's plans, and its format and reader for
safetensors).

No process holds a whole tensor. What a process writes and reads is planned from its own part, without messages.
torch.distributed.checkpoint is imported where it is used: most runs have no parts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from amenable.models.tensor_files import write_tensors
from amenable.processes import is_first_copy
from amenable.ranks import rank, world_size

PART = "shard-{:05d}-of-{:05d}.safetensors"
"""file of a process, from 1, of some processes"""


def write_parts(folder: Path, tensors: Mapping[str, DTensor]) -> Path:
    """Write this process's parts of tensors to a file in a folder, without a copy of them; return the file.

    Its header has what torch's HuggingFaceStorageWriter writes: the offsets of each part in its tensor.
    """
    from torch.distributed.checkpoint import DefaultSavePlanner

    planner = DefaultSavePlanner(flatten_state_dict=False)
    planner.set_up_planner(dict(tensors))
    parts, offsets = dict[str, Tensor](), dict[str, Any]()
    for item in planner.create_local_plan().items:
        if item.tensor_data is not None and item.tensor_data.chunk.sizes.numel():
            parts[item.index.fqn] = cast(Tensor, planner.resolve_data(item))
            offsets[item.index.fqn] = {"saved_offsets": list(item.tensor_data.chunk.offsets)}
    file = folder / PART.format(rank() + 1, world_size())
    write_tensors(file, parts, metadata={"DCP_SHARDING_INFO": json.dumps(offsets), "DCP_VERSION": "1.0"})
    return file


def is_writer(tensor: Tensor) -> bool:
    """Return True for a divided tensor of whose part here this process is the first, of those that hold it."""
    return isinstance(tensor, DTensor) and 0 in tensor.device_mesh.mesh and is_first_copy(tensor)


class ShardedFiles:
    """The tensors in the files of a folder, each in one part or in several."""

    def __init__(self, folder: Path):
        """Read the headers of the files."""
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

        self.reader = HuggingFaceStorageReader(str(folder))
        self.metadata = self.reader.read_metadata()
        self.reader.set_up_storage_reader(self.metadata, True)

    def tensors(self) -> dict[str, StoredTensor]:
        """Return the tensors by name, to be read later."""
        return {name: StoredTensor(self, name) for name in self.metadata.state_dict_metadata}

    def described(self, name: str) -> Any:
        """Return torch's description of a tensor: its size, dtype and parts."""
        return self.metadata.state_dict_metadata[name]

    def read(self, name: str, out: Tensor) -> None:
        """Fill `out` with a tensor's numbers; of an `out` that is divided among processes its part here."""
        from torch.distributed.checkpoint import DefaultLoadPlanner

        planner = DefaultLoadPlanner(flatten_state_dict=False)
        planner.set_up_planner({name: out}, self.metadata, True)
        self.reader.read_data(planner.finish_plan(planner.create_local_plan()), planner).wait()


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in files that is read once it is known how it is to be divided."""

    files: ShardedFiles
    name: str

    @property
    def shape(self) -> torch.Size:
        """The shape of the whole tensor."""
        return torch.Size(self.files.described(self.name).size)

    def read_like(self, like: Tensor) -> Tensor:
        """Return the tensor on the device of another one, and divided as that is."""
        out = torch.empty_like(like, dtype=self.files.described(self.name).properties.dtype, requires_grad=False)
        self.files.read(self.name, out)
        return out
