"""Algorithms side by side: one SFT model, the same prompts and reward, as many sampled answers for each.

    sft, reward, prompts of a demo -> each algorithm x each learning rate, on a share of the answers
    -> the best on validation prompts
    -> each algorithm, for every seed -> evaluate on test prompts -> report

An online algorithm samples `answers` answers of its own policy. An offline one (DPO, KTO) learns from as many of the
SFT model's, scored by the same reward. A learning rate is chosen by gold, the world's utility, on validation prompts;
every algorithm tries the same number of them. Reads a finished demo, or any folder with world/, sft/ and reward/;
writes the stages' run directories, race.json and race.html.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from amenable.errors import InputError
from amenable.recipes.from_scratch import write_once
from amenable.recipes.pipeline import StageRun, run_all, stage_runs
from amenable.recipes.reports import race_page
from amenable.stages import (
    a2c,
    annotate,
    dpo,
    evaluate,
    expert_iteration,
    grpo,
    kto,
    online_dpo,
    ppo,
    reinforce,
    rloo,
    sample,
    trpo,
)
from amenable.stages.sample import SamplingOptions
from amenable.train import plan

TEMPERATURE, LENGTH = 0.7, 64
"""of all answers: sampling temperature, maximum length in tokens"""
BATCH = 128
"""answers of a step of an online algorithm"""
GROUP = 4
"""answers to a prompt, where they are compared with each other"""
FISHER = 16
"""answers that TRPO's Fisher matrix is a mean over: about a tenth, as Schulman et al. (2015, appendix C) take"""
OFFLINE = ("dpo", "kto")
SFT = "sft"

Rates = Mapping[str, Sequence[float]]
"""learning rates by algorithm"""


@dataclass(frozen=True)
class Config:
    """Compare algorithms on one model, with the same prompts, reward and number of answers."""

    base_run: Path = Path("runs/demo")
    """a finished demo, or any folder with world/, sft/ and reward/"""
    algorithms: tuple[str, ...] = ()
    """some of them by name; by default all"""
    out: Path = Path("runs/race")
    answers: int = 5120
    """sampled answers of every algorithm"""
    learning_rates: tuple[float, ...] = (1e-4, 3e-4)
    """tried for every algorithm; TRPO's trust region is a hundred times as much"""
    tuning_share: float = 0.5
    """share of the answers that each learning rate is tried on. A rate that gains first and loses it later shows itself
    at 1 alone; there tuning two rates costs as much as two seeds of the comparison, at 0.5 as much as one"""
    kl_coef: float = 0.1
    """price of a nat, in units of the reward, for every online algorithm"""
    seed: int = 0
    seeds: int = 3
    size: Literal["race", "smoke"] = "race"
    """smoke: to see that everything works; its policies learn next to nothing"""

    def __post_init__(self) -> None:
        plan.require_at_least(1, self, "seeds")
        plan.require_at_least(0, self, "seed", "kl_coef")
        plan.require_at_least(BATCH, self, "answers")
        plan.require_above_zero(self, "tuning_share")
        share = f"tuning_share is {self.tuning_share:g}"
        plan.forbid(self.tuning_share > 1, share, "give at most 1, as many answers as the comparison has")
        plan.forbid(not self.learning_rates, "no learning rate is given", "give some, such as 1e-4 3e-4")
        names = list(algorithms(self, self.out))
        for name in self.algorithms:
            plan.forbid(name not in names, f"there is no algorithm '{name}'", f"they are {', '.join(names)}")

    @property
    def names(self) -> list[str]:
        """The algorithms that run."""
        return [name for name in algorithms(self, self.out) if not self.algorithms or name in self.algorithms]

    @property
    def tuning_answers(self) -> int:
        """The number of answers that a learning rate is tried on."""
        return max(BATCH, round(self.answers * self.tuning_share))

    @property
    def tuning(self) -> Path:
        """The folder of the runs that learning rates are chosen by."""
        return self.out / "tuning"

    @property
    def roots(self) -> dict[int, Path]:
        """The folder of each seed's runs."""
        return {seed: self.out / f"seed-{seed}" for seed in range(self.seed, self.seed + self.seeds)}


def algorithms(config: Config, root: Path) -> dict[str, Any]:
    """Return the Config of every algorithm, without a learning rate of its own; offline ones learn from the labels of
    `root`."""
    base, steps = config.base_run, config.answers // BATCH
    online: dict[str, Any] = {
        "model": base / SFT,
        "reward": (str(base / "reward"),),
        "data": base / "world" / "prompts" / "ppo.jsonl",
        "validation": base / "world" / "prompts" / "validation.jsonl",
        "max_steps": steps,
        "temperature": TEMPERATURE,
        "max_new_tokens": LENGTH,
        "kl_coef": config.kl_coef,
        "adaptive_kl_target": 0.0,
        "eval_steps": max(1, steps // 8),
        "eval_prompts": 100,
        "num_traced_prompts": 0,
    }
    alone = online | {"prompts_per_step": BATCH}
    grouped = online | {"prompts_per_step": BATCH // GROUP, "num_generations": GROUP}
    offline: dict[str, Any] = {
        "model": base / SFT,
        "max_new_tokens": LENGTH,
        "epochs": 2,
    }
    return {
        "ppo": ppo.Config(**alone),
        "ppo-kl-penalty": ppo.Config(**alone, objective="kl-penalty"),
        "a2c": a2c.Config(**alone),
        "reinforce": reinforce.Config(**alone),
        "trpo": trpo.Config(**alone, fisher_answers=FISHER),
        "rloo": rloo.Config(**grouped),
        "grpo": grpo.Config(**grouped),
        "expert-iteration": expert_iteration.Config(**grouped),
        "online-dpo": online_dpo.Config(**grouped | {"kl_coef": 0.0}),
        "dpo": dpo.Config(**offline, **splits(root / "annotate"), pairs="best-worst"),
        "kto": kto.Config(**offline, **splits(root / "labelled")),
    }


def splits(folder: Path) -> dict[str, Any]:
    """Return the options that name training and held-out data of a folder."""
    return {"data": (folder / "train.jsonl",), "validation": folder / "validation.jsonl"}


def labels(config: Config, root: Path) -> dict[str, Any]:
    """Return the stages that make the data of offline algorithms: answers of the SFT model, scored by the reward."""
    samples = sample.Config(
        model=config.base_run / SFT,
        data=config.base_run / "world" / "prompts" / "ppo.jsonl",
        max_prompts=config.answers // GROUP,
        num_generations=GROUP,
        sampling=SamplingOptions(temperature=TEMPERATURE, max_new_tokens=LENGTH),
    )
    judged = annotate.Config(data=root / "sample" / "samples.jsonl", judge=(str(config.base_run / "reward"),))
    return {"sample": samples, "annotate": judged} if set(OFFLINE) & set(config.names) else {}


def run(config: Config) -> Path:
    """Run every algorithm and write the report. Returns the folder that holds them."""
    require_base_run(config.base_run)
    trials = dict.fromkeys(config.names, config.learning_rates)
    train(replace(config, answers=config.tuning_answers), {config.seed: config.tuning}, trials)
    tuned = tuning_table(config)
    best = {name: [max(golds, key=lambda rate: golds[rate])] for name, golds in tuned.items()}
    train(config, config.roots, best)
    settings = race_page.Settings(config.answers, config.base_run / "world", tuned, config.tuning_answers)
    return race_page.write(config.out, list(config.roots.values()), settings)


def train(config: Config, roots: Mapping[int, Path], rates: Rates) -> None:
    """Run the algorithms of every root, each with its learning rates, and evaluate them."""
    run_stages([run for seed, root in roots.items() for run in stage_runs(root, seed, labels(config, root))], config)
    for root in roots.values():
        write_labelled(root)
    run_stages([run for seed, root in roots.items() for run in plan_of(config, root, seed, rates)], config)


def write_labelled(root: Path) -> None:
    """Write each ranked completion as one with a label, for KTO: True where its reward is above its prompt's mean."""
    for split in ("train", "validation"):
        source = root / "annotate" / f"{split}.jsonl"
        if source.exists():
            rankings = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
            write_once(root / "labelled" / f"{split}.jsonl", [source], len(rankings), partial(labelled, rankings))


def labelled(rankings: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the completions of rankings, each with a label."""
    for row in rankings:
        (scores,) = row["rewards"].values()
        for completion, score in zip(row["completions"], scores):
            yield {"prompt": row["prompt"], "completion": completion, "label": score > sum(scores) / len(scores)}


def run_stages(runs: Sequence[StageRun], config: Config) -> None:
    """Run stages in the size of the configuration."""
    run_all([shrink(each) for each in runs] if config.size == "smoke" else runs)


def require_base_run(folder: Path) -> None:
    """Raise InputError where the folder lacks what all algorithms start from."""
    for part in ("world/world.json", f"{SFT}/finished.json", "reward/finished.json"):
        if not (folder / part).exists():
            raise InputError(f"there is no {part}", folder, "make it by `amenable demo`, or give another --base-run")


def plan_of(config: Config, root: Path, seed: int, rates: Rates) -> list[StageRun]:
    """Return the stages of one seed: every algorithm with its learning rates, and an evaluation of all, on validation
    prompts where learning rates are tried, on test prompts after that."""
    trained: dict[str, Any] = {}
    for name, algorithm in algorithms(config, root).items():
        for rate in rates.get(name, ()):
            trained[trial(name, rate, rates)] = with_rate(algorithm, rate)
    base = config.base_run
    folders = {SFT: base / SFT, **{name: root / name for name in trained}}
    split = "validation" if root == config.tuning else "test"
    evaluation = evaluate.Config(
        models=tuple(f"{name}={folder}" for name, folder in folders.items()),
        data=base / "world" / "prompts" / f"{split}.jsonl",
        world=base / "world",
        reward=(str(base / "reward"),),
        reference=SFT,
        temperature=TEMPERATURE,
        max_new_tokens=LENGTH,
    )
    return stage_runs(root, seed, {**trained, "evaluate": evaluation})


def with_rate(algorithm: Any, rate: float) -> Any:
    """Return an algorithm's Config with a learning rate; TRPO's is a hundredth of its trust region."""
    if isinstance(algorithm, trpo.Config):
        return replace(algorithm, trust_region=100 * rate)
    return replace(algorithm, optimizer=replace(algorithm.optimizer, learning_rate=rate))


def trial(name: str, rate: float, rates: Rates) -> str:
    """Return the folder's name of an algorithm with a learning rate: with the rate where several are tried."""
    return f"{name}-{rate:g}" if len(rates[name]) > 1 else name


def tuning_table(config: Config) -> dict[str, dict[float, float]]:
    """Return gold on validation prompts by algorithm and learning rate."""
    rates = dict.fromkeys(config.names, config.learning_rates)
    evaluation = json.loads((config.tuning / "evaluate" / "evaluation.json").read_text("utf-8"))
    golds = {name: figures["gold"] for name, figures in evaluation["models"].items()}
    return {name: {rate: golds[trial(name, rate, rates)] for rate in config.learning_rates} for name in config.names}


def shrink(run: StageRun) -> StageRun:
    """Return the run at a fraction of its size."""
    steps = {"max_steps": 2, "max_new_tokens": 12, "eval_steps": 1, "eval_prompts": 4}
    online = steps | {"prompts_per_step": 4}
    brief = SamplingOptions(temperature=TEMPERATURE, max_new_tokens=12)
    smaller: dict[str, dict[str, Any]] = {
        "sample": {"max_prompts": 12, "sampling": brief},
        "dpo": {"max_new_tokens": 12, "eval_prompts": 4, "epochs": 1},
        "kto": {"max_new_tokens": 12, "eval_prompts": 4, "epochs": 1},
        "evaluate": {"max_prompts": 12, "max_new_tokens": 12},
        **dict.fromkeys(("ppo", "a2c", "reinforce", "trpo", "rloo", "grpo", "expert_iteration", "online_dpo"), online),
    }
    return StageRun(replace(run.config, **smaller.get(run.stage, {})))
