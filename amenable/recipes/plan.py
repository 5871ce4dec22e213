"""Plan: memory and time of a stage on some GPUs before there are any, for the layouts that fit, the fastest first.

    amenable plan ppo --model Qwen3-8B --gpus 8xH100
    amenable plan sft --model Llama-3.1-70B --gpus 16xH200 --batch-size 256
    amenable plan grpo --model Qwen3-8B --gpus 8xH100 --simulate 1024

Layouts are data parallel, FSDP2 over all GPUs or those of a node, tensor parallel within a node; with activations held
or computed again, all weights or adapters, and sampling on the same GPUs or on some of their own. What is assumed is
printed; `python -m benchmarks.plan_points` holds plans against measured runs. Nothing is trained, and no GPU is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import tyro

from amenable.errors import InputError
from amenable.models.published_shapes import shape_of
from amenable.recipes.planning import assumptions
from amenable.recipes.planning.gpus import GIB, MAX_GPUS, Cluster, parse_gpus
from amenable.recipes.planning.layout_memory import PARTS
from amenable.recipes.planning.search import PlannedLayout, PlanRequest, candidates, distinct, scaled
from amenable.recipes.planning.step_time import Assumptions, step_volumes
from amenable.recipes.planning.workload import STAGES, StepWork, sized, step_flops
from amenable.train import plan as checks
from amenable.train.plan import human_count

Stage = Literal["pretrain", "sft", "reward", "dpo", "ppo", "grpo", "rloo"]
NO_MODEL = "none"
"""--reward-model of a reward that is a function"""
MAX_PLANNED = 4096
"""GPUs up to which a number that suffices is looked for"""


@dataclass(frozen=True)
class Config:
    """Plan memory and time of a stage on some GPUs."""

    stage: tyro.conf.Positional[Stage] = "ppo"
    """stage that is planned"""
    model: str = "Qwen3-8B"
    """a published model (Qwen3-8B, Llama-3.1-70B ...), a preset, or a model folder"""
    gpus: str = "8xH100"
    """number and kind: H200, H100, A100-80, A100-40, L40S, 4090, MI300X or cpu"""
    gpus_per_node: int = 0
    """GPUs of a node; 0 is 8, or all where there are fewer"""
    network: float = 0.0
    """Gbit/s between nodes for each GPU; 0 is that of the usual machine of the kind"""
    batch_size: int = 512
    """rows of a step: texts, conversations, pairs, or completions"""
    prompt_tokens: int = 512
    """tokens of a prompt; of pretrain, the first part of a text"""
    max_new_tokens: int = 512
    """tokens of a completion, at most"""
    mean_new_tokens: int = 0
    """tokens of a sampled completion, on average; 0 is --max-new-tokens"""
    num_generations: int = 0
    """completions of each prompt; 0 is the stage's default"""
    num_ppo_epochs: int = 1
    """passes over the samples of a step"""
    num_mini_batches: int = 1
    """updates of each pass"""
    reward_model: str = ""
    """model that scores, by default one like --model; none for a reward that is a function"""
    train: Literal["both", "weights", "adapters"] = "both"
    """layouts that train all weights, adapters, or both kinds"""
    lora_rank: int = 16
    """of the adapters"""
    max_staleness: int = 0
    """steps that sampling on GPUs of its own may be ahead of training: 1 lets both run at once"""
    efficiency: float = 0.0
    """share of the GPU's rate that large matrix products reach; 0 is what the table of GPUs has"""
    overlap: float = 0.9
    """share of computing under which communication hides"""
    top: int = 10
    """layouts that are listed"""
    simulate: int = 0
    """also the fastest layouts from --gpus up to so many of the same kind"""
    json: bool = False
    """print JSON instead of tables"""

    def __post_init__(self) -> None:
        checks.require_at_least(1, self, "batch_size", "max_new_tokens", "num_ppo_epochs", "num_mini_batches", "top")
        checks.require_at_least(
            0, self, "gpus_per_node", "network", "prompt_tokens", "num_generations", "max_staleness"
        )
        checks.require_at_least(1, self, "lora_rank")
        checks.require_at_least(0, self, "simulate", "mean_new_tokens")
        checks.require_share(self, "efficiency", "overlap")
        checks.forbid(self.simulate > MAX_GPUS, f"simulate is {self.simulate}", f"at most {MAX_GPUS:,} can be planned")
        problem = f"mean_new_tokens {self.mean_new_tokens} is above max_new_tokens {self.max_new_tokens}"
        checks.forbid(self.mean_new_tokens > self.max_new_tokens, problem, "give a smaller one")
        offline = self.mean_new_tokens and not STAGES[self.stage].scored
        checks.forbid(offline, f"mean_new_tokens with {self.stage}, which samples nothing", "leave it out")
        checks.forbid(
            self.work.rows % self.group,
            f"batch_size {self.batch_size} is not a multiple of the {self.group} completions of a prompt",
            "give a multiple, or another --num-generations",
        )

    @property
    def group(self) -> int:
        """Rows with the same prompt."""
        traits = STAGES[self.stage]
        return (self.num_generations or traits.group) if traits.scored else traits.group

    @property
    def work(self) -> StepWork:
        """Work of a step; stages that sample nothing go over its rows once, and a pair is two rows."""
        online = STAGES[self.stage].scored
        rows = self.batch_size if online else self.batch_size * self.group
        epochs, updates = (self.num_ppo_epochs, self.num_mini_batches) if online else (1, 1)
        mean, longest = self.mean_new_tokens or self.max_new_tokens, self.max_new_tokens
        return StepWork(self.stage, rows, self.prompt_tokens, mean, self.group, epochs, updates, longest)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks of adapters that are tried; 0 trains the weights."""
        return {"both": (0, self.lora_rank), "weights": (0,), "adapters": (self.lora_rank,)}[self.train]


def run(config: Config) -> list[PlannedLayout]:
    """Print the plan and return the layouts that fit. InputError where none does, with what would."""
    cluster = parse_gpus(config.gpus, config.gpus_per_node, config.network)
    task = task_of(config, cluster)
    every = candidates(task, cluster)
    fitting = [candidate for candidate in every if candidate.fits]
    if not fitting:
        raise no_layout(config, task, cluster, every)
    counts = simulated_counts(config, cluster)
    if config.json:
        print(json.dumps(as_data(config, task, cluster, fitting, counts), indent=1))
    else:
        print("\n".join(lines(config, task, cluster, every, counts)))
    return fitting


def task_of(config: Config, cluster: Cluster) -> PlanRequest:
    """Return what is planned. InputError for rows beyond the model's context."""
    shape, work = shape_of(config.model), config.work
    problem = f"rows of {work.longest_length:,} tokens are beyond the {shape.context_length:,} of {config.model}"
    checks.forbid(work.longest_length > shape.context_length, problem, "give fewer --prompt-tokens or --max-new-tokens")
    reward = None if config.reward_model == NO_MODEL else shape_of(config.reward_model or config.model)
    assumed = Assumptions(config.efficiency or cluster.gpu.efficiency, config.overlap, config.max_staleness)
    return PlanRequest(work, shape, reward, config.ranks, assumed)


def no_layout(config: Config, task: PlanRequest, cluster: Cluster, every: Sequence[PlannedLayout]) -> InputError:
    """Return the error for a task that fits in no layout, with changes that would fit."""
    if not every:
        problem = f"no layout of {cluster} has a row for each rank: the step has {task.work.rows:,} rows"
        return InputError(problem, how="give a larger --batch-size, fewer GPUs or shorter rows")
    least = every[0].memory.total
    problem = f"{config.stage} of {config.model} fits in no layout of {cluster}"
    needs = f"the smallest needs {least / GIB:.0f} GiB of a GPU, and {cluster.usable / GIB:.0f} can be filled"
    return InputError(f"{problem}: {needs}", how="; ".join(remedies(config, task, cluster)) or "use a smaller model")


def remedies(config: Config, task: PlanRequest, cluster: Cluster) -> Iterator[str]:
    """Yield changes of a plan that fit: more GPUs, adapters, shorter rows."""
    count = cluster.count
    while count < MAX_PLANNED:
        count *= 2
        larger = scaled(cluster, count)
        rows = task.work.rows * count // cluster.count
        if any(c.fits for c in candidates(replace(task, work=replace(task.work, rows=rows)), larger)):
            yield f"{count}x{cluster.gpu.name} would do"
            break
    adapters = replace(task, ranks=(config.lora_rank,))
    if task.ranks == (0,) and any(c.fits for c in candidates(adapters, cluster)):
        yield "--train adapters would do"
    prompt, completion, longest = (size // 4 for size in (task.work.prompt, task.work.completion, task.work.longest))
    shorter = replace(task.work, prompt=prompt, completion=max(1, completion), longest=longest)
    if any(c.fits for c in candidates(replace(task, work=shorter), cluster)):
        yield f"rows of {shorter.longest_length} tokens would do"


def simulated_counts(config: Config, cluster: Cluster) -> list[int]:
    """Return numbers of GPUs from those of the cluster up to --simulate, doubled each time."""
    counts = [cluster.count]
    while counts[-1] * 2 <= config.simulate:
        counts.append(counts[-1] * 2)
    problem = f"simulate {config.simulate} is below twice the {cluster.count} GPUs of --gpus"
    checks.forbid(config.simulate and len(counts) == 1, problem, "give a larger number")
    return counts if config.simulate else []


def lines(
    config: Config, task: PlanRequest, cluster: Cluster, every: Sequence[PlannedLayout], counts: Sequence[int]
) -> Iterator[str]:
    """Yield the lines of the plan: what is planned, the layouts, the memory of the first, and what is assumed."""
    fitting = [candidate for candidate in every if candidate.fits]
    count = human_count(sized(task.shape).parameters)
    yield f"plan      {config.stage} of {config.model} ({count} parameters) on {cluster}"
    yield f"step      {describe_step(task)}"
    yield f"layouts   {len(fitting)} of {len(every)} fit into {cluster.usable / GIB:.1f} GiB of each GPU"
    yield ""
    yield from layout_table(task, cluster, distinct(fitting)[: config.top])
    yield ""
    yield f"The first, {describe(fitting[0], task)}:"
    yield ""
    yield from memory_table(fitting[0])
    yield ""
    yield volumes_line(task, fitting[0])
    if counts:
        yield ""
        yield from simulation_table(task, cluster, counts)
    yield ""
    yield "Assumed:"
    yield from (f"- {line}" for line in assumptions.lines(task, cluster, counts))


def describe_step(task: PlanRequest) -> str:
    """Return a step's rows in words."""
    work = task.work
    kind = "completions" if work.traits.scored else "rows"
    text = f"{work.rows:,} {kind} of {work.prompt:,} + {work.completion:,} tokens"
    if work.longest > work.completion:
        text += f" on average, {work.longest:,} at most"
    if work.group > 1:
        text += f", {work.group} with the same prompt"
    return text + (f"; {work.epochs} x {work.updates} updates" if work.epochs * work.updates > 1 else "")


def describe(candidate: PlannedLayout, task: PlanRequest) -> str:
    """Return a layout in words."""
    layout = candidate.layout
    parts = [layout.division(), f"adapters of rank {layout.rank}" if layout.rank else "all weights"]
    parts += ["layers computed again"] if layout.checkpointed else []
    parts += [f"sampling on {layout.sampling(True)}"] if task.work.traits.scored else []
    return ", ".join(parts)


def layout_table(task: PlanRequest, cluster: Cluster, chosen: Sequence[PlannedLayout]) -> Iterator[str]:
    """Yield a Markdown table of layouts, the fastest first; seconds of a step by parts."""
    online = task.work.traits.scored
    names = ["layout", "trains", "layers again", *(["samples on"] if online else []), "tokens a pass", "GiB a GPU"]
    names += ["s a step", *(["sampling", "scoring"] if online else []), "training", "communication", "optimizer"]
    names += ["tokens/s", "MFU"]
    yield row(names)
    yield row(["---" if name in ("layout", "trains", "layers again", "samples on") else "---:" for name in names])
    for candidate in chosen:
        layout, times = candidate.layout, candidate.times
        cells = [layout.division(), f"LoRA {layout.rank}" if layout.rank else "weights"]
        cells += ["yes" if layout.checkpointed else "no", *([layout.sampling(True)] if online else [])]
        cells += [f"{candidate.step.tokens:,}", gibibytes(candidate.memory.total), figure(times.step)]
        cells += [figure(times.sampling), figure(times.scoring)] if online else []
        cells += [figure(times.training), figure(times.communication + times.handover), figure(times.optimizer)]
        cells += [f"{task.work.tokens / times.step:,.0f}"]
        yield row([*cells, f"{100 * candidate.utilization(task, cluster):.0f} %"])


def memory_table(candidate: PlannedLayout) -> Iterator[str]:
    """Yield a Markdown table of a GPU's memory in GiB, by parts and phases of a step."""
    phases = candidate.phases
    yield row(["GiB a GPU", *phases])
    yield row(["---", *["---:"] * len(phases)])
    for part, name in PARTS.items():
        sizes = [getattr(phase, part) for phase in phases.values()]
        if any(sizes):
            yield row([name, *map(gibibytes, sizes)])
    yield row(["total", *(gibibytes(phase.total) for phase in phases.values())])


def volumes_line(task: PlanRequest, candidate: PlannedLayout) -> str:
    """Return a line on a step's operations, and on the bytes that each GPU gets from others."""
    models = task.models(candidate.layout.rank)
    volumes = step_volumes(task.work, models, candidate.layout, candidate.step)
    names = {
        "gathered": "weights by all-gather",
        "scattered": "gradients by reduce-scatter",
        "replicas": "gradients by all-reduce",
        "tensors": "hidden states by all-reduce",
    }
    sent = [f"{size / 1e9:,.1f} GB of {names[name]}" for name, size in asdict(volumes).items() if size]
    forward = sum(step_flops(task.work, role.model) for role in models if role.trains)
    needed = f"A forward pass of what trains takes {figure(forward / 1e12)} TFLOP."
    return f"{needed} A GPU exchanges in a step: {', '.join(sent) or 'nothing'}"


def simulation_table(task: PlanRequest, cluster: Cluster, counts: Sequence[int]) -> Iterator[str]:
    """Yield a Markdown table of the fastest layout for each number of GPUs: with as many rows a GPU as at first (weak
    scaling), and with the same rows in all (strong scaling)."""
    names = ["GPUs", "nodes", "rows in proportion", "s a step", "tokens/s/GPU", "efficiency"]
    yield row([*names, "the same rows", "s a step"])
    yield row(["---:", "---:", "---", "---:", "---:", "---:", "---", "---:"])
    first = 0.0
    for count in counts:
        larger = scaled(cluster, count)
        work = replace(task.work, rows=task.work.rows * count // cluster.count)
        weak, strong = (fastest(replace(task, work=rows), larger) for rows in (work, task.work))
        cells = [f"{count:,}", f"{larger.nodes:,}"]
        if weak:
            rate = work.tokens / weak.times.step / count
            first = first or rate
            cells += [describe(weak, task), figure(weak.times.step), f"{rate:,.0f}", f"{100 * rate / first:.0f} %"]
        else:
            cells += ["none fits", "", "", ""]
        cells += [describe(strong, task), figure(strong.times.step)] if strong else ["fewer rows than ranks", ""]
        yield row(cells)


def fastest(task: PlanRequest, cluster: Cluster) -> PlannedLayout | None:
    """Return the fastest layout that fits; None where none does."""
    first = next(iter(candidates(task, cluster)), None)
    return first if first is not None and first.fits else None


def as_data(
    config: Config, task: PlanRequest, cluster: Cluster, fitting: Sequence[PlannedLayout], counts: Sequence[int]
) -> dict[str, Any]:
    """Return the plan as plain data: bytes and seconds."""
    listed = [
        {
            **asdict(candidate.layout),
            "tokens_per_pass": candidate.step.tokens,
            "memory": {name: asdict(phase) | {"total": phase.total} for name, phase in candidate.phases.items()},
            "seconds": asdict(candidate.times) | {"step": candidate.times.step},
            "mfu": candidate.utilization(task, cluster),
        }
        for candidate in distinct(fitting)[: config.top]
    ]
    simulated = {count: fastest_data(task, cluster, count) for count in counts}
    assumed = list(assumptions.lines(task, cluster, counts))
    return {"config": asdict(config), "layouts": listed, "simulated": simulated, "assumed": assumed}


def fastest_data(task: PlanRequest, cluster: Cluster, count: int) -> dict[str, Any] | None:
    """Return the fastest layout on another number of GPUs with rows in proportion, as plain data."""
    work = replace(task.work, rows=task.work.rows * count // cluster.count)
    best = fastest(replace(task, work=work), scaled(cluster, count))
    return None if best is None else {**asdict(best.layout), "rows": work.rows, "step_seconds": best.times.step}


def figure(value: float) -> str:
    """Return a number with three digits or more; below a thousandth 0."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 1e-3 else "0"


def gibibytes(size: float) -> str:
    """Return bytes in GiB, with a digit after the point, or two."""
    return f"{size / GIB:,.1f}" if size >= 10 * GIB or not size else f"{size / GIB:.2f}"


def row(cells: Sequence[str]) -> str:
    """Return the line of a Markdown table."""
    return f"| {' | '.join(cells)} |"
