"""Plans beside what was measured: memory and time of published runs and of our own, each with its source.

    python -m benchmarks.plan_points              # the table, and what could not be compared

What a published program does otherwise than ours (bf16 in place of fp32 states, whole logits, a choice of activations
that it stores) is part of its row, read off its code or documents and written with the figure in view: the formulas are
those of `amenable plan`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import tyro

from amenable.models.config import DecoderConfig
from amenable.models.presets import preset
from amenable.models.published_shapes import PUBLISHED
from amenable.recipes.planning.gpus import GIB, Cluster, Gpu, parse_gpus
from amenable.recipes.planning.layout_memory import gathered_bytes, phases_of, sampled_rows
from amenable.recipes.planning.layouts import ParallelLayout, local_model
from amenable.recipes.planning.step_time import Assumptions, step_times, token_seconds
from amenable.recipes.planning.workload import CUDA, StepWork, roles, sized
from amenable.train import memory
from amenable.train.memory import BF16, FP32
from amenable.train.passes import Pass
from benchmarks.scaling import SHAPES

LLM_FOUNDRY = "MosaicML llm-foundry, scripts/train/benchmarking/README.md"
TORCHTITAN = "torchtitan, benchmarks/llama3_h100_202412_torchtitan.md"
TITAN_H200 = "torchtitan, benchmarks/llama3-8b_h200_202506_trainy-whitefiber.md"
TORCHTUNE = "torchtune, README.md, optimization flags"
QWEN = "QwenLM/Qwen, documentation, finetuning/lora"
DEEPSPEED = "DeepSpeed, blogs/deepspeed-chat/README.md, tables 1 and 2"
NEMO = "NeMo RL 0.4, docs/about/performance-summary.md and its recipes"
OURS = "benchmarks/RESULTS.md"
WHOLE_LOGITS = 14
"""bytes of a logit where all are held: bf16, log-softmax in fp32, two gradients in fp32"""
COMPILED_LOGITS = 4
"""bytes of a logit where the loss is compiled: it and its gradient in bf16"""


@dataclass(frozen=True)
class Point:
    """Measured figure and the plan's."""

    name: str
    kind: Literal["memory", "time"]
    measured: float
    unit: str
    planned: Callable[[], float]
    source: str

    @property
    def ratio(self) -> float:
        """Planned over measured."""
        return self.planned() / self.measured


def gpt(width: int, layers: int, heads: int, context: int) -> DecoderConfig:
    """Return a shape of MosaicML's MPT benchmarks, or of OPT: learned positions, GELU, biases."""
    return DecoderConfig(50368, context_length=context, num_layers=layers, hidden_size=width, num_heads=heads)


MPT = {
    "125M": (768, 12, 12),
    "760M": (1536, 24, 12),
    "1B": (2048, 24, 16),
    "3B": (2560, 32, 20),
    "7B": (4096, 32, 32),
    "13B": (5120, 40, 40),
    "30B": (7168, 48, 56),
    "70B": (8192, 80, 64),
}
"""width, layers, heads"""
OPT = {"6.7B": (4096, 32, 32), "13B": (5120, 40, 40), "30B": (7168, 48, 56), "66B": (9216, 64, 72)}
OPT_350M = gpt(1024, 24, 16, 2048)


def training_rate(
    shape: DecoderConfig, cluster: Cluster, layout: ParallelLayout, rows: int, length: int, passes: int
) -> float:
    """Return planned tokens a second for each GPU: `passes` passes of `rows` rows on each rank."""
    work = StepWork("pretrain", rows * passes * layout.ranks, 0, length)
    share = work.shared(layout.ranks)
    step = share.pass_within(rows * length) if share else None
    assert step is not None
    models = roles(work, shape, None, layout.rank)
    times = step_times(work, models, layout, cluster, step, 0, Assumptions(cluster.gpu.efficiency))
    return work.tokens / times.step / cluster.count


def trained(
    size: str, length: int, gpus: str, micro: int, passes: int, rate: float, again: bool, source: str = LLM_FOUNDRY
) -> Point:
    """Return a row of llm-foundry's tables: FSDP over all GPUs; `again`: with activation checkpointing."""
    cluster, shape = parse_gpus(gpus), gpt(*MPT[size], length)
    layout = ParallelLayout(shards=cluster.count, checkpointed=again)
    name = f"MPT {size}, {gpus}, {micro} x {length} tokens a pass" + (", layers again" if again else "")
    return Point(
        name,
        "time",
        rate,
        "tokens/s/GPU",
        partial(training_rate, shape, cluster, layout, micro, length, passes),
        source,
    )


def llama_rate(name: str, gpus: str, rows: int, length: int, layout: ParallelLayout, rate: float, source: str) -> Point:
    shape, cluster = PUBLISHED[name], parse_gpus(gpus)
    again = ", layers again" if layout.checkpointed else ""
    text = f"{name}, {gpus}, {rows} x {length} tokens a pass{again}" + (", LoRA" if layout.rank else "")
    planned = partial(training_rate, shape, cluster, layout, rows, length, 1)
    return Point(text, "time", rate, "tokens/s/GPU", planned, source)


def fsdp_bytes(shape: DecoderConfig, shards: int, tokens: int, logits: int, selective: bool) -> float:
    """Return the memory of torchtitan: fp32 states divided among shards, bf16 between layers, all logits held.

    selective: of each layer its input, every other product and attention's result are kept ("selective op" there), else
    its input alone.
    """
    layout = ParallelLayout(shards=shards, checkpointed=True)
    model = replace(sized(shape), predicts=False, residual=BF16)
    local = local_model(model, layout)
    step = Pass(tokens, tokens, tokens, accumulates=True)
    states = local.bytes + FP32 * local.moments
    stored = selective_numbers(shape) * BF16 * tokens * shape.num_layers if selective else 0
    head = logits * tokens * shape.vocab_size
    return (
        states + memory.training_bytes(local, step, CUDA) + stored + head + gathered_bytes(model, layout, trains=True)
    )


def selective_numbers(shape: DecoderConfig) -> int:
    """Return numbers of a token that a layer keeps beside its input: the products of queries, of values, of the gate
    and of the MLP's end, and attention's result."""
    queries, keys = shape.num_heads * shape.head_size, shape.kv_head_count * shape.head_size
    return 2 * queries + keys + shape.mlp_size + shape.hidden_size


def bf16_bytes(shape: DecoderConfig, tokens: int, again: bool) -> float:
    """Return the memory of torchtune on one GPU: weights, gradients and moments in bf16, logits in chunks. The peak is
    that of the activations, or at the end of the backward pass that of the gradients."""
    model = replace(sized(shape), predicts=False, residual=BF16, matrices=0)
    weights = BF16 * model.parameters
    inputs = BF16 * shape.num_layers * shape.hidden_size * tokens
    step = Pass(tokens, tokens, tokens)
    activations = inputs if again else memory.activation_bytes(model, step, CUDA)
    chunk = WHOLE_LOGITS * tokens // 8 * shape.vocab_size
    return 3 * weights + max(weights, activations + chunk)


def lora_bytes(shape: DecoderConfig, rank: int, tokens: int) -> float:
    """Return the memory of peft with transformers' Trainer on one GPU: the base in bf16, adapters and moments in fp32,
    layers computed again, all logits held."""
    model = sized(shape, rank)
    base = BF16 * sized(shape).parameters
    adapters = (2 * FP32 + 2 * FP32) * model.training
    local = replace(model, predicts=False, residual=BF16, checkpointed=True, training=0)
    step = Pass(tokens, tokens, tokens, accumulates=True)
    return base + adapters + memory.training_bytes(local, step, CUDA) + WHOLE_LOGITS * tokens * shape.vocab_size


QWEN_7B = replace(PUBLISHED["Llama-2-7B"], vocab_size=151936, qkv_bias=True)


def cpu_bytes(shape: DecoderConfig, rows: int, length: int, again: bool) -> float:
    """Return the planned memory of `amenable pretrain` on a processor, all rows in one pass."""
    work = StepWork("pretrain", rows, 0, length)
    step = work.pass_within(rows * length)
    assert step is not None
    layout, models = ParallelLayout(checkpointed=again), roles(work, shape, None, 0)
    phases = phases_of(work, models, layout, parse_gpus("cpu"), replace(step, accumulates=False))
    return phases["training"].total


def chat_hours(size: str, gpus: str) -> float:
    """Return the planned hours of DeepSpeed-Chat's third step: 131,900 prompts of 256 tokens, 1,024 a step, each
    completed by 256; critic and reward model of 350M."""
    cluster, shape = parse_gpus(gpus), gpt(*OPT[size], 2048)
    work = StepWork("ppo", 1024, 256, 256)
    layout = ParallelLayout(shards=cluster.count, checkpointed=True)
    policy, critic, reference, reward = roles(work, shape, OPT_350M, 0)
    small = replace(critic, model=sized(OPT_350M, scalar=True))
    models = [policy, small, reference, reward]
    share = work.shared(layout.ranks)
    step = share.pass_within(8192) if share else None
    assert step is not None
    times = step_times(work, models, layout, cluster, step, 128, Assumptions(cluster.gpu.efficiency))
    return times.step * 131_900 / 1024 / 3600


def grpo_seconds(name: str, gpus: str, length: int, sampler: int, tensor: int) -> float:
    """Return the planned seconds of a step of NeMo RL's GRPO: 64 prompts of 32 completions, rows of `length` tokens on
    average and 4,096 at most, four updates; prompts of 128 tokens, which is assumed. sampler: GPUs of its own."""
    cluster, shape = parse_gpus(gpus), PUBLISHED[name]
    work = StepWork("grpo", 2048, 128, length - 128, 32, updates=4, longest=4096 - 128)
    layout = ParallelLayout(shards=cluster.count - sampler, checkpointed=True, sampler=sampler, sampler_tensor=tensor)
    models = roles(work, shape, None, 0)
    share = work.shared(layout.ranks)
    step = share.pass_within(16384) if share else None
    assert step is not None
    phases = phases_of(work, models, layout, cluster, step)
    rows = sampled_rows(work, shape, layout, cluster, phases)
    assumed = Assumptions(cluster.gpu.efficiency, max_staleness=int(sampler > 0))
    return step_times(work, models, layout, cluster, step, rows, assumed).step


def token_milliseconds(name: str, gpu: str, rows: int, context: int) -> float:
    """Return the planned milliseconds of a decoded token of each row."""
    cluster = parse_gpus(gpu)
    return 1000 * token_seconds(PUBLISHED[name], rows, context, 1, cluster, cluster.gpu.efficiency)


def hbm2e() -> Gpu:
    """Return the H100 of torchtitan's table: 2.4 TB/s, and 500 W in place of 700 W."""
    return replace(parse_gpus("H100").gpu, bandwidth=2400e9)


def points() -> Iterator[Point]:
    """Yield every figure that is compared."""
    yield from memory_points()
    yield from time_points()


def memory_points() -> Iterator[Point]:
    """Yield figures of memory: those of torch's allocator, or of the process, in GiB."""
    llama, small = PUBLISHED["Llama-3.1-8B"], PUBLISHED["Llama-3.2-3B"]
    for shards, compiled, eager in ((8, 77.0, 82.4), (128, 62.0, 67.0)):
        planned = partial(fsdp_bytes, llama, shards, 2 * 8192, WHOLE_LOGITS, True)
        name = f"Llama-3.1-8B, FSDP {shards}, 2 x 8192 tokens, selective"
        yield memory_point(f"{name}, compiled", compiled, planned, TORCHTITAN)
        yield memory_point(name, eager, planned, TORCHTITAN)
    planned = partial(fsdp_bytes, llama, 8, 32768, WHOLE_LOGITS, False)
    yield memory_point("Llama-3.1-8B, FSDP 8, 32768 tokens, layers again", 83.9, planned, TORCHTITAN)
    for shards, measured in ((32, 47.96), (64, 46.97)):
        planned = partial(fsdp_bytes, llama, shards, 2 * 8192, COMPILED_LOGITS, True)
        name = f"Llama-3.1-8B, FSDP {shards}, 2 x 8192 tokens, selective, loss compiled, H200"
        yield memory_point(name, measured, planned, TITAN_H200)
    for again, measured in ((False, 42.9), (True, 24.9)):
        name = "Llama-3.2-3B in bf16, one A100, 2 x 4096 tokens" + (", layers again" if again else "")
        yield memory_point(name, measured, partial(bf16_bytes, small, 8192, again), TORCHTUNE)
    for tokens, gigabytes in ((256, 20.1), (1024, 21.5), (2048, 23.8), (4096, 29.7), (8192, 36.6)):
        name = f"Qwen-7B, LoRA of rank 64, one A100, {tokens} tokens"
        yield memory_point(name, gigabytes * 1e9 / GIB, partial(lora_bytes, QWEN_7B, 64, tokens), QWEN)
    gpt2, smollm = replace(preset("gpt2"), vocab_size=1536), PUBLISHED["SmolLM2-135M"]
    for name, shape, again, mebibytes in (
        ("GPT-2 87M", gpt2, False, 3448),
        ("GPT-2 87M", gpt2, True, 1527),
        ("SmolLM2-135M", smollm, False, 5794),
        ("SmolLM2-135M", smollm, True, 2341),
    ):
        text = f"{name}, one processor, 4 x 1024 tokens" + (", layers again" if again else "")
        yield memory_point(text, mebibytes / 1024, partial(cpu_bytes, shape, 4, 1024, again), OURS)


def memory_point(name: str, gibibytes: float, planned: Callable[[], float], source: str) -> Point:
    return Point(name, "memory", gibibytes, "GiB", lambda: planned() / GIB, source)


def time_points() -> Iterator[Point]:
    """Yield figures of time."""
    yield trained("125M", 2048, "8xA100", 32, 2, 141737, False)
    yield trained("1B", 2048, "8xA100", 14, 4, 20513, False)
    yield trained("3B", 2048, "8xA100", 10, 2, 10811, False)
    yield trained("7B", 2048, "8xA100", 6, 2, 4641, False)
    yield trained("13B", 2048, "8xA100", 2, 3, 2262, False)
    yield trained("30B", 2048, "8xA100", 3, 21, 916, True)
    yield trained("70B", 2048, "64xA100", 8, 4, 410, True)
    yield trained("7B", 2048, "128xA100-40", 18, 1, 3623, True)
    yield trained("760M", 2048, "8xH100", 24, 2, 63147, False)
    yield trained("1B", 2048, "8xH100", 14, 1, 45455, False)
    yield trained("3B", 2048, "64xH100", 6, 3, 22525, False)
    yield trained("7B", 2048, "8xH100", 6, 1, 10643, False)
    yield trained("13B", 2048, "8xH100", 2, 1, 4792, False)
    yield trained("13B", 2048, "64xH100", 2, 1, 4800, False)
    yield trained("30B", 2048, "8xH100", 3, 21, 2002, True)
    yield trained("70B", 2048, "64xH100", 8, 4, 1039, True)
    yield llama_rate("Llama-3.2-3B", "A100", 2, 4096, ParallelLayout(), 9174, TORCHTUNE)
    yield llama_rate("Llama-3.2-3B", "A100", 2, 4096, ParallelLayout(checkpointed=True), 7210, TORCHTUNE)
    lora = ParallelLayout(checkpointed=True, rank=8)
    yield llama_rate("Llama-3.1-8B", "4090", 2, 2048, lora, 3083, "torchtune, README.md, memory and training speed")
    for gpus, rate in (("8xH100", 6667), ("128xH100", 6514)):
        cluster = replace(parse_gpus(gpus), gpu=hbm2e())
        layout = ParallelLayout(shards=cluster.count)
        planned = partial(training_rate, PUBLISHED["Llama-3.1-8B"], cluster, layout, 2, 8192, 1)
        name = f"Llama-3.1-8B, {gpus} of 500 W, 2 x 8192 tokens a pass"
        yield Point(name, "time", rate, "tokens/s/GPU", planned, TORCHTITAN)
    for size, gpus, hours in (
        ("6.7B", "8xA100-40", 5.7),
        ("13B", "8xA100-40", 10.8),
        ("6.7B", "8xA100", 4.1),
        ("13B", "8xA100", 9.0),
        ("13B", "64xA100", 1.25),
        ("30B", "64xA100", 4.0),
        ("66B", "64xA100", 7.5),
    ):
        planned = partial(chat_hours, size, gpus)
        yield Point(f"PPO of OPT {size}, {gpus}", "time", hours, "hours", planned, DEEPSPEED)
    for name, gpus, length, sampler, tensor, seconds in (
        ("Llama-3.1-8B", "16xH100", 1060, 0, 1, 97.7),
        ("Llama-3.1-8B", "16xH100", 1129, 8, 1, 74.6),
        ("Qwen3-32B", "32xH100", 3206, 0, 4, 393),
        ("Qwen3-32B", "64xH100", 3207, 32, 4, 215),
    ):
        planned = partial(grpo_seconds, name, gpus, length, sampler, tensor)
        ahead = f", {sampler} of them sampling a step ahead" if sampler else ""
        yield Point(f"GRPO of {name}, {gpus}{ahead}", "time", seconds, "s a step", planned, NEMO)
    for gpu, rows, context, milliseconds, source in (
        ("H100", 1, 512, 6.48, "InferenceBench, recipes/concurrency-sweep (vLLM 0.21)"),
        ("H100", 4, 512, 6.59, "InferenceBench, recipes/concurrency-sweep (vLLM 0.21)"),
        ("A100-40", 1, 1088, 1000 / 75, "J. Musgrave, vLLM throughput-latency sweep on A100 (vLLM 0.23)"),
    ):
        planned = partial(token_milliseconds, "Llama-3.1-8B", gpu, rows, context)
        yield Point(f"decoding Llama-3.1-8B, {gpu}, {rows} rows", "time", milliseconds, "ms/token", planned, source)
    for size, rows, length, rate in (("5M", 16, 256, 6905), ("124M", 16, 256, 400)):
        planned = partial(training_rate, SHAPES[size], parse_gpus("cpu"), ParallelLayout(), rows, length, 1)
        yield Point(f"pretraining {size}, two cores, {rows} x {length} tokens", "time", rate, "tokens/s", planned, OURS)

    for size, rows, rate in (("5M", 32, 4509), ("5M", 128, 5190), ("124M", 32, 381)):
        planned = partial(decoding_rate, SHAPES[size], rows)
        yield Point(f"decoding {size}, two cores, {rows} rows of 128", "time", rate, "tokens/s", planned, OURS)
    yield Point("PPO of 5M, two cores, 128 answers of 96", "time", 1264, "tokens/s", ppo_rate, OURS)


def decoding_rate(shape: DecoderConfig, rows: int) -> float:
    """Return planned tokens a second of decoding on two cores, after prompts of 72 tokens on average."""
    cluster = parse_gpus("cpu")
    return rows / token_seconds(shape, rows, 72 + 64, 1, cluster, cluster.gpu.efficiency)


def ppo_rate() -> float:
    """Return planned generated tokens a second of PPO on two cores."""
    cluster, work, layout = parse_gpus("cpu"), StepWork("ppo", 128, 72, 96, updates=4), ParallelLayout()
    step = work.pass_within(8192)
    assert step is not None
    models = roles(work, SHAPES["5M"], SHAPES["5M"], 0)
    times = step_times(work, models, layout, cluster, step, 128, Assumptions(cluster.gpu.efficiency))
    return 128 * 96 / times.step


NOT_COMPARED = {
    "memory of runs in benchmarks/RESULTS.md on batches of many lengths": "`amenable plan` takes rows of one length; "
    "their own plans are in that file's tables",
    "H200 of our own": "none has been measured yet",
    "torchtitan with tensor, context or pipeline parallelism": "they divide the sequence too, in fp8",
    "verl's tables, and the rest of NeMo RL's": "mixtures of experts, which the decoder has not",
    "OpenRLHF's table of PPO": "lengths of its rows are not published, and it is marked as outdated there",
    "out-of-memory reports of OpenRLHF's users": "no peak is stated",
    "OPT-1.3B on A6000 (DeepSpeed-Chat)": "its pages say 1.2, 1.36 and 2.2 hours",
    "speed-ups of TRL, unsloth, open-instruct and asynchronous verl": "ratios to other programs",
    "Soup's 8B in 3.3 GB": "layers are streamed from the host",
    "DPO of pythia-2.8B on 4 x A100 (eric-mitchell/dpo)": "the lengths of its rows are not published",
    "nanochat's speedrun": "fp8, and an optimizer of its own",
}
"""measured figures that a plan has no counterpart for -> the reason"""


def table() -> Iterator[str]:
    """Yield the lines of a Markdown table, then those of what is not compared."""
    yield "| what | planned | measured | ratio | source |"
    yield "|---|--:|--:|--:|---|"
    for point in points():
        planned = point.planned()
        figures = f"{number(planned)} | {number(point.measured)} {point.unit} | {planned / point.measured:.2f}"
        yield f"| {point.name} | {figures} | {point.source} |"
    yield ""
    for name, reason in NOT_COMPARED.items():
        yield f"- not compared: {name}: {reason}"


def number(value: float) -> str:
    """Return a number with three digits or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@dataclass(frozen=True)
class Config:
    """Compare plans with measured figures."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    tyro.cli(Config, args=arguments, prog="benchmarks.plan_points", description=__doc__)
    print("\n".join(table()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
