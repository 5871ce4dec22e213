"""Decoders whose weights are divided among the processes of a group: torch's FSDP2, `fully_shard` of each block, and
products (models/tensor_parallel.py).

With FSDP a process holds a part of each matrix. Where it trains, a block's weights are gathered when it computes and
given back after that, and gradients are summed where they are divided; so each process has to compute as many passes as
the others (train/objective.py). Sampling and scoring take a whole copy of the moment. Checkpoints are written in parts
(models/sharded_files.py), and models a tensor at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from amenable import processes
from amenable.models.decoder import Decoder
from amenable.models.packed_linear import PackedLinear
from amenable.models.sharded_files import StoredTensor
from amenable.models.tensor_parallel import as_in_files, as_in_memory, divide_products, has_order, mark_orders
from amenable.processes import DATA, TENSOR

Model = TypeVar("Model", bound=nn.Module)
UNSHARDED = "unsharded"
"""attribute of a decoder whose weights are divided: a copy without weights, in a tuple, so that it is no submodule"""


def shard(module: nn.Module, fsdp: bool = True, offload: bool = False) -> None:
    """Divide the weights of a module's decoders among the processes, if there are several; heads stay whole. Call it
    before an optimizer takes the parameters. InputError for a decoder whose products cannot be divided.

    Products are divided among the processes that hold one model, if there are several. fsdp: divide all weights among
    the models. offload: of decoders on a GPU keep the parts, and with them gradients and moments, in the processor's
    memory; a block's weights are copied to the GPU when it computes.
    """
    if processes.size() == 1:
        return
    for decoder in decoders_of(module):
        set_unsharded(decoder)
        mesh = processes.mesh_on(decoder.device.type)
        if mesh is not None:
            divide_products(decoder, mesh[TENSOR])
        if fsdp and (mesh is None or mesh[DATA].size() > 1):
            shard_fully(decoder, offload, None if mesh is None else mesh[DATA])
        mark_orders(decoder)


def shard_fully(decoder: Decoder, offload: bool, mesh: DeviceMesh | None) -> None:
    """Divide the weights of a decoder by FSDP2, among the processes of a mesh of one dimension; None is all."""
    policy = CPUOffloadPolicy(pin_memory=decoder.device.type == "cuda") if offload else OffloadPolicy()
    for part in (*decoder.layers, decoder):
        fully_shard(part, mesh=mesh, offload_policy=policy)
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
    values = {name: copy_of(parameter) for name, parameter in decoder.named_parameters()}
    filled = {id(p): nn.Parameter(values[name], requires_grad=False) for name, p in empty.named_parameters()}
    return copy.deepcopy(empty, filled)


def copy_of(parameter: nn.Parameter) -> Tensor:
    """Return a parameter's numbers of the moment, whole; those of one that does not change are its own."""
    if isinstance(parameter, DTensor) or not parameter.requires_grad:
        return gathered(parameter).detach()
    with torch.inference_mode(False):
        return parameter.detach().clone()


def gathered(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """Return a tensor with the parts of all processes, on the device that they compute on, in the order of files. like:
    the parameter as which it is divided; without one it is a parameter, or in the order of files already."""
    if not isinstance(tensor, DTensor):
        return tensor
    with torch.inference_mode(False), torch.no_grad():
        whole = processes.full_tensor(cast(DTensor, tensor.to(tensor.device_mesh.device_type)))
        return as_in_files(whole, tensor if like is None else like)


@torch.no_grad()
def portable(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a parameter's weights, or numbers that are divided as it is, in parts that any other layout reads; what
    each process has whole, as a whole tensor. Every process that holds a part has to call it."""
    if not isinstance(tensor, DTensor):
        return tensor
    if all(placement.is_replicate() for placement in tensor.placements):
        return tensor.to_local()
    if not has_order(like):
        return tensor.detach()
    placements = [Shard(0)] * tensor.device_mesh.ndim
    own = distribute_tensor(gathered(tensor, like), tensor.device_mesh, placements, src_data_rank=None)
    return own.clone().to(tensor.device)


def own_part(tensor: Tensor | StoredTensor, like: Tensor) -> Tensor:
    """Return this process's part of a whole tensor, or of one in files, divided as a parameter is; a whole tensor
    itself where that is whole."""
    if isinstance(tensor, StoredTensor):
        if not has_order(like):
            return tensor.read_like(like)
        tensor = tensor.read_like(torch.empty(like.shape, device=like.device))
    if not isinstance(like, DTensor) or isinstance(tensor, DTensor):
        return tensor.to(like.device)
    tensor = as_in_memory(tensor.to(like.device), like)
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None).to(like.device)


@torch.no_grad()
def load_weights(module: nn.Module, state: Mapping[str, Tensor | StoredTensor]) -> None:
    """Load tensors by name, whole, divided or in files, into the parameters of a module, of which a process may hold
    parts."""
    parameters = dict(module.named_parameters())
    for name, value in state.items():
        parameters[name].copy_(own_part(value, parameters[name]))
