"""Align a real chat model to a taste of one's own, on a laptop.

    prompts -> sample -> resample -> resampled (sft) -> evaluate-resampled              two at a time, -> report
                         annotate -> reward -> rloo -> evaluate-rloo
                                             ppo | dpo, distill-context -> evaluate
               evaluate-base

The default taste is counted by a rule, so that no judge can be disputed: an answer that ends by itself and has 4 to 30
words. The model learns to stop, not to know more, and the report says so. All policies are adapters, trained within a
KL budget. Beside them stand the model as it was, the model with an instruction in its prompt, and the best of n of its
answers. Any reward can be the taste. Answers are drawn again by it and fine-tuned on. It labels samples, on which DPO
and a reward model are trained; RLOO and PPO learn from the taste and half the reward model's score. The taste alone is
0 for nearly all answers at first, and says of none how near it came; the reward model does, and alone would go on to
ever shorter answers.

Reads a chat model's folder and prompts (900 questions are in the package); writes the stages' run directories,
report.json and report.html.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from amenable.data import sources
from amenable.data.batches import shuffled
from amenable.data.types import Prompt, prompt_row
from amenable.errors import InputError
from amenable.models.lora import LoraOptions
from amenable.recipes.from_scratch import write_once
from amenable.recipes.pipeline import StageRun, run_all, stage_runs, with_trackers
from amenable.recipes.reports import taste_page
from amenable.rewards.options import RewardOptions, Scoring
from amenable.rewards.spec import Specs, load_reward, spec_list
from amenable.stages import annotate, distill_context, dpo, evaluate, ppo, resample, reward, rloo, sample, sft
from amenable.stages.sample import SamplingOptions
from amenable.text.tokenizer import Tokenizer
from amenable.train import loading, plan
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import Device, DeviceOptions, start_runtime
from amenable.train.trackers import TrackerName, require_installed

QUESTIONS = Path(__file__).parent / "questions.jsonl"
"""900 questions with reference answers"""
BRIEF = "ended:length:4-30"
"""the default taste: an answer that ends by itself and has 4 to 30 words"""
SIZES = {"test": 100, "validation": 48, "train": 160}
"""prompts of each split, and their order in the shuffled file"""
TEMPERATURE, LENGTH = 0.8, 64
"""of answers, but those that are trained on offline, which are sampled at 1: temperature, maximum length in tokens"""
TRAINING_LENGTH = 42
"""maximum length of answers that policies are trained on: 30 words are about 40 tokens"""
BEST_OF = 16


@dataclass(frozen=True)
class Config:
    """Align a chat model to a taste, compare the ways to do it, and report."""

    model: Path = Path("models/smollm2")
    """folder of a chat model; `amenable get smollm2` makes the default"""
    taste: Specs = (BRIEF,)
    """scores answers: a rule, FILE.py:FUNCTION, a folder of a reward model, judge:URL:MODEL or an http address; several
    are added, each SPEC or SPEC=WEIGHT; by default answers that end by themselves and have 4 to 30 words"""
    scoring: Scoring = field(default_factory=RewardOptions)
    instruction: str = "Answer in one short sentence."
    """asks for the same in the prompt, as the baseline to beat; "" leaves this baseline out"""
    data: Path | None = None
    """prompts: a file, or a folder of files, with a person's answers in the column `reference` if there are any; by
    default the 900 questions of the package"""
    out: Path = Path("runs/real")
    kl_budget: float = 5.0
    """nats an answer that a policy may be away from the model"""
    seed: int = 0
    track: tuple[TrackerName, ...] = ()
    """trackers of the stages that train: tensorboard, wandb, trackio"""
    seeds: int = 1
    """runs, each with a seed, prompts to train on and prompts to evaluate on of its own; each takes as long"""
    parallel: int = 2
    """stages at once; 1 takes less memory, and more time"""
    device: Device = field(default_factory=DeviceOptions)
    size: Literal["real", "smoke"] = "real"
    """smoke: a minute or two, to see that everything works; its policies learn next to nothing"""

    def __post_init__(self) -> None:
        plan.require_at_least(1, self, "seeds", "parallel")
        plan.require_at_least(0, self, "seed")
        plan.require_above_zero(self, "kl_budget")

    @property
    def roots(self) -> dict[int, Path]:
        """The folder of each seed's run."""
        if self.seeds == 1:
            return {self.seed: self.out}
        return {seed: self.out / f"seed-{seed}" for seed in range(self.seed, self.seed + self.seeds)}


def run(config: Config) -> Path:
    """Run every stage for every seed, write the report, and return the folder that holds them."""
    loading.require_model(config.model, "amenable get smollm2")
    require_chat_model(config.model)
    require_installed(config.track)
    load_reward(
        config.taste, start_runtime(config.device), options=config.scoring
    )  # InputError for one that cannot score
    data = config.data or QUESTIONS
    prompts = read_prompts(data)
    for seed, root in config.roots.items():
        write_prompts(root / "prompts", prompts, data, seed - config.seed)
    runs = [each for seed, root in config.roots.items() for each in stages(root, seed, config)]
    runs = with_trackers(runs, config.track)
    run_all(runs if config.size == "real" else [shrink(each) for each in runs], config.parallel)
    return taste_page.write(config.out, list(config.roots.values()), settings(config))


def require_chat_model(folder: Path) -> None:
    """Raise InputError for a model without a chat template: it continues texts, and answers nobody."""
    if Tokenizer.load(folder).chat_template is None:
        hint = "give a chat model, such as 'amenable get smollm2' fetches, or make it one: amenable sft"
        raise InputError("has no chat template: this model continues texts, and cannot chat", folder, hint)


def settings(config: Config) -> taste_page.Settings:
    """Return what the report says of the configuration."""
    taste = [str(spec) for spec in (config.taste if isinstance(config.taste, (list, tuple)) else [config.taste])]
    return taste_page.Settings(" ".join(taste), taste == [BRIEF], config.instruction, config.kl_budget)


def read_prompts(data: Path) -> list[Prompt]:
    """Read the prompts of a file. InputError for too few to train and evaluate on."""
    prompts = sources.read_prompts(data).rows
    least = 4 * len(SIZES)
    plan.forbid(len(prompts) < least, f"{data} has {len(prompts)} prompts", f"give {least} or more; a few hundred")
    return prompts


def write_prompts(
    folder: Path, prompts: Sequence[Prompt], source: Path, number: int, wanted: Mapping[str, int] = SIZES
) -> None:
    """Write the prompts of one run, once: train.jsonl, validation.jsonl and test.jsonl, no prompt in two of them. Runs
    of other numbers have other prompts in test.jsonl, as far as there are enough."""
    total = len(prompts)
    sizes = {name: min(size, total * size // sum(wanted.values())) for name, size in wanted.items()}
    order = shuffled(total, 0, 0)
    start = number * sizes["test"] % total
    rotated = [*order[start:], *order[:start]]
    for name, size in sizes.items():
        chosen, rotated = rotated[:size], rotated[size:]

        def rows(chosen: list[int] = chosen) -> Iterator[dict[str, Any]]:
            return (prompt_row(prompts[i]) for i in chosen)

        write_once(folder / f"{name}.jsonl", [source], size, rows)


def stages(root: Path, seed: int, config: Config) -> list[StageRun]:
    """Return every stage of one seed's run."""
    model, prompts, labels = config.model, root / "prompts", root / "annotate"
    taste = config.taste
    adapters = LoraOptions(rank=16)
    trained: dict[str, Any] = {"model": model, "lora": adapters, "kl_budget": config.kl_budget}
    online = trained | {
        "data": prompts / "train.jsonl",
        "validation": prompts / "validation.jsonl",
        "reward": (f"{root / 'reward'}=0.5", *spec_list(taste)),
        "scoring": config.scoring,
        "num_mini_batches": 2,
        "kl_coef": 0.3,
        "adaptive_kl_target": 0.0,
        "temperature": TEMPERATURE,
        "max_new_tokens": TRAINING_LENGTH,
        "missing_eos_penalty": 0.0,  # the reward alone decides
        "eval_steps": 4,
        "eval_prompts": SIZES["validation"],
        "num_traced_prompts": 1,
        "sample_steps": 8,
        "warmup_steps": 1,
    }
    offline = trained | {"batch_size": 8, "eval_steps": 3, "max_new_tokens": TRAINING_LENGTH, "warmup_steps": 2}
    offline |= {"kl_prompts": prompts / "validation.jsonl"}
    comparisons: dict[str, Any] = {"data": (labels / "train.jsonl",), "validation": labels / "validation.jsonl"}
    answered: dict[str, Any] = {
        "data": prompts / "test.jsonl",
        "reward": taste,
        "scoring": config.scoring,
        "reference": str(model),
        "temperature": TEMPERATURE,
        "max_new_tokens": LENGTH,
        "instruction": config.instruction,
    }
    untrained = {"base": str(model), "best of n": f"{model}@best-of-{BEST_OF}"}  # answered greedily too
    policies = {name: str(root / name) for name in ("dpo", "ppo")}
    distilled: dict[str, Any] = {}
    if config.instruction:
        policies |= {"prompted": f"{model}@instructed", "dpo prompted": f"{root / 'dpo'}@instructed"}
        policies["distilled"] = str(root / "distilled")
        distilled["distilled"] = distill_context.Config(
            **offline | {"batch_size": 16, "eval_steps": 10},
            data=(prompts / "train.jsonl",),
            validation=prompts / "validation.jsonl",
            context_text=config.instruction,
            temperature=TEMPERATURE,
            optimizer=OptimizerConfig(learning_rate=5e-4),
        )
    configs = {
        "sample": sample.Config(
            model=model,
            data=prompts / "train.jsonl",
            num_generations=6,
            prompts_per_step=40,
            sampling=SamplingOptions(temperature=1.0, max_new_tokens=TRAINING_LENGTH),
        ),
        "annotate": annotate.Config(data=root / "sample" / "samples.jsonl", judge=taste, scoring=config.scoring),
        "reward": reward.Config(model=model, **comparisons, lora=adapters, warmup_steps=2, attack_queries=0),
        "rloo": rloo.Config(
            **online,
            loss_on="token",
            max_steps=8,
            prompts_per_step=12,
            num_generations=8,
            optimizer=OptimizerConfig(learning_rate=5e-4, eps=1e-5),
        ),
        **(resampled(root, model, answered, taste, config.scoring) if can_score(taste) else {}),
        "dpo": dpo.Config(
            **offline,
            **comparisons,
            pairs="best-worst",
            epochs=3,
            optimizer=OptimizerConfig(learning_rate=2e-4),
        ),
        "ppo": ppo.Config(
            **online | {"eval_steps": 5},
            critic="shared",
            vf_coef=0.5,
            max_steps=5,
            prompts_per_step=16,
            num_generations=4,
            optimizer=OptimizerConfig(learning_rate=5e-4, eps=1e-5),
        ),
        **distilled,
        "evaluate-base": evaluate.Config(**answered, **named(untrained), best_of_prompts=16),
        "evaluate": evaluate.Config(**answered, **named(policies), greedy=False),
        "evaluate-rloo": evaluate.Config(
            **answered, **named({"rloo": str(root / "rloo")}), greedy=not can_score(taste)
        ),
    }
    on_device = {
        name: replace(each, device=config.device) if hasattr(each, "device") else each for name, each in configs.items()
    }
    return stage_runs(root, seed, on_device)


def can_score(taste: Specs) -> bool:
    """Return False for a taste of which a part is a judge: it compares answers, and scores none."""
    return not any(str(spec).startswith("judge:") for spec in spec_list(taste))


def resampled(
    root: Path, model: Path, answered: dict[str, Any], taste: Specs, scoring: RewardOptions
) -> dict[str, Any]:
    """Return the stages that draw answers again by the taste, and learn them. answered: options of an evaluation."""
    return {
        "resample": resample.Config(
            model=model,
            data=root / "sample" / "samples.jsonl",
            reward=taste,
            scoring=scoring,
            kl_coef=0.09,
            num_draws=6,
        ),
        "resampled": sft.Config(
            model=model,
            data=(root / "resample" / "demonstrations.jsonl",),
            lora=LoraOptions(rank=16),
            epochs=1,
            batch_size=16,
            dropout=0.0,
            optimizer=OptimizerConfig(learning_rate=2e-4),
        ),
        "evaluate-resampled": evaluate.Config(**answered, **named({"resampled": str(root / "resampled")})),
    }


def named(entries: Mapping[str, str]) -> dict[str, Any]:
    """Return the option of an evaluation that names models."""
    return {"models": tuple(f"{name}={entry}" for name, entry in entries.items())}


def shrink(run: StageRun) -> StageRun:
    """Return the run at a fraction of its size."""
    smaller: dict[str, dict[str, Any]] = {
        "sample": {"num_generations": 4, "sampling": SamplingOptions(temperature=1.0, max_new_tokens=12)},
        "dpo": {"epochs": 1, "max_new_tokens": 12, "eval_prompts": 4},
        "distill_context": {"max_new_tokens": 12, "eval_prompts": 4},
        "ppo": {"max_steps": 2, "prompts_per_step": 4, "max_new_tokens": 12, "eval_steps": 1, "eval_prompts": 4},
        "rloo": {"max_steps": 2, "prompts_per_step": 4, "num_generations": 2, "max_new_tokens": 12}
        | {"eval_steps": 1, "eval_prompts": 4},
        "evaluate": {"max_prompts": 8, "max_new_tokens": 12, "best_of_prompts": 2},
    }
    changes = smaller.get(run.stage, {})
    if run.stage == "ppo":
        changes = {**changes, "num_mini_batches": 2}
    return StageRun(replace(run.config, **changes))
