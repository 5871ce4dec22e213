"""Train a reward model from rankings of K answers: Bradley-Terry over all K-choose-2 pairs of a prompt.

    L = -1/C(K,2)  sum over pairs  log sigma(r(x, y_better) - r(x, y_worse) - m)

m is 0, or the `margin` that the data gives of a pair, in units of reward (Touvron et al., 2023, eq. 2). All pairs of a
prompt are one element of the batch: each answer is computed once, ties count for nothing. With `--batch pairs` the
pairs are shuffled into one list instead, so that an answer is trained on up to K-1 times an epoch, which overfits. The
body is the SFT model (or any model with the same tokenizer) without its unembedding; a scalar head reads the last
token. The head starts at zero, so that the first loss is ln 2, and has a learning rate of its own. Then the bias is set
so that demonstrations (without any, the answers trained on) score zero on average. Ouyang et al. (2022, eq. 1, section
3.5, appendix C.2); Stiennon et al. (2020).

Reads rankings (pairs are rankings of two); writes a sequence-classification model directory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor

from amenable.data import batches, sources
from amenable.data.types import Ranking
from amenable.evaluation.empty_answers import rank_of_empty
from amenable.feedback.comparisons import Item, apart, pairs_of, summary
from amenable.functional.losses import ranking_loss_flat
from amenable.models.heads import ScalarModel
from amenable.seeds import seeded_generator
from amenable.text.chat import render
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, first_batch, forward, loading, memory, plan, run_options
from amenable.train.checkpoint import Stateful
from amenable.train.defaults import FROM_MODEL, FromModel, traits
from amenable.train.examples import Sieve, keep_fitting, ranking_rows, usable
from amenable.train.log import Progress, silent
from amenable.train.optimizer import Optimizer, OptimizerConfig, freeze
from amenable.train.run import Run
from amenable.train.runtime import Device, DeviceOptions, Runtime, start_runtime
from amenable.train.step import backward_elements

MEASURED = 200
"""training prompts that are measured again at the end; held-out ones that are scored together with an empty answer"""


@dataclass(frozen=True)
class Config:
    """Train a reward model from rankings."""

    model: Path = Path("runs/sft")
    """body of the reward model: the SFT model, or another one with the same tokenizer"""
    data: Path = Path("runs/annotate/train.jsonl")
    """rankings or pairs: a file, or a folder of files"""
    validation: Path | None = None
    """held-out rankings by the same annotators; without it a share of the prompts is held out"""
    heldout: Path | None = None
    """rankings by annotators that the training has not seen"""
    demonstrations: Path | None = None
    """conversations whose mean reward becomes zero; without any it is that of the answers trained on"""
    limit: int = 0
    """train on the rankings of only so many prompts; 0 takes all"""
    out: Path = Path("runs/reward")
    epochs: int = 1
    prompts_per_step: int = 8
    """prompts in one update, all their answers with them"""
    batch: Literal["prompts", "pairs"] = "prompts"
    """an update's elements: prompts with all their pairs, or pairs of whatever prompts, as many as those would have"""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    head_learning_rate: FromModel[float] = FROM_MODEL
    """peak learning rate of the new head"""
    warmup_steps: int | None = None
    """by default 10, and at most an eighth of the steps"""
    final_learning_rate: float = 0.1
    """share of the peak at which the cosine ends"""
    frozen_layers: int = 0
    """lowest layers (with the embeddings) that are not trained"""
    held_out: float = 0.1
    """share of the prompts held out where no validation file is given"""
    max_tokens_per_pass: int = 8192
    save_steps: int = 100
    inspect_batch: bool = False
    """show the first batch as it would be trained, and stop"""
    seed: int = 0
    device: Device = field(default_factory=DeviceOptions)
    care: run_options.Care = field(default_factory=run_options.Options)

    def __post_init__(self) -> None:
        plan.require_at_least(1, self, "epochs", "prompts_per_step", "max_tokens_per_pass")
        plan.require_at_least(0, self, "frozen_layers", "limit", "warmup_steps", "save_steps", "head_learning_rate")
        plan.require_share(self, "final_learning_rate")
        plan.require_held_out(self)


def run(config: Config) -> Path:
    """Train and return the run directory."""
    config, by_default = defaults.reward(config, traits(config.model))
    inputs = {"model": config.model, "data": config.data, "validation": config.validation, "heldout": config.heldout}
    run = Run(config.out, "reward", config, {**inputs, "demonstrations": config.demonstrations})
    if run.done():
        return run.out
    runtime = start_runtime(config.device)
    decoder, tokenizer = loading.load_policy(config.model, runtime)
    training, sets = read(config, tokenizer, decoder.config.context_length, run.sieve)
    demonstrations = demonstration_rows(config, tokenizer, decoder.config.context_length, run.sieve)
    elements, per_step = elements_of(training, config)
    per_epoch = plan.epochs_of(1, len(elements), per_step)
    total = per_epoch * config.epochs
    schedule = plan.cosine_with_warmup(total, config.warmup_steps, config.final_learning_rate)
    first = batches.by_rows(len(elements), per_step, config.seed, 0)[0]
    proof = first_batch.of_answers([item.rows for item in elements], first, tokenizer)
    model = ScalarModel.from_decoder(decoder).to(runtime.device)
    freeze(model.decoder, config.frozen_layers)
    optimizer = Optimizer([model.decoder], config.optimizer)
    head_optimizer = Optimizer([model.score], replace(config.optimizer, learning_rate=config.head_learning_rate))
    run.claim(schedule)
    order = batches.by_rows(len(elements), per_step, config.seed, 0)
    works = memory.heaviest([item.rows for item in elements], order, config.max_tokens_per_pass, share=True)
    works = [replace(work, trained=work.rows) for work in works]  # one number a row
    measured = [row for items in (training, *sets.values()) for item in items for row in item.rows]
    reading = memory.largest_reading([*measured, *demonstrations], config.max_tokens_per_pass)
    size = memory.training(model, config.optimizer, works, runtime, total, reading)
    run.log.say(f"{plan.parameters(model)}, {memory.told(size, runtime, works)}")
    run.log.say(
        f"{len(training)} rankings, {sum(len(item.rows) for item in training)} answers, "
        f"{sum(len(pairs_of(item.ranks)) for item in training)} pairs; {per_step} {config.batch} a step, "
        f"{config.epochs} epochs = {schedule}"
    )
    run.log.say(by_default)
    run.log.say(zero_point(demonstrations, training))
    if first_batch.show(run, proof, config.inspect_batch):
        return run.out
    with_margins, validation = any(item.margin for item in elements), sets["validation"]
    model.eval()  # dropout is off: rewards of one prompt are compared with each other
    state: dict[str, Stateful] = {"model": model, "optimizer": optimizer, "head_optimizer": head_optimizer}
    for step in run.steps(total, state, config.save_steps):
        epoch, place = divmod(step - 1, per_epoch)
        chosen = batches.by_rows(len(elements), per_step, config.seed, epoch)[place]
        run.feeding(step, chosen)
        items = [elements[i] for i in chosen]
        stats = backward(model, items, config, runtime)
        if with_margins:
            stats["margin/given"] = fmean(item.margin for item in items)
        elif step == 1:
            require_new(stats["loss"])
        norm = math.hypot(optimizer.step(schedule(step)), head_optimizer.step(schedule(step)))
        tokens = sum(len(ids) for item in items for ids, _ in item.rows)
        if step == total:
            stats |= rank_of_empty(model, validation[:MEASURED], tokenizer, runtime, config.max_tokens_per_pass)
        rates = {**optimizer.rates(), **head_optimizer.rates("head_")}
        run.record(step, tokens, ("loss", "accuracy"), **stats, grad_norm=norm, **rates)

    centred = demonstrations or [row for item in training for row in item.rows]
    center(model, centred, config, runtime, run.log.bar("centring"))
    loading.save_model(run.out, model, tokenizer, config.care.save_dtype)
    kept = {name: items for name, items in sets.items() if items}
    figures = {name: measure(model, items, config, runtime, run.log.bar(name)) for name, items in kept.items()}
    for name, figure in figures.items():
        run.log.say(
            f"{name}: accuracy {figure['accuracy']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}] "
            f"and loss {figure['loss']:.3f} on {figure['pairs']} pairs; "
            f"'the longer answer wins' {figure['longer_wins']:.3f}"
        )
    return run.finish(**figures)


def read(
    config: Config, tokenizer: Tokenizer, context: int, sieve: Sieve | None = None
) -> tuple[list[Item], dict[str, list[Item]]]:
    """Items to train on, and named sets to measure on: some of those trained on, and rankings held out of training."""
    training = usable(sources.read_rankings(config.data), sieve)
    if config.validation is not None:
        validation = usable(sources.read_rankings(config.validation), sieve)
    else:
        training, validation = sources.split_holdout(training, config.held_out, config.seed)
    training = of_first_prompts(training, config.limit)
    sets = {"train": training, "validation": validation}
    if config.heldout is not None:
        sets["heldout"] = usable(sources.read_rankings(config.heldout), sieve)
    items = {}
    for split, rankings in sets.items():
        found = [item_of(ranking, tokenizer, context) for ranking in rankings]
        required = config.data if split == "train" else None
        _, items[split] = keep_fitting(split, rankings, found, "rankings", context, sieve, required)
    again = batches.shuffled(len(items["train"]), config.seed, 0)[:MEASURED]
    return items["train"], {**items, "train": [items["train"][i] for i in again]}


def of_first_prompts(rankings: list[Ranking], limit: int) -> list[Ranking]:
    """The rankings of the first `limit` prompts; all of them for 0."""
    prompts = list(dict.fromkeys(ranking.prompt for ranking in rankings))
    kept = set(prompts[: limit or None])
    return [ranking for ranking in rankings if ranking.prompt in kept]


def item_of(ranking: Ranking, tokenizer: Tokenizer, context: int) -> Item | None:
    """One prompt with its answers as rows; None where they are longer than the context."""
    rows = ranking_rows(ranking, tokenizer, context)
    lengths = [len(text) for text in ranking.completions]
    if rows is None:
        return None
    return Item(rows, list(ranking.ranks), lengths, ranking.annotator or "", ranking.margin or 0.0)


def demonstration_rows(
    config: Config, tokenizer: Tokenizer, context: int, sieve: Sieve | None = None
) -> list[forward.Row]:
    """Whole demonstrations, each to be scored at its last token."""
    if config.demonstrations is None:
        return []
    demonstrations = usable(sources.read_demonstrations(config.demonstrations), sieve)
    rendered = [render(tokenizer, row.messages) for row in demonstrations]
    rows = [(row.ids, row.trained) if len(row.ids) <= context else None for row in rendered]
    return keep_fitting("demonstrations", demonstrations, rows, "conversations", context, sieve, config.demonstrations)[
        1
    ]


def elements_of(training: list[Item], config: Config) -> tuple[list[Item], int]:
    """What is shuffled, and how many make an update: of pairs as many as `prompts_per_step` prompts have on average."""
    if config.batch == "prompts":
        return training, config.prompts_per_step
    pairs = apart(training)
    return pairs, max(1, round(config.prompts_per_step * len(pairs) / len(training)))


def require_new(loss: float) -> None:
    """Check that the first loss is ln 2, as it is where a new head gives every answer the score 0: RuntimeError."""
    if abs(loss - math.log(2)) > 1e-5:
        raise RuntimeError(
            f"the first loss is {loss:.6g} and must be ln 2 = 0.693147, as the new head is zero; likely causes: "
            "the head was loaded or trained before, pairs whose weights do not sum to 1, a margin where none was given"
        )


def backward(model: ScalarModel, items: list[Item], config: Config, runtime: Runtime) -> dict[str, Any]:
    """Gradient of the mean over prompts of their mean over pairs, however many passes it takes."""
    useful = [item for item in items if pairs_of(item.ranks)]

    def loss_of(places: list[int], scores: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        chosen = [useful[i] for i in places]
        ranks = torch.tensor([rank for item in chosen for rank in item.ranks], device=scores.device)
        prompts = torch.tensor([i for i, item in enumerate(chosen) for _ in item.rows], device=scores.device)
        margins = torch.tensor([item.margin for item in chosen], device=scores.device)
        loss, seen = ranking_loss_flat(scores, ranks, prompts, margins)
        return loss, {**seen, "mean_reward": scores.detach().mean()}

    elements, limit = [item.rows for item in useful], config.max_tokens_per_pass
    stats = {"loss": 0.0, "accuracy": 0.0, "margin": 0.0, "mean_reward": 0.0}
    return stats | backward_elements(elements, partial(forward.rewards, model), loss_of, runtime, limit)


def zero_point(demonstrations: list[forward.Row], training: list[Item]) -> str:
    """A line that says what has mean reward zero in the end."""
    if demonstrations:
        return f"reward 0 will be the mean of {len(demonstrations)} demonstrations"
    answers = sum(len(item.rows) for item in training)
    return (
        f"not centred on demonstrations, as none are given: reward 0 will be the mean of the {answers} answers "
        "trained on (--demonstrations to change it)"
    )


@torch.no_grad()
def center(
    model: ScalarModel, rows: list[forward.Row], config: Config, runtime: Runtime, progress: Progress = silent
) -> None:
    """Shift the bias so that these rows have mean reward zero."""
    rewards = forward.row_rewards(model, rows, runtime, config.max_tokens_per_pass, progress)
    model.score.bias -= rewards.mean().to(runtime.device)


def measure(
    model: ScalarModel, items: list[Item], config: Config, runtime: Runtime, progress: Progress = silent
) -> dict[str, Any]:
    """Accuracy and loss with intervals, by annotator, calibration, and what 'the longer answer wins' would reach."""
    rows = [row for item in items for row in item.rows]
    scores = forward.row_rewards(model, rows, runtime, config.max_tokens_per_pass, progress)
    return summary(
        items, list(scores.split([len(item.rows) for item in items])), seeded_generator(config.seed, "bootstrap")
    )
