"""Over-optimization: how far a policy may go before the reward model's praise is no longer the truth's.

    a demo's SFT model and labels -> six reward models: three sizes, three counts of labels, a quarter of them wrong
    -> PPO and best of n on each; at the centre RLOO, GRPO, DPO and a price on KL as well, and all that read a reward
    once more against the worst of an ensemble
    -> gold and reward of held-out answers against the root of KL -> fits, peaks, advice -> report

Gold is the closed world's utility, or with `--gold` another reward, such as a larger model, which then gives the labels
too. Everything is measured on the same held-out prompts. Stopped and started again, it goes on where it stopped. Gao,
Schulman and Hilton (2022); ensembles as Coste et al. (2023).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from amenable.data.batches import shuffled
from amenable.data.samples import Sample, read_samples
from amenable.errors import InputError
from amenable.recipes import demo
from amenable.recipes.from_scratch import write_once
from amenable.recipes.pipeline import StageRun, run_all, stage_runs
from amenable.recipes.reports import overopt_page
from amenable.recipes.reports.overopt_page import Gold
from amenable.rewards.options import RewardOptions, Scoring
from amenable.rewards.samples import score_samples
from amenable.rewards.spec import Specs, load_reward
from amenable.stages import annotate, dpo, evaluate, grpo, ppo, rloo, sample
from amenable.stages.sample import SamplingOptions
from amenable.train import plan
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import DeviceOptions, start_runtime
from amenable.world.closed_world import ClosedWorld

BODIES = {"small": "pico", "large": "micro"}
"""presets of the reward models that are smaller and larger than the policy"""
FEWER = (4, 16)
"""divisors of the count of labels"""
FLIPPED = 0.25
"""share of the rankings that are turned round"""
MEMBERS = 3
"""reward models of the ensemble, whose score is that of the worst"""
BATCH, GROUP = 128, 4
"""answers of a step of an online algorithm; answers to a prompt where they are compared with each other"""
BETAS = (0.03, 0.1, 0.3)
"""of DPO, a policy each"""
PRICE = 0.1
"""of a nat, for the PPO run that pays for KL, in units of the reward"""
CENTRE = "centre"


@dataclass(frozen=True)
class Config:
    """Measure how far the reward models of a demo can be optimised before the truth gets worse."""

    base_run: Path = Path("runs/demo")
    """a finished demo"""
    out: Path = Path("runs/overopt")
    gold: Specs = ()
    """the truth, where it is not the closed world's utility: a reward model's folder or any other SPEC; it gives the
    labels that the reward models learn from, and judges all answers"""
    scoring: Scoring = field(default_factory=RewardOptions)
    prompts: int = 200
    """held-out prompts that gold and reward are measured on"""
    best_of: int = 64
    """answers to each of them, for the best of n up to this n"""
    max_steps: int = 48
    """iterations of every online algorithm"""
    quick: bool = False
    """less of it: the centre, a quarter of the labels and wrong ones, without larger and smaller bodies"""
    seed: int = 0
    size: Literal["overopt", "smoke"] = "overopt"
    """smoke: to see that everything works; its policies learn next to nothing"""

    def __post_init__(self) -> None:
        plan.require_at_least(2, self, "prompts", "best_of", "max_steps")
        plan.require_at_least(0, self, "seed")

    @property
    def labels(self) -> Path:
        """Rankings that the reward models learn from: train.jsonl and validation.jsonl."""
        return self.out / "annotate" if self.gold else self.base_run / "annotate"

    @property
    def held_out(self) -> Path:
        """The prompts that everything is measured on."""
        return self.base_run / "world" / "prompts" / "validation.jsonl"


def run(config: Config) -> Path:
    """Train the reward models and policies, fit the laws, and write the report. Returns the folder that holds them."""
    require_base_run(config)
    if config.gold:
        load_reward(config.gold, start_runtime(DeviceOptions()), options=config.scoring)  # InputError for a wrong one
        run_stages(runs_of({"annotate": labelling(config)}, config), config)
    count = write_flipped(config)
    rewards = reward_models(config, count)
    worst = replace(rewards[f"reward-{CENTRE}"], members=MEMBERS, combination="min")
    run_stages(runs_of({**bodies(config), **rewards, "ensemble": worst, **policies(config)}, config), config)
    settings = overopt_page.Settings(
        config.out, [name.removeprefix("reward-") for name in rewards], CENTRE, config.seed
    )
    best_of = {name.removeprefix("reward-"): score_answers(config, name) for name in (*rewards, "ensemble")}
    return overopt_page.write(settings, gold_of(config), best_of)


def runs_of(configs: Mapping[str, Any], config: Config) -> list[StageRun]:
    """Return runs of stages in folders of the run."""
    return stage_runs(config.out, config.seed, configs)


def run_stages(runs: Sequence[StageRun], config: Config) -> None:
    """Run stages in the size of the configuration."""
    run_all([shrink(each) for each in runs] if config.size == "smoke" else runs)


def require_base_run(config: Config) -> None:
    """Raise InputError where the demo lacks what everything starts from."""
    for part in ("world", "pretrain", "sft", "sample", "annotate"):
        if not (config.base_run / part / "finished.json").exists():
            raise InputError(f"there is no finished {part}", config.base_run, "make it by `amenable demo`")


def labelling(config: Config) -> annotate.Config:
    """Return the stage in which gold ranks the demo's answers."""
    samples = config.base_run / "sample" / "samples.jsonl"
    return annotate.Config(data=samples, judge=config.gold, scoring=config.scoring)


def write_flipped(config: Config) -> int:
    """Write the training rankings with a share FLIPPED of them turned round. Returns their number."""
    source = config.labels / "train.jsonl"
    rankings = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
    wrong = set(shuffled(len(rankings), config.seed, 0)[: round(FLIPPED * len(rankings))])
    write_once(config.out / "flipped" / "train.jsonl", [source], len(rankings), partial(flipped, rankings, wrong))
    return len(rankings)


def flipped(rankings: Sequence[Mapping[str, Any]], wrong: set[int]) -> Iterator[dict[str, Any]]:
    """Yield rankings, those of the indices `wrong` from the last to the first."""
    for i, row in enumerate(rankings):
        last = max(row["ranking"]) + 1
        yield {**row, "ranking": [last - rank for rank in row["ranking"]]} if i in wrong else dict(row)


def bodies(config: Config) -> dict[str, Any]:
    """Return the pretraining of reward models of other sizes, as the demo's own base model's."""
    if config.quick:
        return {}
    base = demo.models(config.base_run)["pretrain"]
    return {f"body-{name}": replace(base, model=preset) for name, preset in BODIES.items()}


def reward_models(config: Config, count: int) -> dict[str, Any]:
    """Return the reward models: all labels on the body of the base model is the centre, the others vary one factor.

    count: of rankings to train on.
    """
    centre = replace(
        demo.alignment(config.base_run)["reward"],
        model=config.base_run / "pretrain",
        data=(config.labels / "train.jsonl",),
        validation=config.labels / "validation.jsonl",
        heldout_annotators=None,
    )
    models = {CENTRE: centre}
    if not config.quick:
        models |= {name: replace(centre, model=config.out / f"body-{name}") for name in BODIES}
    fewer = FEWER[:1] if config.quick else FEWER
    models |= {f"labels-{part}": replace(centre, max_prompts=max(1, count // part)) for part in fewer}
    models["flipped"] = replace(centre, data=(config.out / "flipped" / "train.jsonl",))
    return {f"reward-{name}": model for name, model in models.items()}


def policies(config: Config) -> dict[str, Any]:
    """Return the policies, and the answers that the best of n is chosen from."""
    base = config.base_run
    rewards = {name.removeprefix("reward-"): str(config.out / name) for name in reward_models(config, 1)}
    centre, ensemble = {"reward": (rewards[CENTRE],)}, {"reward": (str(config.out / "ensemble"),)}
    answers: dict[str, Any] = {"temperature": demo.TEMPERATURE, "max_new_tokens": demo.ANSWER}
    online = answers | {
        "model": base / "sft",
        "data": base / "world" / "prompts" / "ppo.jsonl",
        "validation": config.held_out,
        "optimizer": OptimizerConfig(learning_rate=2e-4, eps=1e-5),
        "kl_coef": 0.0,
        "adaptive_kl_target": 0.0,
        "max_steps": config.max_steps,
        "eval_prompts": config.prompts,
        "eval_steps": max(1, config.max_steps // 12),
        "num_traced_prompts": 0,
    }
    alone = online | {"prompts_per_step": BATCH, "critic_learning_rate": 4e-4}
    grouped = online | {"prompts_per_step": BATCH // GROUP, "num_generations": GROUP}
    runs: dict[str, Any] = {
        "answers": sample.Config(
            model=base / "sft",
            data=config.held_out,
            max_prompts=config.prompts,
            num_generations=config.best_of,
            sampling=SamplingOptions(**answers),
        ),
        **{f"ppo-{name}": ppo.Config(**alone, reward=(folder,)) for name, folder in rewards.items()},
        "ppo-priced": ppo.Config(**alone | {"kl_coef": PRICE} | centre),
        "ppo-ensemble": ppo.Config(**alone | ensemble),
        "rloo": rloo.Config(**grouped | centre),
        "rloo-ensemble": rloo.Config(**grouped | ensemble),
        "grpo": grpo.Config(**grouped | centre),
        "grpo-ensemble": grpo.Config(**grouped | ensemble),
    }
    for beta in BETAS:
        runs[f"dpo-{beta:g}"] = dpo.Config(
            model=base / "sft",
            data=(config.labels / "train.jsonl",),
            validation=config.labels / "validation.jsonl",
            pairs_per_prompt=4,
            beta=beta,
            max_new_tokens=demo.ANSWER,
        )
    runs["evaluate"] = evaluate.Config(
        models=(f"sft={base / 'sft'}", *(f"{name}={config.out / name}" for name in runs if name.startswith("dpo"))),
        data=config.held_out,
        max_prompts=config.prompts,
        reference="sft",
        **answers | centre,
    )
    return runs


def gold_of(config: Config) -> Gold:
    """Return the truth as a function of samples: the world's utility, or the reward `--gold`."""
    if config.gold:
        reward_model = load_reward(config.gold, start_runtime(DeviceOptions()), options=config.scoring)
        return partial(score_samples, reward_model)
    world = ClosedWorld.load(config.base_run / "world")

    def utility(samples: Sequence[Sample]) -> list[list[float] | None]:
        return [
            [world.gold(row.id, text, end).gold for text, end in zip(row.completions, row.ended)] for row in samples
        ]

    return utility


def score_answers(config: Config, name: str) -> Path:
    """Write gold and reward of the answers that the best of n is chosen from, once. Returns the file.

    name: of the reward model.
    """
    source, folder = config.out / "answers" / "samples.jsonl", config.out / name
    samples = [sample for _, sample in read_samples(source)]

    def rows() -> Iterator[dict[str, Any]]:
        reward_model = load_reward((str(folder),), start_runtime(DeviceOptions()))
        scores, golds = score_samples(reward_model, samples), gold_of(config)(samples)
        for row, rewards, truth in zip(samples, scores, golds):
            if rewards is not None and truth is not None:
                yield {"id": row.id, "reward": rewards, "gold": truth}

    read = [source, folder / "model.safetensors"]
    return write_once(config.out / "best-of-n" / f"{name}.jsonl", read, len(samples), rows)


def shrink(run: StageRun) -> StageRun:
    """Return the run at a fraction of its size."""
    brief: dict[str, Any] = {"max_new_tokens": 12, "eval_prompts": 4}
    online = brief | {"max_steps": 3, "prompts_per_step": 4, "eval_steps": 1}
    smaller: dict[str, dict[str, Any]] = {
        "pretrain": {"max_steps": 2, "tokens_per_step": 512, "warmup_steps": 1, "eval_steps": 2, "eval_tokens": 2000},
        "sample": {"max_prompts": 4, "num_generations": 4, "sampling": SamplingOptions(max_new_tokens=12)},
        "reward": {"prompts_per_step": 4, "warmup_steps": 1},
        "dpo": brief | {"batch_size": 16, "warmup_steps": 1},
        "evaluate": {"max_prompts": 4, "max_new_tokens": 12},
        **dict.fromkeys(("ppo", "rloo", "grpo"), online),
    }
    return StageRun(replace(run.config, **smaller.get(run.stage, {})))
