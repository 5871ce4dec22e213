"""Train a reward model from rankings of K completions: Bradley-Terry over all K-choose-2 pairs of a prompt.

    L = -1/C(K,2)  sum over pairs  log sigma(r(x, y_better) - r(x, y_worse) - m)

m is 0, or the `margin` that the data gives, in units of reward (Touvron et al., 2023, eq. 2). All pairs of a prompt are
one element of the batch: each completion is computed once, ties count for nothing. `--batch-unit pairs` shuffles the
pairs into one list instead: a completion is trained on up to K-1 times an epoch, which overfits. Other likelihoods of a
ranking (--loss-type) are in functional/losses.py; `binary`, on text ranked by votes or edits, is preference model
pretraining (Askell et al., 2021), and a second run goes on from that model.

The body is the SFT model (or any model with the same tokenizer) without its unembedding; a scalar head, with a learning
rate of its own, reads the last token. The head starts at zero, so the first loss is that of equal rewards (ln 2). In
the end the bias is shifted so that demonstrations (without any, the completions trained on) have mean reward 0. With
--members the folder is an ensemble (rewards/ensemble.py), whose members differ in the order of their data, or in their
bodies. Ouyang et al. (2022, eq. 1, section 3.5, appendix C.2); Stiennon et al. (2020).

Reads rankings (pairs are rankings of two); writes a sequence-classification model directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from amenable.data import batches
from amenable.data.mixture import Mixed, Sources, data_inputs, mixture_batches
from amenable.evaluation.attack_search import AttackOptions, search_attack
from amenable.evaluation.empty_answers import rank_of_empty
from amenable.evaluation.ranking_accuracy import measure_accuracies
from amenable.evaluation.reward_attacks import describe as describe_attacks
from amenable.evaluation.reward_attacks import measure_attacks
from amenable.models.heads import ScalarModel
from amenable.models.pretrained import is_reward_folder
from amenable.rewards.ensemble import EnsembleOptions, initialize, train_members
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, first_batch, forward, loading, plan, rankings
from amenable.train.defaults import FROM_MODEL, FromModel, traits
from amenable.train.examples import RejectedRows
from amenable.train.fit import Training, fit
from amenable.train.log import Bars, no_bars
from amenable.train.objective import require_zero_outputs
from amenable.train.optimizer import Optimizer
from amenable.train.passes import longest_rows
from amenable.train.ranking_objective import RankingLossOptions, RankingObjective
from amenable.train.rankings import TokenizedRanking
from amenable.train.row_cache import RANKINGS, keep_fitting, read_examples, read_splits
from amenable.train.run import Run
from amenable.train.run_options import AdapterOptions, OfflineOptions
from amenable.train.runtime import Runtime, start_runtime
from amenable.train.stage_report import StageReport

REPORT = StageReport(
    "Reward model",
    "A scalar head learns to order completions as annotators do.",
    "loss",
    (
        ("accuracy", "validation.accuracy"),
        ("with other annotators", "heldout.accuracy"),
        ("attack gains, deviations", "attack.gain"),
    ),
    (("Loss", (("loss", "training"),)), ("Accuracy on the step’s pairs", (("accuracy", "training"),))),
)

MEASURED = 200
"""training prompts whose accuracy is measured at the end; held-out prompts whose empty completion is scored"""


@dataclass(frozen=True)
class Config(RankingLossOptions, EnsembleOptions, AttackOptions, OfflineOptions, AdapterOptions):
    """Train a reward model from rankings."""

    model: Path = Path("runs/sft")
    """body of the reward model: the SFT model, or another with the same tokenizer; a reward model goes on as it is"""
    data: Sources = (Path("runs/annotate/train.jsonl"),)
    """rankings or pairs: a file, or a folder of files; several are mixed, each SOURCE or SOURCE=WEIGHT"""
    validation_split: float = field(default=0.1, kw_only=True)
    """share of the prompts held out where no validation file is given"""
    heldout_annotators: Path | None = None
    """rankings by annotators who made none of the training data"""
    demonstrations: Path | None = None
    """conversations whose mean reward becomes 0; without any it is that of the completions trained on"""
    max_prompts: int = 0
    """train on the rankings of the first prompts of each source only, at most this many; 0 takes all"""
    out: Path = Path("runs/reward")
    epochs: int = 1
    prompts_per_step: int = 8
    """prompts in one update, with all their completions"""
    batch_unit: Literal["prompts", "pairs"] = "prompts"
    """batch by prompt (all K-choose-2 pairs of a prompt together) or by pair (pairs shuffled across prompts; the same
    number a step)"""
    head_learning_rate: FromModel[float] = FROM_MODEL
    """peak learning rate of the new head"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(1, self, "epochs", "prompts_per_step")
        plan.require_at_least(0, self, "max_prompts", "head_learning_rate")
        divided = self.loss_type in ("plackett-luce", "best-of-k") and self.batch_unit == "pairs"
        plan.forbid(divided, f"--loss-type {self.loss_type} needs whole rankings", "give --batch-unit prompts")


def run(config: Config) -> Path:
    """Train and return the run directory."""
    config, by_default = defaults.reward(config, traits(config.model, virtual_tokens=config.virtual_tokens))
    files = ("model", "validation", "heldout_annotators", "demonstrations", "world")
    inputs = {name: getattr(config, name) for name in files} | data_inputs(config.data)
    run = Run(config.out, "reward", config, inputs | config.member_inputs)
    if run.skip_finished():
        return run.out
    runtime, limit = start_runtime(config.device), config.max_tokens_per_pass
    model, tokenizer, new_head = load_initial(config, runtime)
    config.adapt(model, config.model, tokenizer, runtime)
    context = model.decoder.config.context_length
    training, sets = read(config, tokenizer, context, run.rejected, run.log.bar)
    gold = config.load_gold(sets["validation"])
    zero = rankings.read_demonstrations(config.demonstrations, tokenizer, context, run.rejected) or training
    zero_name = "completions trained on (--demonstrations to change it)" if zero is training else "demonstrations"
    elements, per_step = rankings.batch_elements(training, config.batch_unit, config.prompts_per_step)
    steps, mixture = mixture_batches(config.data, elements, per_step, config.epochs, config.order_seed)
    schedule = plan.cosine_with_warmup(len(steps), config.warmup_steps, config.final_lr_frac)
    objective = RankingObjective(model, config)
    head_config = replace(config.optimizer, learning_rate=config.head_learning_rate)
    task = Training(
        objective=objective,
        elements=elements,
        batches=steps,
        model=model,
        optimizers={"": Optimizer([model.decoder], config.optimizer), "head_": Optimizer([model.score], head_config)},
        schedule=schedule,
        check=first_batch.check_completions([row for i in steps[0] for row in elements[i].rows], tokenizer),
        plan=[
            f"{rankings.describe(training)}, {per_step} {config.batch_unit} a step, {config.epochs} epochs: {schedule}",
            *mixture,
            by_default,
            f"reward 0 will be the mean of {rankings.count_completions(zero)} {zero_name}",
        ],
        show=("loss", "accuracy"),
        held_out=longest_rows(Mixed([], [training, *sets.values(), zero]), objective.rows),
    )
    add_margins = rankings.margin_statistics(elements)

    def statistics(step: int, batch: list[TokenizedRanking], stats: dict[str, Any]) -> dict[str, Any]:
        stats = {"loss": 0.0, "accuracy": 0.0, "margin": 0.0, "mean_reward": 0.0, **stats}
        if step == 1 and new_head:
            require_zero_outputs(objective, batch, stats["loss"])
        return add_margins(step, batch, stats)

    def evaluate(step: int) -> dict[str, Any]:
        last = sets["validation"][:MEASURED] if step == len(steps) else []
        attacks = measure_attacks(model.eval(), last, tokenizer, runtime, limit)
        run.log.info(describe_attacks(attacks))
        return rank_of_empty(model, last, tokenizer, runtime, limit) | attacks

    if not fit(run, task, config, runtime, evaluate, statistics):
        return run.out
    bar = run.log.bar("centring")
    model.center(torch.cat(forward.element_rewards(model, zero, objective.rows, runtime, limit, bar)))
    loading.save_model(run.out, model, tokenizer, config.save_dtype)
    if config.members > 1:
        train_members(config, run, train_member)
    search = (limit, config.attack_queries, config.seed, run.log, gold)
    attack = search_attack(model, sets["validation"], tokenizer, runtime, *search)
    facts = measure_accuracies(model, rankings.with_sources(sets), runtime, limit, config.seed, run.log)
    return run.finish(**facts, attack=attack)


def train_member(config: Config) -> None:
    """Train a further member of an ensemble."""
    run(config)


def load_initial(config: Config, runtime: Runtime) -> tuple[ScalarModel, Tokenizer, bool]:
    """Load a reward model as it is, or a language model with a new head; the last is True for a new head."""
    loading.require_model(config.model, "amenable sft")
    if is_reward_folder(config.model) and not config.from_scratch:
        tokenizer = Tokenizer.load(config.model)
        return loading.load_reward_model(config.model, runtime, tokenizer), tokenizer, False
    decoder, tokenizer = loading.load_policy(config.model, runtime)
    initialize(decoder, config)
    return ScalarModel.from_decoder(decoder).to(runtime.device), tokenizer, True


def read(
    config: Config, tokenizer: Tokenizer, context: int, rejected: RejectedRows | None = None, bars: Bars = no_bars
) -> tuple[Mixed[TokenizedRanking], dict[str, Sequence[TokenizedRanking]]]:
    """Read rankings to train on, by source, and sets to measure accuracy on: some trained on, and held-out ones."""
    splits = read_splits(RANKINGS, config, tokenizer, rejected, bars)
    splits["train"] = splits["train"].map(partial(rankings.first_prompts, count=config.max_prompts))
    if config.heldout_annotators is not None:
        others = read_examples(config.heldout_annotators, RANKINGS, tokenizer, rejected, config.columns)
        splits["heldout"] = Mixed(["heldout"], [others])
    splits = keep_fitting(splits, RANKINGS.noun, context, config.data, rejected)
    sets = {name: examples.map(rankings.lazy_rankings) for name, examples in splits.items()}
    measured = batches.shuffled(len(sets["train"]), config.seed, 0)[:MEASURED]
    return sets["train"], {**sets, "train": [sets["train"][i] for i in measured]}
