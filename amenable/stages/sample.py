"""Sample K completions of every prompt of a file.

Annotators compare them: Ouyang et al. (2022, section 3.5) showed K = 4 to 9 completions a prompt. Each completion has
its own random numbers, so that it does not depend on what else is sampled with it. With --best-of N each is the one of
highest reward among N. What --prefix and --shots put before a prompt is not in its row: others can learn without it.

Reads a model and prompts; writes samples.jsonl: prompt, id, completions, ended, model, and the prompts' other columns.

A model behind an OpenAI-compatible API, `--model http://127.0.0.1:8018/v1:MODEL`, answers as well: a teacher, whose
completions that ended are in demonstrations.jsonl too, to be fine-tuned on (Kim and Rush, 2016; Taori et al., 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import fmean

from amenable.data.mixture import Sources, data_inputs, join_paths, parse_sources
from amenable.data.samples import demonstration_rows, sample_row
from amenable.data.types import Prompt
from amenable.evaluation.answering import LoadedModel
from amenable.evaluation.entries import ModelEntry
from amenable.evaluation.prompting import Prompting, PromptingField, PromptingOptions
from amenable.evaluation.vllm_answers import answers_by, close
from amenable.files import write_text
from amenable.generation.engine import Completion
from amenable.generation.remote_model import RemoteModel, Reply, api_options, parse_address
from amenable.generation.sampler_options import SamplerOptions
from amenable.generation.sampling import Sampling
from amenable.http_client import TIMEOUT
from amenable.rewards.best_of import BestOfOptions, load_best_of
from amenable.rewards.spec import reward_inputs
from amenable.seeds import derive_seed
from amenable.text.chat import decode_completion
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, plan
from amenable.train.defaults import FROM_MODEL, FromModel, sampling_traits
from amenable.train.examples import fitting_prompts, read_prompts
from amenable.train.failed_rewards import scoring
from amenable.train.log import as_lines
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
class Config(BestOfOptions, SamplerOptions, RunOptions):
    """Sample K completions of every prompt."""

    model: str | Path = Path("runs/sft")
    """folder of a model, or URL:MODEL of an OpenAI-compatible API; OPENAI_API_KEY is its key"""
    data: Sources = (Path("runs/world/prompts/reward.jsonl"),)
    """prompts: files, or folders of files"""
    out: Path = Path("runs/sample")
    num_generations: int = 6
    """K, the completions of each prompt"""
    max_prompts: int = 0
    """complete the first prompts of each source only, at most this many; 0 takes all"""
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    prompting: PromptingField = field(default_factory=PromptingOptions)
    prompts_per_step: int = 100
    """prompts between two saves"""
    max_batch_size: int = 128
    """completions decoded at once"""
    api_workers: int = 8
    """requests to an API at once"""
    api_timeout: float = TIMEOUT
    """seconds without a byte after which a request to an API has failed, and is tried again"""

    def __post_init__(self) -> None:
        BestOfOptions.__post_init__(self)
        RunOptions.__post_init__(self)
        remote = "://" in str(self.model) and (self.best_of > 1 or self.sampler == "vllm")
        weighted = any(source.weight is not None for source in parse_sources(self.data))
        plan.forbid(weighted, "data has weights, and sample completes every prompt once", "name the sources alone")
        plan.forbid(remote, "best_of or sampler with a model behind an API", "name a folder, or leave it out")
        plan.require_at_least(1, self, "num_generations", "prompts_per_step", "max_batch_size", "api_workers")
        plan.require_at_least(0, self, "max_prompts")
        plan.require_above_zero(self, "api_timeout")


def run(config: Config) -> Path:
    """Sample and return the run directory."""
    if "://" in str(config.model):
        return run_remotely(config)
    folder = Path(config.model)
    config, by_default = defaults.sample(config, sampling_traits(folder, "amenable sft"))
    inputs = reward_inputs(config.reward, rubric=config.scoring.judge_rubric) | config.prompting.inputs
    run = Run(config.out, "sample", config, {"model": folder, **data_inputs(config.data), **inputs})
    if run.skip_finished():
        return run.out
    runtime = start_runtime(config.device)
    vllm = answers_by(config, [folder], run.out, runtime, rows=config.max_batch_size)
    model = LoadedModel.load(ModelEntry("model", folder), runtime, vllm)
    best_of, context, tokenizer = load_best_of(config, runtime), model.decoder.config.context_length, model.tokenizer
    room = min(context, best_of.reward.context_length if best_of else context) - config.sampling.max_new_tokens
    prompting = Prompting.read(config.prompting, config.seed, run.rejected)
    limits = (config.max_prompts, run.rejected, "sample", True, config.columns)
    prompts, ids = fitting_prompts(config.data, tokenizer, room, *limits, prompting=prompting.apply)
    prompting.require_no_leak({"data": prompts})
    if best_of is not None:
        best_of.reward.require_columns([prompt.meta for prompt in prompts], join_paths(config.data))
    run.begin(runtime=runtime)
    chosen = f", each the best of {config.best_of} by {best_of.reward.name}" if best_of is not None else ""
    run.log.info(f"{len(prompts)} prompts x {config.num_generations} completions{chosen}; {runtime.describe()}")
    run.log.info(by_default)

    for step in run.steps(-(-len(prompts) // config.prompts_per_step), {}, save_steps=1):
        part = slice((step - 1) * config.prompts_per_step, step * config.prompts_per_step)
        groups = model.complete(
            ids[part],
            config.sampling,
            seeds=[derive_seed(config.seed, "sample", prompt.id) for prompt in prompts[part]],
            samples=config.num_generations * config.best_of,
            max_batch_size=config.max_batch_size,
            progress=run.log.bar("answers"),
        )
        rewards: list[list[float]] = []
        if best_of is not None:
            with scoring(run):
                groups, rewards = best_of.choose_groups(prompts[part], groups, tokenizer)
        replies = [[reply_of(completion, tokenizer) for completion in group] for group in groups]
        record(run, step, prompts[part], replies, config, rewards)
    close(vllm)
    return run.finish(prompts=len(prompts))


def run_remotely(config: Config) -> Path:
    """Sample from a model behind an API, and return the run directory."""
    url, model = parse_address(str(config.model))
    inputs = {**data_inputs(config.data), **config.prompting.inputs}
    run = Run(config.out, "sample", config, inputs, addresses={"model": f"{url}:{model}"})
    if run.skip_finished():
        return run.out
    teacher = RemoteModel(url, model, api_options(config.sampling), config.api_workers, config.api_timeout)
    prompting = Prompting.read(config.prompting, config.seed, run.rejected)
    prompts = read_prompts(config.data, config.max_prompts, run.rejected, config.columns)
    prompting.require_no_leak({"data": prompts})
    tools = any(message.tools for prompt in prompts for message in prompt.messages)
    plan.forbid(tools, "prompts have tools, which are not sent to an API", "leave the column out")
    teacher.require_model()
    run.begin()
    total, count = -(-len(prompts) // config.prompts_per_step), config.num_generations
    run.log.info(f"{len(prompts)} prompts x {count} completions of {teacher.name}, kept in {teacher.cache_file}")
    for step in run.steps(total, {}, save_steps=1):
        part = prompts[(step - 1) * config.prompts_per_step : step * config.prompts_per_step]
        repeated = [(prompt, i) for prompt in part for i in range(count)]
        seeds = [derive_seed(config.seed, "sample", prompt.id, i) for prompt, i in repeated]
        replies = teacher.complete([prompting.apply(prompt.messages) for prompt, _ in repeated], seeds)
        record(run, step, part, [replies[i : i + count] for i in range(0, len(replies), count)], config)
    rows = [demonstration for row in run.log.read("samples") for demonstration in demonstration_rows(row)]
    write_text(run.out / "demonstrations.jsonl", as_lines(rows))
    summary = f"{len(rows):,} completions that ended: amenable sft --data {run.out}/demonstrations.jsonl"
    run.log.info(f"{teacher.requests:,} requests; {summary}")
    return run.finish(prompts=len(prompts), demonstrations=len(rows))


def reply_of(completion: Completion, tokenizer: Tokenizer) -> Reply:
    """Return a completion as text."""
    return Reply(decode_completion(tokenizer, completion.ids), completion.ended, len(completion.ids))


def record(
    run: Run,
    step: int,
    prompts: Sequence[Prompt],
    groups: Sequence[Sequence[Reply]],
    config: Config,
    rewards: Sequence[list[float]] = (),
) -> None:
    """Write the rows of samples.jsonl, with the further columns of the prompts' rows and the completions' rewards, if
    any, and the step's metrics."""
    rows = [
        sample_row(prompt, [reply.text for reply in group], [reply.ended for reply in group], str(config.model))
        for prompt, group in zip(prompts, groups, strict=True)
    ]
    run.log.samples(step, [row | {"rewards": each} for row, each in zip(rows, rewards)] if rewards else rows)
    mean = {"reward": fmean(chain.from_iterable(rewards))} if rewards else {}
    replies = list(chain.from_iterable(groups))
    tokens, ended = sum(reply.tokens for reply in replies), sum(reply.ended for reply in replies)
    run.record(step, tokens, ("ended", *mean), ended=ended / len(replies), length=tokens / len(replies), **mean)
