"""Comparison of two runs, models or demos: their options, their metrics, and which one is better.

Runs are compared by options, inputs, closing figures and metrics. Besides, two language models answer the same prompts,
two reward models score the same answers, two evaluations or demos stand side by side. All differences are of the second
against the first. Writes compare.html and compare.json.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from amenable.claims.stage_folders import Stage, read_stage, seed_folders
from amenable.errors import InputError
from amenable.model_folder import CONFIG, is_adapter
from amenable.models.pretrained import is_reward_folder
from amenable.recipes.reports import (
    compare_evaluations,
    compare_policies,
    compare_reward_models,
    comparison_page,
    diff_runs,
    provenance,
)
from amenable.rewards.options import RewardOptions, Scoring
from amenable.rewards.spec import Specs
from amenable.stages import evaluate
from amenable.train import plan
from amenable.train.defaults import FROM_MODEL, FromModel
from amenable.train.run import write_text
from amenable.train.runtime import Device, DeviceOptions, start_runtime

DEMO, EVALUATION, LANGUAGE, REWARD, RUN = "demo", "evaluation", "language model", "reward model", "run"
"""kinds that can be compared"""
MODEL = "model"
"""in place of a command, where a model folder is no run directory"""

Row = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Compare two runs, models or demos."""

    run_a: tyro.conf.Positional[Path] = Path("runs/sft")
    """run directory, model folder or demo that is compared with"""
    run_b: tyro.conf.Positional[Path] = Path("runs/ppo")
    """another of its kind"""
    out: Path = Path("runs/compare")
    preference: bool = True
    """compare models by their outputs; otherwise only the runs' records are compared"""
    data: Path | None = None
    """prompts for two language models, or rankings for two reward models; by default those that both runs used"""
    world: Path | None = None
    """the closed world that knows the truth; by default the one behind both runs"""
    reward: Specs = ()
    """scores the answers, and judges them where there is no world: a reward model's folder, FOLDER:LABEL,
    FILE.py:FUNCTION, a rule or an http address; several are added, each SPEC or SPEC=WEIGHT"""
    scoring: Scoring = field(default_factory=RewardOptions)
    max_prompts: int = 0
    """use only the first so many prompts or rankings; 0 uses all"""
    temperature: float = 1.0
    """of the sampled answers; greedy ones are always made as well"""
    max_new_tokens: FromModel[int] = FROM_MODEL
    """by default a quarter of the least context of the two, at most 256"""
    max_tokens_per_pass: int = 8192
    max_batch_size: int = 128
    """answers decoded at once"""
    seed: int = 0
    device: Device = field(default_factory=DeviceOptions)

    def __post_init__(self) -> None:
        plan.require_at_least(1, self, "max_new_tokens", "max_tokens_per_pass", "max_batch_size")
        plan.require_at_least(0, self, "max_prompts")


@dataclass(frozen=True)
class Side:
    """One side of the comparison."""

    name: str
    """its folder's, with as many above it as it takes to tell the two apart"""
    kind: str
    stage: Stage
    """its run directory; a model or demo is a stage without options"""

    @property
    def folder(self) -> Path:
        """The folder as it was named."""
        return self.stage.folder


def run(config: Config) -> Path:
    """Write compare.html and compare.json, print the tables, return the folder."""
    a, b = sides(config.run_a, config.run_b)
    comparison = compare(a, b, config)
    try:
        config.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be made: {error.strerror}", config.out, "give --out another folder") from None
    charts = diff_runs.charts(a.stage, b.stage, (a.name, b.name))
    page, command = config.out / "compare.html", f"amenable compare {config.run_a} {config.run_b}"
    write_text(config.out / "compare.json", json.dumps(comparison, indent=1, ensure_ascii=False, allow_nan=False))
    write_text(page, comparison_page.page(comparison, charts, command))
    comparison_page.print_comparison(comparison, page, Console())
    return config.out


def sides(a: Path, b: Path) -> tuple[Side, Side]:
    """Read both folders; InputError where they are the same, or of kinds that cannot be compared."""
    if a.resolve() == b.resolve():
        raise InputError("is named twice", a, "name two folders")
    first, second = (read_side(folder, name) for folder, name in zip((a, b), names_of(a, b)))
    if {first.kind, second.kind} > {DEMO}:
        kinds = " and ".join(f"{side.folder} is a {side.kind}" for side in (first, second))
        raise InputError(f"nothing to compare: {kinds}", how="name a stage's folder within the demo")
    return first, second


def read_side(folder: Path, name: str) -> Side:
    """Read a run directory; a model or demo becomes a stage without options."""
    if not folder.is_dir():
        raise InputError("no such folder", folder, "name two runs, models or demos")
    stage, model = read_stage(folder), (folder / CONFIG).is_file() or is_adapter(folder)
    kind = RUN if not model else REWARD if is_reward_folder(folder) else LANGUAGE
    if stage is not None:
        return Side(name, EVALUATION if stage.command == "evaluate" else kind, stage)
    if not model:
        kind = DEMO
        if not seed_folders(folder) and all(read_stage(inner) is None for inner in folder.iterdir()):
            raise InputError("is no run, model or demo", folder, "name a folder that a stage or 'amenable demo' wrote")
    return Side(name, kind, Stage(folder.name, DEMO if kind == DEMO else MODEL, folder, {}, {}, None, []))


def names_of(a: Path, b: Path) -> tuple[str, str]:
    """Return the ends of two paths, as long as it takes to tell them apart.

    >>> names_of(Path("/runs/one/ppo"), Path("/runs/two/ppo"))
    ('one/ppo', 'two/ppo')
    """
    parts_a, parts_b = a.resolve().parts, b.resolve().parts
    most = max(len(parts_a), len(parts_b))
    depth = next((n for n in range(1, most) if parts_a[-n:] != parts_b[-n:]), most)
    return "/".join(parts_a[-depth:]), "/".join(parts_b[-depth:])


def compare(a: Side, b: Side, config: Config) -> Row:
    """Return everything that compare.json holds."""
    comparison: Row = {
        name: {"name": side.name, "folder": str(side.folder), "kind": side.kind} for name, side in (("a", a), ("b", b))
    }
    comparison |= {
        "options": diff_runs.options(a.stage, b.stage),
        "inputs": diff_runs.inputs(a.stage, b.stage),
        "versions": diff_runs.versions(a.stage, b.stage),
        "figures": diff_runs.figures(a.stage, b.stage),
        "metrics": diff_runs.metrics(a.stage, b.stage),
        "notes": notes(a, b),
        "answers": None,
        "rankings": None,
        "evaluations": [],
        "claims": [],
    }
    if a.kind == b.kind == DEMO:
        demos = compare_evaluations.demos(a.folder, b.folder)
        comparison |= {"options": demos["options"], "evaluations": demos["models"], "claims": demos["claims"]}
    elif a.kind == b.kind == EVALUATION:
        comparison["evaluations"] = compare_evaluations.evaluations(a.folder, b.folder)
    elif a.kind == b.kind and config.preference:
        if a.kind == LANGUAGE:
            comparison["answers"], lacking = compare_answers(a, b, config)
            comparison["notes"] += lacking
        elif a.kind == REWARD:
            comparison["rankings"], lacking = compare_scores(a, b, config)
            comparison["notes"] += lacking
    return comparison


def notes(a: Side, b: Side) -> list[str]:
    """Return the limits of the comparison, a sentence each."""
    bare = [side for side in (a, b) if side.stage.command == MODEL]
    notes = [f"{side.name} is a model alone: how it was made is not known." for side in bare]
    if a.stage.command != b.stage.command and not bare:
        both = f"{a.name} is a run of ‘{a.stage.command}’ and {b.name} of ‘{b.stage.command}’"
        notes.append(f"{both}: only options, inputs, figures and metrics that both have are compared.")
    if a.kind != b.kind:
        notes.append(f"{a.name} is a {a.kind} and {b.name} a {b.kind}: they cannot be put to the same test.")
    notes += [f"{side.name} has not finished." for side in (a, b) if side.stage.config and side.stage.finished is None]
    metrics_a, metrics_b = (diff_runs.metric_names(side.stage) for side in (a, b))
    for side, own, others in ((a, metrics_a, metrics_b), (b, metrics_b, metrics_a)):
        alone = [name for name in own if name not in others]
        if alone and others and a.stage.command == b.stage.command:
            notes.append(f"Metrics that only {side.name} keeps: {', '.join(alone)}.")
    return notes


def compare_answers(a: Side, b: Side, config: Config) -> tuple[Row | None, list[str]]:
    """Give both language models the same prompts; returns the comparison and notes on what is missing from it."""
    world = provenance.same_world([a.folder, b.folder, *([config.world] if config.world is not None else [])])
    data = config.data or (world / "prompts" / "test.jsonl" if world is not None else None)
    if data is None:
        return None, ["There are no prompts that both could be asked; name some with --data."]
    if config.world is None and world is not None and world.resolve() not in data.resolve().parents:
        world = None
    answers = compare_policies.compare(evaluation_config(a, b, data, world, config))
    notes = []
    if answers["judges"] is None:
        notes.append("Nobody judges the answers: name a --reward, or the --world that the prompts are from.")
    if answers["sampled"]["kl"] is None:
        notes.append("No KL: it takes two models of one tokenizer that have learned to converse.")
    return answers, notes


def evaluation_config(a: Side, b: Side, data: Path, world: Path | None, config: Config) -> evaluate.Config:
    """Return the evaluation of both under the names `a` and `b`, with KL to a. An earlier evaluation is removed."""
    out = config.out / "answers"
    if (earlier := read_stage(out)) is not None and earlier.command == "evaluate":
        shutil.rmtree(out)
    return evaluate.Config(
        models=(f"a={a.folder}", f"b={b.folder}"),
        data=data,
        world=world,
        reward=config.reward,
        scoring=config.scoring,
        lm_data=None if world is None else world / "text" / "validation.jsonl",
        reference="a",
        out=out,
        max_prompts=config.max_prompts,
        temperature=config.temperature,
        max_new_tokens=config.max_new_tokens,
        max_tokens_per_pass=config.max_tokens_per_pass,
        max_batch_size=config.max_batch_size,
        seed=config.seed,
        device=config.device,
    )


def compare_scores(a: Side, b: Side, config: Config) -> tuple[Row | None, list[str]]:
    """Give both reward models the same rankings; returns the comparison, or a note on why there is none."""
    data = config.data or provenance.shared_input(a.folder, b.folder, ("heldout_annotators", "validation"))
    if data is None:
        return None, ["There are no held-out rankings that both runs had; name some with --data."]
    runtime = start_runtime(config.device)
    rankings = compare_reward_models.read(data, config.max_prompts)
    figures = compare_reward_models.compare(
        a.folder, b.folder, rankings, runtime, config.max_tokens_per_pass, config.seed
    )
    return {"data": str(data), **figures}, []
