"""Ask, learn from it, and ask again: rounds of labelling and training that start from a finished demo.

    answers of the newest policy and of the best before it -> ranked by annotators, or by people on the labelling page
    -> reward model, on the labels of all rounds so far -> PPO from SFT -> the next round -> evaluate all -> report

A policy's answers stand in the next round beside those of the best one before it, so that the labels themselves say
which of the two goes on. With simulated annotators `--once` trains another policy on as many labels that are all asked
for at one time, of SFT's answers: what asking in rounds has to beat. Stopped anywhere, the same command goes on.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from amenable.claims.stage_folders import seed_folders
from amenable.errors import InputError
from amenable.recipes import demo, rounds_labels, rounds_people, rounds_report
from amenable.recipes.pipeline import StageRun, run_all
from amenable.recipes.rounds_labels import Round, write_rows
from amenable.stages import annotate, evaluate, ppo, reward, sample
from amenable.train import plan

SPARE = 4
"""people find one prompt more among so many"""


@dataclass(frozen=True)
class Config:
    """Learn from comparisons in rounds, each asking about the answers of the policies before."""

    home: Path = Path("runs/demo")
    """a finished demo, or any folder with a finished sft/"""
    out: Path = Path("runs/rounds")
    rounds: int = 3
    labels: int = 300
    """prompts ranked in a round"""
    answers: int = 6
    """to a prompt; from the second round on half of them are the best earlier policy's"""
    people: bool = False
    """wait for rankings made on the labelling page, instead of simulating annotators"""
    store: Path | None = None
    """where people's rankings are kept; labels.db in the home where none is named"""
    earlier: Literal["people", "always", "never"] = "people"
    """learn from the home's own comparisons as well: where people are asked, always, or never"""
    repeat: int = 4
    """beside those, every new ranking stands so many times"""
    once: bool = True
    """train also on as many labels asked for at one time (simulated annotators only)"""
    held_out: float = 0.15
    """share of a round's prompts kept for validation"""
    prompts: Path | None = None
    """prompts to ask about and to improve on, where the home has no world"""
    test: Path | None = None
    """prompts that the policies are compared on, where the home has no world"""
    seed: int = 0
    size: Literal["demo", "smoke"] = "demo"
    """smoke: to see that everything works; its models learn next to nothing"""

    def __post_init__(self) -> None:
        plan.require_at_least(1, self, "rounds", "repeat")
        plan.require_at_least(0, self, "seed")
        plan.require_at_least(2, self, "answers")
        plan.require_at_least(8, self, "labels")
        if not 0 < self.held_out < 1:
            raise InputError(f"held_out is {self.held_out}", how="it must lie between 0 and 1")

    @property
    def turns(self) -> list[Round]:
        """The rounds, each with those before it."""
        made: list[Round] = []
        for number in range(1, self.rounds + 1):
            made.append(Round(self.out / f"round-{number}", "people" if self.people else "annotate", tuple(made)))
        return made

    @property
    def at_once(self) -> Round | None:
        """The turn that asks for all labels, where there is one."""
        asked = self.once and not self.people and self.rounds > 1
        return Round(self.out / f"once-{self.rounds}", "annotate", rounds=self.rounds) if asked else None

    @property
    def every_turn(self) -> list[Round]:
        """The rounds, and what is asked at once."""
        return [*self.turns, *([self.at_once] if self.at_once else [])]

    @property
    def pool(self) -> int:
        """The prompts of a round: for people some to spare, in place of those that they find unclear."""
        return self.labels + (self.labels // SPARE + 1 if self.people else 0)

    @property
    def mixes(self) -> bool:
        """Whether the home's comparisons are learned from as well."""
        return self.earlier == "always" or (self.earlier == "people" and self.people)


@dataclass(frozen=True)
class Home:
    """What the rounds start from; None for what is not there."""

    sft: Path
    world: Path | None
    prompts: Path
    """to ask about"""
    improving: Path
    """that policies are improved on"""
    test: Path
    comparisons: Path | None
    """rankings made earlier"""
    held_out: Path | None
    """rankings that nothing is trained on"""
    samples: Path | None
    """answers of SFT that are drawn already"""
    policy: Path | None
    """what was trained on the comparisons"""
    store: Path


def run(config: Config) -> Path:
    """Go through all rounds, compare their policies, and return the folder that holds them."""
    home = find(config)
    fresh_prompts(config.turns[0], config.rounds * config.pool, home, config)
    for turn in config.turns:
        begun = [turn, *([config.at_once] if config.at_once and not turn.before else [])]
        ask(begun, home, config)
        learn(begun, home, config)
    examined = examination(home, config)
    run_calls([examined], config)
    rounds_report.write(examined.out, config.every_turn, old_policies(home, config), command_of(config))
    tell_what_next(home, config)
    return config.out


def find(config: Config) -> Home:
    """What the home holds. InputError where that is too little."""
    root = config.home
    if not (root / "sft" / "finished.json").exists():
        seeds = seed_folders(root) if root.is_dir() else []
        how = f"name one of its seeds: --home {seeds[0]}" if seeds else "'amenable demo' makes one"
        raise InputError("holds no finished sft", root, how)
    world = root / "world" if (root / "world" / "finished.json").exists() else None
    if world is None and not config.people:
        raise InputError("has no world whose annotators could be asked", root, "give --people, or another --home")
    if world is None and (config.prompts is None or config.test is None):
        raise InputError("has no world to take prompts from", root, "name --prompts and --test")
    prompts = root / "world" / "prompts"

    def there(*names: str) -> Path | None:
        return next((root / name for name in names if (root / name).exists()), None)

    return Home(
        sft=root / "sft",
        world=world,
        prompts=config.prompts or prompts / "reward.jsonl",
        improving=config.prompts or prompts / "ppo.jsonl",
        test=config.test or prompts / "test.jsonl",
        comparisons=there("annotate/train.jsonl", "comparisons.jsonl"),
        held_out=there("annotate/heldout.jsonl"),
        samples=there("sample/samples.jsonl"),
        policy=root / "ppo" if (root / "ppo" / "finished.json").exists() else None,
        store=config.store or root / "labels.db",
    )


def ask(turns: Sequence[Round], home: Home, config: Config) -> None:
    """Have answers ranked: afterwards every turn has its rankings."""
    if config.people:
        for turn in turns:
            ask_people(turn, home, config)
        return
    for turn in turns:
        write_rows(turn.prompts, fresh_prompts(turn, config.pool * turn.rounds, home, config))
    drawn = {turn: sampling(turn, home, config) for turn in turns}
    asked = [annotating(turn, [call.out / "samples.jsonl" for call in drawn[turn]], home, config) for turn in turns]
    run_calls([*(call for calls in drawn.values() for call in calls), *asked], config)


def fresh_prompts(turn: Round, count: int, home: Home, config: Config) -> list[dict[str, Any]]:
    """What a turn asks about: none of the prompts of earlier rounds, nor those that the home holds out."""
    left_out = [file for one in turn.before for file in (one.prompts, one.annotations / "labels.jsonl")]
    left_out += [home.held_out] if home.held_out is not None else []
    rows = rounds_labels.unused_prompts(home.prompts, left_out, config.seed)
    if len(rows) < count:
        how = "lower --labels or --rounds, or give more with --prompts"
        raise InputError(f"{count} more prompts are needed and {len(rows)} are left", home.prompts, how)
    return rows[:count]


def sampling(turn: Round, home: Home, config: Config) -> list[StageRun]:
    """Answers of the newest policy, and of the best one before it; in the first round of SFT alone."""
    if turn.before:
        half = config.answers // 2
        drawn = {
            "sample": (turn.before[-1].policy, config.answers - half),
            "sample-best": (rounds_labels.best_previous_policy(turn, home.sft), half),
        }
    else:
        drawn = {"sample": (home.sft, config.answers)}
    made = []
    for name, (model, count) in drawn.items():
        options = sample.Config(
            model=model, data=turn.prompts, out=turn.folder / name, num_generations=count, seed=config.seed
        )
        made.append(StageRun(options))
    return made


def annotating(turn: Round, samples: Sequence[Path], home: Home, config: Config) -> StageRun:
    """Simulated annotators, as exact in every round: their errors are of the world's size, whatever is asked."""
    options = annotate.Config(
        data=samples[0],
        extra_data=tuple(samples[1:]),
        world=home.world,
        out=turn.annotations,
        validation_split=config.held_out,
        agreement=0,
        seed=config.seed,
    )
    return StageRun(options)


def ask_people(turn: Round, home: Home, config: Config) -> None:
    """Wait until people have ranked as many prompts as wanted; what they said by then is the round's for good."""
    files: list[Path] = []
    if not rounds_people.has_labels(turn):
        files = pool_of(turn, home, config)
        tell(f"{turn.name} learns from {config.labels} prompts that people rank:", label_command(files, home, config))
    rounds_people.collect(turn, files, home.store, config.labels, config.held_out, config.seed)


def pool_of(turn: Round, home: Home, config: Config) -> list[Path]:
    """The answers that people rank: in the first round those of SFT that the home has, if it has any."""
    if not turn.before and home.samples is not None:
        return [home.samples]
    if not turn.prompts.exists():  # a round that has begun keeps its prompts, though the quota may change
        write_rows(turn.prompts, fresh_prompts(turn, config.pool, home, config))
    calls = sampling(turn, home, config)
    run_calls(calls, config)
    return [call.out / "samples.jsonl" for call in calls]


def learn(turns: Sequence[Round], home: Home, config: Config) -> None:
    """A reward model on the labels of all rounds so far, and a policy that it improves, for each of some turns."""
    calls = []
    for turn in turns:
        earlier = home.comparisons if config.mixes else None
        counts = rounds_labels.write_training_set(turn, earlier, home.held_out, config.repeat)
        tell(f"{turn.name}: {rounds_labels.describe_mix(counts, config.people, config.repeat)}")
        calls += [rewarding(turn, home, config), improving(turn, home, config)]
    run_calls(calls, config)


def rewarding(turn: Round, home: Home, config: Config) -> StageRun:
    """The reward model of a turn."""
    demonstrations = None if home.world is None else home.world / "demonstrations" / "train.jsonl"
    options = reward.Config(
        model=home.sft,
        data=turn.labels / "train.jsonl",
        validation=turn.labels / "validation.jsonl",
        heldout_annotators=turn.labels / "heldout.jsonl" if (turn.labels / "heldout.jsonl").exists() else None,
        demonstrations=demonstrations,
        out=turn.reward,
        seed=config.seed,
    )
    return StageRun(options)


def improving(turn: Round, home: Home, config: Config) -> StageRun:
    """PPO from SFT against the reward model of a turn."""
    options = ppo.Config(
        model=home.sft, reward=(str(turn.reward),), data=home.improving, out=turn.policy, seed=config.seed
    )
    return StageRun(options)


def old_policies(home: Home, config: Config) -> dict[str, Path]:
    """What the rounds are compared with, by name: SFT; with people also what the demo had learned before."""
    old = {"sft": home.sft}
    return old | ({"ppo": home.policy} if config.people and home.policy is not None else {})


def examination(home: Home, config: Config) -> StageRun:
    """All policies on the same test prompts, measured by the newest reward model."""
    models = old_policies(home, config) | {turn.name: turn.policy for turn in config.every_turn}
    options = evaluate.Config(
        models=tuple(f"{name}={folder}" for name, folder in models.items()),
        data=home.test,
        world=home.world,
        reward_model=config.turns[-1].reward,
        lm_data=None,
        reference=str(home.sft),
        out=config.out / f"evaluate-{config.rounds}",
        seed=config.seed,
    )
    return StageRun(options)


def run_calls(calls: Sequence[StageRun], config: Config) -> None:
    """Run stages, as small as they go where that is wanted. Finished ones only look whether they are the same."""
    run_all([demo.shrink(call) for call in calls] if config.size == "smoke" else calls)


def label_command(files: Sequence[Path], home: Home, config: Config) -> str:
    """How to open the page on which a round's answers are ranked."""
    options = [*files, "--store", home.store, "--kinds", "rank", "--answers", min(config.answers, 9)]
    return shlex.join(["amenable", "label", "--data", *map(str, options)])


def command_of(config: Config) -> str:
    """The command that goes on with these rounds, or repeats them."""
    told = ["amenable", "rounds"]
    for option in fields(config):
        name, value = option.name.replace("_", "-"), getattr(config, option.name)
        if isinstance(value, bool):
            told += [] if value == option.default else [f"--{name}" if value else f"--no-{name}"]
        elif value != option.default:
            told += [f"--{name}", str(value)]
    return shlex.join(told)


def tell_what_next(home: Home, config: Config) -> None:
    """How to try the new policy beside the old one."""
    turns, old = config.turns, old_policies(home, config)
    before = turns[-2].policy if len(turns) > 1 else list(old.values())[-1]
    options = ["--models", f"before={before}", f"after={turns[-1].policy}", "--store", str(home.store)]
    tell("Compare old and new:", shlex.join(["amenable", "arena", *options]))


def tell(said: str, *commands: str) -> None:
    """A sentence on stderr, and commands to type."""
    print(said, *commands, sep="\n  ", file=sys.stderr, flush=True)
