"""Draw demonstrations from a model's answers as the best policy within a KL would write them.

    P(y) ~ w(y) exp(r(y) / kl_coef)        over the answers y to a prompt that its samples give

That policy, pi_ref exp(r / beta) / Z, is where PPO and DPO go (Rafailov et al., 2023, equation 4); its samples are the
reference's own, drawn again by their rewards (Liu et al., 2024, RSO). `amenable sft` on them needs no reward, critic or
reference. A reward that asks for an end is rare among samples, so that an answer counts at each of its sentences' ends
too, as one that ended there, with the probability that the model ends there as its weight w: one sample gives several
answers, and those are preferred that the model would rather have ended. Answers as sampled have weight 1.

Reads a model, its samples and a reward; writes demonstrations.jsonl, and says what reward is to be had at what KL.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from amenable.data.samples import Sample, demonstration_rows, read_samples
from amenable.data.types import Conversation, message_fields
from amenable.errors import InputError
from amenable.files import write_text
from amenable.functional.resampling import optimum, optimum_probabilities
from amenable.models.decoder import Decoder
from amenable.rewards.options import RewardOptions, Scoring
from amenable.rewards.samples import score_samples
from amenable.rewards.spec import Specs, load_reward, reward_inputs
from amenable.seeds import seeded_generator
from amenable.text.sentences import sentence_ends
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading, plan
from amenable.train.examples import completion_rows
from amenable.train.failed_rewards import scoring
from amenable.train.forward import Row
from amenable.train.log import Progress, as_lines, silent
from amenable.train.run import Run
from amenable.train.run_options import RunOptions
from amenable.train.runtime import Runtime, start_runtime
from amenable.train.stage_report import StageReport

REPORT = StageReport(
    "Resampling",
    "Answers are drawn again by their rewards, as the best policy within a KL would write them.",
    facts=(("demonstrations", "demonstrations"), ("reward of that policy", "reward"), ("its KL, nats", "kl")),
)


@dataclass(frozen=True)
class Config(RunOptions):
    """Draw demonstrations from a model's answers by their rewards, for `sft`."""

    model: Path = Path("runs/sft")
    """model that wrote the answers"""
    data: Path = Path("runs/sample/samples.jsonl")
    """prompts with their answers, as `sample` writes them"""
    reward: Specs = ()
    """what answers are drawn by: a reward model's folder, FOLDER:LABEL, FILE.py:FUNCTION, a rule or an http address;
    several are added, each SPEC or SPEC=WEIGHT"""
    scoring: Scoring = field(default_factory=RewardOptions)
    out: Path = Path("runs/resample")
    kl_coef: float = 0.15
    """reward that a nat of KL costs, beta: the lower, the more reward and the more KL"""
    num_draws: int = 8
    """draws for each prompt; those that did not end are left out"""
    sentence_ends: bool = True
    """count answers that end with any of their sentences too"""
    temperature: float = 1.0
    """at which the answers were sampled"""
    max_tokens_per_pass: int = 8192

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(1, self, "num_draws", "max_tokens_per_pass")
        plan.require_above_zero(self, "kl_coef", "temperature")


def run(config: Config) -> Path:
    """Draw demonstrations and return the run directory."""
    plan.forbid(not config.reward, "no reward", "give --reward")
    inputs: dict[str, Path | None] = {"model": config.model, "data": config.data}
    run = Run(config.out, "resample", config, inputs | reward_inputs(config.reward, rubric=config.scoring.judge_rubric))
    if run.skip_finished():
        return run.out
    runtime = start_runtime(config.device)
    model, tokenizer = loading.load_policy(config.model, runtime)
    reward = load_reward(config.reward, runtime, options=config.scoring)
    plan.forbid(reward.judge is not None, "a judge compares answers, and scores none", "give a reward that scores")
    samples = [row for _, row in read_samples(config.data, config.columns)]
    plan.forbid(not samples, f"{config.data} has no row", "make it with 'amenable sample'")
    reward.require_columns([{"kind": row.kind, **row.meta} for row in samples], config.data)
    context = min(model.config.context_length, reward.context_length)
    pools = [pool_of(row, config.sentence_ends, partial(fits, tokenizer, context, row.prompt)) for row in samples]
    run.begin(runtime=runtime)
    answers = sum(len(pool.texts) for pool in pools)
    run.log.info(f"{len(samples)} prompts, {answers} answers; {reward.name}; {runtime.describe()}")
    rows = [replace(row, completions=pool.texts, ended=pool.ended) for row, pool in zip(samples, pools)]
    with scoring(run):
        scores = score_samples(reward, rows, run.log.bar("rewards"))
    weights = log_weights(model, tokenizer, rows, pools, runtime, config, run.log.bar("ends"))
    scored = [
        (row, torch.tensor(score), weight, len(sample.completions))
        for sample, row, score, weight in zip(samples, rows, scores, weights)
        if score is not None
    ]
    plan.forbid(not scored, "no prompt has answers that fit into the reward's context", "sample shorter answers")
    facts: dict[str, float] = {}
    for coef in (config.kl_coef * 2, config.kl_coef / 2, config.kl_coef):
        reached = [optimum(score, weight, coef, number) for _, score, weight, number in scored]
        facts = dict(zip(("reward", "kl"), map(fmean, zip(*reached))))
        figures = f"reward {facts['reward']:.3f} at a KL of {facts['kl']:.2f} nats"
        run.log.info(f"the best policy where a nat costs {coef:.3g} has {figures}")
    drawn = [draw(row, score, weight, config) for row, score, weight, _ in scored]
    demonstrations = [demonstration for row in drawn for demonstration in demonstration_rows(row)]
    if not demonstrations:
        raise InputError("no answer that ended was drawn", config.data, "sample more or longer answers")
    write_text(run.out / "demonstrations.jsonl", as_lines(demonstrations))
    run.log.info(f"{len(demonstrations):,} answers: amenable sft --data {run.out}/demonstrations.jsonl")
    return run.finish(demonstrations=len(demonstrations), prompts=len(scored), **facts)


@dataclass(frozen=True)
class Pool:
    """Answers that the samples of a prompt give, each once."""

    texts: tuple[str, ...]
    ended: tuple[bool, ...]
    counts: tuple[int, ...]
    """samples that give the answer"""
    weighed: tuple[bool, ...]
    """True for an answer that is weighed by the probability that the model ends there; False for one as sampled"""


def pool_of(sample: Sample, with_ends: bool, can_end: Callable[[str], bool] = lambda _: True) -> Pool:
    """Return the answers as sampled, and with `with_ends` each answer up to the end of each of its sentences, of an
    unfinished one those that `can_end`."""
    counts = Counter[tuple[str, bool, bool]]()
    for text, ended in zip(sample.completions, sample.ended):
        ends = [end for end in sentence_ends(text) if ended or can_end(text[:end])] if with_ends else []
        counts.update((text[:end], True, True) for end in ends)
        if not (ended and len(text) in ends):
            counts[text, ended, False] += 1
    texts, flags, weighed = zip(*counts)
    return Pool(texts, flags, tuple(counts.values()), weighed)


def fits(tokenizer: Tokenizer, context: int, prompt: Conversation, text: str) -> bool:
    """Return True if prompt, answer and the token that ends it are within a context, in tokens."""
    ((ids, _),) = completion_rows(tokenizer, prompt, [text], [True])
    return len(ids) <= context


def log_weights(
    model: Decoder,
    tokenizer: Tokenizer,
    rows: Sequence[Sample],
    pools: Sequence[Pool],
    runtime: Runtime,
    config: Config,
    progress: Progress = silent,
) -> list[Tensor]:
    """Return log w of each row's answers, [N] a row: of the number of samples that give an answer, times the
    probability that the model ends after it where it is weighed."""
    ends: list[Row] = []
    for row, pool in zip(rows, pools):
        texts = [text for text, weighed in zip(pool.texts, pool.weighed) if weighed]
        for ids, _ in completion_rows(tokenizer, row.prompt, texts, [True] * len(texts)):
            ends.append((ids, [False] * (len(ids) - 1) + [True]))
    limits = (runtime, config.max_tokens_per_pass, config.temperature, progress)
    logps = (float(logp) for logp in forward.compute_logprobs(model, ends, *limits))
    weights = [[math.log(count) for count in pool.counts] for pool in pools]
    return [
        torch.tensor([weight + (next(logps) if weighed else 0.0) for weight, weighed in zip(each, pool.weighed)])
        for each, pool in zip(weights, pools)
    ]


def draw(row: Sample, scores: Tensor, weights: Tensor, config: Config) -> dict[str, Any]:
    """Return the row of samples with the answers that were drawn, in their order."""
    probabilities = optimum_probabilities(scores, weights, config.kl_coef)
    generator = seeded_generator(config.seed, "resample", row.id)
    drawn = torch.multinomial(probabilities, config.num_draws, replacement=True, generator=generator)
    chosen = sorted(drawn.tolist())
    return {
        **row.meta,
        "id": row.id,
        "kind": row.kind,
        "prompt": [message_fields(message) for message in row.prompt],
        "completions": [row.completions[i] for i in chosen],
        "ended": [row.ended[i] for i in chosen],
        "rewards": [float(scores[i]) for i in chosen],
    }
