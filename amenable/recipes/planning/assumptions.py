"""Assumptions of a plan in words, each with its number and its source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from amenable.recipes.planning.communication import BUSY
from amenable.recipes.planning.gpus import USABLE, Cluster
from amenable.recipes.planning.layout_memory import SAMPLER_ROWS, SAMPLER_WORKSPACE
from amenable.recipes.planning.search import PlanRequest

GPU_HOURS = 16_384 * 54 * 24 / 419
"""GPU-hours from one unexpected interruption to the next: 419 in 54 days on 16,384 H100 (Llama 3 Team, 2024, section
3.3.4)"""


def lines(task: PlanRequest, cluster: Cluster, counts: Sequence[int] = ()) -> Iterator[str]:
    """Yield a plan's assumptions; `counts`: numbers of GPUs that are simulated."""
    gpu, assumed = cluster.gpu, task.assumed
    reached = f"{100 * assumed.efficiency:.0f} % of {gpu.flops / 1e12:,.4g} TFLOP/s"
    yield f"large matrix products reach {reached} (--efficiency); {gpu.source}"
    if gpu.name != "cpu":
        yield f"{100 * (1 - USABLE):.0f} % of the memory stay free for CUDA, NCCL and fragments"
    yield (
        "weights that train, gradients and moments are in fp32 (16 bytes a weight), products and frozen matrices in "
        "bf16; logits in chunks"
    )
    if cluster.count > 1 or counts:
        yield from communication_lines(task, cluster)
    if task.work.traits.scored:
        yield from sampling_lines(task, cluster)
    if task.work.stage == "dpo":
        yield "the reference's log-probabilities are computed once, before the first step, and not counted"
    if any(task.ranks) and task.work.traits.reference:
        yield "models with adapters share one base: the critic has adapters of its own, reference and reward model none"
    if counts:
        hours = f"one of {counts[-1]:,} GPUs would every {GPU_HOURS / counts[-1]:,.0f} hours"
        yield f"nothing fails; at the rate of Llama 3's training (419 times in 54 days on 16,384 GPUs) {hours}"
        yield "every node is as far from every other: no switch is shared"


def communication_lines(task: PlanRequest, cluster: Cluster) -> Iterator[str]:
    """Yield what is assumed of several GPUs."""
    gpu, hidden = cluster.gpu, f"{100 * task.assumed.overlap:.0f} %"
    rates = f"{gpu.link / 1e9:.4g} GB/s within a node and {gpu.network / 1e9:.3g} GB/s a GPU between nodes"
    yield f"links reach {100 * BUSY:.0f} % of {rates}"
    yield f"{hidden} of computing's time hides communication (--overlap), but not that of tensor parallelism"
    yield "no GPU waits for a slower one, and rows are divided evenly"
    yield "layouts of several GPUs are computed on paper: amenable itself has not been run on them"


def sampling_lines(task: PlanRequest, cluster: Cluster) -> Iterator[str]:
    """Yield what is assumed of sampling."""
    sampler = "our own sampler on a processor" if cluster.gpu.name == "cpu" else "vLLM"
    yield (
        f"decoding reaches {100 * cluster.gpu.decoding:.0f} % of the memory's bandwidth, as {sampler} does, with "
        f"{SAMPLER_ROWS} rows at once for each copy of the sampler; prompts are read once each"
    )
    if task.work.longest > task.work.completion:
        yield f"in every copy of the sampler one completion has {task.work.longest:,} tokens, and the step waits for it"
    else:
        yield "all completions are as long as they may be (--mean-new-tokens)"
    if cluster.gpu.name != "cpu":
        size = f"its weights in bf16, its cache and {SAMPLER_WORKSPACE >> 30} GiB"
        yield f"a sampler takes {size}; on GPUs that train it sleeps while they do, its weights given back"
    if task.assumed.max_staleness:
        yield "sampling on GPUs of its own runs a step ahead (--max-staleness)"
