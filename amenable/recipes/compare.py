"""Two runs, models or demos side by side: how they were made, how they went, and which one is better.

Runs are compared by options, inputs, closing figures and metrics. Besides, two language models answer the same prompts,
two reward models order the same answers, two evaluations or demos are laid side by side. All of it is said of the
second against the first. Writes compare.html and compare.json.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from amenable.claims.stage_folders import Stage, read_json, read_stage, seed_folders
from amenable.errors import InputError
from amenable.models.hf_config import is_classifier
from amenable.recipes.reports import (
    compare_evaluations,
    compare_policies,
    compare_reward_models,
    comparison_page,
    diff_runs,
    provenance,
)
from amenable.stages import evaluate
from amenable.train import plan
from amenable.train.defaults import FROM_MODEL, FromModel
from amenable.train.run import write_text
from amenable.train.runtime import Device, DeviceOptions, start_runtime

DEMO, EVALUATION, LANGUAGE, REWARD, RUN = "demo", "evaluation", "language model", "reward model", "run"
"""what can be compared"""
MODEL = "model"
"""in place of a command, where a model folder is no run directory"""

Row = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Compare two runs, models or demos."""

    a: tyro.conf.Positional[Path] = Path("runs/sft")
    """run directory, model folder or demo that is compared with"""
    b: tyro.conf.Positional[Path] = Path("runs/ppo")
    """another of its kind"""
    out: Path = Path("runs/compare")
    preference: bool = True
    """ask two models; otherwise only what the runs wrote down is compared"""
    data: Path | None = None
    """prompts for two language models, or rankings for two reward models; else those that both runs had"""
    world: Path | None = None
    """the closed world that knows the truth; else the one behind both runs"""
    reward_model: Path | None = None
    """scores the answers, and judges them where there is no world"""
    limit: int = 0
    """take only so many prompts or rankings; 0 takes all"""
    temperature: float = 1.0
    """of the sampled answers; greedy ones are always made as well"""
    max_new_tokens: FromModel[int] = FROM_MODEL
    """by default a quarter of the least context of the two, at most 256"""
    max_tokens_per_pass: int = 8192
    rows: int = 128
    """answers decoded at once"""
    seed: int = 0
    device: Device = field(default_factory=DeviceOptions)

    def __post_init__(self) -> None:
        plan.require_at_least(1, self, "max_new_tokens", "max_tokens_per_pass", "rows")
        plan.require_at_least(0, self, "limit")


@dataclass(frozen=True)
class Side:
    """One of the two."""

    name: str
    """its folder's, with so many above it as tell the two apart"""
    kind: str
    stage: Stage
    """its run directory; for a model or demo that is none, a stage without options"""

    @property
    def folder(self) -> Path:
        return self.stage.folder


def run(config: Config) -> Path:
    """Write compare.html and compare.json, print the tables, return the folder."""
    a, b = sides(config.a, config.b)
    found = compared(a, b, config)
    try:
        config.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be made: {error.strerror}", config.out, "give --out another folder") from None
    charts = diff_runs.charts(a.stage, b.stage, (a.name, b.name))
    write_text(config.out / "compare.json", json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False))
    write_text(
        config.out / "compare.html", comparison_page.page(found, charts, f"amenable compare {config.a} {config.b}")
    )
    comparison_page.tell(found, config.out / "compare.html", Console())
    return config.out


def sides(a: Path, b: Path) -> tuple[Side, Side]:
    """Both folders read; InputError where they are one and the same, or cannot stand side by side."""
    if a.resolve() == b.resolve():
        raise InputError("is named twice", a, "name two folders")
    one, other = (read(folder) for folder in (a, b))
    first, second = names_of(a, b)
    found = Side(first, kind_of(one), one), Side(second, kind_of(other), other)
    if {found[0].kind, found[1].kind} > {DEMO}:
        kinds = " and ".join(f"{side.folder} is a {side.kind}" for side in found)
        raise InputError(f"nothing to compare: {kinds}", how="name a stage's folder within the demo")
    return found


def read(folder: Path) -> Stage:
    """A run directory, or a model or demo as if it were one."""
    if not folder.is_dir():
        raise InputError("no such folder", folder, "name two runs, models or demos")
    stage = read_stage(folder)
    if stage is not None:
        return stage
    if (folder / "config.json").is_file():
        return Stage(folder.name, MODEL, folder, {}, {}, None, [])
    if seed_folders(folder) or any(read_stage(inner) is not None for inner in folder.iterdir()):
        return Stage(folder.name, DEMO, folder, {}, {}, None, [])
    raise InputError("is no run, model or demo", folder, "name a folder that a stage or 'amenable demo' wrote")


def kind_of(stage: Stage) -> str:
    if stage.command == DEMO:
        return DEMO
    if stage.command == "evaluate":
        return EVALUATION
    facts = read_json(stage.folder / "config.json")
    if facts is None:
        return RUN
    return REWARD if is_classifier(facts) else LANGUAGE


def names_of(a: Path, b: Path) -> tuple[str, str]:
    """The ends of two paths, as long as it takes to tell them apart.

    >>> names_of(Path("/runs/one/ppo"), Path("/runs/two/ppo"))
    ('one/ppo', 'two/ppo')
    """
    one, other = a.resolve().parts, b.resolve().parts
    most = max(len(one), len(other))
    depth = next((n for n in range(1, most) if one[-n:] != other[-n:]), most)
    return "/".join(one[-depth:]), "/".join(other[-depth:])


def compared(a: Side, b: Side, config: Config) -> Row:
    """Everything that compare.json holds."""
    found: Row = {
        side: {"name": of.name, "folder": str(of.folder), "kind": of.kind} for side, of in (("a", a), ("b", b))
    }
    found |= {
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
        told = compare_evaluations.demos(a.folder, b.folder)
        return {**found, "options": told["options"], "evaluations": told["models"], "claims": told["claims"]}
    if a.kind == b.kind == EVALUATION:
        return {**found, "evaluations": compare_evaluations.evaluations(a.folder, b.folder)}
    if a.kind == b.kind == LANGUAGE and config.preference:
        answers, lacking = ask(a, b, config)
        return {**found, "answers": answers, "notes": found["notes"] + lacking}
    if a.kind == b.kind == REWARD and config.preference:
        rankings, lacking = order(a, b, config)
        return {**found, "rankings": rankings, "notes": found["notes"] + lacking}
    return found


def notes(a: Side, b: Side) -> list[str]:
    """What the two folders do not let one compare."""
    bare = [side for side in (a, b) if side.stage.command == MODEL]
    told = [f"{side.name} is a model alone: how it was made is not known." for side in bare]
    if a.stage.command != b.stage.command and not bare:
        both = f"{a.name} is a run of ‘{a.stage.command}’ and {b.name} of ‘{b.stage.command}’"
        told.append(f"{both}: only options, inputs, figures and metrics that both have are compared.")
    if a.kind != b.kind:
        told.append(f"{a.name} is a {a.kind} and {b.name} a {b.kind}: they cannot be put to the same test.")
    told += [f"{side.name} has not finished." for side in (a, b) if side.stage.config and side.stage.finished is None]
    kept = [diff_runs.metric_names(side.stage) for side in (a, b)]
    for side, own, others in ((a, kept[0], kept[1]), (b, kept[1], kept[0])):
        alone = [name for name in own if name not in others]
        if alone and others and a.stage.command == b.stage.command:
            told.append(f"Metrics that only {side.name} keeps: {', '.join(alone)}.")
    return told


def ask(a: Side, b: Side, config: Config) -> tuple[Row | None, list[str]]:
    """Both language models asked the same prompts, and what could not be told of them."""
    world = provenance.same_world([a.folder, b.folder, *([config.world] if config.world is not None else [])])
    data = config.data or (world / "prompts" / "test.jsonl" if world is not None else None)
    if data is None:
        return None, ["There are no prompts that both could be asked; name some with --data."]
    if config.world is None and world is not None and world.resolve() not in data.resolve().parents:
        world = None
    answers = compare_policies.contest(contestants(a, b, data, world, config))
    told = []
    if answers["judges"] is None:
        told.append("Nobody judges the answers: name a --reward-model, or the --world that the prompts are from.")
    if answers["sampled"]["kl"] is None:
        told.append("No KL: it takes two models of one tokenizer that have learned to converse.")
    return answers, told


def contestants(a: Side, b: Side, data: Path, world: Path | None, config: Config) -> evaluate.Config:
    """The evaluation of the two, under the names `a` and `b`; KL is measured to a. An earlier one makes room."""
    out = config.out / "answers"
    if (earlier := read_stage(out)) is not None and earlier.command == "evaluate":
        shutil.rmtree(out)
    return evaluate.Config(
        models=(f"a={a.folder}", f"b={b.folder}"),
        data=data,
        world=world,
        reward_model=config.reward_model,
        lm_data=None if world is None else world / "text" / "validation.jsonl",
        reference="a",
        out=out,
        max_prompts=config.limit,
        temperature=config.temperature,
        max_new_tokens=config.max_new_tokens,
        max_tokens_per_pass=config.max_tokens_per_pass,
        max_batch_size=config.rows,
        seed=config.seed,
        device=config.device,
    )


def order(a: Side, b: Side, config: Config) -> tuple[Row | None, list[str]]:
    """Both reward models given the same rankings, or why they were given none."""
    data = config.data or provenance.shared_input(a.folder, b.folder, ("heldout_annotators", "validation"))
    if data is None:
        return None, ["There are no held-out rankings that both runs had; name some with --data."]
    runtime = start_runtime(config.device)
    rankings = compare_reward_models.read(data, config.limit)
    told = compare_reward_models.orders(a.folder, b.folder, rankings, runtime, config.max_tokens_per_pass, config.seed)
    return {"data": str(data), **told}, []
