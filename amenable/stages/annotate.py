"""Have annotators rank the answers to each prompt.

The annotators are simulated (a closed world's, each with a taste and errors of its own), or a judge ranks: a reward
model, a rule, a Python function, an endpoint. People come through the same store and leave the same files. As in
Ouyang et al. (2022, section 3.4), one annotator ranks all K answers to a prompt, ties allowed, and some annotators
label nothing that is trained on.

Reads samples.jsonl, of several models if need be; writes labels.db (every label, append-only) and rankings in the
published format: train.jsonl, validation.jsonl (prompts of their own), heldout.jsonl (the same prompts as validation,
by held-out annotators). Answers of several models to one prompt are ranked together, and `models` says who gave which.
Some of the training rankings can hold an empty answer, so that a reward model learns what that is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from amenable.data.batches import shuffled
from amenable.data.types import Ranking
from amenable.errors import InputError, RewardError
from amenable.feedback.candidates import Candidates, add_empty, read_candidates
from amenable.feedback.ranking_files import row_of, write_rankings, write_store
from amenable.rewards.options import RewardOptions, Scoring
from amenable.rewards.rankings import rank_by_reward, ranking_of
from amenable.rewards.spec import Reward, Specs, load_reward, reward_inputs
from amenable.seeds import derive_seed, seeded_generator
from amenable.train import failed_rewards, plan
from amenable.train.failed_rewards import scoring
from amenable.train.log import Bars, Progress, no_bars, silent, tracked
from amenable.train.run import Run
from amenable.train.run_options import RunOptions
from amenable.train.runtime import start_runtime
from amenable.train.stage_report import StageReport
from amenable.world.annotators import Annotator, agreement, fit_noise
from amenable.world.closed_world import ClosedWorld

REPORT = StageReport(
    "Annotation",
    "Annotators rank the answers to each prompt.",
    facts=(
        ("rankings", "train"),
        ("kept for validation", "validation"),
        ("by annotators apart", "heldout"),
        ("two annotators agree", "agreement.train"),
    ),
)

WORLD = Path("runs/world")
"""the world whose annotators rank where neither a world nor a judge is given"""
ONE_JUDGE = "give --world or --judge"


@dataclass(frozen=True)
class Config(RunOptions):
    """Rank the answers to each prompt by simulated annotators, or by a judge."""

    data: Path = Path("runs/sample/samples.jsonl")
    """prompts with their answers, as `sample` writes them"""
    world: Path | None = None
    """the closed world whose annotators rank; runs/world where no judge is given"""
    judge: Specs = ()
    """ranks instead, by score: a reward model's folder, FOLDER:LABEL, FILE.py:FUNCTION, a rule or an http address;
    several are added, each SPEC or SPEC=WEIGHT"""
    scoring: Scoring = field(default_factory=RewardOptions)
    out: Path = Path("runs/annotate")
    extra_data: tuple[Path, ...] = ()
    """more files of samples: answers to the same prompt id are ranked together"""
    empty_share: float = 0.0
    """share of the training prompts whose answers are ranked together with an empty one"""
    validation_split: float = 0.15
    """share of the prompts kept for validation; held-out annotators rank these too"""
    agreement: float = 0.73
    """the annotators' errors are scaled so that two of them agree on this share of pairs; 0 leaves the world's scale"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.forbid(self.world is not None and self.judge, "one judge is needed, and two are given", ONE_JUDGE)
        if not 0 < self.validation_split < 1:
            raise InputError(f"validation_split is {self.validation_split}", how="it must lie between 0 and 1")
        plan.require_share(self, "empty_share")
        if not (self.agreement == 0 or 0.5 < self.agreement < 1):
            raise InputError(f"agreement is {self.agreement}", how="0, or between 0.5 and 1")


def run(config: Config) -> Path:
    """Annotate and return the run directory."""
    config = with_default_world(config)
    inputs: dict[str, Path | None] = {"data": config.data, "world": config.world}
    inputs |= reward_inputs(config.judge, "judge", config.scoring.judge_rubric)
    inputs |= {f"also {number}": path for number, path in enumerate(config.extra_data, start=1)}
    run = Run(config.out, "annotate", config, inputs)
    if run.skip_finished():
        return run.out
    runtime = start_runtime(config.device) if config.judge else None
    reward = load_reward(config.judge, runtime, options=config.scoring) if runtime is not None else None
    candidates = read_candidates((config.data, *config.extra_data), config.columns)
    if reward is not None:
        reward.require_tokenizers()
        reward.require_columns([{"kind": row.kind, **row.meta} for row in candidates], config.data)
    world = ClosedWorld.load(config.world) if config.world is not None else None
    if world is not None:
        for row in candidates:
            world.truth(row.id)  # every prompt must be the world's own
    run.begin()
    for line in failed_rewards.clear(run.out, 0, run.lineage()["inputs"]):
        run.log.warn(line)
    for note in reward.notes if reward is not None else []:
        run.log.info(note)
    splits = split(candidates, config)
    rankings: dict[str, list[Ranking]] = {}
    facts: dict[str, float] = {}
    if world is not None:
        rankings, facts = rank_by_annotators(splits, world, config, run.log.bar)
    elif reward is not None:
        with scoring(run):
            rankings = {name: rank_by_reward(name, rows, reward, run.log) for name, rows in splits.items()}
            require_differences(rankings["train"], reward)
    write_store(run.out / "labels.db", [ranking for rows in rankings.values() for ranking in rows])
    untied = {name: [ranking for ranking in rows if len(set(ranking.ranks)) > 1] for name, rows in rankings.items()}
    for name, rows in untied.items():
        write_rankings(run.out / f"{name}.jsonl", rows)
        tied = f"; {len(rankings[name]) - len(rows)} more, all tied, are only in labels.db"
        answers = sum(len(ranking.completions) for ranking in rows)
        run.log.info(f"{name}: {len(rows)} rankings of {answers} answers{tied}")
    return run.finish(**{name: len(rows) for name, rows in untied.items()}, agreement=facts)


def require_differences(rankings: Sequence[Ranking], reward: Reward) -> None:
    """Raise RewardError for a reward that ranks the answers to every prompt alike: nothing can be learned from it."""
    if rankings and not any(len(set(ranking.ranks)) > 1 for ranking in rankings):
        problem = f"all answers to each of {len(rankings)} prompts have the same rank"
        hint = "give a judge that tells them apart, or sample more answers, at a higher temperature"
        raise RewardError(InputError(problem, reward.name, hint), reward.name, list(map(row_of, rankings)))


def with_default_world(config: Config) -> Config:
    """Return the configuration, with the world in runs/ where neither a world nor a judge is given."""
    if config.world is not None or config.judge:
        return config
    plan.forbid(not WORLD.exists(), "one judge is needed", ONE_JUDGE)
    return replace(config, world=WORLD)


def split(candidates: Sequence[Candidates], config: Config) -> dict[str, list[Candidates]]:
    """Divide prompts into training and validation; a share of the training ones get an empty answer more."""
    order = shuffled(len(candidates), config.seed, 0)
    held_out = max(1, round(len(candidates) * config.validation_split))
    training = [candidates[i] for i in order[held_out:]]
    draws = [float(torch.rand((), generator=seeded_generator(config.seed, "empty", row.id))) for row in training]
    training = [add_empty(row) if draw < config.empty_share else row for row, draw in zip(training, draws)]
    return {"train": training, "validation": [candidates[i] for i in order[:held_out]]}


def rank_by_annotators(
    splits: dict[str, list[Candidates]], world: ClosedWorld, config: Config, bars: Bars = no_bars
) -> tuple[dict[str, list[Ranking]], dict[str, float]]:
    """Rank each prompt by one annotator, and validation prompts by a held-out one as well; return the rankings by
    split, and how often two annotators agree, by group."""
    validation = splits["validation"]
    reports = [[world.gold(row.id, *answer) for answer in zip(row.completions, row.ended)] for row in validation]
    if config.agreement:
        world = replace(world, noise=fit_noise(world.annotators, reports, config.seed, config.agreement))
    rankings = {name: rank_all(rows, world.panel, name, world, config, bars(name)) for name, rows in splits.items()}
    rankings["heldout"] = rank_all(validation, world.held_out_panel, "heldout", world, config, bars("heldout"))
    seed = derive_seed(config.seed, "agreement")
    panels = {"train": world.panel, "heldout": world.held_out_panel, "all": world.annotators}
    return rankings, {name: agreement(panel, reports, world.noise, seed) for name, panel in panels.items()}


def rank_all(
    rows: Sequence[Candidates],
    panel: tuple[Annotator, ...],
    name: str,
    world: ClosedWorld,
    config: Config,
    progress: Progress = silent,
) -> list[Ranking]:
    """Rank each row by an annotator of the panel, drawn by the seed."""
    rankings = []
    for row in tracked(rows, progress):
        generator = seeded_generator(config.seed, "rank", name, row.id)
        annotator = panel[derive_seed(config.seed, "who", name, row.id) % len(panel)]
        ranks = world.rank(annotator, row.id, row.completions, row.ended, generator)
        rankings.append(ranking_of(row, ranks, annotator.name))
    return rankings
