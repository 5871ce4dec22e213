"""Parts of benchmarks/gpu.py: each a function from a Setting to figures, and a line of PARTS."""

from __future__ import annotations

import gc
import importlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from amenable.models.attention import step_rows
from amenable.models.cache import Cache
from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder
from amenable.models.inference import for_generation
from amenable.models.presets import MODERN, preset
from amenable.models.published_shapes import shape_of
from amenable.recipes import demo
from amenable.recipes.pipeline import StageRun, stage_runs
from amenable.rl import memory as rl_memory
from amenable.stages import ppo
from amenable.train import defaults
from amenable.train.defaults import traits_of
from amenable.train.examples import text_row
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import DeviceOptions, Precision, Runtime
from amenable.world.settings import Sizes
from benchmarks import machine, workloads
from benchmarks.scaling import decoding as decoding_steps

GPT2 = preset("gpt2")
SMALL_QWEN = replace(
    MODERN,
    vocab_size=151_936,
    context_length=2048,
    num_layers=28,
    hidden_size=1024,
    num_heads=16,
    num_kv_heads=8,
    head_width=128,
    mlp_width=3072,
    rope_theta=1e6,
)
"""shape of Qwen3-0.6B, with a shorter context"""
LLAMA_1B = replace(shape_of("Llama-3.2-1B"), context_length=2048)
TINY = workloads.SIZES["smoke"].shape
TINY_WORLD = Sizes(12, 200, 20, 40, 11, 20, 20, 20, 20, 8, 20, 10, 8)
TESTS = Path(__file__).parent.parent / "tests"
TEST_SECONDS = 80

DATA_SHEET = (
    ("B200", 2250e12, 8.0e12),
    ("H200", 989e12, 4.8e12),
    ("H100 PCIe", 756e12, 2.0e12),
    ("H100", 989e12, 3.35e12),
    ("A100", 312e12, 2.0e12),
    ("L40S", 362e12, 0.864e12),
    ("L4", 121e12, 0.3e12),
)
"""part of a device's name, its bf16 FLOP/s without sparsity and its memory's bytes a second, by NVIDIA's data sheets"""


@dataclass(frozen=True)
class Figure:
    """A measured number; `of` compares it, such as "41 % of 989 TFLOP/s"."""

    name: str
    value: float
    unit: str
    of: str = ""


@dataclass(frozen=True)
class Setting:
    """Device of a run, and size of the work."""

    runtime: Runtime
    tiny: bool

    @property
    def device(self) -> torch.device:
        return self.runtime.device

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def release_memory(self) -> None:
        """Return unused memory to the device, and begin a new peak."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_bytes(self) -> int:
        """Return the peak of the device's memory; of a processor, that of the process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return machine.peak_bytes()

    def seconds_of(self, function: Callable[[], Any]) -> float:
        """Return the seconds of a call, the device's work included."""

        def finished() -> None:
            function()
            self.synchronize()

        self.synchronize()
        return machine.seconds_of(finished)[0]

    def limits(self) -> tuple[float, float]:
        """Return FLOP/s in bf16 and bytes a second: the data sheet's, or else measured."""
        name = device_name(self.device)
        for part, flops, bandwidth in DATA_SHEET if self.device.type == "cuda" else ():
            if part in name:
                return flops, bandwidth
        return product_rate(self), copy_rate(self)


@dataclass(frozen=True)
class Part:
    """One line of the list of parts."""

    name: str
    function: Callable[[Setting], Iterator[Figure]]
    seconds: float
    """limit"""


def device_name(device: torch.device) -> str:
    """Return the name of a CUDA device, or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else machine.processor()


def ceilings(setting: Setting) -> Iterator[Figure]:
    """Measure a large matrix product and a copy beside the data sheet."""
    flops, bandwidth = setting.limits()
    product, copy = product_rate(setting), copy_rate(setting)
    yield Figure("matrix product", product / 1e12, "TFLOP/s", share(product, flops, 1e12, "TFLOP/s"))
    yield Figure("memory copy, read and written", copy / 1e9, "GB/s", share(copy, bandwidth, 1e9, "GB/s"))


def product_rate(setting: Setting) -> float:
    """Return FLOP/s of a square matrix product in the products' type."""
    width = 128 if setting.tiny else 8192
    dtype = torch.bfloat16 if setting.runtime.bf16 else torch.float32
    left, right = (torch.randn(width, width, device=setting.device, dtype=dtype) for _ in range(2))
    return 2 * width**3 / min(setting.seconds_of(lambda: torch.mm(left, right)) for _ in range(7))


def copy_rate(setting: Setting) -> float:
    """Return bytes read and written a second."""
    source = torch.ones(1 << (16 if setting.tiny else 28), device=setting.device)
    target = torch.zeros_like(source)
    return 2 * source.nbytes / min(setting.seconds_of(lambda: target.copy_(source)) for _ in range(7))


def cuda_tests(setting: Setting) -> Iterator[Figure]:
    """Run the tests marked `cuda`. A failure raises RuntimeError with the end of what pytest printed."""
    marked = sorted(str(path) for path in TESTS.rglob("test_*.py") if "mark.cuda" in path.read_text("utf-8"))
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-v", "--tb=short", *marked]
    done = subprocess.run(command, capture_output=True, text=True, cwd=TESTS.parent, timeout=TEST_SECONDS)
    counts = {name: int(count) for count, name in re.findall(r"(\d+) (passed|failed|error|skipped)", last_line(done))}
    for name in ("passed", "failed", "skipped"):
        yield Figure(name, counts.get(name, 0), "tests")
    if done.returncode or (setting.device.type == "cuda" and not counts.get("passed")):
        raise RuntimeError(f"pytest ended with {done.returncode}: {last_line(done)}\n{done.stdout[-4000:]}")


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line that a process printed, of its errors where it printed nothing else."""
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    return lines[-1] if lines else ""


def training(setting: Setting) -> Iterator[Figure]:
    """Pretrain and fine-tune models of 124M and 1B parameters, the data's path from lists to the device included. Rows
    are of one length in pretraining; in SFT of mixed lengths, with answers trained, as many tokens in all."""
    shapes = {"tiny": (TINY, 2)} if setting.tiny else {"124M": (GPT2, 32), "1B": (LLAMA_1B, 16)}
    limit, steps = setting.limits()[0], 2 if setting.tiny else 5
    for name, (shape, count) in shapes.items():
        size = workloads.Size(shape, rows=count, length=min(shape.context_length, 1024))
        texts = [text_row(ids) for ids in workloads.sequences(size, [size.length] * count)]
        for kind, rows in {"pretraining": texts, "SFT": workloads.dialogues(size, 2 * count)}.items():
            tokens = sum(len(ids) for ids, _ in rows)
            optimizer = OptimizerConfig(learning_rate=3e-4)
            workload = workloads.next_token(kind, shape, rows, optimizer, count * size.length, setting.runtime)
            for number in range(2):
                workload.step(number)
            seconds = median(setting.seconds_of(partial(workload.step, number)) for number in range(steps))
            yield Figure(f"{kind}, {name}", tokens / seconds, "tokens/s", workloads.described(rows))
            flops = workloads.training_work(kind, shape, rows).flops / seconds
            yield Figure(f"MFU of {kind}, {name}", flops / 1e12, "TFLOP/s", share(flops, limit, 1e12, "TFLOP/s"))
            yield Figure(f"peak memory of {kind}, {name}", setting.peak_bytes() / 2**30, "GiB")
            del workload
            setting.release_memory()


def decoding(setting: Setting) -> Iterator[Figure]:
    """Decode a batch of 256. A step reads every weight and the whole cache once: that is its limit."""
    shapes = {"tiny": TINY} if setting.tiny else {"124M": GPT2, "0.6B": SMALL_QWEN}
    rows, prompt, tokens = (8, 8, 4) if setting.tiny else (256, 128, 64)
    bandwidth = setting.limits()[1]
    for name, shape in shapes.items():
        step = decoding_steps(shape, rows, prompt, setting.runtime, tokens)
        step(0)
        seconds = median(step(number)[1] / tokens for number in (1, 2, 3)[: 1 if setting.tiny else 3])
        limit = step_bytes(shape, rows, prompt + tokens / 2, setting.runtime) / bandwidth
        yield Figure(f"decoding, {name}", rows / seconds, "tokens/s", f"batch {rows}")
        of = f"{limit / seconds:.0%} of the bandwidth's limit, {1e3 * limit:.3g} ms"
        yield Figure(f"a step, {name}", 1e3 * seconds, "ms", of)
        setting.release_memory()


def step_bytes(shape: DecoderConfig, rows: int, length: float, runtime: Runtime) -> float:
    """Return bytes that a decoding step reads: the layers, the unembedding, and keys and values of `length` tokens."""
    width = 2 if runtime.bf16 else 4
    weights = sum(p.numel() for p in Decoder(shape, "meta").layers.parameters())
    cache = 2 * shape.num_layers * shape.kv_head_count * shape.head_size * rows * length
    return width * (weights + shape.vocab_size * shape.hidden_size + cache)


def decoding_step(setting: Setting) -> Iterator[Figure]:
    """Profile a decoding step of a batch of 256: time that the device computes, synchronisations, and the same step
    replayed from a CUDA graph, which is all that graphs in the engine could gain."""
    shapes = {"tiny": TINY} if setting.tiny else {"124M": GPT2, "0.6B": SMALL_QWEN}
    rows, length = (8, 8) if setting.tiny else (256, 160)
    for name, shape in shapes.items():
        decoder = Decoder(shape, setting.device).eval()
        dtype = torch.bfloat16 if setting.runtime.bf16 else torch.float32
        with setting.runtime.autocast(), torch.inference_mode():
            model, output = for_generation(decoder)
            assert isinstance(model, Decoder)
            cache = Cache(shape, rows, 2 * length, setting.device, dtype)
            cache.lengths += length
            ids = torch.zeros(rows, dtype=torch.long, device=setting.device)
            plain = partial(whole_step, model, output, ids, cache)
            plain()
            seconds = median(setting.seconds_of(plain) for _ in range(5))
            busy, waits = profile_of(setting, plain)
            replay = graph_of(setting, partial(fixed_step, model, output, ids, cache, cache.lengths.clone()))
            replayed = median(setting.seconds_of(replay) for _ in range(5))
        yield Figure(f"a step with its unembedding, {name}", 1e3 * seconds, "ms", f"batch {rows}")
        yield Figure(f"the device computes, {name}", 1e3 * busy, "ms", f"{busy / seconds:.0%} of the step")
        yield Figure(f"synchronisations, {name}", waits, "a step")
        yield Figure(f"replayed from a graph, {name}", 1e3 * replayed, "ms", f"{replayed / seconds:.2f} of the step")
        del decoder, model, cache, plain, replay
        setting.release_memory()


def whole_step(
    model: Decoder, output: Callable[[torch.Tensor], torch.Tensor], ids: torch.Tensor, cache: Cache
) -> torch.Tensor:
    """Decode a token of every row, ids [R] -> logits [R, V]."""
    return output(model.step(ids, cache))


def fixed_step(
    model: Decoder,
    output: Callable[[torch.Tensor], torch.Tensor],
    ids: torch.Tensor,
    cache: Cache,
    lengths: torch.Tensor,
) -> Callable[[], torch.Tensor]:
    """Return a decoding step at these lengths [R], again and again, with everything that reads the host done before."""
    attend = step_rows(cache, None, lengths)
    return lambda: output(model.apply_layers(model.embed(ids), lengths, attend))


def graph_of(setting: Setting, prepare: Callable[[], Callable[[], torch.Tensor]]) -> Callable[[], Any]:
    """Return the replay of a function's CUDA graph; on a processor the function."""
    function = prepare()
    if setting.device.type != "cuda":
        return function
    stream = torch.cuda.Stream(setting.device)
    stream.wait_stream(torch.cuda.current_stream(setting.device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream(setting.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def profile_of(setting: Setting, function: Callable[[], Any]) -> tuple[float, int]:
    """Return the seconds that the device computes in a call, and how often the host waits for it; of a processor the
    seconds of its operations, and how often a number is read from a tensor."""
    cuda = setting.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as profiled:
        setting.seconds_of(function)
    events = profiled.key_averages()
    waits = ("cudaStreamSynchronize", "cudaEventSynchronize") if cuda else ("aten::_local_scalar_dense",)
    own = [event for event in events if event.device_type == (DeviceType.CUDA if cuda else DeviceType.CPU)]
    micros = sum(event.self_device_time_total if cuda else event.self_cpu_time_total for event in own)
    return micros / 1e6, sum(event.count for event in events if event.key in waits)


def online_iteration(setting: Setting) -> Iterator[Figure]:
    """Take one PPO iteration of four 0.6B models, after one that warms up."""
    shape, prompts, answer = (TINY, 4, 8) if setting.tiny else (SMALL_QWEN, 64, 128)
    size = workloads.Size(shape, length=32 if setting.tiny else 512, prompts=prompts)
    config = ppo.Config(prompts_per_step=prompts, max_new_tokens=answer)
    config, _ = defaults.online(config, traits_of(shape), traits_of(shape))
    algorithm, models = workloads.make_ppo(shape, setting.runtime, config)
    ids = workloads.sequences(size, workloads.prompt_lengths(size, prompts))
    workloads.online_iteration(algorithm, models, config, ids, 0)
    gathered: list[Any] = []
    sampling = setting.seconds_of(
        lambda: gathered.append(workloads.sample_and_score(algorithm, models, config, ids, 1))
    )
    (experience,) = gathered
    learning = setting.seconds_of(lambda: workloads.learn(algorithm, models, config, experience, 1))
    generated = int(experience.rollout.lengths.sum())
    seconds = sampling + learning
    yield Figure("iteration", seconds, "s", f"{prompts} answers of {answer}; learning {learning / seconds:.0%}")
    yield Figure("generated", generated / seconds, "tokens/s")
    predicted = rl_memory.peak_bytes(algorithm, models, config, ids)
    yield Figure("peak memory", setting.peak_bytes() / 2**30, "GiB", f"planned {predicted / 2**30:.3g} GiB")


def demo_stages(setting: Setting) -> Iterator[Figure]:
    """Run the demo's first stages: world, tokenizer, pretraining, SFT."""
    with tempfile.TemporaryDirectory() as folder:
        runs = demo.models(Path(folder))
        first = {name: runs[name] for name in ("world", "tokenizer", "pretrain", "sft")}
        for run in stage_runs(Path(folder), 0, first):
            config = demo.shrink(run).config if setting.tiny else run.config
            if hasattr(config, "sizes") and setting.tiny:
                config = replace(config, sizes=TINY_WORLD)
            if hasattr(config, "device"):
                precision: Precision = "bf16" if setting.runtime.bf16 else "fp32"
                config = replace(config, device=DeviceOptions(str(setting.device), precision, setting.runtime.threads))
            seconds = setting.seconds_of(partial(run_stage, replace(run, config=config)))
            yield Figure(run.stage, seconds, "s", held_out(run.out))


def run_stage(run: StageRun) -> None:
    """Run a stage in this process."""
    importlib.import_module(f"amenable.stages.{run.stage}").run(run.config)


def held_out(run: Path) -> str:
    """Return a run's last held-out figure as text."""
    file = run / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []
    figures = [f"{name} {row[name]:.3f}" for row in rows for name in ("eval/loss", "eval/bpb") if name in row]
    return figures[-1] if figures else ""


def share(value: float, limit: float, unit: float, name: str) -> str:
    """Return a value's share of its limit as text."""
    return f"{value / limit:.0%} of {limit / unit:.4g} {name}"


PARTS = [
    Part("ceilings", ceilings, 30),
    Part("tests", cuda_tests, TEST_SECONDS + 10),
    Part("training", training, 110),
    Part("decoding", decoding, 70),
    Part("step", decoding_step, 40),
    Part("ppo", online_iteration, 80),
    Part("demo", demo_stages, 60),
]
