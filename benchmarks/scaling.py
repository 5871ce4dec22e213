"""Growth of time and memory with the work: context, answers of a prompt, vocabulary, batch, model, rollout.

    python -m benchmarks.scaling                            # all sweeps, at most two minutes each, a plot of each
    python -m benchmarks.scaling --sweep context,memory --seconds 60

A sweep changes one number and leaves the rest: time of a token in training and in decoding, the median of a few steps.
The sweep 'memory' runs every stage's own steps on batches that differ, saves a checkpoint, and compares the peak
of memory with the plan of such a run. Each point is a process of its own, smallest first. A point
that does not fit the memory or the time is left out, with a line.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
import tyro

from amenable.data.mixture import Mixed
from amenable.errors import InputError
from amenable.generation.engine import generate
from amenable.generation.sampling import Sampling
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.presets import preset
from amenable.rl import memory as rl_memory
from amenable.stages import dpo, ppo, pretrain, reward, sft
from amenable.train import checkpoint, defaults, memory, plan
from amenable.train.best import BestWeights
from amenable.train.checkpoint import Stateful
from amenable.train.defaults import traits_of
from amenable.train.examples import text_row
from amenable.train.forward import Row, checkpoint_activations
from amenable.train.objective import NextToken, accumulate
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.passes import largest_inference_pass, largest_pass
from amenable.train.rankings import Pair, add_reference_logps
from amenable.train.runtime import DeviceOptions, Precision, Runtime, processor_multiplies_bf16, start_runtime
from benchmarks import machine, workloads

BASE = preset("tiny-gpt2")
SHAPES = {
    "1M": replace(BASE, num_layers=2, hidden_size=96, num_heads=3),
    "5M": BASE,
    "23M": replace(BASE, num_layers=6, hidden_size=512, num_heads=8),
    "124M": preset("gpt2"),
    "355M": preset("gpt2-medium"),
    "12M Llama": replace(preset("mini"), qk_norm=False, num_kv_heads=2),
}
TRIES = 5
"""timed steps of a point at most, after one that warms up"""
ROOM = 0.8
"""share of the free memory that a point may take"""

Timed = Callable[[int], tuple[int, float]]
"""the n-th step -> tokens, and the seconds they took"""


@dataclass(frozen=True)
class Sweep:
    """Sweep over the values of one number."""

    label: str
    values: tuple[Any, ...]
    point: Callable[[Any, Runtime], dict[str, Timed]]
    """value -> timed steps, by name"""
    bytes: Callable[[Any, Runtime], int] = field(default=lambda value, runtime: 0)
    """value -> memory that the point needs"""
    size: Callable[[Any], float] = float
    """value -> its position on the axis"""


@dataclass(frozen=True)
class Config:
    """Measure how time and memory grow with the work on this processor."""

    sweep: str = ""
    """sweeps, with commas between: context, answers, vocabulary, batch, model, rollout, memory; without it all"""
    seconds: float = 120.0
    """of each sweep; points that it does not reach by then are left out"""
    precision: Precision = "auto"
    threads: int = 0
    """processor threads; 0 is one a core"""
    plots: Path = Path("benchmarks")
    """folder of the plots, scaling-<sweep>.svg"""
    out: Path | None = None
    """also write the tables to this file"""

    def __post_init__(self) -> None:
        plan.require_above_zero(self, "seconds")
        plan.require_at_least(0, self, "threads")
        for name in self.sweep.split(",") if self.sweep else []:
            if name not in NAMES:
                raise InputError(f"unknown sweep: {name}", "--sweep", f"choose from {', '.join(NAMES)}")

    @property
    def names(self) -> list[str]:
        return self.sweep.split(",") if self.sweep else NAMES

    @property
    def device(self) -> DeviceOptions:
        return DeviceOptions(device="cpu", precision=self.precision, threads=self.threads)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and draw. Returns the exit code."""
    config = tyro.cli(Config, args=arguments, prog="benchmarks.scaling", description=__doc__)
    try:
        config.plots.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"benchmarks.scaling: {error}", file=sys.stderr)
        return 2
    return machine.print_lines(report(config), config.out, "benchmarks.scaling")


def report(config: Config) -> Iterator[str]:
    """Yield the lines of a Markdown page: the machine, then a table for each sweep."""
    yield machine.machine_line(config.threads)
    for name in config.names:
        yield ""
        yield from memory_table(config) if name == "memory" else time_table(name, SWEEPS[name], config)


def time_table(name: str, sweep: Sweep, config: Config) -> Iterator[str]:
    """Yield a sweep's lines as its points are measured; then draw its plot."""
    curves: dict[str, list[tuple[float, float]]] = {}
    deadline = perf_counter() + config.seconds
    for i, value in enumerate(sweep.values):
        left = deadline - perf_counter()
        why = refusal(sweep, value, left, config)
        share = left / (len(sweep.values) - i)
        seconds = None if why else machine.alone(measure, name, value, config.device, share)
        if i == 0:
            names = list(seconds or {"": 0.0})
            yield line(sweep.label, *(f"{label}, ms a token" for label in names))
            yield line("---", *("---:" for _ in names))
        if seconds is None:
            yield line(str(value), why or "killed (no memory left?)")
            continue
        yield line(str(value), *(f"{1000 * number:.4g}" for number in seconds.values()))
        for label, number in seconds.items():
            curves.setdefault(label, []).append((sweep.size(value), 1000 * number))
    draw(config.plots / f"scaling-{name}.svg", sweep.label, curves)


def refusal(sweep: Sweep, value: Any, left: float, config: Config) -> str:
    """Return the reason to leave a point out, or an empty text."""
    if left <= 0:
        return "left out: the time is up"
    bf16 = config.precision == "bf16" or (config.precision == "auto" and processor_multiplies_bf16())
    needed = sweep.bytes(value, Runtime(torch.device("cpu"), bf16, config.threads))
    if needed > ROOM * free_bytes():
        return f"left out: needs {needed / 2**30:.1f} GiB, and {free_bytes() / 2**30:.1f} GiB are free"
    return ""


def free_bytes() -> int:
    """Return the memory that a new process can have."""
    try:
        match = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text("ascii"))
    except OSError:
        match = None
    return 1024 * int(match[1]) if match else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def measure(name: str, value: Any, device: DeviceOptions, seconds: float) -> dict[str, float]:
    """Return seconds a token, by name: the median of as many steps as the time allows, at least one."""
    torch.manual_seed(0)
    steps = SWEEPS[name].point(value, start_runtime(device))
    medians = {}
    for label, step in steps.items():
        deadline = perf_counter() + seconds / len(steps)
        step(0)
        timings: list[float] = []
        while not timings or (len(timings) < TRIES and perf_counter() < deadline):
            tokens, spent = step(len(timings) + 1)
            timings.append(spent / tokens)
        medians[label] = median(timings)
    return medians


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def draw(path: Path, label: str, curves: dict[str, list[tuple[float, float]]]) -> None:
    """Draw curves on logarithmic axes; nothing if there are none."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    if not curves:
        return
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem}):
        figure = Figure(figsize=(5.2, 3.2), layout="constrained")
        axes = figure.add_subplot()
        for name, points in curves.items():
            axes.plot(*zip(*points), marker="o", markersize=4, linewidth=1.2, label=name)
        axes.set(xscale="log", yscale="log", xlabel=label, ylabel="ms a token")
        ticks = sorted({x for points in curves.values() for x, _ in points})
        axes.set_xticks(ticks, [f"{x:,.0f}" if x < 1e5 else plan.human_count(x) for x in ticks], fontsize=8)
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
        figure.savefig(path, metadata={"Date": None})


def training(shape: DecoderConfig, lengths: Sequence[int], runtime: Runtime) -> Timed:
    """Return updates by the next-token loss on rows of these lengths."""
    decoder = Decoder(shape, runtime.device).train()
    optimizer = Optimizer([decoder], OptimizerConfig(learning_rate=3e-4))
    rows = [text_row(ids) for ids in workloads.sequences(workloads.Size(shape), lengths)]

    def step(number: int) -> tuple[int, float]:
        start = perf_counter()
        accumulate(NextToken(decoder), rows, runtime, 8192)
        optimizer.step()
        return sum(lengths), perf_counter() - start

    return step


def decoding(
    shape: DecoderConfig, prompts: int, length: int, runtime: Runtime, tokens: int = 32, samples: int = 1
) -> Timed:
    """Return decoding of answers to prompts of one length; the prefill's time is taken off."""
    decoder = Decoder(shape, runtime.device).eval()
    ids = workloads.sequences(workloads.Size(shape), [length] * prompts)

    def seconds(count: int, number: int) -> float:
        start, sampling = perf_counter(), Sampling(max_new_tokens=count)
        with runtime.autocast():
            generate(
                decoder, ids, sampling, eos_id=None, seeds=number, samples=samples, max_batch_size=prompts * samples
            )
        return perf_counter() - start

    def step(number: int) -> tuple[int, float]:
        return tokens * prompts * samples, max(seconds(1 + tokens, number) - seconds(1, number), 1e-9)

    return step


def bytes_of_training(shape: DecoderConfig, lengths: Sequence[int], runtime: Runtime) -> int:
    """Return the memory that `training` needs, without making a model."""
    rows = [([0] * length, [False] + [True] * (length - 1)) for length in lengths]
    work = largest_pass([[[row] for row in rows]], 8192, summed=True)
    return memory.training_peak(Decoder(shape, "meta"), OptimizerConfig(), work, runtime)


def of_context(length: int, runtime: Runtime) -> dict[str, Timed]:
    shape = replace(BASE, context_length=2048)
    return {
        "training (4096 tokens)": training(shape, [length] * (4096 // length), runtime),
        "decoding (batch 8)": decoding(shape, 8, length - 33, runtime),
    }


def of_answers(count: int, runtime: Runtime) -> dict[str, Timed]:
    """Time prompts of 128 tokens with `count` answers of 64; a shared prompt's token counts once for each answer."""
    size = workloads.Size(BASE)
    model, (config, _) = workloads.scalar_model(BASE), defaults.reward(reward.Config(), traits_of(BASE))
    optimizer = Optimizer([model], config.optimizer)
    prompts = workloads.sequences(size, [128] * 4)
    answers = workloads.sequences(size, [64] * 4 * count)
    marks = [False] * 128 + [True] * 64
    items = [
        workloads.TokenizedRanking(
            [(prompt + answer, marks) for answer in answers[count * i : count * (i + 1)]],
            [float(rank) for rank in range(1, count + 1)],
            [64] * count,
            "",
        )
        for i, prompt in enumerate(prompts)
    ]

    def step(number: int) -> tuple[int, float]:
        start = perf_counter()
        accumulate(reward.RankingObjective(model), items, runtime, config.max_tokens_per_pass)
        optimizer.step()
        return 4 * count * 192, perf_counter() - start

    return {
        "training (reward, 4 prompts)": step,
        "decoding (4 prompts)": decoding(BASE, 4, 128, runtime, samples=count),
    }


def of_vocabulary(count: int, runtime: Runtime) -> dict[str, Timed]:
    shape = replace(BASE, vocab_size=count)
    return {
        "training (8 x 256)": training(shape, [256] * 8, runtime),
        "decoding (batch 32)": decoding(shape, 32, 64, runtime),
    }


def of_batch(rows: int, runtime: Runtime) -> dict[str, Timed]:
    return {
        "training (rows of 256)": training(BASE, [256] * rows, runtime),
        "decoding": decoding(BASE, rows, 64, runtime),
    }


def of_model(name: str, runtime: Runtime) -> dict[str, Timed]:
    return {
        "training (4 x 256)": training(SHAPES[name], [256] * 4, runtime),
        "decoding (batch 16)": decoding(SHAPES[name], 16, 32, runtime, tokens=8),
    }


def of_rollout(prompts: int, runtime: Runtime) -> dict[str, Timed]:
    """Time PPO iterations of `prompts` prompts of 16 to 128 tokens, answers of 64: gathering, and the whole."""
    size = workloads.Size(BASE, prompts=prompts)
    config = ppo.Config(prompts_per_step=prompts, max_new_tokens=64)
    config, _ = defaults.online(config, traits_of(BASE), traits_of(BASE))
    algorithm, models = workloads.make_ppo(BASE, runtime, config)
    ids = workloads.sequences(size, workloads.prompt_lengths(size, prompts))

    def gathering(number: int) -> tuple[int, float]:
        start = perf_counter()
        experience = workloads.sample_and_score(algorithm, models, config, ids, number)
        return int(experience.rollout.lengths.sum()), perf_counter() - start

    def iteration(number: int) -> tuple[int, float]:
        start = perf_counter()
        experience = workloads.online_iteration(algorithm, models, config, ids, number)
        return int(experience.rollout.lengths.sum()), perf_counter() - start

    return {"sampling and scoring": gathering, "whole iteration": iteration}


def parameters_of(name: str) -> float:
    return float(sum(p.numel() for p in Decoder(SHAPES[name], "meta").parameters()))


SWEEPS = {
    "context": Sweep("context", (128, 256, 512, 1024, 2048), of_context),
    "answers": Sweep("answers of a prompt (K)", (2, 3, 4, 6, 9), of_answers),
    "vocabulary": Sweep("vocabulary", (1000, 2000, 5000, 10_000, 20_000, 50_000), of_vocabulary),
    "batch": Sweep(
        "rows",
        (1, 2, 4, 8, 16, 32, 64),
        of_batch,
        lambda rows, runtime: bytes_of_training(BASE, [256] * rows, runtime),
    ),
    "model": Sweep(
        "parameters",
        tuple(SHAPES),
        of_model,
        lambda name, runtime: bytes_of_training(SHAPES[name], [256] * 4, runtime),
        parameters_of,
    ),
    "rollout": Sweep("prompts of an iteration", (16, 32, 64, 128, 256), of_rollout),
}
NAMES = [*SWEEPS, "memory"]


@dataclass(frozen=True)
class Case:
    """Run whose memory is measured: `steps` steps of a stage on batches that differ."""

    stage: str
    size: str
    precision: Precision
    rows: int = 16
    """rows of up to 256 tokens in a step"""
    steps: int = 8
    system: int = 0
    """tokens of a system prompt that every conversation begins with"""
    checkpointed: bool = False
    """True with --checkpoint-activations"""

    def __str__(self) -> str:
        extra = (", system prompt" if self.system else "") + (", checkpointed" if self.checkpointed else "")
        return f"{self.stage}, {self.size}, {self.precision}{extra}"

    def preceded(self, row: Row) -> Row:
        """Return the row with the system prompt before it."""
        ids, trained = row
        return [*range(20, 20 + self.system), *ids], [False] * self.system + trained


@dataclass(frozen=True)
class Trained:
    """Run that can be stepped, and saved."""

    predicted: int
    step: Callable[[int], object]
    state: dict[str, Stateful]


def memory_table(config: Config) -> Iterator[str]:
    """Yield planned and measured memory, in MiB beyond the program's own before it begins."""
    yield line("run", "predicted, MiB", "measured, MiB", "predicted / measured")
    yield line("---", "---:", "---:", "---:")
    deadline = perf_counter() + config.seconds
    for case in CASES:
        if perf_counter() > deadline:
            yield line(str(case), "left out: the time is up", "", "")
            continue
        result = machine.alone(use, case, config.threads)
        if result is None:
            yield line(str(case), "killed (no memory left?)", "", "")
            continue
        predicted, used = result
        yield line(str(case), f"{predicted / 2**20:,.0f}", f"{used / 2**20:,.0f}", f"{predicted / used:.2f}")


def use(case: Case, threads: int) -> tuple[int, int]:
    """Return predicted and used bytes of a run: its steps, then a checkpoint."""
    load_torch()
    before = held_bytes("VmRSS")
    runtime = start_runtime(DeviceOptions(device="cpu", precision=case.precision, threads=threads))
    torch.manual_seed(0)
    trained = STAGES[case.stage](case, runtime)
    for number in range(case.steps):
        trained.step(number)
    with tempfile.TemporaryDirectory() as folder:
        state = {name: holder.state_dict() for name, holder in trained.state.items()}
        checkpoint.save(Path(folder), case.steps, {"state": state})
    return trained.predicted, held_bytes("VmHWM") - before


def load_torch() -> None:
    """Take a step of a tiny model: memory that torch takes at first use is the program's, not the run's."""
    decoder = Decoder(DecoderConfig(10, context_length=4, num_layers=1, hidden_size=4, num_heads=1))
    optimizer = Optimizer([decoder], OptimizerConfig(learning_rate=1e-3))
    accumulate(NextToken(decoder), [text_row([1, 2, 3])], Runtime(torch.device("cpu"), False, 1), 4)
    optimizer.step()


def held_bytes(which: str) -> int:
    """Return the memory of this process, now (VmRSS) or at its peak (VmHWM); always the peak if not on Linux."""
    try:
        match = re.search(rf"{which}:\s+(\d+)", Path("/proc/self/status").read_text("ascii"))
    except OSError:
        match = None
    return 1024 * int(match[1]) if match else machine.peak_bytes()


def size_of(case: Case) -> workloads.Size:
    return workloads.Size(SHAPES[case.size], rows=case.rows, prompts=4 * case.rows)


def in_steps(count: int, case: Case) -> list[range]:
    """Divide elements 0 .. count - 1 among the case's steps."""
    size = count // case.steps
    return [range(size * step, size * (step + 1)) for step in range(case.steps)]


def next_token(
    case: Case, shape: DecoderConfig, rows: list[Row], config: pretrain.Config | sft.Config, runtime: Runtime
) -> Trained:
    """Return updates by the next-token loss; SFT holds its best weights too."""
    steps, limit, keeps = in_steps(len(rows), case), config.max_tokens_per_pass, isinstance(config, sft.Config)
    decoder = Decoder(shape, runtime.device).train()
    checkpoint_activations([decoder], case.checkpointed)
    work = largest_pass(([[rows[i]] for i in step] for step in steps), limit, summed=True)
    predicted = memory.training_peak(decoder, config.optimizer, work, runtime, case.steps, best=keeps)
    optimizer, best = Optimizer([decoder], config.optimizer), BestWeights(decoder, "eval/loss", lowest=True)

    def step(number: int) -> None:
        accumulate(NextToken(decoder), [rows[i] for i in steps[number]], runtime, limit)
        optimizer.step()
        if keeps:
            best.update({"eval/loss": -number}, number)

    return Trained(predicted, step, {"decoder": decoder, "optimizer": optimizer, "best": best})


def pretraining(case: Case, runtime: Runtime) -> Trained:
    size = size_of(case)
    lengths = [2 * length for length in workloads.prompt_lengths(size, case.rows * case.steps, "pieces")]
    rows = [text_row(ids) for ids in workloads.sequences(size, lengths)]
    config, _ = defaults.pretrain(pretrain.Config(), traits_of(size.shape))
    return next_token(case, size.shape, rows, config, runtime)


def fine_tuning(case: Case, runtime: Runtime) -> Trained:
    size = size_of(case)
    config, _ = defaults.sft(sft.Config(dropout=0.1), traits_of(size.shape))
    shape = replace(size.shape, dropout=config.dropout)
    rows = [case.preceded(row) for row in workloads.dialogues(size, case.rows * case.steps)]
    return next_token(case, shape, rows, config, runtime)


def rankings(case: Case, count: int) -> list[workloads.TokenizedRanking]:
    return [
        replace(item, rows=[case.preceded(row) for row in item.rows])
        for item in workloads.rankings(size_of(case), count)
    ]


def rewarding(case: Case, runtime: Runtime) -> Trained:
    config, _ = defaults.reward(reward.Config(), traits_of(SHAPES[case.size]))
    model = workloads.scalar_model(SHAPES[case.size])
    checkpoint_activations([model], case.checkpointed)
    items = rankings(case, max(1, case.rows // 2) * case.steps)
    steps = in_steps(len(items), case)
    work = largest_pass(([items[i].rows for i in step] for step in steps), config.max_tokens_per_pass, share=True)
    work = replace(work, trained=work.rows)
    predicted = memory.training_peak(model, config.optimizer, work, runtime, case.steps)
    optimizer = Optimizer([model], config.optimizer)

    def step(number: int) -> None:
        accumulate(
            reward.RankingObjective(model), [items[i] for i in steps[number]], runtime, config.max_tokens_per_pass
        )
        optimizer.step()

    return Trained(predicted, step, {"model": model, "optimizer": optimizer})


def preferring(case: Case, runtime: Runtime) -> Trained:
    config, _ = defaults.dpo(dpo.Config(), traits_of(SHAPES[case.size]))
    policy = Decoder(SHAPES[case.size]).eval()
    checkpoint_activations([policy], case.checkpointed)
    pairs = [Pair(item.rows[0], item.rows[1]) for item in rankings(case, case.rows * case.steps)]
    steps, limit = in_steps(len(pairs), case), config.max_tokens_per_pass
    rows = [(pair.chosen, pair.rejected) for pair in pairs]
    work = largest_pass(([rows[i] for i in step] for step in steps), limit, share=True)
    inference = largest_inference_pass([row for pair in rows for row in pair], limit)
    predicted = memory.training_peak(policy, config.optimizer, work, runtime, case.steps, inference)
    pairs = add_reference_logps(policy, Mixed([""], [pairs]), runtime, config.max_tokens_per_pass)
    optimizer = Optimizer([policy], config.optimizer)

    def step(number: int) -> None:
        accumulate(dpo.DPO(policy, config), [pairs[i] for i in steps[number]], runtime, limit)
        optimizer.step()

    return Trained(predicted, step, {"policy": policy, "optimizer": optimizer})


def reinforcing(case: Case, runtime: Runtime) -> Trained:
    size = size_of(case)
    config = ppo.Config(prompts_per_step=size.prompts, max_new_tokens=64, max_steps=case.steps)
    config, _ = defaults.online(config, traits_of(size.shape), traits_of(size.shape))
    algorithm, models = workloads.make_ppo(size.shape, runtime, config)
    checkpoint_activations(algorithm.models.values(), case.checkpointed)
    prompts = workloads.sequences(size, workloads.prompt_lengths(size, size.prompts * case.steps))
    prompts = [case.preceded((ids, []))[0] for ids in prompts]
    steps = in_steps(len(prompts), case)
    predicted = rl_memory.peak_bytes(algorithm, models, config, prompts)

    def step(number: int) -> None:
        ids = [prompts[i] for i in steps[number]]
        workloads.online_iteration(algorithm, models, config, ids, number)

    state: dict[str, Stateful] = {**algorithm.models}
    return Trained(predicted, step, state | {f"{name}_optimizer": each for name, each in algorithm.optimizers.items()})


STAGES: dict[str, Callable[[Case, Runtime], Trained]] = {
    "pretrain": pretraining,
    "sft": fine_tuning,
    "reward": rewarding,
    "dpo": preferring,
    "ppo": reinforcing,
}
CASES = [
    *(Case(stage, "5M", precision) for stage in STAGES for precision in ("fp32", "bf16")),
    *(Case(stage, "124M", "bf16", rows=4, steps=2) for stage in STAGES),
    *(Case(stage, "12M Llama", "bf16", system=64) for stage in STAGES if stage != "pretrain"),
    *(Case(stage, "5M", precision, checkpointed=True) for stage in STAGES for precision in ("fp32", "bf16")),
    *(Case(stage, "124M", "bf16", rows=4, steps=2, checkpointed=True) for stage in ("pretrain", "dpo")),
]


if __name__ == "__main__":
    sys.exit(main())
