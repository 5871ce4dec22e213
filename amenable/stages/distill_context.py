"""Context distillation: a model answers without a prompt as it did after it.

    L = mean over tokens of  sum_v p_0(v | C, x, y_<t) log [p_0(v | C, x, y_<t) / p_theta(v | x, y_<t)]

C is the context, such as instructions or example conversations; x a prompt of the data; y the completion that the
teacher p_0 samples after both, or the data's own. The student p_theta starts as p_0 and reads x alone: it learns what
the context does, and keeps it in its weights. The sum is exact, or over the teacher's top tokens and the rest as one
event (--top-k). With adapters the teacher is the student with them off; otherwise a second, frozen model.
Askell et al. (2021, section 2.3); Bai et al. (2022, appendix A.1).

Reads a model, a context and prompts; writes a model directory and some of its completions of held-out prompts, sampled
without the context (samples.jsonl).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from amenable.data import sources
from amenable.data.mixture import Mixed, Sources
from amenable.data.types import Conversation
from amenable.generation.rollout import collect
from amenable.generation.sampling import Sampling
from amenable.models.decoder import Decoder
from amenable.rl.offline import OfflinePolicyOptions, PolicyTask, load_policy, start, train_policy
from amenable.seeds import derive_seed
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, loading, plan
from amenable.train.defaults import traits
from amenable.train.distillation import HHH, Distillation, DistilledRow, context_length, read_context, tokenize
from amenable.train.examples import RejectedRows, fit_sources, read_lists
from amenable.train.first_batch import BatchCheck, check_samples
from amenable.train.log import Progress
from amenable.train.runtime import Runtime
from amenable.train.stage_report import StageReport

REPORT = StageReport(
    "Context distillation",
    "It answers without a prompt as it did after it.",
    "loss",
    (("held-out KL from the teacher, nats a token", "eval/loss"), ("KL, nats", "objective/kl")),
    (
        ("KL from the teacher, nats a token", (("loss", "training"), ("eval/loss", "held out"))),
        ("KL to the model without the context, nats a completion", (("objective/kl", "held out"),)),
    ),
)


@dataclass(frozen=True)
class Config(OfflinePolicyOptions):
    """Train a model to answer without a prompt as it does after it."""

    model: Path = Path("runs/sft")
    """teacher, and the student as it starts"""
    data: Sources = (Path("runs/world/prompts/ppo.jsonl"),)
    """prompts, or conversations with --completions data; several are mixed, each SOURCE or SOURCE=WEIGHT"""
    out: Path = Path("runs/distill-context")
    context_file: Path | None = None
    """context of the teacher: a text, the system's message, or a .jsonl file of conversations before each prompt; by
    default those of a helpful, honest and harmless assistant (amenable/train/hhh.jsonl)"""
    context_text: str = ""
    """the context itself, in place of a file"""
    completions: Literal["teacher", "data"] = "teacher"
    """whose completions the distributions are compared on: sampled from the teacher, or the data's own"""
    num_generations: int = 1
    """completions that the teacher samples of each prompt"""
    temperature: float = 1.0
    """at which it samples them; distributions are compared at 1"""
    top_k: int = 0
    """compare the teacher's most probable tokens, all others as one event (Askell et al.: 50); 0 compares all"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(1, self, "num_generations")
        plan.require_at_least(0, self, "top_k", "temperature")
        plan.forbid(self.context_file and self.context_text, "two contexts", "give --context-file or --context-text")


def run(config: Config) -> Path:
    """Train and return the run directory."""
    config, by_default = defaults.distill_context(config, traits(config.model, virtual_tokens=config.virtual_tokens))
    if (run := start(config, "distill-context", context=config.context_file)) is None:
        return config.out
    context = read_context(config.context_file or HHH, config.context_text, run.rejected)
    runtime, student, tokenizer = load_policy(config)
    length, limit = context_length(tokenizer, context), student.config.context_length
    room = limit - (config.max_new_tokens if config.completions == "teacher" else 0)
    hint = "give a shorter one, with --context-file or --context-text, or lower --max-new-tokens"
    plan.forbid(length >= room, f"the context has {length} tokens, and a prompt has room for {room}", hint)
    training, validation = read(config, context, tokenizer, room, run.rejected)
    teacher = loading.load_reference(student, config.model, runtime)
    if config.completions == "teacher":
        training, validation = (
            part.map(lambda rows: sample(config, teacher, rows, tokenizer, runtime, run.log.bar("teacher")))
            for part in (training, validation)
        )
    task = PolicyTask(
        objective=Distillation(student, teacher, runtime, config.max_tokens_per_pass, config.top_k),
        training=training,
        validation=validation,
        unit="completions",
        plan=[f"context of {length} tokens: {config.context_text or config.context_file or HHH.name}"],
        load_reference=lambda: teacher,
        check=lambda first: check(training, first, tokenizer),
        show=("loss", "eval/loss", "objective/kl"),
    )
    return train_policy(run, config, runtime, student, tokenizer, by_default, task)


def read(
    config: Config, context: Conversation, tokenizer: Tokenizer, room: int, rejected: RejectedRows | None = None
) -> tuple[Mixed[DistilledRow], Mixed[DistilledRow]]:
    """Read prompts to train on and held-out ones by source, as rows whose completions are those of the data, if any."""
    sampled = config.completions == "teacher"
    splits: Mapping[str, Mixed[Any]] = (
        read_lists(sources.read_prompts, config, rejected)
        if sampled
        else read_lists(sources.read_demonstrations, config, rejected)
    )
    fitting = partial(tokenize, tokenizer=tokenizer, context=context, room=room, rejected=rejected)
    training, validation = (
        fit_sources(name, part, fitting, config.data if name == "train" else None)[1] for name, part in splits.items()
    )
    return training, validation


def sample(
    config: Config,
    teacher: Decoder,
    rows: Sequence[DistilledRow],
    tokenizer: Tokenizer,
    runtime: Runtime,
    progress: Progress,
) -> list[DistilledRow]:
    """Return each prompt with completions of the teacher, sampled after the context."""
    if not rows:
        return []
    with runtime.autocast():
        rollout = collect(
            teacher,
            [row.teacher_prompt for row in rows],
            Sampling(temperature=config.temperature, max_new_tokens=config.max_new_tokens),
            eos_id=tokenizer.stop_ids,
            seeds=[derive_seed(config.seed, "teacher", *row.prompt) for row in rows],
            samples=config.num_generations,
            progress=progress,
        )
    prompts = [row for row in rows for _ in range(config.num_generations)]
    return [
        replace(row, completion=completion, ended=ended)
        for row, completion, ended in zip(prompts, rollout.completions, rollout.ended.tolist())
    ]


def check(rows: Sequence[DistilledRow], first: Sequence[int], tokenizer: Tokenizer) -> BatchCheck:
    """Check the student's rows, and return those of the first step."""
    columns = [row.prompt for row in rows], [row.completion for row in rows], [row.ended for row in rows]
    checked = check_samples(*columns, tokenizer)
    return replace(checked, rows=[checked.rows[i] for i in first])
