"""Comparison of two runs, models or demos, or of several rewards: options, metrics, and which one is better.

Runs are compared by options, inputs, closing figures and metrics. Besides, two language models answer the same prompts,
two evaluations or demos stand side by side. All differences are of the second against the first. Two and more rewards
score the same held-out rankings: which one predicts people best. Writes compare.html and compare.json.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from amenable.claims.stage_folders import Stage, read_stage, seed_folders
from amenable.data.column_mapping import parse_mapping
from amenable.data.columns import TARGETS
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
from amenable.rewards.rules import is_rule
from amenable.rewards.spec import Spec, Specs, load_reward, spec_list
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
    """Compare two runs, models or demos, or several rewards."""

    runs: tyro.conf.Positional[Specs] = ("runs/sft", "runs/ppo")
    """two run directories, model folders or demos; or two rewards and more: each the folder of a reward model, or
    another SPEC of --reward"""
    out: Path = Path("runs/compare")
    preference: bool = True
    """compare models by their outputs; otherwise only the runs' records are compared"""
    data: Path | None = None
    """prompts for two language models; for rewards held-out rankings, or a store of labels (labels.db); by default
    those that all runs used"""
    columns: tuple[str, ...] = ()
    """TARGET=COLUMN: columns of rankings that have other names, as in prompt=question chosen=better"""
    group_by: str = ""
    """further column of the rankings, such as the annotator's country: accuracy for each of its values"""
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
        parse_mapping(self.columns, TARGETS)
        plan.forbid(len(spec_list(self.runs)) < 2, "there is nothing to compare with", "name two runs, or more rewards")


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
    runs = spec_list(config.runs)
    if len(runs) > 2 or any(is_spec(each) for each in runs):
        comparison, charts = compare_rewards(runs, config), []
    else:
        a, b = sides(*(Path(str(each)) for each in runs))
        comparison, charts = compare(a, b, config), diff_runs.charts(a.stage, b.stage, (a.name, b.name))
    try:
        config.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be made: {error.strerror}", config.out, "give --out another folder") from None
    page, command = config.out / "compare.html", f"amenable compare {' '.join(map(name_of, runs))}"
    write_text(config.out / "compare.json", json.dumps(comparison, indent=1, ensure_ascii=False, allow_nan=False))
    write_text(page, comparison_page.page(comparison, charts, command))
    comparison_page.print_comparison(comparison, page, Console())
    return config.out


def is_spec(run: Spec) -> bool:
    """Return True for a reward that is no folder, such as a rule or FILE.py:FUNCTION."""
    if not isinstance(run, (str, Path)):
        return True
    return not Path(run).is_dir() and (":" in str(run) or is_rule(str(run)))


def name_of(run: Spec) -> str:
    """Return a run as it was named; a function or model of Python by its own name."""
    return str(run) if isinstance(run, (str, Path)) else getattr(run, "__name__", type(run).__name__)


def sides(a: Path, b: Path) -> tuple[Side, Side]:
    """Read both folders; InputError where they are the same, or of kinds that cannot be compared."""
    if a.resolve() == b.resolve():
        raise InputError("is named twice", a, "name two folders")
    first, second = (read_side(folder, name) for folder, name in zip((a, b), names_of([a, b])))
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


def names_of(folders: Sequence[Path]) -> list[str]:
    """Return the ends of paths, as long as it takes to tell them apart.

    >>> names_of([Path("/runs/one/ppo"), Path("/runs/two/ppo")])
    ['one/ppo', 'two/ppo']
    """
    parts = [folder.resolve().parts for folder in folders]
    most = max(map(len, parts), default=1)
    depth = next((n for n in range(1, most) if len({each[-n:] for each in parts}) == len(parts)), most)
    return ["/".join(each[-depth:]) for each in parts]


def compare_rewards(runs: Sequence[Spec], config: Config) -> Row:
    """Return everything that compare.json holds of several rewards."""
    folders = [Path(str(run)) for run in runs if not is_spec(run)]
    names = dict(zip(folders, names_of(folders)))
    named = {name_of(run) if is_spec(run) else names[Path(str(run))]: run for run in runs}
    if len(named) < len(runs):
        raise InputError("a reward is named twice", how="name each once")
    rankings, lacking = compare_scores(named, folders if len(folders) == len(runs) else [], config)
    if rankings is None:
        raise InputError(*lacking)
    empty: Row = {name: [] for name in ("options", "inputs", "versions", "figures", "metrics", "evaluations", "claims")}
    return {"notes": [], "answers": None, "rankings": rankings, **empty}


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
            named = {side.name: str(side.folder) for side in (a, b)}
            comparison["rankings"], lacking = compare_scores(named, [a.folder, b.folder], config)
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


def compare_scores(specs: Mapping[str, Spec], folders: Sequence[Path], config: Config) -> tuple[Row | None, list[str]]:
    """Give all rewards, by name, the same rankings; returns the comparison, or a note on why there is none.

    folders: those of all the rewards' runs, where each has one.
    """
    data = config.data or provenance.shared_input(folders, ("heldout_annotators", "validation"))
    if data is None:
        return None, ["There are no held-out rankings that all runs had; name some with --data."]
    runtime = start_runtime(config.device)
    rewards = {
        name: load_reward((spec,), runtime, config.max_tokens_per_pass, options=config.scoring)
        for name, spec in specs.items()
    }
    figures = compare_reward_models.compare(
        rewards, data, config.seed, config.max_prompts, config.columns, config.group_by
    )
    return {"data": str(data), **figures}, []
