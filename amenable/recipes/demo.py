"""InstructGPT in miniature: a closed world, every stage, every claim of the paper checked, and a report.

    world -> tokenizer -> pretrain -> sft -> sample -> annotate -> reward -> ppo, dpo -> evaluate -> report

and beside them an n-gram model, and the models that the paper compares: a few-shot prompted base, a larger base, one
tuned on public tasks, the best of n, PPO-ptx ... Each stage is called as a user would; its options lie in <out>/plan.
Stopped and started again, it goes on where it stopped. A claim names the stages it is measured from, so `--claims` runs
those alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from amenable.claims import claims
from amenable.errors import InputError
from amenable.evaluation.prompting import PromptingOptions
from amenable.recipes import report
from amenable.recipes.pipeline import StageRun, run_all, stage_runs, with_trackers
from amenable.stages import annotate, dpo, evaluate, ngram, ppo, pretrain, reward, sample, sft, tokenizer, world
from amenable.train.optimizer import OptimizerConfig
from amenable.train.trackers import TrackerName
from amenable.world.settings import Sizes

BRIEF = ("b", "c", "d", "e", "f", "g", "i", "m", "n", "o")
"""the claims that fit into ten minutes"""
ALWAYS = ("ppo", "dpo", "evaluate-dpo", "evaluate-ngram")
"""stages of every demo, whichever claims it checks"""
SEEDS = 3
"""of a full demo"""
PRETRAINING = OptimizerConfig(learning_rate=4e-3, muon_learning_rate=0.02, weight_decay=0.01)
"""of both base models"""
TEMPERATURE, ANSWER = 0.7, 64
"""sampling temperature and maximal tokens of answers in the world"""


@dataclass(frozen=True)
class Config:
    """Run the whole method in a small closed world, check the papers' claims, and report."""

    out: Path = Path("runs/demo")
    seed: int = 0
    full: bool = False
    """three seeds and all claims: an hour and more instead of minutes"""
    claims: tuple[str, ...] = ()
    """only what these claims need, by letter; without any: those that fit, or all with --full"""
    size: Literal["demo", "smoke"] = "demo"
    """smoke: a minute or two, to see that everything works; its models learn next to nothing"""
    track: tuple[TrackerName, ...] = ()
    """trackers of the stages that train: tensorboard, wandb, trackio"""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}", how="it must be 0 or more")
        for letter in self.claims:
            if letter not in claims.LETTERS:
                raise InputError(f"there is no claim '{letter}'", how=f"they are {' '.join(claims.LETTERS)}")

    @property
    def roots(self) -> dict[int, Path]:
        """The folder of each seed's run."""
        if not self.full:
            return {self.seed: self.out}
        return {seed: self.out / f"seed-{seed}" for seed in range(self.seed, self.seed + SEEDS)}

    @property
    def chosen(self) -> tuple[str, ...]:
        """The claims to be decided."""
        return self.claims or (claims.LETTERS if self.full else BRIEF)


def run(config: Config) -> Path:
    """Run every stage that the claims need and return the folder that holds them."""
    runs = [run for seed, root in config.roots.items() for run in needed(plan(root, seed), config)]
    runs = with_trackers(runs, config.track)
    run_all(runs if config.size == "demo" else [shrink(run) for run in runs])
    folder = report.renew(config.out)
    print_next_commands(next(iter(config.roots.values())))
    return folder


def print_next_commands(root: Path) -> None:
    """Print commands that use the models, on stderr."""
    answers, store = root / "sample" / "samples.jsonl", root / "labels.db"
    models = " ".join(f"{name}={root / name}" for name in ("sft", "ppo", "dpo"))
    commands = (
        f"amenable chat --model {root / 'ppo'}",
        f"amenable serve --models {models} --labels-db {store}",
        f"amenable arena --models {models} --labels-db {store}",
        f"amenable label --data {answers} --labels-db {store}",
        f"amenable rounds --people --rounds 1 --prompts-per-round 20 --base-run {root}",
    )
    headline = "Talk to the models, say which answers are better, and train on what you said:"
    print(f"\n{headline}", *commands, sep="\n  ", file=sys.stderr)


def needed(runs: Sequence[StageRun], config: Config) -> list[StageRun]:
    """Return the stages that the claims are measured from, and all that those read, in the same order."""
    names = {stage for letter in config.chosen for stage in claims.needs(letter)}
    names |= set() if config.claims else set(ALWAYS)
    names &= {run.out.name for run in runs}
    while True:
        read = {other.out.name for run in runs if run.out.name in names for other in runs if run.reads(other)}
        if read <= names:
            return [run for run in runs if run.out.name in names]
        names |= read


def plan(root: Path, seed: int) -> list[StageRun]:
    """Return every stage of every claim for one seed. Earlier in the list begins earlier where both could."""
    return stage_runs(root, seed, {**models(root), **alignment(root), **evaluations(root)})


def models(root: Path) -> dict[str, Any]:
    """Return the world, and the models that are trained without preferences."""
    text, demonstrations = root / "world" / "text", root / "world" / "demonstrations"

    def imitate(data: Path, epochs: int = sft.Config.epochs) -> sft.Config:
        return sft.Config(
            model=root / "pretrain",
            data=data / "train.jsonl",
            validation=data / "validation.jsonl",
            epochs=epochs,
            optimizer=OptimizerConfig(learning_rate=5e-4),
            warmup_steps=10,
            dropout=0.1,
            max_new_tokens=ANSWER,
        )

    base = pretrain.Config(
        data=text / "train.jsonl",
        validation=text / "validation.jsonl",
        tokenizer=root / "tokenizer",
        optimizer=PRETRAINING,
        context=256,
        warmup_steps=20,
    )
    return {
        "world": world.Config(),
        "tokenizer": tokenizer.Config(data=text / "train.jsonl", demonstrations=demonstrations / "train.jsonl"),
        "pretrain": base,
        "ngram": ngram.Config(data=base.data, validation=base.validation, tokenizer=base.tokenizer),
        "sft": imitate(demonstrations),
        "large": replace(base, model="micro"),
        "public": imitate(root / "world" / "public"),
        "sft-1": imitate(demonstrations, epochs=1),
        "sft-16": imitate(demonstrations, epochs=16),
    }


def alignment(root: Path) -> dict[str, Any]:
    """Return comparisons, reward models, and the policies that learn from them."""
    prompts, labels = root / "world" / "prompts", root / "annotate"
    rewards = reward.Config(
        model=root / "sft",
        data=labels / "train.jsonl",
        validation=labels / "validation.jsonl",
        heldout_annotators=labels / "heldout.jsonl",
        demonstrations=root / "world" / "demonstrations" / "train.jsonl",
        world=root / "world",
        optimizer=OptimizerConfig(learning_rate=5e-4),
        warmup_steps=10,
    )
    policy = ppo.Config(
        model=root / "sft",
        reward=(str(root / "reward"),),
        data=prompts / "ppo.jsonl",
        optimizer=OptimizerConfig(learning_rate=2e-4, eps=1e-5),
        critic_learning_rate=4e-4,
        warmup_steps=5,
        temperature=TEMPERATURE,
        max_new_tokens=ANSWER,
        kl_coef=0.3,
        adaptive_kl_target=1.5,
    )
    tracked = replace(
        policy,
        reward=(str(root / "reward-small"),),
        adaptive_kl_target=0.0,
        max_steps=36,
        validation=prompts / "validation.jsonl",
        eval_steps=4,
    )
    return {
        "sample": sample.Config(
            model=root / "sft",
            data=prompts / "reward.jsonl",
            sampling=sample.SamplingOptions(temperature=TEMPERATURE, max_new_tokens=ANSWER),
        ),
        "annotate": annotate.Config(data=root / "sample" / "samples.jsonl", world=root / "world", empty_share=0.1),
        "reward": rewards,
        "ppo": policy,
        "ppo-ptx": replace(policy, ptx_coef=1.0, ptx_data=root / "world" / "text" / "train.jsonl"),
        "dpo": dpo.Config(
            model=root / "sft",
            data=labels / "train.jsonl",
            validation=labels / "validation.jsonl",
            pairs_per_prompt=4,
            optimizer=OptimizerConfig(learning_rate=2e-4),
            warmup_steps=10,
        ),
        "ppo-kl": replace(policy, kl_coef=1.5, adaptive_kl_target=0.0),
        "reward-small": replace(rewards, max_prompts=150),
        "over": replace(tracked, kl_coef=0.0),
        "over-kl": replace(tracked, kl_coef=0.1),
        "reward-pairs": replace(rewards, batch_unit="pairs"),
    }


def evaluations(root: Path) -> dict[str, Any]:
    """Return evaluations of every model on the test prompts; of the claims' models on the suites as well."""
    home = root / "world"
    about = ("truthful", "closed", "respect")
    news = (*about, "familiar", "phrasings", "entities")
    shots = (home / "few_shot.jsonl",)

    def examine(*models: str, suites: tuple[str, ...] = ()) -> evaluate.Config:
        return evaluate.Config(
            models=tuple(f"{model.split('=')[0]}={root / model.split('=')[1]}" for model in models),
            data=home / "prompts" / "test.jsonl",
            suites=tuple(f"{suite}={home / 'suites' / suite}.jsonl" for suite in suites),
            tasks=(str(home / "tasks"),),
            prompting=PromptingOptions(shots=shots if any(model.endswith("@few-shot") for model in models) else ()),
            transcripts=home / "transcripts.jsonl",
            demonstrations=home / "demonstrations" / "validation.jsonl",
            world=home,
            reward=(str(root / "reward"),),
            lm_data=home / "text" / "validation.jsonl",
            reference=str(root / "sft"),
            max_new_tokens=ANSWER,
        )

    return {
        "evaluate": examine("sft=sft", suites=news),
        "evaluate-base": examine("base=pretrain", "prompted=pretrain@few-shot", suites=about),
        "evaluate-ngram": examine("ngram=ngram"),
        "evaluate-best": examine("best16=sft@best-of-16"),
        "evaluate-ppo": examine("ppo=ppo", "sharpened=sft@entropy-of-ppo", suites=news),
        "evaluate-dpo": examine("dpo=dpo"),
        "evaluate-public": examine("public=public"),
        "evaluate-ptx": examine("ppo-ptx=ppo-ptx"),
        "evaluate-kl": examine("ppo-kl=ppo-kl"),
        "evaluate-sft": examine("sft-1=sft-1", "sft-16=sft-16"),
        "evaluate-large": examine("large=large", "large-prompted=large@few-shot"),
    }


def shrink(run: StageRun) -> StageRun:
    """Return the run with everything as small as it goes."""
    brief = sample.SamplingOptions(temperature=1.0, max_new_tokens=24)
    quick = OptimizerConfig(learning_rate=1e-3)
    sizes = Sizes(
        people=12,
        documents=400,
        validation_documents=30,
        demonstrations=100,
        validation_demonstrations=10,
        reward_prompts=60,
        ppo_prompts=60,
        validation_prompts=20,
        test_prompts=40,
        suite_prompts=6,
        public_demonstrations=60,
        validation_public_demonstrations=10,
        task_questions=20,
    )
    smaller: dict[str, dict[str, Any]] = {
        "world": {"sizes": sizes},
        "pretrain": {"max_steps": 6, "tokens_per_step": 512, "warmup_steps": 1, "eval_steps": 6, "eval_tokens": 2000},
        "sft": {"epochs": 1, "batch_size": 64, "warmup_steps": 1, "optimizer": quick},
        "sample": {"max_prompts": 16, "num_generations": 3, "sampling": brief},
        "reward": {"prompts_per_step": 4, "warmup_steps": 1},
        "ppo": {"max_steps": 2, "prompts_per_step": 8, "max_new_tokens": 16, "warmup_steps": 1, "eval_prompts": 4},
        "dpo": {"batch_size": 16, "warmup_steps": 1, "eval_prompts": 4, "max_new_tokens": 16},
        "evaluate": {"max_prompts": 8, "max_new_tokens": 16, "text_tokens": 2000, "best_of_prompts": 4},
    }
    return StageRun(replace(run.config, **smaller.get(run.stage, {})))
