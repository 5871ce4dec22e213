"""Sample K completions of every prompt of a file.

Annotators compare them: Ouyang et al. (2022, section 3.5) showed K = 4 to 9 completions a prompt. Each completion has
its own random numbers, so that it does not depend on what else is sampled with it.

Reads a model and prompts; writes samples.jsonl: prompt, id, completions, ended, model, and the prompts' other columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from amenable.data.types import Prompt, message_fields
from amenable.generation.engine import Completion, generate
from amenable.generation.sampling import Sampling
from amenable.seeds import derive_seed
from amenable.text.chat import decode_completion
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, loading, plan
from amenable.train.defaults import FROM_MODEL, FromModel, traits
from amenable.train.examples import fitting_prompts
from amenable.train.run import Run
from amenable.train.run_options import RunOptions
from amenable.train.runtime import start_runtime
from amenable.train.stage_report import StageReport

REPORT = StageReport("Sampling", "Several completions of every prompt are sampled.", facts=(("prompts", "prompts"),))


@dataclass(frozen=True)
class SamplingOptions(Sampling):
    """Sampling options; temperature and length follow from the model where they are not given."""

    temperature: FromModel[float] = FROM_MODEL
    """divides the logits; 0 takes the most probable token; by default generation_config.json's, or 0.7"""
    max_new_tokens: FromModel[int] = FROM_MODEL
    """maximum length of a completion, in tokens; by default a quarter of the context, at most 256"""

    def __post_init__(self) -> None:
        Sampling(**{name: value for name, value in vars(self).items() if value is not FROM_MODEL})


@dataclass(frozen=True)
class Config(RunOptions):
    """Sample K completions of every prompt."""

    model: Path = Path("runs/sft")
    data: Path = Path("runs/world/prompts/reward.jsonl")
    """prompts: a file, or a folder of files"""
    out: Path = Path("runs/sample")
    num_generations: int = 6
    """K, the completions of each prompt"""
    max_prompts: int = 0
    """complete the first prompts only, at most this many; 0 takes all"""
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    prompts_per_step: int = 100
    """prompts between two saves"""
    max_batch_size: int = 128
    """completions decoded at once"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(1, self, "num_generations", "prompts_per_step", "max_batch_size")
        plan.require_at_least(0, self, "max_prompts")


def run(config: Config) -> Path:
    """Sample and return the run directory."""
    config, by_default = defaults.sample(config, traits(config.model))
    run = Run(config.out, "sample", config, {"model": config.model, "data": config.data})
    if run.skip_finished():
        return run.out
    runtime = start_runtime(config.device)
    policy, tokenizer = loading.load_policy(config.model, runtime)
    decoder = runtime.to_inference(policy)
    room = decoder.config.context_length - config.sampling.max_new_tokens
    prompts, ids = fitting_prompts(
        config.data, tokenizer, room, config.max_prompts, run.rejected, "sample", columns=config.columns
    )
    run.begin(runtime=runtime)
    total = -(-len(prompts) // config.prompts_per_step)
    run.log.info(f"{len(prompts)} prompts x {config.num_generations} completions; {runtime.describe()}")
    run.log.info(by_default)

    for step in run.steps(total, {}, save_steps=1):
        part = slice((step - 1) * config.prompts_per_step, step * config.prompts_per_step)
        seeds = [derive_seed(config.seed, "sample", prompt.id) for prompt in prompts[part]]
        with runtime.autocast():
            groups = generate(
                decoder,
                ids[part],
                config.sampling,
                eos_id=tokenizer.stop_ids,
                seeds=seeds,
                samples=config.num_generations,
                max_batch_size=config.max_batch_size,
                progress=run.log.bar("answers"),
            )
        run.log.samples(
            step, [row_of(prompt, group, tokenizer, config) for prompt, group in zip(prompts[part], groups)]
        )
        completions = [completion for group in groups for completion in group]
        tokens = sum(len(completion.ids) for completion in completions)
        ended = sum(completion.ended for completion in completions) / len(completions)
        run.record(step, tokens, ("ended",), ended=ended, length=tokens / len(completions))

    return run.finish(prompts=len(prompts))


def row_of(prompt: Prompt, group: list[Completion], tokenizer: Tokenizer, config: Config) -> dict:
    """Return the row of samples.jsonl of a prompt and its completions, with the further columns of the prompt's row."""
    return {
        **prompt.meta,
        "id": prompt.id,
        "prompt": [message_fields(message) for message in prompt.messages],
        "completions": [decode_completion(tokenizer, completion.ids) for completion in group],
        "ended": [completion.ended for completion in group],
        "model": str(config.model),
    }
