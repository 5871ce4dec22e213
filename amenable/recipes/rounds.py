"""Rounds of labelling and training that start from a finished demo, or from a chat model.

    answers of the newest policy and of the best before it -> ranked by annotators, by a judge, or by people on the
    labelling page -> reward model, on the labels of all rounds so far -> PPO from SFT, or DPO -> the next round
    -> evaluate all -> report

A policy's answers stand in the next round beside those of the best policy before it, so that the labels themselves
decide which of the two goes on. Unless people rank, `--one-shot-baseline` trains another policy on as many labels
of SFT's answers, all collected at one time: the baseline of collecting them in rounds. Stopped anywhere, the same
command goes on.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from amenable.claims.stage_folders import seed_folders
from amenable.errors import InputError
from amenable.models.lora import LoraOptions
from amenable.recipes import demo, real, rounds_labels, rounds_people, rounds_report
from amenable.recipes.pipeline import StageRun, run_all, stage_runs, with_trackers
from amenable.recipes.rounds_labels import Round, write_rows
from amenable.rewards.options import RewardOptions, Scoring
from amenable.rewards.spec import Specs, load_reward
from amenable.stages import annotate, dpo, evaluate, ppo, reward, sample
from amenable.train import plan
from amenable.train.runtime import DeviceOptions, start_runtime
from amenable.train.trackers import TrackerName

SPARE = 4
"""prompts for which people get one more, in place of unclear ones"""


@dataclass(frozen=True)
class Config:
    """Learn from comparisons in rounds, each of answers of the policies before."""

    base_run: Path = Path("runs/demo")
    """a finished demo, any folder with a finished sft/, or the folder of a chat model"""
    out: Path = Path("runs/rounds")
    rounds: int = 3
    prompts_per_round: int = 300
    """prompts ranked in a round"""
    num_generations: int = 6
    """answers to a prompt, two to compare by one key; from the second round on half of them are the best earlier
    policy's"""
    people: bool = False
    """wait for rankings made on the labelling page, instead of simulating annotators"""
    judge: Specs = ()
    """ranks instead of the world's annotators, by score: a reward model's folder, FOLDER:LABEL, FILE.py:FUNCTION, a
    rule or an http address; several are added, each SPEC or SPEC=WEIGHT"""
    scoring: Scoring = field(default_factory=RewardOptions)
    labels_db: Path | None = None
    """store of people's rankings; by default labels.db in the base run; with a chat model, in `out`"""
    include_base_comparisons: Literal["people", "always", "never"] = "people"
    """learn from the base run's comparisons as well: if people rank, always, or never"""
    new_label_weight: int = 4
    """repeat each new ranking this many times in the training set, beside the base run's comparisons"""
    policy: Literal["ppo", "dpo"] = "ppo"
    """trains a round's policy: PPO on its reward model, or DPO on the labels themselves"""
    one_shot_baseline: bool = True
    """train also on as many labels collected at one time (not with --people)"""
    validation_split: float = 0.15
    """share of a round's prompts for validation"""
    prompts: Path | None = None
    """prompts to rank answers to and to improve on, where the base run has no world"""
    test: Path | None = None
    """prompts that the policies are compared on, where the base run has no world"""
    lora: LoraOptions = field(default_factory=LoraOptions)
    seed: int = 0
    size: Literal["demo", "smoke"] = "demo"
    """smoke: to see that everything works; its models learn next to nothing"""
    track: tuple[TrackerName, ...] = ()
    """trackers of the stages that train: tensorboard, wandb, trackio"""

    def __post_init__(self) -> None:
        plan.require_at_least(1, self, "rounds", "new_label_weight")
        plan.require_at_least(0, self, "seed")
        plan.require_at_least(2, self, "num_generations")
        plan.require_at_least(8, self, "prompts_per_round")
        plan.forbid(self.people and self.judge, "people and a judge cannot both rank", "give --people or --judge")
        if not 0 < self.validation_split < 1:
            raise InputError(f"validation_split is {self.validation_split}", how="it must lie between 0 and 1")

    @property
    def adaptive_rounds(self) -> list[Round]:
        """The rounds, each with those before it."""
        rounds: list[Round] = []
        for number in range(1, self.rounds + 1):
            source = "people" if self.people else "annotate"
            folder = self.out / f"round-{number}"
            rounds.append(Round(folder, source, tuple(rounds), policy_stage=self.policy))
        return rounds

    @property
    def one_shot(self) -> list[Round]:
        """The one-shot baseline, if any."""
        wanted = self.one_shot_baseline and not self.people and self.rounds > 1
        once = Round(self.out / f"once-{self.rounds}", "annotate", rounds=self.rounds, policy_stage=self.policy)
        return [once] if wanted else []

    @property
    def every_round(self) -> list[Round]:
        """The rounds, then the one-shot baseline."""
        return [*self.adaptive_rounds, *self.one_shot]

    @property
    def pool_size(self) -> int:
        """The prompts of a round: for people some to spare, in place of those that they find unclear."""
        return self.prompts_per_round + (self.prompts_per_round // SPARE + 1 if self.people else 0)


@dataclass(frozen=True)
class BaseRun:
    """The run that the rounds start from; None for parts that it lacks."""

    sft: Path
    world: Path | None
    prompts: Path
    """prompts whose answers are ranked"""
    ppo_prompts: Path
    test: Path
    comparisons: Path | None
    """its own rankings"""
    held_out: Path | None
    """rankings that nothing is trained on"""
    samples: Path | None
    """answers of SFT"""
    policy: Path | None
    """the policy trained on its comparisons"""
    store: Path


def run(config: Config) -> Path:
    """Go through all rounds, compare their policies, and return the folder that holds them."""
    base = find(config)
    if config.judge:
        load_reward(
            config.judge, start_runtime(DeviceOptions()), options=config.scoring
        )  # a wrong one is refused before any work
    new_prompts(config.adaptive_rounds[0], config.rounds * config.pool_size, base, config)
    for turn in config.adaptive_rounds:
        begun = [turn] if turn.before else [turn, *config.one_shot]
        collect_rankings(begun, base, config)
        learn(begun, base, config)
    evaluation = evaluation_run(base, config)
    run_stages([evaluation], config)
    rounds_report.write(evaluation.out, config.every_round, old_policies(base, config), command_of(config))
    print_arena_command(base, config)
    return config.out


def find(config: Config) -> BaseRun:
    """Return the parts of the base run. InputError where it lacks what the rounds need."""
    root = config.base_run
    is_model = (root / "config.json").exists()
    if is_model:
        real.require_chat_model(root)
    elif not (root / "sft" / "finished.json").exists():
        seeds = seed_folders(root) if root.is_dir() else []
        hint = f"name one of its seeds: --base-run {seeds[0]}" if seeds else "'amenable demo' makes one"
        raise InputError("holds no finished sft", root, hint)
    world = root / "world" if (root / "world" / "finished.json").exists() else None
    if world is None and not config.people and not config.judge:
        hint = "give --people, --judge or another --base-run"
        raise InputError("has no world whose annotators could be asked", root, hint)
    if world is None and (config.prompts is None or config.test is None):
        raise InputError("has no world to take prompts from", root, "name --prompts and --test")
    prompts = root / "world" / "prompts"

    def existing(*names: str) -> Path | None:
        return next((root / name for name in names if (root / name).exists()), None)

    return BaseRun(
        sft=root if is_model else root / "sft",
        world=world,
        prompts=config.prompts or prompts / "reward.jsonl",
        ppo_prompts=config.prompts or prompts / "ppo.jsonl",
        test=config.test or prompts / "test.jsonl",
        comparisons=existing("annotate/train.jsonl", "comparisons.jsonl"),
        held_out=existing("annotate/heldout.jsonl"),
        samples=existing("sample/samples.jsonl"),
        policy=root / "ppo" if (root / "ppo" / "finished.json").exists() else None,
        store=config.labels_db or (config.out if is_model else root) / "labels.db",
    )


def collect_rankings(rounds: Sequence[Round], base: BaseRun, config: Config) -> None:
    """Have the answers of each round ranked, by people, by the judge or by simulated annotators."""
    if config.people:
        for turn in rounds:
            wait_for_people(turn, base, config)
        return
    for turn in rounds:
        write_rows(turn.prompts, new_prompts(turn, config.pool_size * turn.rounds, base, config))
    sampling = {turn: sample_runs(turn, base, config) for turn in rounds}
    annotating = [run for turn, runs in sampling.items() for run in annotate_runs(turn, runs, base, config)]
    run_stages([*(run for runs in sampling.values() for run in runs), *annotating], config)


def new_prompts(turn: Round, count: int, base: BaseRun, config: Config) -> list[dict[str, Any]]:
    """Return a round's prompts: none of earlier rounds, nor of those that the base run holds out."""
    left_out = [file for earlier in turn.before for file in (earlier.prompts, earlier.annotations / "labels.jsonl")]
    left_out += [base.held_out] if base.held_out is not None else []
    rows = rounds_labels.unused_prompts(base.prompts, left_out, config.seed)
    if len(rows) < count:
        hint = "lower --prompts-per-round or --rounds, or give more with --prompts"
        raise InputError(f"{count} more prompts are needed and {len(rows)} are left", base.prompts, hint)
    return rows[:count]


def sample_runs(turn: Round, base: BaseRun, config: Config) -> list[StageRun]:
    """Return runs that sample the newest policy, and the best before it; in the first round SFT alone."""
    policies = {"sample": (base.sft, config.num_generations)}
    if turn.before:
        half = config.num_generations // 2
        policies = {
            "sample": (turn.before[-1].policy, config.num_generations - half),
            "sample-best": (rounds_labels.best_previous_policy(turn, base.sft), half),
        }
    configs = {
        name: sample.Config(model=model, data=turn.prompts, num_generations=count)
        for name, (model, count) in policies.items()
    }
    return stage_runs(turn.folder, config.seed, configs)


def annotate_runs(turn: Round, samples: Sequence[StageRun], base: BaseRun, config: Config) -> list[StageRun]:
    """Return the run of the judge, or of simulated annotators, with errors of the world's size in every round."""
    data, *others = (run.out / "samples.jsonl" for run in samples)
    annotators = annotate.Config(
        data=data,
        extra_data=tuple(others),
        world=None if config.judge else base.world,
        judge=config.judge,
        scoring=config.scoring,
        validation_split=config.validation_split,
        agreement=0,
    )
    return stage_runs(turn.folder, config.seed, {turn.source: annotators})


def wait_for_people(turn: Round, base: BaseRun, config: Config) -> None:
    """Wait until people have ranked enough prompts; the rankings by then are the round's for good."""
    files, count = [], config.prompts_per_round
    if not rounds_people.has_labels(turn):
        files = pool_of(turn, base, config)
        print_lines(f"{turn.name} learns from {count} prompts that people rank:", label_command(files, base, config))
    rounds_people.collect(turn, files, base.store, count, config.validation_split, config.seed)


def pool_of(turn: Round, base: BaseRun, config: Config) -> list[Path]:
    """Return the files of answers that people rank: in the first round the base run's samples, if it has any."""
    if not turn.before and base.samples is not None:
        return [base.samples]
    if not turn.prompts.exists():  # a round that has begun keeps its prompts, though the quota may change
        write_rows(turn.prompts, new_prompts(turn, config.pool_size, base, config))
    runs = sample_runs(turn, base, config)
    run_stages(runs, config)
    return [run.out / "samples.jsonl" for run in runs]


def learn(rounds: Sequence[Round], base: BaseRun, config: Config) -> None:
    """Train for each round a reward model on the labels of all rounds so far, and a policy from it."""
    mixes = config.include_base_comparisons in (("people", "always") if config.people else ("always",))
    runs = []
    for turn in rounds:
        comparisons, weight = base.comparisons if mixes else None, config.new_label_weight
        counts = rounds_labels.write_training_set(turn, comparisons, base.held_out, weight)
        annotators = "people" if config.people else "the judge" if config.judge else "simulated annotators"
        print_lines(f"{turn.name}: {rounds_labels.describe_mix(counts, annotators, weight)}")
        runs += training_runs(turn, base, config)
    run_stages(runs, config)


def training_runs(turn: Round, base: BaseRun, config: Config) -> list[StageRun]:
    """Return the runs of a round's reward model, and of its policy from SFT."""
    validation, heldout = turn.labels / "validation.jsonl", turn.labels / "heldout.jsonl"
    rewards = reward.Config(
        model=base.sft,
        data=turn.labels / "train.jsonl",
        validation=validation,
        heldout_annotators=heldout if heldout.exists() else None,
        demonstrations=None if base.world is None else base.world / "demonstrations" / "train.jsonl",
        lora=config.lora,
    )
    policy: ppo.Config | dpo.Config = ppo.Config(
        model=base.sft, reward=(str(turn.reward),), data=base.ppo_prompts, lora=config.lora
    )
    if config.policy == "dpo":
        labels = (turn.labels / "train.jsonl",)
        policy = dpo.Config(model=base.sft, data=labels, validation=validation, lora=config.lora)
    return stage_runs(turn.folder, config.seed, {turn.reward.name: rewards, turn.policy.name: policy})


def old_policies(base: BaseRun, config: Config) -> dict[str, Path]:
    """Return the policies that rounds are compared with, by name: SFT; with people also the base run's policy."""
    old = {"sft": base.sft}
    return old | ({"ppo": base.policy} if config.people and base.policy is not None else {})


def evaluation_run(base: BaseRun, config: Config) -> StageRun:
    """Return the evaluation of all policies on the same test prompts, measured by the newest reward model."""
    models = old_policies(base, config) | {turn.name: turn.policy for turn in config.every_round}
    evaluation = evaluate.Config(
        models=tuple(f"{name}={folder}" for name, folder in models.items()),
        data=base.test,
        world=base.world,
        reward=(str(config.adaptive_rounds[-1].reward),),
        lm_data=None,
        reference=str(base.sft),
    )
    (run,) = stage_runs(config.out, config.seed, {f"evaluate-{config.rounds}": evaluation})
    return run


def run_stages(runs: Sequence[StageRun], config: Config) -> None:
    """Run stages at the size of the configuration. Finished ones only check that they are the same."""
    runs = with_trackers(runs, config.track)
    run_all([demo.shrink(run) for run in runs] if config.size == "smoke" else runs)


def label_command(files: Sequence[Path], base: BaseRun, config: Config) -> str:
    """Return the command that opens the page on which a round's answers are ranked."""
    rank = ["--tasks", "rank", "--answers", min(config.num_generations, 9)]
    compare = ["--tasks", "compare", "--one-key"]
    options = [*files, "--labels-db", base.store, *(compare if config.num_generations == 2 else rank)]
    return shlex.join(["amenable", "label", "--data", *map(str, options)])


def command_of(config: Config) -> str:
    """Return the command that goes on with these rounds, or repeats them."""
    words = ["amenable", "rounds"]
    groups: dict[str, Any] = {"": config, "lora.": config.lora}
    options = [(prefix, option, owner) for prefix, owner in groups.items() for option in fields(owner)]
    options = [each for each in options if each[1].name not in ("scoring", "lora")]
    options += [("", option, config.scoring) for option in fields(config.scoring)]
    for prefix, option, owner in options:
        name, value = option.name.replace("_", "-"), getattr(owner, option.name)
        if value == option.default:
            continue
        if isinstance(value, bool):
            words.append(f"--{prefix}{name}" if value else f"--{prefix}no-{name}")
        else:
            words += [f"--{prefix}{name}", *map(str, value if isinstance(value, (tuple, list)) else [value])]
    return shlex.join(words)


def print_arena_command(base: BaseRun, config: Config) -> None:
    """Print the command that compares the newest policy with the one before it."""
    rounds, old = config.adaptive_rounds, old_policies(base, config)
    before = rounds[-2].policy if len(rounds) > 1 else list(old.values())[-1]
    options = ["--models", f"before={before}", f"after={rounds[-1].policy}", "--labels-db", str(base.store)]
    print_lines("Compare old and new:", shlex.join(["amenable", "arena", *options]))


def print_lines(sentence: str, *commands: str) -> None:
    """Print a sentence and commands on stderr."""
    print(sentence, *commands, sep="\n  ", file=sys.stderr, flush=True)
