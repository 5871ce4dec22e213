"""Decoders whose weights are divided among the processes of a group (torch's FSDP2, `fully_shard` of each block).

A process holds a part of each matrix. Where it trains, a block's weights are gathered when it computes and given back
after that, and gradients are summed where they are divided; so each process has to compute as many passes as the others
(train/objective.py). Sampling and scoring take a whole copy of the moment. Checkpoints are written in parts
(models/sharded_files.py), and models a tensor at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from amenable import processes
from amenable.models.decoder import Decoder
from amenable.models.packed_linear import PackedLinear
from amenable.models.sharded_files import StoredTensor

Model = TypeVar("Model", bound=nn.Module)
UNSHARDED = "unsharded"
"""attribute of a decoder whose weights are divided: a copy without weights, in a tuple, so that it is no submodule"""


def shard(module: nn.Module, offload: bool = False) -> None:
    """Divide the weights of a module's decoders among the processes, if there are several; heads stay whole. Call it
    before an optimizer takes the parameters.

    offload: of decoders on a GPU keep the parts, and with them gradients and moments, in the processor's memory; a
    block's weights are copied to the GPU when it computes.
    """
    if processes.size() == 1:
        return
    for decoder in decoders_of(module):
        set_unsharded(decoder)
        pinned = decoder.device.type == "cuda"
        policy = CPUOffloadPolicy(pin_memory=pinned) if offload else OffloadPolicy()
        for block in decoder.layers:
            fully_shard(block, offload_policy=policy)
        fully_shard(decoder, offload_policy=policy)
        for part in decoder.modules():
            if isinstance(part, FSDPModule):  # sums, as the shares of a loss are already of the whole step
                part.set_gradient_divide_factor(1.0)
                part.set_force_sum_reduction_for_comms(True)


@torch.no_grad()
def shard_frozen(module: nn.Module) -> None:
    """Divide the weights of a module's decoders that do not train among the processes, if there are several: `whole`
    gathers them for each use. Packed layers become plain ones."""
    if processes.size() == 1:
        return
    for decoder in decoders_of(module):
        for name, layer in list(decoder.named_modules()):
            if isinstance(layer, PackedLinear):
                decoder.set_submodule(name, layer.unpacked())
        set_unsharded(decoder)
        mesh = init_device_mesh(decoder.token_embedding.weight.device.type, (processes.size(),))
        for part in decoder.modules():
            for name, weight in list(part.named_parameters(recurse=False)):
                own = distribute_tensor(weight.detach(), mesh, [Shard(0)], src_data_rank=None).clone()
                setattr(part, name, nn.Parameter(own, requires_grad=False))


def decoders_of(module: nn.Module) -> list[Decoder]:
    """Return the decoders in a module."""
    return [each for each in module.modules() if isinstance(each, Decoder)]


def set_unsharded(decoder: Decoder) -> None:
    """Give a decoder its UNSHARDED copy."""
    blanks = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in decoder.parameters()}
    setattr(decoder, UNSHARDED, (copy.deepcopy(decoder, dict(blanks)).eval(),))


def is_sharded(module: nn.Module) -> bool:
    """Return True if weights of a module are divided among processes."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def reshard(module: nn.Module) -> None:
    """Give back the weights that a pass without gradients has gathered and left: those outside the blocks."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def whole(model: Model) -> Model:
    """Return a model with whole weights, without gradients: a copy of one whose weights are divided, else the model
    itself. Every process has to call it."""
    if not is_sharded(model):
        return model
    decoders = [decoder for decoder in decoders_of(model) if hasattr(decoder, UNSHARDED)]
    copies: dict[int, Any] = {id(decoder): whole_decoder(decoder) for decoder in decoders}
    if id(model) in copies:
        twin: Model = copies[id(model)]
        return twin
    copies |= {id(parameter): parameter for parameter in model.parameters()}
    return copy.deepcopy(model, copies)


def whole_decoder(decoder: Decoder) -> Decoder:
    """Return a copy of a decoder with the gathered weights, in evaluation mode."""
    (empty,) = getattr(decoder, UNSHARDED)
    values = {name: gathered(parameter).detach() for name, parameter in decoder.named_parameters()}
    filled = {id(p): nn.Parameter(values[name], requires_grad=False) for name, p in empty.named_parameters()}
    return copy.deepcopy(empty, filled)


def gathered(tensor: Tensor) -> Tensor:
    """Return a tensor with the parts of all processes, on the device that they compute on."""
    if not isinstance(tensor, DTensor):
        return tensor
    with torch.inference_mode(False), torch.no_grad():
        return cast(DTensor, tensor.to(tensor.device_mesh.device_type)).full_tensor()


def local_part(parameter: Tensor) -> Tensor:
    """Return the part of a parameter that this process holds, all of one that is whole."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def own_part(tensor: Tensor | StoredTensor, like: Tensor) -> Tensor:
    """Return this process's part of a whole tensor, or of one in files, divided as another is; a whole tensor itself
    where that is whole."""
    if isinstance(tensor, StoredTensor):
        return tensor.read_like(like)
    if not isinstance(like, DTensor) or isinstance(tensor, DTensor):
        return tensor.to(like.device)
    own = distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return own.to(like.device)


@torch.no_grad()
def load_weights(module: nn.Module, state: Mapping[str, Tensor | StoredTensor]) -> None:
    """Load tensors by name, whole, divided or in files, into the parameters of a module, of which a process may hold
    parts."""
    parameters = dict(module.named_parameters())
    for name, value in state.items():
        parameters[name].copy_(own_part(value, parameters[name]))
