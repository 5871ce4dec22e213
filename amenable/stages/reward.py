"""Train a reward model from rankings of K answers: Bradley-Terry over all K-choose-2 pairs of a prompt.

    L = -1/C(K,2)  sum over pairs  log sigma(r(x, y_better) - r(x, y_worse) - m)

m is 0, or the `margin` that the data gives of a pair, in units of reward (Touvron et al., 2023, eq. 2). All pairs of a
prompt are one element of the batch: each answer is computed once, ties count for nothing. With `--batch-unit pairs` the
pairs are shuffled into one list instead, so that an answer is trained on up to K-1 times an epoch, which overfits. The
body is the SFT model (or any model with the same tokenizer) without its unembedding; a scalar head reads the last
token. The head starts at zero, so that the first loss is ln 2, and has a learning rate of its own. Then the bias is set
so that demonstrations (without any, the answers trained on) score zero on average. Ouyang et al. (2022, eq. 1, section
3.5, appendix C.2); Stiennon et al. (2020).

Reads rankings (pairs are rankings of two); writes a sequence-classification model directory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor

from amenable.data import batches, sources
from amenable.data.batches import Batch, EpochBatches
from amenable.data.types import Ranking
from amenable.evaluation.empty_answers import rank_of_empty
from amenable.feedback.comparisons import TokenizedRanking, pairs_of, ranking_metrics, split_into_pairs
from amenable.functional.losses import ranking_loss
from amenable.models.heads import ScalarModel
from amenable.seeds import seeded_generator
from amenable.text.chat import render
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, first_batch, forward, loading, plan
from amenable.train.defaults import FROM_MODEL, FromModel, traits
from amenable.train.examples import RejectedRows, keep_fitting, keep_usable, ranking_rows
from amenable.train.fit import Training, fit
from amenable.train.log import Progress, silent
from amenable.train.objective import Output, Stats
from amenable.train.optimizer import Optimizer, freeze
from amenable.train.run import Run
from amenable.train.run_options import TrainingOptions, require_held_out
from amenable.train.runtime import Runtime, start_runtime
from amenable.train.stage_report import StageReport

REPORT = StageReport(
    "Reward model",
    "A scalar head learns to order answers as annotators do.",
    "loss",
    (("accuracy", "validation.accuracy"), ("with other annotators", "heldout.accuracy")),
    (("Loss", (("loss", "training"),)), ("Accuracy on the step’s pairs", (("accuracy", "training"),))),
)

MEASURED = 200
"""training prompts that are measured again at the end; held-out ones that are scored together with an empty answer"""


@dataclass(frozen=True)
class Config(TrainingOptions):
    """Train a reward model from rankings."""

    model: Path = Path("runs/sft")
    """body of the reward model: the SFT model, or another one with the same tokenizer"""
    data: Path = Path("runs/annotate/train.jsonl")
    """rankings or pairs: a file, or a folder of files"""
    validation: Path | None = None
    """held-out rankings by the same annotators; without it a share of the prompts is held out"""
    validation_split: float = 0.1
    """share of the prompts held out where no validation file is given"""
    heldout_annotators: Path | None = None
    """rankings by annotators that none of the training data is from"""
    demonstrations: Path | None = None
    """conversations whose mean reward becomes zero; without any it is that of the answers trained on"""
    max_prompts: int = 0
    """train on the rankings of the first prompts only, so many of them; 0 takes all"""
    out: Path = Path("runs/reward")
    epochs: int = 1
    prompts_per_step: int = 8
    """prompts in one update, all their answers with them"""
    batch_unit: Literal["prompts", "pairs"] = "prompts"
    """batch by prompt (all K-choose-2 pairs of a prompt together) or by pair (pairs shuffled across prompts; the same
    number a step)"""
    head_learning_rate: FromModel[float] = FROM_MODEL
    """peak learning rate of the new head"""
    frozen_layers: int = 0
    """lowest layers (with the embeddings) that are not trained"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(1, self, "epochs", "prompts_per_step")
        plan.require_at_least(0, self, "frozen_layers", "max_prompts", "head_learning_rate")
        require_held_out(self.validation, self.validation_split)


class BradleyTerry:
    """Mean over prompts of the mean over a prompt's pairs. An element is a `TokenizedRanking`."""

    share_prefixes = True
    output: Output = "scalar"

    def __init__(self, model: ScalarModel):
        self.model = model

    def rows(self, item: TokenizedRanking) -> list[forward.Row]:
        return item.rows

    def weight(self, item: TokenizedRanking) -> float:
        return 1.0 if pairs_of(item.ranks) else 0.0

    def outputs(self, batch: Batch) -> Tensor:
        return forward.rewards(self.model, batch)

    def loss(self, items: Sequence[TokenizedRanking], scores: Tensor) -> tuple[Tensor, Stats]:
        ranks = torch.tensor([rank for item in items for rank in item.ranks], device=scores.device)
        prompts = torch.tensor([i for i, item in enumerate(items) for _ in item.rows], device=scores.device)
        margins = torch.tensor([item.margin for item in items], device=scores.device)
        loss, stats = ranking_loss(scores, ranks, prompts, margins)
        return loss, {"loss": loss.detach(), **stats, "mean_reward": scores.detach().mean()}


def run(config: Config) -> Path:
    """Train and return the run directory."""
    config, by_default = defaults.reward(config, traits(config.model))
    inputs = ("model", "data", "validation", "heldout_annotators", "demonstrations")
    run = Run(config.out, "reward", config, {name: getattr(config, name) for name in inputs})
    if run.skip_finished():
        return run.out
    runtime = start_runtime(config.device)
    decoder, tokenizer = loading.load_policy(config.model, runtime)
    training, sets = read(config, tokenizer, decoder.config.context_length, run.rejected)
    demonstrations = demonstration_rows(config, tokenizer, decoder.config.context_length, run.rejected)
    elements, per_step = batch_elements(training, config)
    steps = EpochBatches(len(elements), per_step, config.epochs, config.seed)
    schedule = plan.cosine_with_warmup(len(steps), config.warmup_steps, config.final_lr_frac)
    model = ScalarModel.from_decoder(decoder).to(runtime.device)
    freeze(model.decoder, config.frozen_layers)
    answers, pairs = sum(len(item.rows) for item in training), sum(len(pairs_of(item.ranks)) for item in training)
    head_config = replace(config.optimizer, learning_rate=config.head_learning_rate)
    measured = [row for items in (training, *sets.values()) for item in items for row in item.rows]
    task = Training(
        objective=BradleyTerry(model),
        elements=elements,
        batches=steps,
        model=model,
        optimizers={
            "": Optimizer([model.decoder], config.optimizer),
            "head_": Optimizer([model.score], head_config),
        },
        schedule=schedule,
        check=first_batch.check_completions([item.rows for item in elements], steps[0], tokenizer),
        plan=[
            f"{len(training)} rankings, {answers} answers, {pairs} pairs; {per_step} {config.batch_unit} a step, "
            f"{config.epochs} epochs = {schedule}",
            by_default,
            zero_point(demonstrations, answers),
        ],
        show=("loss", "accuracy"),
        held_out=[*measured, *demonstrations],
    )
    with_margins, limit = any(item.margin for item in elements), config.max_tokens_per_pass

    def statistics(step: int, items: list[TokenizedRanking], stats: dict[str, Any]) -> dict[str, Any]:
        stats = {"loss": 0.0, "accuracy": 0.0, "margin": 0.0, "mean_reward": 0.0, **stats}
        if with_margins:
            stats["margin/given"] = fmean(item.margin for item in items)
        elif step == 1:
            require_new(stats["loss"])
        return stats

    def evaluate(step: int) -> dict[str, Any]:
        measured = sets["validation"][:MEASURED] if step == len(steps) else []
        return rank_of_empty(model.eval(), measured, tokenizer, runtime, limit)

    if not fit(run, task, config, runtime, evaluate, statistics):
        return run.out
    centred = demonstrations or [row for item in training for row in item.rows]
    center(model, centred, runtime, limit, run.log.bar("centring"))
    loading.save_model(run.out, model, tokenizer, config.save_dtype)
    figures = {name: measure(model, items, config, runtime, run.log.bar(name)) for name, items in sets.items() if items}
    for name, figure in figures.items():
        run.log.info(
            f"{name}: accuracy {figure['accuracy']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}] "
            f"and loss {figure['loss']:.3f} on {figure['pairs']} pairs; "
            f"'the longer answer wins' {figure['longer_wins']:.3f}"
        )
    return run.finish(**figures)


def read(
    config: Config, tokenizer: Tokenizer, context: int, rejected: RejectedRows | None = None
) -> tuple[list[TokenizedRanking], dict[str, list[TokenizedRanking]]]:
    """Return items to train on, and named sets to measure: some of those trained on, and held-out rankings."""
    training = keep_usable(sources.read_rankings(config.data), rejected)
    if config.validation is not None:
        validation = keep_usable(sources.read_rankings(config.validation), rejected)
    else:
        training, validation = sources.split_holdout(training, config.validation_split, config.seed)
    training = first_prompts(training, config.max_prompts)
    sets = {"train": training, "validation": validation}
    if config.heldout_annotators is not None:
        sets["heldout"] = keep_usable(sources.read_rankings(config.heldout_annotators), rejected)
    items = {}
    for split, rankings in sets.items():
        tokenized = [tokenize_ranking(ranking, tokenizer, context) for ranking in rankings]
        required = config.data if split == "train" else None
        _, items[split] = keep_fitting(split, rankings, tokenized, "rankings", context, rejected, required)
    again = batches.shuffled(len(items["train"]), config.seed, 0)[:MEASURED]
    return items["train"], {**items, "train": [items["train"][i] for i in again]}


def first_prompts(rankings: list[Ranking], count: int) -> list[Ranking]:
    """Return the rankings of the first `count` prompts; all of them for 0."""
    prompts = set(list(dict.fromkeys(ranking.prompt for ranking in rankings))[: count or None])
    return [ranking for ranking in rankings if ranking.prompt in prompts]


def tokenize_ranking(ranking: Ranking, tokenizer: Tokenizer, context: int) -> TokenizedRanking | None:
    """Return a prompt with its answers as rows; None where they are longer than the context."""
    rows = ranking_rows(ranking, tokenizer, context)
    lengths = [len(text) for text in ranking.completions]
    if rows is None:
        return None
    return TokenizedRanking(rows, list(ranking.ranks), lengths, ranking.annotator or "", ranking.margin or 0.0)


def demonstration_rows(
    config: Config, tokenizer: Tokenizer, context: int, rejected: RejectedRows | None = None
) -> list[forward.Row]:
    """Return whole demonstrations as rows, each to be scored at its last token."""
    if config.demonstrations is None:
        return []
    demonstrations = keep_usable(sources.read_demonstrations(config.demonstrations), rejected)
    rendered = [render(tokenizer, row.messages) for row in demonstrations]
    rows = [(row.ids, row.loss_mask) if len(row.ids) <= context else None for row in rendered]
    split, required = "demonstrations", config.demonstrations
    return keep_fitting(split, demonstrations, rows, "conversations", context, rejected, required)[1]


def batch_elements(training: list[TokenizedRanking], config: Config) -> tuple[list[TokenizedRanking], int]:
    """Return the elements that are shuffled, and how many make an update: of pairs as many as `prompts_per_step`
    prompts have on average."""
    if config.batch_unit == "prompts":
        return training, config.prompts_per_step
    pairs = split_into_pairs(training)
    return pairs, max(1, round(config.prompts_per_step * len(pairs) / len(training)))


def require_new(loss: float) -> None:
    """Raise RuntimeError unless the first loss is ln 2, as where a new head gives every answer the score 0."""
    if abs(loss - math.log(2)) > 1e-5:
        raise RuntimeError(
            f"the first loss is {loss:.6g} and must be ln 2 = 0.693147, as the new head is zero; likely causes: "
            "the head was loaded or trained before, pairs whose weights do not sum to 1, a margin where none was given"
        )


def zero_point(demonstrations: list[forward.Row], answers: int) -> str:
    """Return a line that says what has mean reward zero in the end."""
    if demonstrations:
        return f"reward 0 will be the mean of {len(demonstrations)} demonstrations"
    return (
        f"not centred on demonstrations, as none are given: reward 0 will be the mean of the {answers} answers "
        "trained on (--demonstrations to change it)"
    )


@torch.no_grad()
def center(
    model: ScalarModel, rows: list[forward.Row], runtime: Runtime, max_tokens: int, progress: Progress = silent
) -> None:
    """Shift the bias so that these rows have mean reward zero."""
    rewards = forward.compute_rewards(model, rows, runtime, max_tokens, progress)
    model.score.bias -= rewards.mean().to(runtime.device)


def measure(
    model: ScalarModel, items: list[TokenizedRanking], config: Config, runtime: Runtime, progress: Progress = silent
) -> dict[str, Any]:
    """Return accuracy and loss with intervals, by annotator, calibration, and what 'the longer answer wins' reaches."""
    rows = [row for item in items for row in item.rows]
    scores = forward.compute_rewards(model, rows, runtime, config.max_tokens_per_pass, progress)
    of_items = list(scores.split([len(item.rows) for item in items]))
    return ranking_metrics(items, of_items, seeded_generator(config.seed, "bootstrap"))
