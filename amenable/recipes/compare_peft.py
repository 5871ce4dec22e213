"""Full and parameter-efficient fine-tuning side by side: quality, trained parameters, memory and seconds, over seeds.

    a base model -> each way x each seed of `amenable classify` and `amenable sft` -> held-out accuracy and loss
    -> report

The ways are all weights (full), the top layers alone (--frozen-layers), LoRA (Hu et al., 2021), prompt tuning (Lester
et al., 2021) and prefix tuning (Li and Liang, 2021). All have the same examples, steps and seeds. By default a learning
rate is the stage's own for its way (train/defaults.py): by the model's size for weights, ten times that for LoRA
(Schulman et al., 2025), and measured ones of virtual tokens. Each run is a process of its own, so that its memory is.

Reads a finished demo, or --model with data; writes the stages' run directories, peft.json and peft.html. What has
finished is not run again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from amenable.data.files import read_json_lines
from amenable.data.mixture import Sources
from amenable.errors import InputError
from amenable.models import pretrained
from amenable.models.lora import LoraOptions
from amenable.recipes.pipeline import StageRun, run_all, stage_runs
from amenable.recipes.reports import peft_page
from amenable.recipes.reports.ablations_page import key_of
from amenable.recipes.reports.peft_page import FULL, HeldOut, WayRun
from amenable.stages import classify, sft
from amenable.text.task_inputs import Task
from amenable.text.tokenizer import Tokenizer
from amenable.train import classification, forward, loading, plan
from amenable.train.runtime import Device, DeviceOptions, Runtime, start_runtime

Stage = Literal["classify", "sft"]
Way = Literal["full", "top", "lora", "prompt", "prefix"]
WAYS: tuple[Way, ...] = ("full", "top", "lora", "prompt", "prefix")


@dataclass(frozen=True)
class Config:
    """Compare ways to fine-tune one model: all weights, top layers, LoRA, prompt and prefix tuning."""

    base_run: Path = Path("runs/demo")
    """a finished demo, or any folder with pretrain/ and world/: its model and data are used where no other is given"""
    model: Path | None = None
    """the base model; by default pretrain/ of --base-run"""
    out: Path = Path("runs/compare-peft")
    stages: tuple[Stage, ...] = ("classify", "sft")
    """stages that train: a classifier, an assistant, or both"""
    data: Sources = ()
    """labelled texts for classify; by default the closed world's reviews and stories, as multiple choice"""
    validation: Path | None = None
    """held-out labelled texts; without it a quarter of the data is held out"""
    task: Literal["classification", "entailment", "multiple-choice"] = "classification"
    """of --data"""
    demonstrations: Sources = ()
    """conversations for sft; by default the closed world's"""
    held_out: Path | None = None
    """held-out conversations; without it a twentieth of the demonstrations is held out"""
    ways: tuple[Way, ...] = WAYS
    """how is trained; differences are from the first"""
    top_layers: int = 0
    """layers that train in 'top', with the final norm; 0 is half of them"""
    rank: int = 8
    """of LoRA's adapters"""
    virtual_tokens: int = 16
    """of prompt and prefix tuning"""
    learning_rates: tuple[str, ...] = ()
    """WAY=RATE: peak learning rates in place of the stages' own, as in prompt=0.1 prefix=0.3"""
    epochs: int = 3
    batch_size: int = 8
    """examples in one update"""
    seed: int = 0
    seeds: int = 3
    device: Device = field(default_factory=DeviceOptions)

    def __post_init__(self) -> None:
        plan.require_at_least(1, self, "rank", "virtual_tokens", "epochs", "batch_size", "seeds")
        plan.require_at_least(0, self, "top_layers")
        plan.forbid(not self.stages, "no stage is given", "give classify, sft or both")
        plan.forbid(len(set(self.ways)) < 2, "fewer than two ways are compared", f"give some of {' '.join(WAYS)}")
        parse_rates(self.learning_rates)

    @property
    def base_model(self) -> Path:
        """The folder of the base model."""
        return self.base_run / "pretrain" if self.model is None else self.model

    @property
    def roots(self) -> dict[int, Path]:
        """The folder of each seed's runs."""
        return {seed: self.out / f"seed-{seed}" for seed in range(self.seed, self.seed + self.seeds)}


def parse_rates(rates: tuple[str, ...]) -> dict[str, float]:
    """Return learning rates by way. InputError for one that is no WAY=RATE."""
    parsed: dict[str, float] = {}
    for text in rates:
        way, _, number = text.partition("=")
        try:
            parsed[way] = float(number)
        except ValueError:
            parsed[way] = -1.0
        if way not in WAYS or not 0 < parsed[way] < float("inf"):
            raise InputError(f"learning rate '{text}'", how=f"write WAY=RATE, above 0; ways are {', '.join(WAYS)}")
    return parsed


def run(config: Config) -> Path:
    """Train what is not there yet, measure it on held-out examples, write the report, and return the folder."""
    require_inputs(config)
    plans = {
        stage: {root: plan_of(config, stage, root, seed) for seed, root in config.roots.items()}
        for stage in config.stages
    }
    run_all([each for roots in plans.values() for runs in roots.values() for each in runs.values()], parallel=1)
    runtime = start_runtime(config.device)
    results = {str(stage): measure(config, stage, plans[stage], runtime) for stage in config.stages}
    return peft_page.write(config.out, results, command_of(config))


def command_of(config: Config) -> str:
    """Return the command of a report, with the options that decide its figures."""
    options = ("stages", "data", "demonstrations", "ways", "epochs", "batch_size", "seeds")
    values = {name: getattr(config, name) for name in options}
    texts = {
        name: " ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
        for name, value in values.items()
    }
    given = [f"--{name.replace('_', '-')} {text}" for name, text in texts.items() if text]
    return " ".join([f"amenable compare-peft --model {config.base_model}", *given])


def require_inputs(config: Config) -> None:
    """Raise InputError without a base model or the closed world's data, and for a chat template whose new tokens train
    in no way but full."""
    loading.require_model(config.base_model, "amenable pretrain")
    world = config.base_run / "world" / "world.json"
    data = {"classify": config.data, "sft": config.demonstrations}
    if any(not data[stage] for stage in config.stages) and not world.exists():
        hint = "make it by `amenable demo`, or give --data and --demonstrations"
        raise InputError("there is no world/world.json", config.base_run, hint)
    base = Tokenizer.load(config.base_model)
    added = base.with_chat_template().vocab_size - base.vocab_size
    if "sft" in config.stages and added:
        problem = f"the chat template adds {added} tokens, whose embeddings train in 'full' alone"
        raise InputError(problem, config.base_model, "start from a chat model, or give --stages classify")


def plan_of(config: Config, stage: Stage, root: Path, seed: int) -> dict[str, StageRun]:
    """Return the runs of a stage by way, which differ in nothing but what trains."""
    shared = {name: getattr(config, name) for name in ("epochs", "batch_size", "device")}
    shared["model"] = config.base_model
    whole: Any = classify_options(config, shared) if stage == "classify" else sft_options(config, shared)
    layers, rates = pretrained.read_config(config.base_model).num_layers, parse_rates(config.learning_rates)
    trained: Mapping[str, dict[str, Any]] = {
        FULL: {},
        "top": {"frozen_layers": max(layers - (config.top_layers or layers // 2), 0)},
        "lora": {"lora": LoraOptions(rank=config.rank)},
        "prompt": {"prompt_tuning": config.virtual_tokens},
        "prefix": {"prefix_tuning": config.virtual_tokens},
    }
    configs = {}
    for way in config.ways:
        each = replace(whole, **trained[way])
        rate = rates.get(way, each.optimizer.learning_rate)
        configs[f"{stage}-{way}"] = replace(each, optimizer=replace(each.optimizer, learning_rate=rate))
    return dict(zip(config.ways, stage_runs(root, seed, configs)))


def classify_options(config: Config, shared: dict[str, Any]) -> classify.Config:
    """Return the options of a classifier; without data those of the closed world's reviews and stories."""
    tasks = config.base_run / "world" / "tasks"
    task: Task = config.task if config.data else "multiple-choice"
    data = config.data or (tasks / "sentiment.jsonl", tasks / "stories.jsonl")
    return classify.Config(**shared, data=data, task=task, validation=config.validation, validation_split=0.25)


def sft_options(config: Config, shared: dict[str, Any]) -> sft.Config:
    """Return the options of an assistant; without demonstrations those of the closed world."""
    folder = config.base_run / "world" / "demonstrations"
    if config.demonstrations:
        return sft.Config(**shared, data=config.demonstrations, validation=config.held_out)
    validation = config.held_out or folder / "validation.jsonl"
    return sft.Config(**shared, data=(folder / "train.jsonl",), validation=validation)


def measure(
    config: Config, stage: Stage, plans: Mapping[Path, Mapping[str, StageRun]], runtime: Runtime
) -> dict[str, list[WayRun]]:
    """Return the finished runs of a stage by way, one a seed, each with its held-out examples."""
    first = next(iter(plans.values()))
    counts = count_parameters({way: each.config for way, each in first.items()}, runtime)
    examples = accuracies if stage == "classify" else losses(first[config.ways[0]].config, config, runtime)
    results: dict[str, list[WayRun]] = {way: [] for way in config.ways}
    for runs in plans.values():
        for way, each in runs.items():
            results[way].append(WayRun(each.out, rate_of(each.out), counts[way], examples(each.out)))
    return results


def count_parameters(configs: Mapping[str, Any], runtime: Runtime) -> dict[str, tuple[int, int]]:
    """Return by way the number of parameters that train, and of all."""
    labels = None
    counts: dict[str, tuple[int, int]] = {}
    for way, options in configs.items():
        if isinstance(options, classify.Config):
            labels = labels or classification.find_labels(classification.read_examples(options), options.task)
            model: Any = classify.load(replace(options, dropout=0.0), labels, runtime)[0]
        else:
            model, tokenizer = loading.load_policy(options.model, runtime, "amenable pretrain")
            tokenizer = tokenizer.with_chat_template()
            loading.fit_vocabulary(model, tokenizer, options.model)
            options.adapt(model, options.model, tokenizer, runtime)
        sizes = [(p.numel() if p.requires_grad else 0, p.numel()) for p in model.parameters()]
        trained, total = map(sum, zip(*sizes))
        counts[way] = trained, total
    return counts


def accuracies(out: Path) -> HeldOut:
    """Return by held-out example of a classifier's run whether its prediction is the label."""
    rows = read_json_lines(out / classify.PREDICTIONS)
    return {json.dumps(key_of(row)): (float(row["predicted"] == row["label"]), 1.0) for row in rows}


def losses(options: sft.Config, config: Config, runtime: Runtime) -> Callable[[Path], HeldOut]:
    """Return the function that computes, by held-out conversation, the loss of a run's model in nats, and the tokens;
    the conversations are those that fit every way's context."""
    tokenizer = Tokenizer.load(options.model).with_chat_template()
    context = pretrained.read_config(options.model).context_length
    if {"prompt", "prefix"} & set(config.ways):
        context -= config.virtual_tokens
    _, held_out = sft.read(options, tokenizer, context)
    rows = list(held_out.map(lambda source: source.as_rows()))

    def of_run(out: Path) -> HeldOut:
        decoder, _ = loading.load_policy(out, runtime)
        logps = forward.compute_logprobs(decoder, rows, runtime, options.max_tokens_per_pass)
        return {f"{i:06d}": (-float(each.double().sum()), float(len(each))) for i, each in enumerate(logps)}

    return of_run


def rate_of(out: Path) -> float:
    """Return the peak learning rate of a run."""
    return float(yaml.safe_load((out / "config.yaml").read_text("utf-8"))["optimizer"]["learning_rate"])
