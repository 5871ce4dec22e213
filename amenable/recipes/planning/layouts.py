"""Layouts of a stage on a cluster: how data, weights and tensors are divided, and where completions are sampled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from amenable.models.config import DecoderConfig
from amenable.models.tensor_parallel import share_of
from amenable.recipes.planning.gpus import Cluster
from amenable.train import memory

TENSOR_SIZES = (1, 2, 4, 8)


@dataclass(frozen=True)
class ParallelLayout:
    """Division of a training group of replicas x shards x tensor GPUs, and of the sampler beside or on it."""

    replicas: int = 1
    """copies of the weights, each with other rows"""
    shards: int = 1
    """GPUs that a copy's weights, gradients and moments are divided among, each with other rows (FSDP2)"""
    tensor: int = 1
    """GPUs that each product is divided among (tensor parallel)"""
    checkpointed: bool = False
    """True with --checkpoint-activations"""
    rank: int = 0
    """of adapters; 0 trains the weights"""
    sampler: int = 0
    """GPUs that only sample; 0 samples on the GPUs that train"""
    sampler_tensor: int = 1
    """GPUs of one copy of the sampler"""

    @property
    def trainers(self) -> int:
        return self.replicas * self.shards * self.tensor

    @property
    def ranks(self) -> int:
        """Groups of GPUs with rows of their own."""
        return self.replicas * self.shards

    @property
    def pieces(self) -> int:
        """GPUs that the states of a copy are divided among."""
        return self.shards * self.tensor

    def division(self) -> str:
        """Return the division of the training group in words."""
        if self.shards == 1:
            parts = [f"data parallel {self.replicas}"] if self.replicas > 1 or self.tensor == 1 else []
        elif self.replicas == 1:
            parts = [f"FSDP {self.shards}"]
        else:
            parts = [f"hybrid FSDP {self.replicas} x {self.shards}"]
        return " x ".join(parts + ([f"tensor {self.tensor}"] if self.tensor > 1 else []))

    def sampling(self, online: bool) -> str:
        """Return where completions are sampled; empty for a stage that samples none."""
        if not online:
            return ""
        tensor = f", tensor {self.sampler_tensor}" if self.sampler_tensor > 1 else ""
        return (f"{self.sampler} more" if self.sampler else "the same") + tensor


def layouts(cluster: Cluster, shape: DecoderConfig, ranks: tuple[int, ...], online: bool) -> Iterator[ParallelLayout]:
    """Yield the layouts that the shape and the cluster allow; `ranks`: of adapters, 0 for all weights.

    Tensor parallel groups lie within a node. FSDP divides a copy among all GPUs, hybrid FSDP among those of a node.
    """
    for sampler, tensor in product(sampler_counts(cluster) if online else (0,), tensor_sizes(cluster, shape)):
        trainers = cluster.count - sampler
        if trainers % tensor:
            continue
        data, in_node = trainers // tensor, max(1, cluster.per_node // tensor)
        divisions = {(data, 1), (1, data)}
        if data > in_node and data % in_node == 0:
            divisions.add((data // in_node, in_node))
        sizes = tensor_sizes(cluster, shape) if online else (1,)
        for (replicas, shards), checkpointed, rank, size in product(sorted(divisions), (False, True), ranks, sizes):
            if (sampler or trainers) % size == 0:
                yield ParallelLayout(replicas, shards, tensor, checkpointed, rank, sampler, size)


def sampler_counts(cluster: Cluster) -> list[int]:
    """Return numbers of GPUs that may only sample: none, and an eighth, a quarter, half and three quarters of all."""
    counts = {cluster.count * share // 8 for share in (1, 2, 4, 6)}
    return sorted({0, *(count for count in counts if 0 < count < cluster.count)})


def tensor_sizes(cluster: Cluster, shape: DecoderConfig) -> list[int]:
    """Return the numbers of GPUs that heads, MLP and a node can be divided among."""
    parts = (shape.num_heads, shape.kv_head_count, shape.mlp_size, cluster.per_node)
    return [size for size in TENSOR_SIZES if not any(part % size for part in parts)]


def tensor_part(shape: DecoderConfig, tensor: int) -> DecoderConfig:
    """Return the shape of one GPU's part: fewer heads, a narrower MLP and vocabulary, the same width between layers
    (Shoeybi et al., 2019, section 3)."""
    return replace(share_of(shape, tensor), vocab_size=-(-shape.vocab_size // tensor))


def local_model(model: memory.Model, layout: ParallelLayout) -> memory.Model:
    """Return the sizes of one GPU's part of a model. Sharded weights are cast as they are gathered: no cast is held."""
    pieces = layout.pieces
    return replace(
        model,
        shape=tensor_part(model.shape, layout.tensor),
        parameters=model.parameters // pieces,
        bytes=model.bytes // pieces,
        matrices=0 if layout.shards > 1 else model.matrices // layout.tensor,
        training=model.training // pieces,
        moments=model.moments // pieces,
        checkpointed=layout.checkpointed,
    )
