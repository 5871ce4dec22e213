"""Have annotators rank the answers to each prompt.

Here the annotators are simulated (a closed world's, each with a taste and errors of its own) or a reward model; people
come through the same store and leave the same files. As in Ouyang et al. (2022, section 3.4), one person ranks all K
answers to a prompt, ties allowed, and some annotators label nothing that is trained on.

Reads samples.jsonl, of several models if need be; writes labels.db (every label, append-only) and rankings in the
published format: train.jsonl, validation.jsonl (prompts kept apart), heldout.jsonl (the same prompts as validation, by
held-out annotators). Answers of several models to one prompt are ranked together, and `models` says who gave which.
Some of the training rankings can hold an answer that says nothing, so that a reward model learns what that is worth.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from amenable.data.batches import shuffled
from amenable.data.samples import read_samples
from amenable.data.types import Message, Ranking
from amenable.errors import InputError
from amenable.feedback.judges import from_scores
from amenable.feedback.store import Store
from amenable.feedback.votes import model_columns
from amenable.files import commit_file, disk_errors, temporary_path
from amenable.models.heads import ScalarModel
from amenable.seeds import derive_seed, seeded_generator
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading, plan
from amenable.train.examples import keep_fitting, ranking_rows
from amenable.train.log import Bars, Progress, no_bars, silent, tracked
from amenable.train.run import Run, write_text
from amenable.train.run_options import RunOptions
from amenable.train.runtime import Runtime, start_runtime
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
"""whose annotators judge where no judge is given"""


@dataclass(frozen=True)
class Config(RunOptions):
    """Rank the answers to each prompt by simulated annotators, or by a reward model."""

    data: Path = Path("runs/sample/samples.jsonl")
    """prompts with their answers, as `sample` writes them"""
    world: Path | None = None
    """the closed world whose annotators judge; by default runs/world, where no reward model is given"""
    reward_model: Path | None = None
    """a reward model that judges instead"""
    out: Path = Path("runs/annotate")
    extra_data: tuple[Path, ...] = ()
    """samples of other models: their answers join those to the same prompt (by its id)"""
    empty_share: float = 0.0
    """share of the training prompts whose answers are ranked together with an empty one"""
    validation_split: float = 0.15
    """share of the prompts kept for validation; held-out annotators rank these too"""
    agreement: float = 0.73
    """the annotators' errors are scaled so that two of them agree on this share of pairs; 0 leaves the world's scale"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.world is not None and self.reward_model is not None:
            raise InputError("one judge is needed, and two are given", how="give --world or --reward-model")
        if not 0 < self.validation_split < 1:
            raise InputError(f"validation_split is {self.validation_split}", how="it must lie between 0 and 1")
        plan.require_share(self, "empty_share")
        if not (self.agreement == 0 or 0.5 < self.agreement < 1):
            raise InputError(f"agreement is {self.agreement}", how="0, or between 0.5 and 1")


@dataclass(frozen=True)
class Sampled:
    """A prompt with its answers, and which models gave each where several were asked."""

    id: str
    kind: str
    prompt: tuple[Message, ...]
    completions: tuple[str, ...]
    ended: tuple[bool, ...]
    models: tuple[tuple[str, ...], ...]


def run(config: Config) -> Path:
    """Annotate and return the run directory."""
    config = with_judge(config)
    inputs = {"data": config.data, "world": config.world, "reward_model": config.reward_model}
    inputs |= {f"also {number}": path for number, path in enumerate(config.extra_data, start=1)}
    run = Run(config.out, "annotate", config, inputs)
    if run.done():
        return run.out
    sampled = read((config.data, *config.extra_data))
    world = ClosedWorld.load(config.world) if config.world is not None else None
    if world is not None:
        for one in sampled:
            world.truth(one.id)  # every prompt must be the world's own
    scorer = load_scorer(config.reward_model, config) if config.reward_model is not None else None
    run.claim()
    order = shuffled(len(sampled), config.seed, 0)
    apart = max(1, round(len(sampled) * config.validation_split))
    training = [with_empty(sampled[i], config) for i in order[apart:]]
    parts = {"train": training, "validation": [sampled[i] for i in order[:apart]]}
    files: dict[str, list[Ranking]] = {}
    facts: dict[str, float] = {}
    if world is not None:
        files, facts = by_annotators(parts, world, config, run.log.bar)
    elif scorer is not None:
        files = {name: score_all(name, rows, *scorer, run.log.bar(name)) for name, rows in parts.items()}
    keep_labels(run.out / "labels.db", [ranking for rankings in files.values() for ranking in rankings])
    told = {name: [ranking for ranking in rankings if len(set(ranking.ranks)) > 1] for name, rankings in files.items()}
    for name, rankings in told.items():
        write_text(run.out / f"{name}.jsonl", "".join(line(ranking) for ranking in rankings))
        tied = f"; {len(files[name]) - len(rankings)} more, all tied, are only in labels.db"
        answers = sum(len(ranking.completions) for ranking in rankings)
        run.log.say(f"{name}: {len(rankings)} rankings of {answers} answers{tied}")
    return run.finish(**{name: len(rankings) for name, rankings in told.items()}, agreement=facts)


def with_judge(config: Config) -> Config:
    """The configuration with the usual world as judge where none is given."""
    if config.world is not None or config.reward_model is not None:
        return config
    if not WORLD.exists():
        raise InputError("one judge is needed", how="give --world or --reward-model")
    return replace(config, world=WORLD)


def read(files: Sequence[Path]) -> list[Sampled]:
    """Prompts that have at least two different answers; the same answer twice counts once.

    What a later file holds of a prompt joins the answers of the earlier ones; other prompts stay as they are.
    """
    rows: list[Sampled] = []
    prompts: dict[str, tuple[Message, ...]] = {}
    for path in files:
        places = {one.id: place for place, one in reversed(list(enumerate(rows)))}
        for number, one in rows_of(path):
            if prompts.setdefault(one.id, one.prompt) != one.prompt:
                how = "give every prompt an id of its own"
                raise InputError(f"line {number} has the id '{one.id}' of another prompt above it", path, how)
            if one.id in places:
                rows[places[one.id]] = joined(rows[places[one.id]], one)
            else:
                rows.append(one)
    rows = [one for one in map(distinct, rows) if len(one.completions) > 1]
    if len(rows) < 2:
        raise InputError("fewer than two prompts have different answers", files[0], "sample more, or warmer")
    return rows if len(files) > 1 else [replace(one, models=()) for one in rows]


def rows_of(path: Path) -> Iterator[tuple[int, Sampled]]:
    """(number, prompt with its answers) of a file of samples."""
    for number, row in read_samples(path):
        models = ((row.model or "",),) * len(row.completions)
        yield number, Sampled(row.id, row.kind, row.prompt, row.completions, row.ended, models)


def joined(one: Sampled, other: Sampled) -> Sampled:
    """A prompt with the answers of both."""
    both = {name: getattr(one, name) + getattr(other, name) for name in ("completions", "ended", "models")}
    return replace(one, **both)


def distinct(one: Sampled) -> Sampled:
    """Every answer once, with all models that gave it; one of nothing but white space is the empty one."""
    answers: dict[tuple[str, bool], tuple[str, ...]] = {}
    for text, ended, names in zip(one.completions, one.ended, one.models, strict=True):
        answer = (text, ended) if text.strip() else ("", True)
        answers[answer] = tuple(dict.fromkeys((*answers.get(answer, ()), *names)))
    texts, ends = tuple(text for text, _ in answers), tuple(ended for _, ended in answers)
    return replace(one, completions=texts, ended=ends, models=tuple(answers.values()))


def with_empty(one: Sampled, config: Config) -> Sampled:
    """The prompt, for a share of the prompts that the seed draws, with an empty answer among its answers."""
    drawn = seeded_generator(config.seed, "empty", one.id)
    if "" in one.completions or float(torch.rand((), generator=drawn)) >= config.empty_share:
        return one
    models = (*one.models, ()) if one.models else ()
    return replace(one, completions=(*one.completions, ""), ended=(*one.ended, True), models=models)


def by_annotators(
    parts: dict[str, list[Sampled]], world: ClosedWorld, config: Config, bars: Bars = no_bars
) -> tuple[dict[str, list[Ranking]], dict[str, float]]:
    """One annotator a prompt; held-out annotators rank the validation prompts as well. Beside them, the agreement."""
    judged = [
        [world.gold(one.id, *answer) for answer in zip(one.completions, one.ended)] for one in parts["validation"]
    ]
    if config.agreement:
        world = replace(world, noise=fit_noise(world.annotators, judged, config.seed, config.agreement))
    files = {name: rank_all(rows, world.panel, name, world, config, bars(name)) for name, rows in parts.items()}
    apart, panel = parts["validation"], world.held_out_panel
    files["heldout"] = rank_all(apart, panel, "heldout", world, config, bars("heldout"))
    seed = derive_seed(config.seed, "agreement")
    panels = {"train": world.panel, "heldout": world.held_out_panel, "all": world.annotators}
    return files, {name: agreement(panel, judged, world.noise, seed) for name, panel in panels.items()}


def rank_all(
    rows: list[Sampled],
    panel: tuple[Annotator, ...],
    name: str,
    world: ClosedWorld,
    config: Config,
    progress: Progress = silent,
) -> list[Ranking]:
    """Each row ranked by one annotator of the panel, drawn by the seed."""
    rankings = []
    for one in tracked(rows, progress):
        generator = seeded_generator(config.seed, "rank", name, one.id)
        annotator = panel[derive_seed(config.seed, "who", name, one.id) % len(panel)]
        ranks = world.rank(annotator, one.id, one.completions, one.ended, generator)
        rankings.append(ranking_of(one, ranks, annotator.name))
    return rankings


def load_scorer(folder: Path, config: Config) -> tuple[ScalarModel, Tokenizer, Runtime]:
    """A reward model, its tokenizer, and the machine they are on."""
    runtime = start_runtime(config.device)
    loading.require_model(folder, "amenable reward")
    tokenizer = Tokenizer.load(folder)
    return loading.load_judge(folder, runtime, tokenizer), tokenizer, runtime


def score_all(
    split: str,
    rows: list[Sampled],
    model: ScalarModel,
    tokenizer: Tokenizer,
    runtime: Runtime,
    progress: Progress = silent,
) -> list[Ranking]:
    """Ranks by a reward model's scores. Answers that are longer than its context are left out with their prompt."""
    blanks = [ranking_of(one, tuple(range(1, len(one.completions) + 1)), "reward model") for one in rows]
    context = model.decoder.config.context_length
    found = [ranking_rows(blank, tokenizer, context) for blank in blanks]
    kept, answers = keep_fitting(split, rows, found, "rankings", context)
    every = forward.row_rewards(model, [row for rows in answers for row in rows], runtime, 8192, progress)
    scores = every.split([len(rows) for rows in answers])
    return [ranking_of(one, tuple(from_scores(own.tolist())), "reward model") for one, own in zip(kept, scores)]


def keep_labels(path: Path, rankings: list[Ranking]) -> None:
    """Every label in a new store. A try that was stopped left none: it takes its name once all of them are in it."""
    with disk_errors(path):
        with Store(temporary_path(path)) as store:
            for ranking in rankings:
                store.add_ranking(ranking, shown_order=range(len(ranking.completions)), seconds=0.0, time=0.0)
        commit_file(temporary_path(path), path)


def ranking_of(one: Sampled, ranks: tuple[float, ...], annotator: str) -> Ranking:
    meta: dict[str, Any] = {"ended": list(one.ended), "kind": one.kind}
    if one.models:
        meta |= model_columns(one.models)
    return Ranking(one.prompt, one.completions, ranks, one.id, annotator, meta)


def line(ranking: Ranking) -> str:
    """A ranking in the published format, 1 the best."""
    row: dict[str, Any] = {
        "prompt": [{"role": message.role, "content": message.content} for message in ranking.prompt],
        "completions": list(ranking.completions),
        "ranking": list(ranking.ranks),
        "annotator": ranking.annotator,
        "id": ranking.id,
        **ranking.meta,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"
