"""Put models side by side on the same prompts, sampled at temperature 1 and greedily.

For each model: gold and its parts where a world knows the truth, reward, KL to a reference, entropy, length, whether
answers end; bits per byte of raw text, few-shot tasks by likelihood. For each pair of models: how often a judge prefers
one, shown in both orders, ties half, with Wilson intervals. Much of a gain at temperature 1 can be mere sharpening, so
both decodings are always shown, and a model can be sharpened to the entropy of another (`@entropy-of-ppo`). For other
modifiers see evaluation/entries.py.

Reads model directories and prompts; writes evaluation.json and samples.jsonl (every prompt with every model's answer).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from amenable.data import sources
from amenable.data.types import Prompt
from amenable.errors import InputError
from amenable.evaluation.answering import GenerationConfig, LoadedModel, match_entropy, read_shots
from amenable.evaluation.base_prompts import read_transcripts
from amenable.evaluation.entries import ModelEntry, parse_entries
from amenable.evaluation.load_answers import TEST
from amenable.evaluation.metrics import Scorers
from amenable.evaluation.multiple_choice import read_tasks
from amenable.evaluation.preference import DECODINGS, Decoding, GoldCache, half_width
from amenable.evaluation.results import Results
from amenable.evaluation.runner import Suites, evaluate_model, lm_metrics
from amenable.evaluation.table import preference_lines, table_of
from amenable.generation.sampling import Sampling
from amenable.models import pretrained
from amenable.text.chat import render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, loading, plan
from amenable.train.defaults import FROM_MODEL, FromModel, traits
from amenable.train.examples import keep_usable
from amenable.train.log import Bars, no_bars
from amenable.train.run import Run, write_text
from amenable.train.run_options import RunOptions
from amenable.train.runtime import Runtime, start_runtime
from amenable.train.stage_report import StageReport
from amenable.world.closed_world import ClosedWorld

REPORT = StageReport(
    "Evaluation",
    "Models answer the same prompts, which none of them has seen.",
    facts=(("prompts", "prompts"),),
)

ENTROPY_PROMPTS = 150
"""on which the temperature of `@entropy-of` is sought"""

USUAL = ("base=runs/pretrain", "sft=runs/sft", "ppo=runs/ppo", "dpo=runs/dpo")
"""the models that are compared where none are named, as far as they are there"""


@dataclass(frozen=True)
class Config(RunOptions):
    """Compare models on the same prompts."""

    models: tuple[str, ...] = ()
    """name=folder of each model, or name=folder@modifier: @few-shot, @best-of-16, @temperature-0.6,
    @entropy-of-NAME; by default those of base=runs/pretrain, sft=runs/sft, ppo=runs/ppo and dpo=runs/dpo that are
    finished"""
    data: Path = Path("runs/world/prompts/test.jsonl")
    """prompts: a file, or a folder of files"""
    suites: tuple[str, ...] = ()
    """name=path of further prompts, each with figures of its own"""
    suite_decoding: tuple[Decoding, ...] = DECODINGS
    """how the suites are answered; --data always both ways"""
    few_shot: Path | None = None
    """demonstrations that models @few-shot see before every prompt"""
    transcripts: Path | None = None
    """how base models are asked: rows with name (zero-shot or few-shot), user, assistant, end"""
    tasks: Path | None = None
    """few-shot tasks by likelihood: a file, or a folder of them"""
    best_of_prompts: int = 600
    """models @best-of-N answer only so many prompts"""
    world: Path | None = None
    """the closed world that knows the truth about these prompts"""
    reward_model: Path | None = None
    """scores the answers, and judges them where there is no world"""
    lm_data: Path | None = None
    """raw text for bits per byte"""
    demonstrations: Path | None = None
    """conversations whose likelihood is measured"""
    reference: str = "sft"
    """KL is measured to it: one of the models, or a folder; where it is neither, no KL is measured, and that is said"""
    out: Path = Path("runs/evaluate")
    max_prompts: int = 0
    """take only so many prompts of each suite; 0 takes all"""
    temperature: float = 1.0
    """of the sampled answers; greedy ones are always made as well"""
    max_new_tokens: FromModel[int] = FROM_MODEL
    """by default a quarter of the least context of the models, at most 256"""
    text_tokens: int = 30_000
    """at most so many tokens of raw text for bits per byte"""
    max_tokens_per_pass: int = 8192
    max_batch_size: int = 128
    """answers decoded at once"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(1, self, "max_batch_size", "max_tokens_per_pass", "text_tokens", "best_of_prompts")
        plan.require_at_least(0, self, "max_prompts")
        plan.require_at_least(1, self, "max_new_tokens")
        if not Sampling(temperature=self.temperature).temperature:
            raise InputError("temperature is 0", how="greedy answers are made anyway; give one for the sampled ones")
        searches = any(one.best_of > 1 for one in self.entries)
        plan.forbid(searches and self.reward_model is None, "nobody can tell the best of n", "name a --reward-model")
        prompted = any(one.few_shot for one in self.entries)
        plan.forbid(prompted and self.few_shot is None, "a model @few-shot needs demonstrations", "give --few-shot")
        names = [TEST, *(entry.partition("=")[0] for entry in self.suites)]
        for entry, name in zip(self.suites, names[1:]):
            plan.forbid(not name or not entry.partition("=")[2], f"'{entry}' is no suite", "write name=path")
            plan.forbid(names.count(name) > 1, f"two suites are called '{name}'", "give each a name of its own")

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        return parse_entries(self.models) if self.models else ()

    @property
    def prompts(self) -> dict[str, Path]:
        """The prompts of every suite."""
        return {TEST: self.data, **{name: Path(path) for name, _, path in (one.partition("=") for one in self.suites)}}

    @property
    def reference_folder(self) -> Path | None:
        """The model that KL is measured to."""
        named = {one.name: one.folder for one in self.entries}
        if self.reference in named:
            return named[self.reference]
        is_folder = "/" in self.reference or (self.reference and Path(self.reference).is_dir())
        return Path(self.reference) if is_folder else None

    @property
    def shots(self) -> Path | None:
        """The demonstrations of few-shot entries, where there are such entries."""
        return self.few_shot if any(one.few_shot for one in self.entries) else None


def run(config: Config) -> Path:
    """Evaluate and return the run directory."""
    config = with_models(config)
    config, by_default = defaults.evaluate(config, [traits(folder, "a training stage") for folder in models_of(config)])
    run = Run(config.out, "evaluate", config, inputs(config))
    if run.skip_finished():
        return run.out
    runtime = start_runtime(config.device)
    require_models(config)
    scorers = load_scorers(config, runtime, run.log.bar)
    suites, generation = read(config, run), generation_settings(config, run)
    run.begin(runtime=runtime)
    print_plan(config, suites, scorers, run)
    run.log.info(by_default)
    results = Results()

    for step in run.steps(len(config.entries), {"results": results}, save_steps=1):
        entry = config.entries[step - 1]
        model = LoadedModel.load(entry, runtime)
        temperature = temperature_of(model, suites, config, generation, run)
        if str(entry.folder) not in results.known:
            results.known[str(entry.folder)] = lm_metrics(model, suites, scorers)
        found = evaluate_model(model, temperature, suites, generation, scorers)
        for note in found.notes:
            run.log.info(f"{entry.name}: {note}")
        results.add(entry, found)
        told = {key: value for key, value in found.metrics[TEST].items() if not isinstance(value, (dict, list))}
        run.record(step, 0, ("model", "gold"), model=entry.name, **told)

    evaluation = results.evaluation(suites, scorers, config.seed)
    write_text(run.out / "evaluation.json", json.dumps(evaluation, indent=1))
    run.log.replace("samples", len(config.entries), results.side_by_side(suites))
    run.log.show(table_of(evaluation))
    for line in preference_lines(evaluation, config.reference):
        run.log.info(line)
    return run.finish(prompts=len(suites.prompts[TEST]))


def with_models(config: Config) -> Config:
    """The configuration with the usual models that are there, where none are named."""
    if config.models:
        return config
    there = tuple(entry for entry in USUAL if (Path(entry.partition("=")[2]) / "finished.json").exists())
    how = f"write name=folder, as in --models {' '.join(USUAL[1:3])}"
    plan.forbid(not there, "no models to evaluate: none are named, and runs/ holds none", how)
    return replace(config, models=there)


def inputs(config: Config) -> dict[str, Path | None]:
    """Everything that is read."""
    models: dict[str, Path | None] = {f"model {one.name}": one.folder for one in config.entries}
    prompts = {"data" if name == TEST else f"suite {name}": path for name, path in config.prompts.items()}
    names = ("reward_model", "lm_data", "demonstrations", "tasks", "transcripts", "world")
    others = {name: getattr(config, name) for name in names}
    return {**models, **prompts, **others, "few_shot": config.shots, "reference": config.reference_folder}


def require_models(config: Config) -> None:
    """InputError for a folder that holds no model, or whose model writes other ids than the reward model reads."""
    for folder in models_of(config):
        loading.require_model(folder, "a training stage")
        if config.reward_model is not None:
            ours, theirs = Tokenizer.load(folder).with_chat_template(), Tokenizer.load(config.reward_model)
            loading.require_same_tokenizer(ours, theirs, config.reward_model)


def models_of(config: Config) -> list[Path]:
    """The folders of all language models, each once."""
    return list(dict.fromkeys([*(one.folder for one in config.entries), *filter(None, [config.reference_folder])]))


def load_scorers(config: Config, runtime: Runtime, bars: Bars = no_bars) -> Scorers:
    """Load world, reward model and reference, those that are given."""
    judge, folder = config.reward_model, config.reference_folder
    return Scorers(
        gold=GoldCache(ClosedWorld.load(config.world)) if config.world is not None else None,
        reward_model=loading.load_reward_model(judge, runtime, Tokenizer.load(judge), frozen=True)
        if judge is not None
        else None,
        reference=LoadedModel.load(ModelEntry("reference", folder), runtime) if folder is not None else None,
        temperature=config.temperature,
        runtime=runtime,
        max_tokens=config.max_tokens_per_pass,
        bars=bars,
    )


def read(config: Config, run: Run) -> Suites:
    """Read prompts, texts, demonstrations and tasks."""
    spoken = (
        keep_usable(sources.read_demonstrations(config.demonstrations), run.rejected) if config.demonstrations else []
    )
    return Suites(
        prompts={name: fitting(path, config, run) for name, path in config.prompts.items()},
        decodings=config.suite_decoding,
        best_of_prompts=config.best_of_prompts,
        texts=keep_usable(sources.read_texts(config.lm_data), run.rejected) if config.lm_data is not None else [],
        text_tokens=config.text_tokens,
        demonstrations=spoken,
        tasks=read_tasks(config.tasks) if config.tasks is not None else {},
    )


def fitting(path: Path, config: Config, run: Run) -> list[Prompt]:
    """The prompts that leave every model, and the reward model, room for an answer; how many don't is said."""
    kept = prompts = keep_usable(sources.read_prompts(path), run.rejected)
    for folder in [*models_of(config), *filter(None, [config.reward_model])]:
        tokenizer, room = Tokenizer.load(folder), pretrained.read_config(folder).context_length - config.max_new_tokens
        kept = [prompt for prompt in kept if len(render_prompt(tokenizer, prompt.messages)) <= room]
    if not kept:
        raise InputError("no prompt leaves every model room to answer", path, "lower --max-new-tokens")
    if len(kept) < len(prompts):
        run.log.info(f"{len(prompts) - len(kept)} of {len(prompts)} prompts are too long for a model: left out")
    return kept[: config.max_prompts or None]


def generation_settings(config: Config, run: Run) -> GenerationConfig:
    """Return the settings of generation, the same for all models."""
    shots = read_shots(config.shots, run.rejected) if config.shots is not None else ()
    transcripts = read_transcripts(config.transcripts) if config.transcripts is not None else {}
    limits = (config.temperature, config.max_new_tokens)
    return GenerationConfig(*limits, shots, transcripts, config.max_batch_size, config.seed, run.log.bar)


def print_plan(config: Config, suites: Suites, scorers: Scorers, run: Run) -> None:
    """Print the work ahead, and the widest intervals to expect, by which the number of prompts can be chosen."""
    prompts = suites.prompts[TEST]
    work = f"{len(config.entries)} models x {len(prompts)} prompts x {len(DECODINGS)} decodings"
    run.log.info(f"{work}; {scorers.runtime.describe()}")
    sizes = {name: len(suite) for name, suite in suites.prompts.items()}
    if any(one.best_of > 1 for one in config.entries):
        sizes["best of n"] = min(len(prompts), config.best_of_prompts)
    told = ", ".join(f"{name} ±{half_width(n):.1%} ({n} prompts)" for name, n in sizes.items())
    run.log.info(f"95 % interval of a preference or a rate, at most: {told}")
    if scorers.gold is None and scorers.reward_model is None:
        run.log.info("nobody judges the answers: give --reward-model, or the --world that the prompts are from")
    if scorers.reference is None:
        run.log.info(f"no KL: the reference '{config.reference}' is none of the models, and no folder of one")


def temperature_of(model: LoadedModel, suites: Suites, config: Config, generation: GenerationConfig, run: Run) -> float:
    """Return the temperature of a model's sampled answers, found by bisection for `@entropy-of`."""
    entry = model.entry
    if entry.entropy_of is None:
        return entry.temperature or config.temperature
    target = next(other for other in config.entries if other.name == entry.entropy_of)
    prompts = suites.prompts[TEST][:ENTROPY_PROMPTS]
    matched = match_entropy(model, LoadedModel.load(target, model.runtime), prompts, generation)
    run.log.info(f"{entry.name}: at temperature {matched:.3f} its entropy is that of {target.name}")
    return matched
