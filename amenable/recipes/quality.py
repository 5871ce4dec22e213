"""Report of how truthful, grounded, harmless, steady and calibrated models are, several side by side.

    amenable quality --models sft=runs/sft ppo=runs/ppo --data tests/
    amenable quality --models sft=runs/demo/sft ppo=runs/demo/ppo

Runs `amenable evaluate --tasks` on files in any form of task, and those that a closed world gives, then writes
report.html: every measure with its interval, each other model against the first by paired tests, the worst answers
first. docs/evaluation.md has the forms and their columns. What has finished is not run again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amenable.errors import InputError
from amenable.evaluation.entries import default_models, parse_entries
from amenable.evaluation.tasks.forms import Task, read_tasks
from amenable.evaluation.tasks.options import TaskOptions
from amenable.files import disk_errors, write_text
from amenable.recipes.reports import quality_page
from amenable.recipes.reports.provenance import same_world
from amenable.rewards.options import RewardOptions, Scoring
from amenable.rewards.spec import Specs, spec_list
from amenable.stages import evaluate
from amenable.train import plan
from amenable.train.defaults import FROM_MODEL, FromModel, sampling_traits
from amenable.train.runtime import Device, DeviceOptions
from amenable.world.closed_world import ClosedWorld, lines
from amenable.world.quality import quality_tests


@dataclass(frozen=True)
class Config:
    """Report how truthful, harmless and steady models are."""

    models: tuple[str, ...] = ()
    """name=folder of each model, the first of which others are compared with; by default base=runs/pretrain,
    sft=runs/sft, ppo=runs/ppo and dpo=runs/dpo, those finished"""
    data: tuple[str, ...] = ()
    """files of tests, FILE or FORM:FILE, or folders of them; by default those that the closed world behind the models
    gives"""
    world: Path | None = None
    """closed world that gives tests besides --data"""
    world_rows: int = 120
    """rows of each test that a world gives, at most"""
    reward: Specs = ()
    """judge:URL:MODEL reads the answers besides: a judge's yes or no on truth, grounds and refusals"""
    scoring: Scoring = field(default_factory=RewardOptions)
    num_samples: int = 4
    """answers sampled to each question in several wordings, to see how far they agree; 0 samples none"""
    temperature: float = 1.0
    """of the sampled answers; all others are greedy"""
    max_rows: int = 0
    """take only so many rows of each test, the first; 0 takes all"""
    examples: int = 6
    """answers of each test that are shown"""
    max_new_tokens: FromModel[int] = FROM_MODEL
    """by default a quarter of the least context of the models, at most 256"""
    max_tokens_per_pass: int = 8192
    max_batch_size: int = 128
    """answers decoded at once"""
    out: Path = Path("runs/quality")
    seed: int = 0
    device: Device = field(default_factory=DeviceOptions)

    def __post_init__(self) -> None:
        sizes = ("world_rows", "max_new_tokens", "max_tokens_per_pass", "max_batch_size")
        plan.require_at_least(1, self, *sizes)
        plan.require_at_least(0, self, "num_samples", "max_rows", "examples")
        hint = "give --num-samples 2 or more, or 0"
        plan.forbid(self.num_samples == 1, "num_samples is 1: one answer agrees with itself", hint)
        others = [str(spec) for spec in spec_list(self.reward) if not str(spec).startswith("judge:")]
        plan.forbid(
            bool(others), f"no test reads the reward {', '.join(others)}", "give --reward judge:URL:MODEL alone"
        )
        for entry in parse_entries(self.models) if self.models else ():
            plain = f"{entry.name}={entry.folder}"
            if plain not in self.models:
                raise InputError(f"'{entry.name}' has a modifier, which no test reads", how=f"write {plain}")


def run(config: Config) -> Path:
    """Measure all models, write report.json and report.html, and return the folder."""
    models = config.models or default_models()
    folders = [entry.folder for entry in parse_entries(models)]
    for folder in folders:
        sampling_traits(folder)  # refuses a folder without a model before anything is written
    world = config.world or (None if config.data else same_world(folders))
    if world is None and not config.data:
        raise InputError("nothing to measure", how="give --data with files of tests, or --world with a closed world")
    read_tasks(config.data, has_judge=bool(config.reward))
    specs = [*config.data, *([str(write_world_tests(world, config))] if world is not None else [])]
    out = evaluate.run(evaluation(config, models, specs, world))
    results = json.loads((out / "evaluation.json").read_text("utf-8"))["tasks"]
    entries = " ".join(models)
    return quality_page.write(config.out, results, config.examples, f"amenable quality --models {entries}")


def write_world_tests(world: Path, config: Config) -> Path:
    """Write the tests of a closed world into the folder `tests` of the report, a file each, and return it. InputError
    where it holds other tests."""
    folder = config.out / "tests"
    tests = quality_tests(ClosedWorld.load(world), config.world_rows)
    texts = {folder / f"{name}.jsonl": lines(rows) for name, rows in tests.items()}
    if any(path.exists() and path.read_text("utf-8") != text for path, text in texts.items()):
        raise InputError("holds tests of another world, or more or fewer rows", folder, "choose another --out")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        write_text(path, text)
    return folder


def evaluation(config: Config, models: Sequence[str], specs: Sequence[str], world: Path | None) -> evaluate.Config:
    """Return the evaluation of all models on all tests. Base models are prompted as the world's raw text has it."""
    tasks = read_tasks(specs, TaskOptions(task_rows=config.max_rows), has_judge=bool(config.reward))
    transcripts = world / "transcripts.jsonl" if world is not None else None
    return evaluate.Config(
        models=tuple(models),
        tasks=tuple(specs),
        tasking=task_options(config, tasks),
        transcripts=transcripts,
        reward=config.reward,
        scoring=config.scoring,
        reference="",
        temperature=config.temperature,
        max_new_tokens=config.max_new_tokens,
        max_tokens_per_pass=config.max_tokens_per_pass,
        max_batch_size=config.max_batch_size,
        seed=config.seed,
        device=config.device,
        out=config.out / "evaluation",
    )


def task_options(config: Config, tasks: dict[str, Task]) -> TaskOptions:
    """Return the options of the tasks; answers are sampled where a task reads that."""
    sampled = any("self_consistency" in task.form.reads for task in tasks.values())
    options: dict[str, Any] = {"self_consistency": config.num_samples} if sampled else {}
    return TaskOptions(task_rows=config.max_rows, **options)
