"""Decoders whose products are divided among processes that compute the same rows (Shoeybi et al., 2019, Megatron-LM;
torch's plans of DTensor).

    qkv, up       by rows: each process has its own heads, and its own numbers of the MLP
    out, down     by columns: the sum over the processes is the layer's output

Embeddings, norms, the unembedding and the residual stream are whole in each process. A matrix that is several published
ones (queries, keys and values; gate and up) is divided one after another: in memory its rows are in order of the
processes that hold them, in files as in a whole model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from amenable.errors import InputError
from amenable.models.config import DecoderConfig
from amenable.models.decoder import Block, Decoder
from amenable.processes import TENSOR, of_part

ORDER = "row_order"
"""attribute of a product that holds several matrices, and of its parameters: the rows of each, and the processes in
whose order they are"""


def require_divisible(config: DecoderConfig, count: int) -> None:
    """Raise InputError unless the products of a decoder divide among `count` processes."""
    if count == 1:
        return
    heads = f"{config.num_heads} heads"
    if config.kv_head_count != config.num_heads:
        heads += f", {config.kv_head_count} of keys and values,"
    remainders = {
        heads: config.num_heads % count or config.kv_head_count % count,
        f"an MLP of {config.mlp_size} numbers": config.mlp_size % count,
    }
    if undivided := [part for part, remainder in remainders.items() if remainder]:
        problem = f"{undivided[0]} cannot be divided among {count} processes"
        raise InputError(problem, how="choose another --tensor-parallel, or divide weights by --optimizer.fsdp")
    if config.qk_norm and config.qk_norm_over == "heads":
        problem = "a norm over all heads of a token needs them in one process"
        raise InputError(problem, how="leave out --tensor-parallel, and divide weights by --optimizer.fsdp")


def share_of(config: DecoderConfig, count: int) -> DecoderConfig:
    """Return the shape of what each of `count` processes computes of a decoder."""
    if count == 1:
        return config
    heads, kv_heads = config.num_heads // count, config.kv_head_count // count
    width, mlp = config.head_size, config.mlp_size // count
    return replace(config, num_heads=heads, num_kv_heads=kv_heads, head_width=width, mlp_width=mlp)


def processes_of_products(decoder: Decoder) -> int:
    """Return the number of processes that divide a decoder's products; 1 where they are whole."""
    meshes = [weight.device_mesh for weight in decoder.parameters() if isinstance(weight, DTensor)]
    sizes = [mesh[TENSOR].size() for mesh in meshes if TENSOR in (mesh.mesh_dim_names or ())]
    return max(sizes, default=1)


@torch.no_grad()
def divide_products(decoder: Decoder, mesh: DeviceMesh) -> None:
    """Divide the products of a decoder's blocks among the processes of a mesh of one dimension; all have the same
    weights before. InputError for a decoder that cannot be divided."""
    require_divisible(decoder.config, mesh.size())
    linear = [layer for block in decoder.layers for layer in products(block)]
    if decoder.num_virtual_tokens or any(type(layer) is not nn.Linear for layer in linear):
        problem = "tensor_parallel divides plain weights, and the model has adapters, virtual tokens or quantized ones"
        raise InputError(problem, how="leave out --tensor-parallel, and divide weights by --optimizer.fsdp")
    for block in decoder.layers:
        divide_block(block, mesh)


def products(block: nn.Module) -> list[nn.Module]:
    """Return the linear layers of a block: two that are divided by rows, and two by columns."""
    assert isinstance(block, Block)
    return [block.attention.qkv, block.mlp.up, block.attention.out, block.mlp.down]


def divide_block(block: nn.Module, mesh: DeviceMesh) -> None:
    """Divide the products of a block by torch's plan."""
    from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module

    assert isinstance(block, Block)
    for matrix, rows in rows_of(block):
        setattr(matrix, ORDER, (rows, mesh.size()))
        for weight in matrix.parameters():
            weight.copy_(by_process(weight, rows, mesh.size()))
    plan: dict[str, ParallelStyle] = {name: ColwiseParallel() for name in ("attention.qkv", "mlp.up")}
    plan |= {name: RowwiseParallel() for name in ("attention.out", "mlp.down")}
    parallelize_module(block, mesh, plan, src_data_rank=None)
    for layer in products(block):
        for name, weight in list(layer.named_parameters()):
            setattr(layer, name, own_copy(weight))
    attention = block.attention
    attention.sizes = [heads // mesh.size() for heads in attention.sizes]
    for norm in (attention.query_norm, attention.key_norm):
        if norm is not None:
            norm.group = mesh.get_group()


def rows_of(block: Block) -> list[tuple[nn.Linear, list[int]]]:
    """Return the products of a whole block that hold several matrices, with the rows of each."""
    attention, mlp = block.attention, block.mlp
    rows = [] if attention.interleaved else [(attention.qkv, [size * attention.head_size for size in attention.sizes])]
    return rows + ([(mlp.up, [mlp.down.in_features] * 2)] if mlp.has_gate else [])


def mark_orders(decoder: Decoder) -> None:
    """Mark the parameters whose rows are in order of the processes, once they are what an optimizer will hold."""
    for layer in decoder.modules():
        if hasattr(layer, ORDER):
            for weight in layer.parameters():
                setattr(weight, ORDER, getattr(layer, ORDER))


def own_copy(weight: nn.Parameter) -> nn.Parameter:
    """Return a divided parameter without the memory of the whole one."""
    assert isinstance(weight, DTensor)
    return nn.Parameter(of_part(weight.to_local().clone(), weight), weight.requires_grad)


def by_process(whole: Tensor, rows: Sequence[int], count: int) -> Tensor:
    """Return the rows of matrices, [sum(rows), ...] one matrix after another, in order of `count` processes, each of
    which has an equal part of every matrix.

    >>> by_process(torch.arange(6), [4, 2], 2).tolist()
    [0, 1, 4, 2, 3, 5]
    """
    matrices = [matrix.chunk(count) for matrix in whole.split(list(rows))]
    return torch.cat([part for parts in zip(*matrices) for part in parts])


def by_matrix(divided: Tensor, rows: Sequence[int], count: int) -> Tensor:
    """Return what `by_process` has ordered as it was, one matrix after another.

    >>> by_matrix(torch.tensor([0, 1, 4, 2, 3, 5]), [4, 2], 2).tolist()
    [0, 1, 2, 3, 4, 5]
    """
    parts = [own.split([size // count for size in rows]) for own in divided.chunk(count)]
    return torch.cat([part for matrix in zip(*parts) for part in matrix])


def has_order(parameter: Tensor) -> bool:
    """Return True for a parameter whose rows in memory are in order of the processes."""
    return hasattr(parameter, ORDER)


def as_in_files(whole: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor, whose rows are as a parameter's in memory, with its rows as in files."""
    return by_matrix(whole, *getattr(like, ORDER)) if hasattr(like, ORDER) else whole


def as_in_memory(whole: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor of a file with its rows as a parameter's in memory."""
    return by_process(whole, *getattr(like, ORDER)) if hasattr(like, ORDER) else whole
