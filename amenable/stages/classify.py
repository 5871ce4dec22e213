"""Fine-tune a language model on a task of labelled texts: classification, entailment, similarity, multiple choice.

    L = -log softmax(h W)[label] + lambda L_lm

h is the state at the extract token, the last of a row; similarity adds the states of both orders, multiple choice takes
the softmax over the choices' scores, and labels that are numbers are regressed. Start, delimiter and extract tokens are
new rows of the vocabulary (text/task_inputs.py). The head W starts at zero, with a learning rate of its own. L_lm is
the loss of the row's own tokens, an auxiliary objective. Radford et al. (2018, sections 3.2 and 3.3): 3 epochs, lambda
0.5.

Reads a language model and labelled texts (data/task_columns.py); writes a sequence-classification model directory,
whose labels are rewards too (rewards/classifier.py), and the held-out predictions, the worst first (predictions.jsonl).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from amenable import processes
from amenable.data.mixture import Sources, data_inputs, mixture_batches
from amenable.data.task_columns import TASK_COLUMNS
from amenable.evaluation.classification import confusion_table, describe, measure
from amenable.files import write_text
from amenable.models.heads import Classifier
from amenable.models.new_tokens import init_new_tokens, train_new_tokens
from amenable.seeds import seeded_generator
from amenable.text.task_inputs import TASK_TOKENS, Task
from amenable.text.tokenizer import Tokenizer
from amenable.train import classification, defaults, loading, plan
from amenable.train.best import BestWeights
from amenable.train.classification import LabeledRows, Labels, TaskObjective
from amenable.train.defaults import FROM_MODEL, FromModel, traits
from amenable.train.fit import Training, fit
from amenable.train.objective import mean_stats, require_zero_outputs
from amenable.train.optimizer import Optimizer
from amenable.train.passes import longest_rows
from amenable.train.run import Run
from amenable.train.run_options import AdapterOptions, OfflineOptions
from amenable.train.runtime import Runtime, start_runtime
from amenable.train.stage_report import StageReport

REPORT = StageReport(
    "Classifier",
    "A head on a language model learns the labels of texts.",
    "loss",
    (
        ("accuracy", "validation.accuracy.value"),
        ("Matthews", "validation.matthews.value"),
        ("Pearson", "validation.pearson.value"),
        ("step kept", "selected_step"),
    ),
    (
        ("Loss", (("loss", "training"), ("eval/loss", "held out"))),
        ("Accuracy", (("accuracy", "training"), ("eval/accuracy", "held out"))),
    ),
    matrix="validation",
)
PREDICTIONS = "predictions.jsonl"


@dataclass(frozen=True)
class Config(OfflineOptions, AdapterOptions):
    """Fine-tune a language model to classify texts."""

    model: Path = Path("runs/pretrain")
    data: Sources = (Path("labelled.jsonl"),)
    """labelled texts, in the columns of GLUE, IMDB, RACE or ARC: a file, or a folder of files; several are mixed, each
    SOURCE or SOURCE=WEIGHT"""
    task: Task = "classification"
    """of one text; entailment or similarity of two; multiple-choice"""
    labels: tuple[str, ...] = ()
    """names of the classes, in the order of their labels in the data (numbers by size, then names)"""
    out: Path = Path("runs/classify")
    validation_split: float = 0.1
    """share of the examples held out where no validation file is given"""
    lm_coef: float = 0.5
    """weight of the language-model loss of the rows; 0 leaves it out"""
    epochs: int = 3
    batch_size: int = 32
    """examples in one update"""
    dropout: FromModel[float] = FROM_MODEL
    """by default as the model's config.json says: .1 in GPTs', none in Llama's and Qwen's"""
    head_learning_rate: FromModel[float] = FROM_MODEL
    """peak learning rate of the new head"""
    keep_weights: Literal["last", "loss"] = "last"
    """weights that are saved: those of the last epoch, or of the lowest held-out loss of the labels"""
    column_targets = TASK_COLUMNS

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(1, self, "epochs", "batch_size")
        plan.require_at_least(0, self, "lm_coef", "head_learning_rate")
        plan.require_below_one(self, "dropout")
        names = len(set(self.labels)) < len(self.labels) or len(self.labels) == 1
        plan.forbid(names, f"labels are {' '.join(self.labels)}", "give a name of its own to each class")


def run(config: Config) -> Path:
    """Train and return the run directory."""
    config, by_default = defaults.classify(config, traits(config.model, "amenable pretrain", config.virtual_tokens))
    inputs = {"model": config.model, **data_inputs(config.data), "validation": config.validation}
    run = Run(config.out, "classify", config, inputs)
    if run.skip_finished():
        return run.out
    splits = classification.read_examples(config, run.rejected)
    labels = classification.find_labels(splits, config.task, config.labels)
    runtime, limit = start_runtime(config.device), config.max_tokens_per_pass
    model, tokenizer, new_tokens = load(config, labels, runtime)
    context = model.decoder.config.context_length
    fitting = (config, labels, tokenizer, context, config.data, run.rejected)
    training, validation = classification.tokenize(splits, *fitting)
    classification.require_whole(training, limit, max(config.dropout, config.lora.dropout))
    objective = TaskObjective(model, config.task, labels, config.lm_coef)
    steps, mixture = mixture_batches(config.data, training, config.batch_size, config.epochs, config.seed)
    schedule = plan.cosine_with_warmup(len(steps), config.warmup_steps, config.final_lr_frac)
    head_config = replace(config.optimizer, learning_rate=config.head_learning_rate)
    task = Training(
        objective=objective,
        elements=training,
        batches=steps,
        model=model,
        optimizers={"": Optimizer([model.decoder], config.optimizer), "head_": Optimizer([model.score], head_config)},
        schedule=schedule,
        check=classification.check([training[i] for i in steps[0]], tokenizer),
        plan=[
            f"{len(training)} examples x {config.epochs} epochs / {config.batch_size} a step = {schedule}",
            *mixture,
            *classification.describe(training, labels, config.task),
            f"{new_tokens} new tokens, with embeddings that train: {' '.join(TASK_TOKENS)}" if new_tokens else "",
            by_default,
        ],
        train_mode=True,
        show=("loss", "accuracy", "eval/accuracy"),
        held_out=longest_rows(validation, objective.rows),
        best=BestWeights(model, "eval/task_loss", lowest=True) if config.keep_weights == "loss" else None,
    )

    def statistics(step: int, batch: list[LabeledRows], stats: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            require_zero_outputs(objective, batch, stats["task_loss"], objective.width)
        return stats

    def evaluate(step: int) -> dict[str, Any]:
        if step % steps.per_epoch:
            return {}
        model.eval()
        stats = mean_stats(objective, validation, runtime, limit, run.log.bar("validation"))
        return {f"eval/{name}": value for name, value in stats.items() if "/" not in name}

    if not fit(run, task, config, runtime, evaluate, statistics):
        return run.out
    bar = run.log.bar("held out")
    figures, rows = measure(model.eval(), validation, config.task, labels, runtime, limit, bar)
    run.log.info(describe(figures))
    if (table := confusion_table(figures)) is not None:
        run.log.show(table)
    pairs = 2 if config.task == "similarity" else 1
    model.rescale(labels.deviation, labels.mean / pairs)  # where both orders are added, each has half of the mean
    loading.save_model(run.out, model, tokenizer, config.save_dtype)
    processes.from_first(lambda: write_files(run.out, rows, config.task))
    return run.finish(validation=figures, selected_step=task.best.step if task.best is not None else len(steps))


def write_files(folder: Path, rows: Iterable[Mapping[str, Any]], task: Task) -> None:
    """Write the held-out predictions and the task of a classifier into its folder."""
    write_text(folder / PREDICTIONS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    classification.write_task(folder, task)


def load(config: Config, labels: Labels, runtime: Runtime) -> tuple[Classifier, Tokenizer, int]:
    """Return the language model with a head at zero, its tokenizer with the task's tokens, and the number of new ones,
    whose embeddings the seed draws."""
    decoder, base = loading.load_policy(config.model, runtime, "amenable pretrain", config.dropout)
    tokenizer = base.with_tokens(TASK_TOKENS)
    new_tokens = tokenizer.vocab_size - base.vocab_size
    loading.fit_vocabulary(decoder, tokenizer, config.model)
    init_new_tokens(decoder, new_tokens, seeded_generator(config.seed, "task tokens"))
    model = Classifier(decoder, labels.names, predicts_tokens=config.lm_coef > 0)
    config.adapt(model, config.model, tokenizer, runtime)
    train_new_tokens(decoder, new_tokens)
    return model.to(runtime.device), tokenizer, new_tokens
