"""Peak memory of one GPU under a layout, by parts: what the states of the models take, and the largest phase of a step.

    states = (weights + moments) / (shards x tensor)
    peak   = states + max(training, scoring, sampling)

Activations are those of amenable/train/memory.py for one GPU's part of the model; states by ZeRO (Rajbhandari et al.,
2020, section 5: 4 + 4 + 8 bytes of each weight that trains, here all in fp32, divided among the shards).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from amenable.models.config import DecoderConfig
from amenable.recipes.planning.gpus import Cluster
from amenable.recipes.planning.layouts import ParallelLayout, local_model
from amenable.recipes.planning.workload import CPU, CUDA, Role, StepWork, matrix_numbers, whole_model
from amenable.train import memory
from amenable.train.memory import BF16, FP32
from amenable.train.passes import Pass
from amenable.train.runtime import KERNELS

SAMPLER_WORKSPACE = 2 << 30
"""bytes of a sampler's activations and CUDA graphs: what vLLM takes beside weights and cache, about"""
SAMPLER_ROWS = 256
"""rows that a copy of the sampler decodes at once: max_num_seqs of vLLM"""
LEAST_ROWS = 8
"""rows of a copy of the sampler below which a layout does not fit"""
GATHERED = 2
"""layers whose weights are gathered at once: the one that computes and the next (prefetched)"""


@dataclass(frozen=True)
class MemoryParts:
    """Bytes of one GPU at its peak, by parts."""

    weights: float = 0.0
    """of models that train, adapters included"""
    frozen: float = 0.0
    """weights of models that are only read"""
    moments: float = 0.0
    gradients: float = 0.0
    activations: float = 0.0
    """with the head's logits and the working memory of a layer"""
    gathered: float = 0.0
    """buffers of all-gather and reduce-scatter"""
    sampler: float = 0.0
    """a sampler's own weights and workspace"""
    cache: float = 0.0
    """keys and values of the rows that are decoded at once"""
    overhead: float = 0.0
    """fragments and libraries on a processor"""

    @property
    def total(self) -> float:
        return sum(getattr(self, part) for part in PARTS)


PARTS = {
    "weights": "weights that train",
    "frozen": "frozen weights",
    "moments": "moments",
    "gradients": "gradients",
    "activations": "activations",
    "gathered": "communication buffers",
    "sampler": "sampler's weights and workspace",
    "cache": "KV cache",
    "overhead": "fragments, libraries",
}
"""parts -> their names in tables"""


def phases_of(
    work: StepWork, models: Sequence[Role], layout: ParallelLayout, cluster: Cluster, step: Pass
) -> dict[str, MemoryParts]:
    """Return the memory of a GPU that trains, by phases of a step: training, scoring (passes without gradients), and
    sampling where it samples too. `step` is a pass of one rank; a model that takes more counts in each."""
    runtime = CPU if cluster.gpu.name == "cpu" else CUDA
    parts = [(role, local_model(role.model, layout)) for role in models]
    trained = [part for role, part in parts if role.trains]
    held = MemoryParts(
        weights=sum(part.bytes for part in trained),
        frozen=sum(part.bytes for role, part in parts if not role.trains),
        moments=FP32 * sum(part.moments for part in trained),
    )
    gradients = FP32 * sum(part.training for part in trained)
    phases: dict[str, list[MemoryParts]] = {"training": [], "scoring": []}
    for role, part in parts:
        if role.trains:
            activations = memory.training_bytes(part, step, runtime) - step.accumulates * FP32 * part.training
            buffers = gathered_bytes(role.model, layout, trains=True)
            before = gradients if step.accumulates else gradients - FP32 * part.training
            phases["training"].append(replace(held, gradients=before, activations=activations, gathered=buffers))
        if role.inferences:
            inference = memory.inference_bytes(part, step, runtime)
            phases["scoring"].append(replace(held, activations=inference, gathered=gathered_bytes(role.model, layout)))
    if work.traits.scored and not layout.sampler:
        phases["sampling"] = [sampling(work, models[0].model.shape, layout, cluster, held)]
    largest = {name: max(some, key=lambda phase: phase.total) for name, some in phases.items() if some}
    if runtime is CPU:
        largest = {name: with_heap(phase, held) for name, phase in largest.items()}
    return largest


def with_heap(phase: MemoryParts, held: MemoryParts) -> MemoryParts:
    """Return the memory of a phase on a processor after many steps, with its libraries and what fragments."""
    whole = memory.peak_bytes(round(held.total), round(phase.total - held.total), KERNELS, CPU)
    return replace(phase, overhead=whole - phase.total)


def gathered_bytes(model: memory.Model, layout: ParallelLayout, trains: bool = False) -> float:
    """Return the buffers of FSDP2: the weights of two layers and of the embeddings in bf16, and where the model trains
    the gradients of a layer before they are divided, in fp32 (`fully_shard` of each block, embeddings in the root)."""
    if layout.shards == 1:
        return 0.0
    layer, rest = layer_numbers(model.shape)
    share = model.training / whole_model(model.shape).parameters if trains else 0.0
    return (BF16 * (GATHERED * layer + rest) + FP32 * share * layer) / layout.tensor


def layer_numbers(shape: DecoderConfig) -> tuple[float, float]:
    """Return the weights of one layer, and those of embeddings and unembedding."""
    embeddings = shape.vocab_size * shape.hidden_size * (1 if shape.tie_embeddings else 2)
    return matrix_numbers(shape)[0] / shape.num_layers, embeddings


def sampler_weights(shape: DecoderConfig, tensor: int) -> float:
    """Return bytes of a sampler's weights in bf16 on one GPU of a copy."""
    layer, rest = layer_numbers(shape)
    return BF16 * (layer * shape.num_layers + rest) / tensor


def cache_bytes(shape: DecoderConfig, tensor: int) -> float:
    """Return bytes of the keys and values of one token in bf16 (Kwon et al., 2023, section 3): 2 tensors x layers x
    heads x width x 2 bytes. Heads are divided among the GPUs of a copy."""
    return 2 * shape.num_layers * shape.kv_head_count * shape.head_size * BF16 / tensor


def sampling(
    work: StepWork, shape: DecoderConfig, layout: ParallelLayout, cluster: Cluster, held: MemoryParts
) -> MemoryParts:
    """Return the memory of a GPU while it samples beside what it holds."""
    own = sampler_weights(shape, layout.sampler_tensor)
    own += SAMPLER_WORKSPACE if cluster.gpu.name != "cpu" else 0
    room = max(0.0, cluster.usable - held.total - own)
    row = work.longest_length * cache_bytes(shape, layout.sampler_tensor)
    return replace(held, sampler=own, cache=row * max(cached_rows(work, layout, room, row), LEAST_ROWS))


def sampled_rows(
    work: StepWork, shape: DecoderConfig, layout: ParallelLayout, cluster: Cluster, phases: Mapping[str, MemoryParts]
) -> int:
    """Return the rows that a copy of the sampler decodes at once; 0 where too few fit, or nothing is sampled."""
    if not work.traits.scored:
        return 0
    phase = phases["sampling"] if "sampling" in phases else sampling(work, shape, layout, cluster, MemoryParts())
    row = work.longest_length * cache_bytes(shape, layout.sampler_tensor)
    return cached_rows(work, layout, cluster.usable - phase.total + phase.cache, row)


def cached_rows(work: StepWork, layout: ParallelLayout, room: float, row: float) -> int:
    """Return the rows whose cache fits a room, at most those of a copy of the sampler; 0 for fewer than LEAST_ROWS."""
    copies = (layout.sampler or layout.trainers) // layout.sampler_tensor
    wanted = min(SAMPLER_ROWS, -(-work.rows // copies))
    rows = min(wanted, int(max(0.0, room) // row))
    return rows if rows >= min(LEAST_ROWS, wanted) else 0
