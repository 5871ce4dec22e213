"""InstructGPT in miniature: a closed world, every stage, and a report, in minutes on two cores.

    world -> tokenizer -> pretrain -> sft -> sample -> annotate -> reward -> ppo, dpo -> evaluate -> report

Each stage is called as a user would call it; its options lie in <out>/plan. Stopped and started again, it goes on where
it stopped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from amenable.errors import InputError
from amenable.generation.sampling import Sampling
from amenable.recipes import report
from amenable.recipes.together import Call, run_all
from amenable.stages import annotate, dpo, evaluate, ppo, pretrain, reward, sample, sft, tokenizer, world
from amenable.train.optimizer import OptimizerConfig


@dataclass(frozen=True)
class Config:
    """Run the whole method in a small closed world and report on it."""

    out: Path = Path("runs/demo")
    seed: int = 0
    size: Literal["demo", "smoke"] = "demo"
    """smoke: seconds instead of minutes, to see that everything works; its models learn next to nothing"""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}", how="it must be 0 or more")


def run(config: Config) -> Path:
    """Run every stage and return the folder that holds them."""
    groups = plan(config) if config.size == "demo" else shrink(plan(config))
    run_all(groups, config.out / "plan")
    return report.run(report.Config(run=config.out))


def plan(config: Config) -> list[list[Call]]:
    """The stages in order, those of one group side by side."""
    root, seed = config.out, config.seed
    at = {
        name: root / name
        for name in ("world", "tokenizer", "pretrain", "sft", "sample", "annotate", "reward", "ppo", "dpo")
    }
    demonstrations = at["world"] / "demonstrations"
    prompts = at["world"] / "prompts"
    models = tuple(
        f"{name}={at[folder]}"
        for name, folder in (("base", "pretrain"), ("sft", "sft"), ("ppo", "ppo"), ("dpo", "dpo"))
    )
    return [
        [Call("world", world.Config(out=at["world"], seed=seed))],
        [
            Call(
                "tokenizer",
                tokenizer.Config(
                    data=at["world"] / "text" / "train.jsonl",
                    demonstrations=demonstrations / "train.jsonl",
                    out=at["tokenizer"],
                ),
            )
        ],
        [
            Call(
                "pretrain",
                pretrain.Config(
                    data=at["world"] / "text" / "train.jsonl",
                    validation=at["world"] / "text" / "validation.jsonl",
                    tokenizer=at["tokenizer"],
                    out=at["pretrain"],
                    seed=seed,
                ),
            )
        ],
        [
            Call(
                "sft",
                sft.Config(
                    model=at["pretrain"],
                    data=demonstrations / "train.jsonl",
                    validation=demonstrations / "validation.jsonl",
                    out=at["sft"],
                    seed=seed,
                ),
            )
        ],
        [
            Call(
                "sample",
                sample.Config(model=at["sft"], data=prompts / "reward.jsonl", out=at["sample"], seed=seed),
            )
        ],
        [
            Call(
                "annotate",
                annotate.Config(data=at["sample"] / "samples.jsonl", world=at["world"], out=at["annotate"], seed=seed),
            )
        ],
        [
            Call(
                "reward",
                reward.Config(
                    model=at["sft"],
                    data=at["annotate"] / "train.jsonl",
                    validation=at["annotate"] / "validation.jsonl",
                    heldout=at["annotate"] / "heldout.jsonl",
                    demonstrations=demonstrations / "train.jsonl",
                    out=at["reward"],
                    seed=seed,
                ),
            )
        ],
        [
            Call(
                "ppo",
                ppo.Config(
                    model=at["sft"],
                    reward_model=at["reward"],
                    data=prompts / "ppo.jsonl",
                    validation=prompts / "validation.jsonl",
                    out=at["ppo"],
                    seed=seed,
                ),
            ),
            Call(
                "dpo",
                dpo.Config(
                    model=at["sft"],
                    data=at["annotate"] / "train.jsonl",
                    validation=at["annotate"] / "validation.jsonl",
                    out=at["dpo"],
                    seed=seed,
                ),
            ),
        ],
        [
            Call(
                "evaluate",
                evaluate.Config(
                    models=models,
                    data=prompts / "test.jsonl",
                    world=at["world"],
                    reward_model=at["reward"],
                    text=at["world"] / "text" / "validation.jsonl",
                    out=root / "evaluate",
                    seed=seed,
                ),
            )
        ],
    ]


def shrink(groups: list[list[Call]]) -> list[list[Call]]:
    """The same plan with everything as small as it goes."""
    brief = Sampling(max_new_tokens=24)
    quick = OptimizerConfig(learning_rate=1e-3)
    smaller: dict[str, dict[str, Any]] = {
        "pretrain": {"max_steps": 6, "tokens_per_step": 512, "warmup_steps": 1, "eval_steps": 6, "eval_tokens": 2000},
        "sft": {"epochs": 1, "batch_size": 64, "warmup_steps": 1, "optimizer": quick},
        "sample": {"limit": 16, "num_generations": 3, "sampling": brief},
        "reward": {"prompts_per_step": 4, "warmup_steps": 1},
        "ppo": {"max_steps": 2, "prompts_per_step": 8, "max_new_tokens": 16, "warmup_steps": 1, "validation": None},
        "dpo": {"batch_size": 16, "warmup_steps": 1},
        "evaluate": {"limit": 12, "max_new_tokens": 16, "text_tokens": 2000},
    }
    return [
        [Call(call.stage, replace(call.config, **smaller.get(call.stage, {}))) for call in group] for group in groups
    ]
