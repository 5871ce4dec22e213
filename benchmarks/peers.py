"""Side by side with TRL: the same ids, shape and precision, step by step in turn, medians and their ratio.

    make bench-peers                                         # sets up .venv-peers and .venv-peers-ppo, then runs this
    python -m benchmarks.peers --size 5M --only sft,dpo
    python -m benchmarks.peers --size 124M --repeats 3       # fewer rows a step: three processes share the memory

Each side is a process of its own that makes a step when it is told to, so that both meet the same machine. The peer
runs with the allocator's default settings and with those that this project uses, and the better one counts. Ours calls
the stages' own functions; the peer's side (benchmarks/peer_trl.py) its own trainers, without gradient checkpointing.
PPO has been taken out of TRL: its peer (benchmarks/peer_ppo.py) is the last version that had it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import combinations, count
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
import tyro

from amenable.errors import InputError
from amenable.feedback.comparisons import Item
from amenable.generation.engine import generate
from amenable.generation.experience import objective_metrics
from amenable.generation.sampling import Sampling
from amenable.models.decoder import Decoder
from amenable.stages import dpo, ppo, reward, sft
from amenable.train import plan, runtime
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.passes import Row
from amenable.train.step import backward_next_token
from benchmarks import speed
from benchmarks.speed import (
    Size,
    SizeName,
    make_actors,
    peak_bytes,
    prompt_lengths,
    scalar_model,
    seconds_of,
    sequences,
)

HERE = Path(__file__).parent
SIZES: dict[SizeName, Size] = {**speed.SIZES, "124M": replace(speed.SIZES["124M"], rows=4, prompts=16)}
"""as benchmarks/speed.py has them, but GPT-2 small with a quarter of the rows: three processes are there at once"""
TUNED = {
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
"""the allocator's settings that train/runtime.py makes for ourselves"""
EOS, PAD = 0, 1
NEW_TOKENS = 64
RANKED = 9
"""answers of the ranking"""
ROLLOUT_ROWS = 128
"""answers that the PPO peer generates at once: its best of 32, 64 and 128"""

Step = Callable[[], None]
"""one step of ours"""


@dataclass(frozen=True)
class Config:
    """Measure ratios of tokens a second to TRL and transformers."""

    peer: Path = Path(".venv-peers/bin/python")
    """the interpreter of an environment with trl"""
    peer_ppo: Path = Path(".venv-peers-ppo/bin/python")
    """the same with the last trl that has PPO, for the row of that name"""
    size: SizeName = "5M"
    precision: Literal["fp32", "bf16"] = "bf16"
    only: str = ""
    """rows to measure, with commas between; without it all"""
    repeats: int = 5
    """timed steps of each side, after one that warms up"""
    threads: int = 2
    allocators: Literal["both", "tuned"] = "both"
    """how the peer is run; tuned: without the allocator's defaults, for want of memory or time"""

    def __post_init__(self) -> None:
        plan.require_at_least(1, self, "repeats", "threads")
        for name in self.only.split(",") if self.only else []:
            if name not in WORK:
                raise InputError(f"there is no row '{name}'", "--only", f"choose from {', '.join(WORK)}")

    @property
    def rows(self) -> list[str]:
        return [row for row in WORK if not self.only or row in self.only.split(",")]

    def interpreter(self, row: str) -> Path:
        return self.peer_ppo if row == "ppo" else self.peer


@dataclass(frozen=True)
class Work:
    """One row: what the peer is handed, how our side makes a step, and how many tokens either is credited with."""

    handed: dict[str, Any]
    ours: Callable[[runtime.Runtime], Step]
    tokens: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a row as soon as it is known; the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["ours"]:
        serve(arguments[1], json.loads(arguments[2]))
        return 0
    try:
        config = tyro.cli(Config, args=arguments, prog="benchmarks.peers", description=__doc__)
        for python in map(config.interpreter, config.rows):
            if not python.exists():
                raise InputError("no such interpreter", python, "make bench-peers sets it up")
    except InputError as error:
        print(f"benchmarks.peers: {error}", file=sys.stderr)
        return 2
    print("| row | ours, tokens/s | peer | peer, tuned malloc | ratio to its better | memory, ours : peer |")
    print("|---|--:|--:|--:|--:|--:|", flush=True)
    for row in config.rows:
        print(line(row, config), flush=True)
    return 0


def line(row: str, config: Config) -> str:
    """Measure one row: ours, the peer, and the peer with a tuned allocator, one step of each in turn."""
    work = WORK[row](SIZES[config.size])
    options = json.dumps({"size": config.size, "precision": config.precision, "threads": config.threads})
    told = {**work.handed, "bf16": config.precision == "bf16", "threads": config.threads}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        file = Path(folder) / "work.json"
        file.write_text(json.dumps(told), "utf-8")
        script = HERE / ("peer_ppo.py" if row == "ppo" else "peer_trl.py")
        peer = [str(config.interpreter(row)), str(script), str(file)]
        commands = [([sys.executable, "-m", "benchmarks.peers", "ours", row, options], {}), (peer, TUNED)]
        commands += [(peer, {})] if config.allocators == "both" else []
        sides = [stack.enter_context(side(command, environment)) for command, environment in commands]
        for one in sides:
            step(one)
        timed = [[step(one) for one in sides] for _ in range(config.repeats)]
    ours, *theirs = [work.tokens / median(found["seconds"] for found in one) for one in zip(*timed)]
    memory, *others = [found["peak"] for found in timed[-1]]
    tuned, default = f"{theirs[0]:,.0f}", f"{theirs[1]:,.0f}" if theirs[1:] else ""
    ratio, share = ours / max(theirs), memory / min(others)
    return f"| {row} | {ours:,.0f} | {default} | {tuned} | **{ratio:.1f}** | {share:.2f} |"


@contextmanager
def side(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that makes steps when told to."""
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **quiet, **environment},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def step(process: subprocess.Popen[str]) -> dict[str, float]:
    """Have a side make one step; its seconds, and the peak of its memory."""
    assert process.stdin is not None and process.stdout is not None
    while (said := process.stdout.readline()).strip() != "ready":
        if not said:
            raise InputError("a side of the comparison ended early", how="run its command by hand to see why")
    process.stdin.write("go\n")
    process.stdin.flush()
    while not (said := process.stdout.readline()).startswith("{"):
        if not said:
            raise InputError("a side of the comparison ended early", how="run its command by hand to see why")
    return json.loads(said)


def serve(row: str, options: dict[str, Any]) -> None:
    """Our side: build the row's work and make steps when told to."""
    machine = runtime.start(runtime.Machine(device="cpu", precision=options["precision"], threads=options["threads"]))
    torch.manual_seed(0)
    before = peak_bytes()
    make = WORK[row](SIZES[options["size"]]).ours(machine)
    while True:
        print("ready", flush=True)
        if sys.stdin.readline().strip() != "go":
            return
        seconds, _ = seconds_of(make)
        print(json.dumps({"seconds": seconds, "peak": peak_bytes() - before}), flush=True)


def handed(row: str, size: Size, rows: list[dict[str, list[int]]], **others: Any) -> dict[str, Any]:
    """A row's work as the peer reads it."""
    return {"row": row, "shape": asdict(size.shape), "rows": rows, "eos": EOS, "pad": PAD, **others}


def learner(size: Size, rows: list[Row], dropout: float, machine: runtime.Runtime) -> Step:
    """An update by the next-token loss, as `sft` makes it."""
    decoder = Decoder(replace(size.shape, dropout=dropout)).train()
    optimizer = Optimizer([decoder], OptimizerConfig(learning_rate=1e-5))

    def make() -> None:
        backward_next_token(decoder, rows, machine, sft.Config().max_tokens_per_pass)
        optimizer.step()

    return make


def sft_work(size: Size, packing: bool = False) -> Work:
    """Prompts and answers of natural lengths, answers trained."""
    told = asked(size, 2 * size.rows, 1)
    rows = [{"prompt": prompt, "answer": answers[0]} for prompt, answers in told]
    ours = [(prompt + answers[0], [False] * len(prompt) + [True] * len(answers[0])) for prompt, answers in told]
    dropout = sft.Config().dropout
    return Work(
        handed("sft", size, rows, packing=packing, dropout=dropout),
        lambda machine: learner(size, ours, dropout, machine),
        sum(len(ids) for ids, _ in ours),
    )


def asked(size: Size, prompts: int, answers: int) -> list[tuple[list[int], list[list[int]]]]:
    """Prompts of mixed lengths with so many answers each, all ending in EOS; no id is EOS or PAD by chance."""
    asks = sequences(size, prompt_lengths(size, prompts))
    said = sequences(size, prompt_lengths(size, prompts * answers, "answers"))
    return [
        (ask, [[*answer[:-1], EOS] for answer in said[answers * i : answers * (i + 1)]]) for i, ask in enumerate(asks)
    ]


def ranking_items(told: list[tuple[list[int], list[list[int]]]]) -> list[Item]:
    """Rankings in the order in which the answers stand, the best first."""
    return [
        Item(
            [(prompt + answer, [False] * len(prompt) + [True] * len(answer)) for answer in answers],
            [float(rank) for rank in range(len(answers))],
            [len(answer) for answer in answers],
            "",
        )
        for prompt, answers in told
    ]


def pairs_handed(told: list[tuple[list[int], list[list[int]]]]) -> list[dict[str, list[int]]]:
    """All pairs of every prompt's answers."""
    return [
        {"prompt": prompt, "chosen": better, "rejected": worse}
        for prompt, answers in told
        for better, worse in combinations(answers, 2)
    ]


def reward_work(size: Size, prompts: int, answers: int) -> Work:
    """Rankings: ours computes each answer once, the peer each pair's two."""
    told = asked(size, prompts, answers)
    items = ranking_items(told)

    def build(machine: runtime.Runtime) -> Step:
        model = scalar_model(size.shape)
        optimizer = Optimizer([model], OptimizerConfig(learning_rate=1e-5))

        def make() -> None:
            reward.backward(model, items, reward.Config(), machine)
            optimizer.step()

        return make

    pairs = pairs_handed(told)
    at_once = max(n for n in range(1, size.rows + 1) if len(pairs) % n == 0)
    tokens = sum(2 * len(p["prompt"]) + len(p["chosen"]) + len(p["rejected"]) for p in pairs)
    return Work(handed("reward", size, pairs, at_once=at_once), build, tokens)


def dpo_work(size: Size) -> Work:
    """Pairs, the reference's log-probabilities computed before the clock starts on both sides."""
    told = asked(size, size.rows, 2)

    def build(machine: runtime.Runtime) -> Step:
        policy = Decoder(size.shape).eval()
        pairs = [dpo.Pair(item.rows[0], item.rows[1]) for item in ranking_items(told)]
        pairs = dpo.with_reference(policy, pairs, dpo.Config(), machine)
        optimizer = Optimizer([policy], OptimizerConfig(learning_rate=1e-5))

        def make() -> None:
            dpo.walk(policy, pairs, dpo.Config(), machine)
            optimizer.step()

        return make

    tokens = sum(2 * len(prompt) + sum(map(len, answers)) for prompt, answers in told)
    return Work(handed("dpo", size, pairs_handed(told)), build, tokens)


def ppo_work(size: Size) -> Work:
    """Whole iterations with the stage's own settings, no EOS; the tokens are those generated."""
    new = min(NEW_TOKENS, size.length // 2)
    config = ppo.Config(prompts_per_step=size.prompts, max_new_tokens=new)
    prompts = sequences(size, prompt_lengths(size, size.prompts))

    def build(machine: runtime.Runtime) -> Step:
        actors = make_actors(size.shape, machine)
        actors.tokenizer.eos_id = -1  # never drawn: no answer ends early
        optimizers = Optimizer([actors.policy], config.optimizer), Optimizer([actors.critic], config.optimizer)
        numbers = count()

        def make() -> None:
            number = next(numbers)
            experience = ppo.gather(actors, prompts, ("rollout", number), config.num_generations, config)
            targets = ppo.estimate(experience, config.kl_coef, config)
            ppo.learn(actors, optimizers, experience, targets, [], number, 1.0, config)
            objective_metrics(experience, targets, config.kl_coef)

        return make

    rows = [{"prompt": prompt} for prompt in prompts]
    settings = {
        "new_tokens": new,
        "temperature": config.temperature,
        "epochs": config.num_ppo_epochs,
        "minibatches": config.num_mini_batches,
        "rollout_rows": ROLLOUT_ROWS,
    }
    return Work(handed("ppo", size, rows, **settings), build, size.prompts * new)


def decode_work(size: Size, rows: int) -> Work:
    """Prompts of mixed lengths, continued by a fixed number of tokens."""
    prompts = sequences(size, prompt_lengths(size, rows))
    new = min(NEW_TOKENS, size.length // 2)

    def build(machine: runtime.Runtime) -> Step:
        decoder = Decoder(size.shape).eval()

        def make() -> None:
            with machine.autocast():
                generate(decoder, prompts, Sampling(max_new_tokens=new), eos_id=None, rows=rows)

        return make

    told = [{"prompt": prompt} for prompt in prompts]
    return Work(handed("decode", size, told, new_tokens=new), build, rows * new)


WORK: dict[str, Callable[[Size], Work]] = {
    "sft": sft_work,
    "sft-packed": lambda size: sft_work(size, packing=True),
    "reward-pairs": lambda size: reward_work(size, size.rows, 2),
    "reward-k9": lambda size: reward_work(size, 1, RANKED),
    "dpo": dpo_work,
    "ppo": ppo_work,
    "decode-32": lambda size: decode_work(size, 32),
    "decode-128": lambda size: decode_work(size, 128),
}
"""The rows; tokens count as the peer's data has them."""


if __name__ == "__main__":
    sys.exit(main())
