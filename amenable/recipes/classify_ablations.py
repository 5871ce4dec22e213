"""Ablations of a classifier: as it is, without the auxiliary loss, without pretraining, and a bag of words.

    amenable classify-ablations --model runs/pretrain --data train.jsonl --validation test.jsonl

Runs `amenable classify` into a folder for each, on the same examples, and shows them in one table: figures with their
intervals, and the difference from the first, paired by example. Radford et al. (2018, table 5). The model without
pretraining has the same shape, weights drawn by the seed, and trains all of them. What has finished is not run again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from amenable.data.files import read_json_lines
from amenable.evaluation.bag_of_words import bag_of_words_logits
from amenable.evaluation.classification import predictions, task_metrics
from amenable.models.decoder import Decoder
from amenable.models.lora import LoraOptions
from amenable.recipes.reports import ablations_page
from amenable.seeds import seeded_generator
from amenable.stages import classify
from amenable.train import classification, loading
from amenable.train.runtime import start_runtime

Row = dict[str, Any]
AS_IS, NO_LM, NO_PRETRAINING, WORDS = "as is", "no auxiliary loss", "no pretraining", "bag of words"


@dataclass(frozen=True)
class Config(classify.Config):
    """Ablate a classifier."""

    out: Path = Path("runs/classify-ablations")
    ablations: tuple[Literal["lm", "pretraining"], ...] = ("lm", "pretraining")
    """left out, each in a run of its own: the auxiliary language-model loss, the weights of the base model"""
    bag_of_words: bool = True
    """also a linear model on the texts' words; not of multiple choice"""


def run(config: Config) -> Path:
    """Train what is not there yet, write ablations.json and ablations.html, and return the folder."""
    variants = variants_of(config)
    if NO_PRETRAINING in variants:
        write_fresh(config, variants[NO_PRETRAINING].model)
    rows: dict[str, Sequence[Row]] = {}
    metrics: dict[str, Row] = {}
    for name, options in variants.items():
        out = classify.run(options)
        if config.inspect_batch:
            return config.out
        rows[name] = read_json_lines(out / classify.PREDICTIONS)
        metrics[name] = ablations_page.read_metrics(out)
    if config.bag_of_words and config.task != "multiple-choice":
        metrics[WORDS], rows[WORDS] = bag_of_words(config)
    command = f"amenable classify-ablations --model {config.model} --out {config.out}"
    return ablations_page.write(config.out, metrics, rows, command)


def variants_of(config: Config) -> Mapping[str, classify.Config]:
    """Return the options of each run of `amenable classify`, by name."""
    options = {field.name: getattr(config, field.name) for field in fields(classify.Config)}
    whole = classify.Config(**options | {"out": config.out / "as-is"})
    variants = {AS_IS: whole}
    if config.lm_coef and "lm" in config.ablations:
        variants[NO_LM] = replace(whole, lm_coef=0.0, out=config.out / "no-auxiliary-loss")
    if "pretraining" in config.ablations:
        fresh = replace(whole, model=config.out / "fresh", lora=LoraOptions(), frozen_layers=0)
        fresh = replace(fresh, prompt_tuning=0, prefix_tuning=0)
        variants[NO_PRETRAINING] = replace(fresh, out=config.out / "no-pretraining")
    return variants


def write_fresh(config: Config, folder: Path) -> None:
    """Write a language model of the shape of --model, with weights drawn by the seed, and its tokenizer."""
    if (folder / "config.json").exists():
        return
    trained, tokenizer = loading.load_policy(config.model, start_runtime(config.device), "amenable pretrain")
    fresh = Decoder(trained.config)
    fresh.init_weights(seeded_generator(config.seed, "no pretraining"))
    fresh.origin, fresh.num_tokens = trained.origin, trained.num_tokens
    loading.save_model(folder, fresh, tokenizer, "float32")


def bag_of_words(config: Config) -> tuple[Row, list[Row]]:
    """Return the figures of a bag of words, and its predictions, on the examples that the classifiers had."""
    splits = classification.read_examples(config)
    labels = classification.find_labels(splits, config.task, config.labels)
    model, tokenizer = loading.load_classifier(config.out / "as-is", start_runtime(config.device))
    fitting = (config, labels, tokenizer, model.decoder.config.context_length, config.data)
    training, validation = classification.tokenize(splits, *fitting)
    logits = bag_of_words_logits(training, validation, labels)
    return task_metrics(logits, validation, config.task, labels), predictions(logits, validation, labels)
