"""How fast and how big: tokens a second and peak memory of pretraining, SFT, reward, DPO, PPO and decoding.

    python -m benchmarks.speed --only pretrain,ppo --size 5M --precision bf16 --out table.md

Each row runs the stage's own functions on seeded data in a process of its own: a warm-up, then `repeats` timed steps,
of which the median, the least and the most are told. Memory is the process's peak less what it was after the imports.
The ceiling that training rows are compared with, a plain matrix product, is measured in the same run.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Literal, TypeVar

import torch
import tyro

from amenable.data.types import Prompt
from amenable.errors import InputError
from amenable.feedback.comparisons import Item
from amenable.generation.engine import generate
from amenable.generation.sampling import Sampling
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.heads import ScalarModel
from amenable.models.presets import preset
from amenable.rewards.model import ModelReward
from amenable.rewards.spec import load_reward
from amenable.rl.experience import Experience, TokenizedPrompt, objective_metrics
from amenable.rl.improve import collect_experience, update
from amenable.rl.models import Models
from amenable.seeds import seeded_generator
from amenable.stages import dpo, ppo, pretrain, reward, sft
from amenable.text.tokenizer import MIN_VOCAB_SIZE, SPECIAL_TOKENS, Tokenizer
from amenable.train import defaults, plan
from amenable.train.defaults import traits_of
from amenable.train.examples import whole
from amenable.train.forward import Row
from amenable.train.objective import NextToken, accumulate
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.runtime import DeviceOptions, Runtime, processor_multiplies_bf16, start_runtime

T = TypeVar("T")
Precision = Literal["fp32", "bf16"]
SizeName = Literal["5M", "124M", "smoke"]

ANSWERS = 6  # answers to a prompt in the reward model's rankings
GEMM = (2048, 768, 768)
COPIED = 64 << 20  # numbers of fp32 copied: 256 MiB, beyond any cache
CEILING_TRIES = 7


@dataclass(frozen=True)
class Size:
    """A model, and how much it is given at once."""

    shape: DecoderConfig
    rows: int = 16
    """rows in a pretraining step; SFT has twice as many, of about half the length"""
    length: int = 256
    """tokens of a full row; prompts and answers have 1/16 to 1/2 of it"""
    prompts: int = 128
    """prompts in a PPO iteration"""


SIZES: dict[SizeName, Size] = {
    "5M": Size(preset("tiny-gpt2")),
    "124M": Size(preset("gpt2"), prompts=32),
    "smoke": Size(
        DecoderConfig(320, context_length=64, num_layers=2, hidden_size=32, num_heads=2), rows=2, length=32, prompts=4
    ),
}


@dataclass(frozen=True)
class Config:
    """Measure tokens a second and peak memory on this processor."""

    only: str = ""
    """rows to measure, with commas between; without it all. 'decode' is every row that begins so"""
    size: Literal["both", "5M", "124M", "smoke"] = "both"
    """smoke runs everything in seconds and says nothing about speed"""
    precision: Literal["both", "fp32", "bf16"] = "both"
    repeats: int = 3
    """timed steps of a row, after one that warms up"""
    threads: int = 0
    """processor threads; 0 is one a core"""
    out: Path | None = None
    """also write the table to this file"""

    def __post_init__(self) -> None:
        plan.require_at_least(1, self, "repeats")
        plan.require_at_least(0, self, "threads")
        for name in self.only.split(",") if self.only else []:
            if name not in ROWS and name not in {row.split("-")[0] for row in ROWS}:
                raise InputError(f"there is no row '{name}'", "--only", f"choose from {', '.join(ROWS)}")

    @property
    def rows(self) -> list[str]:
        wanted = self.only.split(",")
        return [row for row in ROWS if not self.only or row in wanted or row.split("-")[0] in wanted]

    @property
    def sizes(self) -> list[SizeName]:
        return ["5M", "124M"] if self.size == "both" else [self.size]

    @property
    def precisions(self) -> list[Precision]:
        return ["fp32", "bf16"] if self.precision == "both" else [self.precision]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print each line as soon as it is known; the exit code."""
    config = tyro.cli(Config, args=arguments, prog="benchmarks.speed", description=__doc__)
    return tell(report(config), config.out, "benchmarks.speed")


def tell(lines: Iterator[str], out: Path | None, program: str) -> int:
    """Print each line as soon as it is known, and into a file where one is named; the exit code."""
    if out is not None:
        try:
            out.write_text("", "utf-8")
        except OSError as error:
            print(f"{program}: {error}", file=sys.stderr)
            return 2
    for line in lines:
        print(line, flush=True)
        if out is not None:
            with out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
    return 0


def report(config: Config) -> Iterator[str]:
    """The lines of a Markdown page: machine, ceiling, and the table row by row."""
    yield machine_line(config.threads)
    yield ""
    limit = alone(measure_ceiling, config.threads)
    if limit is None:
        raise MemoryError("the process that measures the ceiling was killed")
    yield limit.describe()
    yield ""
    yield table_line("size", "products", "row", "tokens/s", "min", "max", "of ceiling", "peak MiB", "a step")
    yield table_line("---", "---", "---", "---:", "---:", "---:", "---:", "---:", "---", fill="-")
    for size in config.sizes:
        for precision in config.precisions:
            for row in config.rows:
                measured = alone(measure, row, SIZES[size], precision, config.threads, config.repeats)
                yield from table_lines(size, precision, row, measured, limit.flops(precision))


def machine_line(threads: int) -> str:
    """Processor, cores, threads, torch: numbers from other machines are not comparable."""
    used = threads or torch.get_num_threads()
    cores = os.cpu_count() or 1
    return (
        f"{processor()}, {cores} core{'s' if cores != 1 else ''}, {used} thread{'s' if used != 1 else ''}, "
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    )


def processor() -> str:
    """The processor's name, and whether it has instructions for bf16."""
    named = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as file:
            found = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        found = []
    bf16 = "bf16" if processor_multiplies_bf16() else "no bf16"
    return f"{found[0] if found else named} ({torch.backends.cpu.get_cpu_capability()}, {bf16} instructions)"


def table_lines(size: str, precision: str, row: str, measured: Measured | None, ceiling: float) -> list[str]:
    """A row's lines; `ceiling` in FLOP/s. A row whose process was killed says so."""
    if measured is None:
        return [table_line(size, precision, row, "killed", "", "", "", "", "(no memory left?)")]
    lines = []
    for label, rates in measured.rates.items():
        share = f"{median(measured.flop_rates) / ceiling:.0%}" if any(measured.flop_rates) else ""
        numbers = [f"{number:,.0f}" for number in (median(rates), min(rates), max(rates))]
        memory = f"{measured.memory / 2**20:,.0f}"
        lines.append(table_line(size, precision, label, *numbers, share, memory, measured.what))
    return lines


def table_line(*cells: str, fill: str = " ") -> str:
    """One line of the table; widths that keep it readable as plain text."""
    widths = (5, 8, 15, 8, 8, 8, 10, 8, 0)
    padded = [
        cell.rjust(width, fill) if 2 < place < 8 else cell.ljust(width, fill)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"


def alone(function: Callable[..., T], *arguments: Any) -> T | None:
    """The function's result from a fresh process, whose peak of memory is its own; None where it was killed."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            return None


@dataclass(frozen=True)
class Work:
    """What one step did."""

    tokens: dict[str, int]
    """tokens by the line of the table that they count for"""
    flops: float = 0.0
    """operations that the step needs; 0 where no share of the ceiling is told"""
    note: str = ""


@dataclass(frozen=True)
class Workload:
    """What is timed: `step(n)` does the n-th step, from 0."""

    what: str
    step: Callable[[int], Work]


@dataclass(frozen=True)
class Measured:
    """A row's timings."""

    rates: dict[str, list[float]]
    """tokens a second of each repeat, by line of the table"""
    flop_rates: list[float]
    """operations a second of each repeat; 0 where none are counted"""
    memory: int
    """peak bytes, less those after the imports"""
    what: str


def measure(row: str, size: Size, precision: Precision, threads: int, repeats: int) -> Measured:
    """Build the row's workload, warm up once, time `repeats` steps."""
    before = peak_bytes()
    runtime = start_runtime(DeviceOptions(device="cpu", precision=precision, threads=threads))
    torch.manual_seed(0)
    workload = ROWS[row](size, runtime)
    workload.step(0)
    timed = [seconds_of(partial(workload.step, number)) for number in range(1, repeats + 1)]
    works = [work for _, work in timed]
    rates = {label: [work.tokens[label] / seconds for seconds, work in timed] for label in works[0].tokens}
    what = ", ".join(part for part in (workload.what, works[-1].note) if part)
    return Measured(rates, [work.flops / seconds for seconds, work in timed], peak_bytes() - before, what)


def seconds_of(function: Callable[[], T]) -> tuple[float, T]:
    """How long the call took, and what it gave."""
    start = perf_counter()
    result = function()
    return perf_counter() - start, result


def peak_bytes() -> int:
    """The most memory this process has held; never less than what its parent held when it was started."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def pretrain_row(size: Size, runtime: Runtime, muon: bool = True) -> Workload:
    """Rows of one length, the optimizer as `amenable pretrain` has it, or AdamW for everything."""
    config, _ = defaults.pretrain(pretrain.Config(), traits_of(size.shape))
    optimizer = config.optimizer if muon else replace(config.optimizer, muon_learning_rate=0.0)
    rows = [whole(ids) for ids in sequences(size, [size.length] * size.rows)]
    name = "Muon" if muon else "AdamW"
    workload = next_token(f"pretrain-{name.lower()}", size.shape, rows, optimizer, config.max_tokens_per_pass, runtime)
    return replace(workload, what=f"{size.rows} x {size.length} tokens, {name}")


def sft_row(size: Size, runtime: Runtime) -> Workload:
    """Prompts and answers of mixed lengths, answers trained, dropout as the demo has it."""
    config, _ = defaults.sft(sft.Config(dropout=0.1), traits_of(size.shape))
    rows = dialogues(size, 2 * size.rows)
    shape = replace(size.shape, dropout=config.dropout)
    workload = next_token("sft", shape, rows, config.optimizer, config.max_tokens_per_pass, runtime)
    return replace(workload, what=f"{described(rows)}, dropout {config.dropout}")


def next_token(
    label: str, shape: DecoderConfig, rows: list[Row], config: OptimizerConfig, limit: int, runtime: Runtime
) -> Workload:
    """Updates by the next-token loss on the same rows."""
    decoder = Decoder(shape).train()
    optimizer = Optimizer([decoder], config)

    def step(number: int) -> Work:
        accumulate(NextToken(decoder), rows, runtime, limit)
        optimizer.step()
        return training_work(label, shape, rows)

    return Workload("", step)


def reward_row(size: Size, runtime: Runtime) -> Workload:
    """Rankings of six answers, all pairs of a prompt in one element of the batch."""
    config, _ = defaults.reward(reward.Config(), traits_of(size.shape))
    model = scalar_model(size.shape)
    optimizer = Optimizer([model], config.optimizer)
    prompts = max(1, config.prompts_per_step * size.rows // 16)
    items = rankings(size, prompts)
    rows = [row for item in items for row in item.rows]

    def step(number: int) -> Work:
        accumulate(reward.BradleyTerry(model), items, runtime, config.max_tokens_per_pass)
        optimizer.step()
        return training_work("reward", size.shape, rows, unembedded=False)

    return Workload(f"{prompts} prompts x {ANSWERS} answers, {described(rows)}", step)


def dpo_row(size: Size, runtime: Runtime) -> Workload:
    """Pairs; the reference's log-probabilities are computed once, before the clock starts, as the stage does."""
    config, _ = defaults.dpo(dpo.Config(), traits_of(size.shape))
    policy = Decoder(size.shape).eval()
    items = rankings(size, max(1, config.batch_size * size.rows // 16))
    pairs = [dpo.Pair(item.rows[0], item.rows[1]) for item in items]
    pairs = dpo.add_reference_logps(policy, pairs, runtime, config.max_tokens_per_pass)
    optimizer = Optimizer([policy], config.optimizer)
    rows = [row for pair in pairs for row in (pair.chosen, pair.rejected)]

    def step(number: int) -> Work:
        accumulate(dpo.DPO(policy, config), pairs, runtime, config.max_tokens_per_pass)
        optimizer.step()
        return training_work("dpo", size.shape, rows)

    return Workload(f"{len(pairs)} pairs, {described(rows)}", step)


def ppo_row(size: Size, runtime: Runtime) -> Workload:
    """Whole iterations: sample, score, learn. EOS is as unlikely as any token: nearly all answers have full length."""
    config = ppo.Config(prompts_per_step=size.prompts, max_new_tokens=3 * size.length // 8)
    config, _ = defaults.ppo(config, traits_of(size.shape), traits_of(size.shape))
    algorithm, models = make_ppo(size.shape, runtime, config)
    prompts = sequences(size, prompt_lengths(size, size.prompts))

    def step(number: int) -> Work:
        gathering, experience = seconds_of(
            lambda: collect_experience(algorithm, models, config, prompts, ("rollout", number), config.num_generations)
        )
        learning, _ = seconds_of(lambda: learn(algorithm, models, config, experience, number))
        rollout = experience.rollout
        lengths = [len(ids) for ids, _ in rollout.rows()]
        generated = int(rollout.lengths.sum())
        flops = ppo_flops(size.shape, lengths, generated, config.num_ppo_epochs)
        note = f"learning {learning / (gathering + learning):.0%} of the time"
        return Work({"ppo, generated": generated, "ppo, all": sum(lengths)}, flops, note)

    return Workload(f"{config.samples} answers of {config.max_new_tokens}", step)


def decode_row(size: Size, runtime: Runtime, answers: int) -> Workload:
    """Prompts of mixed lengths, read and continued at once to a fixed length."""
    decoder = Decoder(size.shape).eval()
    prompts = sequences(size, prompt_lengths(size, answers))
    sampling = Sampling(max_new_tokens=size.length // 2)

    def step(number: int) -> Work:
        with runtime.autocast():
            groups = generate(decoder, prompts, sampling, eos_id=None, seeds=number, max_batch_size=answers)
        return Work({f"decode-{answers}": sum(len(answer.ids) for group in groups for answer in group)})

    return Workload(f"{answers} answers of {sampling.max_new_tokens}", step)


ROWS: dict[str, Callable[[Size, Runtime], Workload]] = {
    "pretrain-muon": pretrain_row,
    "pretrain-adamw": partial(pretrain_row, muon=False),
    "sft": sft_row,
    "reward": reward_row,
    "dpo": dpo_row,
    "ppo": ppo_row,
    "decode-32": partial(decode_row, answers=32),
    "decode-128": partial(decode_row, answers=128),
}


def sequences(size: Size, lengths: Sequence[int]) -> list[list[int]]:
    """Random ids of these lengths, no special tokens among them."""
    generator = seeded_generator(0, "ids", len(lengths))
    return [
        torch.randint(len(SPECIAL_TOKENS), size.shape.vocab_size, (length,), generator=generator).tolist()
        for length in lengths
    ]


def prompt_lengths(size: Size, count: int, purpose: str = "prompts") -> list[int]:
    """Even odds for every length from 1/16 to 1/2 of a full row."""
    generator = seeded_generator(0, purpose, count)
    return torch.randint(size.length // 16, size.length // 2 + 1, (count,), generator=generator).tolist()


def dialogues(size: Size, count: int) -> list[Row]:
    """A prompt and an answer a row, both of mixed lengths; the answer is trained."""
    prompts, answers = prompt_lengths(size, count), prompt_lengths(size, count, "answers")
    ids = sequences(size, [sum(pair) for pair in zip(prompts, answers)])
    marks = [[False] * prompt + [True] * answer for prompt, answer in zip(prompts, answers)]
    return list(zip(ids, marks))


def rankings(size: Size, count: int) -> list[Item]:
    """Prompts with six answers each, all ranks different."""
    prompts = sequences(size, prompt_lengths(size, count))
    answers = sequences(size, prompt_lengths(size, ANSWERS * count, "answers"))
    items = []
    for place, prompt in enumerate(prompts):
        group = answers[ANSWERS * place : ANSWERS * (place + 1)]
        rows = [(prompt + answer, [False] * len(prompt) + [True] * len(answer)) for answer in group]
        items.append(Item(rows, [float(rank) for rank in range(1, ANSWERS + 1)], [len(a) for a in group], ""))
    return items


def scalar_model(shape: DecoderConfig) -> ScalarModel:
    return ScalarModel.from_decoder(Decoder(shape), seeded_generator(0, "head")).eval()


def make_ppo(shape: DecoderConfig, runtime: Runtime, config: ppo.Config) -> tuple[ppo.PPO, Models]:
    """Return PPO and its models with random weights: policy and reference alike, reward model and critic alike."""
    reference, scorer = (
        runtime.to_inference(model).requires_grad_(False) for model in (Decoder(shape).eval(), scalar_model(shape))
    )
    words = Tokenizer.train(["only its EOS is asked for"], MIN_VOCAB_SIZE, chat=True)
    reward = load_reward(ModelReward(scorer, words, runtime, config.max_tokens_per_pass), runtime)
    models = Models(Decoder(shape).eval(), reference, words, reward, runtime, (reference, scorer))
    return ppo.PPO(models, scalar_model(shape), config), models


def learn(algorithm: ppo.PPO, models: Models, config: ppo.Config, experience: Experience, number: int) -> None:
    """Take the updates of an iteration on its experience, and compute its metrics."""
    algorithm.estimate(experience, config.kl_coef)
    objective_metrics(experience, config.kl_coef)
    update(algorithm, models, experience, [], number, 1.0, config, rounding=lambda: 0.0)


def ppo_iteration(
    algorithm: ppo.PPO, models: Models, config: ppo.Config, prompts: list[list[int]], number: int
) -> Experience:
    """Sample, score and learn; return the experience."""
    samples = config.num_generations
    asked = [TokenizedPrompt(Prompt(str(i), ()), ids) for i, ids in enumerate(prompts)]
    experience = collect_experience(algorithm, models, config, asked, ("rollout", number), samples)
    learn(algorithm, models, config, experience, number)
    return experience


def described(rows: list[Row]) -> str:
    lengths = [len(ids) for ids, _ in rows]
    return f"{len(rows)} rows of {min(lengths)} to {max(lengths)} tokens"


def training_work(label: str, shape: DecoderConfig, rows: list[Row], unembedded: bool = True) -> Work:
    """Forward and backward: three times the operations of a forward pass. A reward model is read once a row."""
    lengths = [len(ids) for ids, _ in rows]
    predicted = sum(sum(trained) for _, trained in rows)
    needed = (
        forward_flops(shape, lengths, predicted, predicted)
        if unembedded
        else forward_flops(shape, lengths, 0, len(rows))
    )
    return Work({label: sum(lengths)}, 3 * needed)


def forward_flops(shape: DecoderConfig, lengths: Sequence[int], predicted: int, read: int) -> float:
    """Operations of one pass: 2 for each weight of a matrix and token it multiplies, and causal attention.

        sum_b (2 N T_b + 2 L h T_b (T_b + 1)) - 2 n (sum_b T_b - R) + 2 V D M

    N weights of the layers' matrices, L layers, h = heads x head width, R tokens whose hidden states are read, M of
    them to be unembedded. After its attention the last layer, n weights, is needed at the tokens read alone. With every
    token predicted, three times this is the "6N + attention" of Kaplan et al. (2020) and Chowdhery et al. (2022),
    attention counted where it is causal.
    """
    layers = Decoder(shape, "meta").layers
    weights = sum(p.numel() for p in layers.parameters() if p.ndim == 2)
    last = sum(
        p.numel() for part in (layers[-1].attention.out, layers[-1].mlp) for p in part.parameters() if p.ndim == 2
    )
    width = shape.num_heads * shape.head_size
    attention = sum(2 * shape.num_layers * width * length * (length + 1) for length in lengths)
    spared = 2 * last * (sum(lengths) - read)
    return 2 * weights * sum(lengths) + attention - spared + 2 * shape.vocab_size * shape.hidden_size * predicted


def ppo_flops(shape: DecoderConfig, lengths: Sequence[int], generated: int, epochs: int) -> float:
    """Policy and reference predict the answers, scorer and critic read them; policy and critic train each epoch."""
    predicting, valuing, scoring = (
        forward_flops(shape, lengths, *counts) for counts in ((generated, generated), (0, generated), (0, len(lengths)))
    )
    return (2 + 3 * epochs) * predicting + (1 + 3 * epochs) * valuing + scoring


@dataclass(frozen=True)
class Ceiling:
    """What this machine can do, the best of a few tries."""

    fp32: float
    """operations a second of a matrix product"""
    bf16: float
    copy: float
    """bytes read and written a second"""

    def flops(self, precision: Precision) -> float:
        return self.fp32 if precision == "fp32" else self.bf16

    def describe(self) -> str:
        return (
            f"Ceiling: {'x'.join(map(str, GEMM))} matrix product {self.fp32 / 1e9:,.0f} GFLOP/s in fp32, "
            f"{self.bf16 / 1e9:,.0f} in bf16; memory copy {self.copy / 1e9:,.1f} GB/s (read and written)"
        )


def measure_ceiling(threads: int) -> Ceiling:
    """The best of a few tries, each long enough for the clock."""
    start_runtime(DeviceOptions(device="cpu", precision="fp32", threads=threads))
    return Ceiling(product_rate(torch.float32), product_rate(torch.bfloat16), copy_rate())


def product_rate(dtype: torch.dtype, calls: int = 4) -> float:
    """FLOP/s of [rows, inner] @ [inner, columns]."""
    rows, inner, columns = GEMM
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(shape, generator=generator).to(dtype) for shape in ((rows, inner), (inner, columns)))
    out = left @ right

    def multiply() -> None:
        for _ in range(calls):
            torch.mm(left, right, out=out)

    return 2 * rows * inner * columns * calls / min(seconds_of(multiply)[0] for _ in range(CEILING_TRIES))


def copy_rate() -> float:
    """Bytes read and written a second."""
    source, target = torch.ones(COPIED), torch.zeros(COPIED)
    seconds = min(seconds_of(lambda: target.copy_(source))[0] for _ in range(CEILING_TRIES))
    return 2 * source.nbytes / seconds


if __name__ == "__main__":
    sys.exit(main())
