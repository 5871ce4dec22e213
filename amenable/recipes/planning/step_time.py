"""Time of a step under a layout, by parts: sampling, scoring, training, communication, optimizer.

training    operations / (GPUs x rate x efficiency) + bytes of element-wise operations / (GPUs x bandwidth)
decoding    the larger of reading weights and cache, and of the products: for each token of the completions
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from amenable.models.config import DecoderConfig
from amenable.recipes.planning.communication import all_gather_seconds, all_reduce_seconds, exposed_seconds
from amenable.recipes.planning.gpus import Cluster
from amenable.recipes.planning.layout_memory import cache_bytes, sampler_weights
from amenable.recipes.planning.layouts import ParallelLayout
from amenable.recipes.planning.workload import Role, StepWork, head_flops, matrix_numbers, step_flops, whole_model
from amenable.train import memory
from amenable.train.memory import BF16, FP32
from amenable.train.passes import Pass

ELEMENTWISE = 113
"""bytes that element-wise operations of a layer read and write in a forward pass, for each number of the width: a third
of those of a training pass, fitted with the efficiency of A100 on 1B and 7B (llm-foundry: 60 and 64 % of the rate)"""
LOGIT_BYTES = 6
"""read and written for a logit in a forward pass: written in bf16, read for the softmax and its sum; three times that
with the gradient"""
STREAMED = 0.8
"""share of the memory's bandwidth that element-wise operations and the optimizer reach"""
OPTIMIZER_BYTES = 28
"""read and written by AdamW for a weight in fp32: weight, gradient and moments read, all but the gradient written"""
REPLICATED = 10 / 34
"""share of a layer's activations that tensor parallelism does not divide (Korthikanti et al., 2022, equation 2)"""


@dataclass(frozen=True)
class Assumptions:
    """Shares that a plan assumes."""

    efficiency: float
    """of the GPU's rate, reached by large matrix products"""
    overlap: float = 0.9
    """of computing, under which collective operations of FSDP and data parallelism hide"""
    max_staleness: int = 0
    """steps that sampling may be ahead of training"""


@dataclass(frozen=True)
class Times:
    """Seconds of a step on the GPUs that do each part."""

    sampling: float = 0.0
    handover: float = 0.0
    """of the weights to the sampler"""
    scoring: float = 0.0
    """passes without gradients"""
    training: float = 0.0
    communication: float = 0.0
    """that computing does not hide"""
    optimizer: float = 0.0
    concurrent: bool = False
    """True if sampling of the next step runs meanwhile"""

    @property
    def learning(self) -> float:
        return self.scoring + self.training + self.communication + self.optimizer

    @property
    def step(self) -> float:
        """Seconds of a whole step."""
        if self.concurrent:
            return max(self.sampling, self.learning) + self.handover
        return sum(getattr(self, field.name) for field in fields(self) if field.name != "concurrent")


def step_times(
    work: StepWork,
    models: Sequence[Role],
    layout: ParallelLayout,
    cluster: Cluster,
    step: Pass,
    rows: int,
    assumed: Assumptions,
) -> Times:
    """Return the time of a step. `step` is a pass of one rank, `rows` what a copy of the sampler decodes at once."""
    share = work.shared(layout.ranks)
    assert share is not None
    passes = math.ceil(share.tokens / step.tokens)
    scoring = training = communication = optimizer = 0.0
    for role in models:
        model = role.model
        forward = compute_seconds(share, model, layout, cluster, assumed)
        gathered = gather_seconds(model.shape, layout, cluster)
        reads = passes * tensor_seconds(model.shape, layout, cluster, step, 2)
        for _ in range(role.inferences):
            scoring += forward + reads
            communication += exposed_seconds(passes * gathered, forward, assumed.overlap)
        if role.trains:
            compute = work.epochs * compute_seconds(share, model, layout, cluster, assumed, trains=True)
            updates = work.epochs * work.updates
            count = max(work.epochs * passes, updates)
            training += compute
            shards = count * (2 * gathered + scatter_seconds(model, layout, cluster))
            communication += exposed_seconds(shards, compute, assumed.overlap)
            replicas, last = updates * replica_seconds(model, layout, cluster), updates / count * compute
            communication += exposed_seconds(replicas, last, assumed.overlap)  # under the last pass of an update
            collectives = 6 if layout.checkpointed else 4
            communication += count * tensor_seconds(model.shape, layout, cluster, step, collectives)
            numbers = model.training / layout.pieces
            optimizer += updates * OPTIMIZER_BYTES * numbers / (STREAMED * cluster.gpu.bandwidth)
    sampled = sampling_seconds(work, models[0].model.shape, layout, cluster, rows, assumed) if rows else 0.0
    handed = handover_seconds(models[0].model.shape, layout, cluster) if work.traits.scored else 0.0
    concurrent = bool(layout.sampler and assumed.max_staleness)
    return Times(sampled, handed, scoring, training, communication, optimizer, concurrent)


def compute_seconds(
    work: StepWork,
    model: memory.Model,
    layout: ParallelLayout,
    cluster: Cluster,
    assumed: Assumptions,
    trains: bool = False,
) -> float:
    """Return the computing of a rank's rows: a forward pass, or with its backward pass.

    A backward pass has twice the products of a forward pass: gradients of inputs and of weights, the latter not where
    adapters train. Layers that are computed again add a forward pass without the head.
    """
    shape = model.shape
    forward, products, elements = step_flops(work, model), 1.0, 1
    predicted = work.rows * work.predicted if model.predicts else 0
    again = 0.0
    if trains:
        products = 2 if layout.rank else 3
        elements = 4 if layout.checkpointed else 3
        again = forward - head_flops(shape, predicted) if layout.checkpointed else 0.0
    flops = (products * forward + again) / layout.tensor
    divided = REPLICATED + (1 - REPLICATED) / layout.tensor
    moved = ELEMENTWISE * elements * shape.hidden_size * shape.num_layers * work.tokens * divided
    moved += LOGIT_BYTES * (3 if trains else 1) * shape.vocab_size * predicted / layout.tensor
    gpu = cluster.gpu
    return flops / (gpu.flops * assumed.efficiency) + moved / (STREAMED * gpu.bandwidth)


@dataclass(frozen=True)
class Volumes:
    """Bytes of a step that collective operations put together on each GPU."""

    gathered: float = 0.0
    """weights in bf16, by all-gathers"""
    scattered: float = 0.0
    """gradients in fp32, by reduce-scatters"""
    replicas: float = 0.0
    """gradients in fp32, by all-reduces among replicas"""
    tensors: float = 0.0
    """hidden states in bf16, by all-reduces of tensor parallelism"""


def step_volumes(work: StepWork, models: Sequence[Role], layout: ParallelLayout, step: Pass) -> Volumes:
    """Return the volumes of a step: FSDP gathers the weights in every forward and every backward pass and divides the
    gradients after it (Rajbhandari et al., 2020, section 7: three times the weights), replicas add theirs an update."""
    share = work.shared(layout.ranks)
    assert share is not None
    passes, sharded = math.ceil(share.tokens / step.tokens), layout.shards > 1
    gathered = scattered = replicas = tensors = 0.0
    for role in models:
        model = role.model
        updates = work.epochs * work.updates
        count = max(work.epochs * passes, updates) if role.trains else 0
        weights = BF16 * whole_model(model.shape).parameters / layout.tensor
        gathered += sharded * (role.inferences * passes + 2 * count) * weights
        scattered += sharded * count * FP32 * model.training / layout.tensor
        replicas += (layout.replicas > 1) * role.trains * updates * FP32 * model.training / layout.pieces
        states = BF16 * step.tokens * model.shape.hidden_size * model.shape.num_layers
        reduced = 2 * role.inferences * passes + (6 if layout.checkpointed else 4) * count
        tensors += (layout.tensor > 1) * reduced * states
    return Volumes(gathered, scattered, replicas, tensors)


def gather_seconds(shape: DecoderConfig, layout: ParallelLayout, cluster: Cluster) -> float:
    """Return the time of gathering a model's weights in bf16, layer after layer (FSDP: once in a forward pass, once in
    the backward pass)."""
    if layout.shards == 1:
        return 0.0
    parts, size = shape.num_layers + 1, BF16 * whole_model(shape).parameters / layout.tensor
    in_node = cluster.per_node // layout.tensor
    return parts * all_gather_seconds(size / parts, layout.shards, in_node, cluster)


def scatter_seconds(model: memory.Model, layout: ParallelLayout, cluster: Cluster) -> float:
    """Return the time of adding and dividing the gradients in fp32, layer after layer, after a backward pass."""
    if layout.shards == 1:
        return 0.0
    parts, size = model.shape.num_layers + 1, FP32 * model.training / layout.tensor
    in_node = cluster.per_node // layout.tensor
    return parts * all_gather_seconds(size / parts, layout.shards, in_node, cluster)


def replica_seconds(model: memory.Model, layout: ParallelLayout, cluster: Cluster) -> float:
    """Return the time of adding the gradients of all replicas in fp32, once an update."""
    in_node = max(1, cluster.per_node // layout.pieces)
    return all_reduce_seconds(FP32 * model.training / layout.pieces, layout.replicas, in_node, cluster)


def tensor_seconds(
    shape: DecoderConfig, layout: ParallelLayout, cluster: Cluster, step: Pass, collectives: int
) -> float:
    """Return the time of the all-reduces of a pass under tensor parallelism: after attention and MLP of each layer in a
    forward pass, as many in a backward pass (Shoeybi et al., 2019, figure 4). Nothing computes meanwhile."""
    size = BF16 * step.tokens * shape.hidden_size
    single = all_reduce_seconds(size, layout.tensor, cluster.per_node, cluster)
    return collectives * shape.num_layers * single


def sampling_seconds(
    work: StepWork, shape: DecoderConfig, layout: ParallelLayout, cluster: Cluster, rows: int, assumed: Assumptions
) -> float:
    """Return the time of sampling a step's completions: prompts read once a group, then waves of `rows` rows on each
    copy of the sampler, a token after another. Rows that end make place for waiting ones; the last wave goes on to the
    end of the longest completion, with fewer and fewer rows."""
    tensor, gpu = layout.sampler_tensor, cluster.gpu
    copies = (layout.sampler or layout.trainers) // tensor
    own = math.ceil(work.rows / copies)
    prompts = math.ceil(own / work.group) * work.prompt
    prefill = 2 * matrix_numbers(shape)[0] * prompts / (tensor * gpu.flops * assumed.efficiency)
    wave, longest = min(rows, own), max(work.longest, work.completion)

    def token(count: float, completion: float) -> float:
        return token_seconds(shape, count, work.prompt + completion / 2, tensor, cluster, assumed.efficiency)

    full = (math.ceil(own / rows) - 1) * work.completion * token(wave, work.completion)
    return prefill + full + longest * token(wave * work.completion / longest, work.completion)


def token_seconds(
    shape: DecoderConfig, rows: float, context: float, tensor: int, cluster: Cluster, efficiency: float
) -> float:
    """Return the time of decoding one token of each of `rows` rows whose cache holds `context` tokens."""
    gpu = cluster.gpu
    unread = 0 if shape.tie_embeddings else BF16 * shape.vocab_size * shape.hidden_size / tensor
    read = sampler_weights(shape, tensor) - unread + rows * context * cache_bytes(shape, tensor)
    flops = 2 * matrix_numbers(shape)[0] * rows + head_flops(shape, rows)
    single = all_reduce_seconds(BF16 * rows * shape.hidden_size, tensor, cluster.per_node, cluster)
    work = max(read / gpu.bandwidth, flops / (tensor * gpu.flops * efficiency))
    return work / gpu.decoding + 2 * shape.num_layers * single


def handover_seconds(shape: DecoderConfig, layout: ParallelLayout, cluster: Cluster) -> float:
    """Return the time of giving the sampler the new weights in bf16: gathered where the sampler is on the same GPUs,
    sent through one GPU's link or network where it has its own."""
    size = sampler_weights(shape, layout.sampler_tensor)
    if not layout.sampler:
        return all_gather_seconds(size, layout.pieces, cluster.per_node, cluster)
    rate = cluster.gpu.link if cluster.nodes == 1 else cluster.gpu.network
    return size / rate
