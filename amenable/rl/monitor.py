"""Evaluation during online training: answers to held-out prompts, traces of single tokens, and the score of a reward
that is not trained on.

Everything is sampled with the same random numbers every time, and leaves the training as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from amenable.data.mixture import join_paths
from amenable.data.record import no_column
from amenable.errors import InputError
from amenable.rewards.on_rollout import total_score
from amenable.rewards.spec import Reward, load_reward, reads_column
from amenable.rl import experience as experiences
from amenable.rl import token_trace
from amenable.rl.algorithm import Algorithm
from amenable.rl.experience import Experience, MakeExperience, TokenizedPrompt
from amenable.rl.models import Models, base_of
from amenable.rl.options import OnlineOptions
from amenable.text.tokenizer import Tokenizer
from amenable.train.examples import RejectedRows, fitting_prompts
from amenable.train.failed_rewards import PendingStep
from amenable.train.run import Run


@dataclass(frozen=True)
class EvalSchedule:
    """Steps at which samples and traces are written, and held-out prompts answered."""

    sample_steps: int
    eval_steps: int
    last: int

    def samples(self, step: int) -> bool:
        """Return True at steps whose samples and traces are written."""
        return step % self.sample_steps == 0 or step in (1, self.last)

    def evaluates(self, step: int) -> bool:
        """Return True at steps after which held-out prompts are answered."""
        return step % self.eval_steps == 0 or step == self.last


@dataclass
class Monitor:
    """One run's monitor, called before and after each step's updates: it returns metrics, and adds rows to a step's."""

    algorithm: Algorithm
    models: Models
    make_experience: MakeExperience
    pending: PendingStep
    schedule: EvalSchedule
    traced: list[TokenizedPrompt]
    """prompts whose answers are traced token by token"""
    held_out: list[TokenizedPrompt]
    eval_reward: Reward | None
    """a reward that is not trained on"""
    settings: token_trace.Settings
    trace: token_trace.Trace | None = None

    def before(self, step: int, experience: Experience, kl_coef: float) -> dict[str, float]:
        """Return metrics of a step's experience, before its updates, and add rows of it. Sample traced answers, and
        before the first step answers of step 0."""
        if step == 1 and self.held_out:
            self.answer(0)
        self.trace = None
        if self.schedule.samples(step) and self.traced:
            names = [prompt.prompt.id for prompt in self.traced]
            traced = self.make_experience(self.traced, ("watched",), self.algorithm.group)
            self.trace = token_trace.observe(self.algorithm, self.models, names, traced, kl_coef, self.settings)
        if self.schedule.samples(step):
            self.pending.rows.append(("samples", step, experiences.sample_rows(experience, self.decode)))
        return heldout_reward_metrics(self.eval_reward, experience, self.models.tokenizer)

    def after(self, step: int) -> None:
        """Add the rows of traced answers once a step's updates are done."""
        if self.trace is not None:
            self.pending.rows.append(("traces", step, token_trace.rows_of(self.trace, self.models)))

    def evaluate(self, step: int) -> dict[str, float]:
        """Return the metrics of answers to held-out prompts after a step's updates; {} in steps without evaluation."""
        return self.answer(step) if self.held_out and self.schedule.evaluates(step) else {}

    def answer(self, step: int) -> dict[str, float]:
        """Answer the held-out prompts: add rows of answers.jsonl, and return their mean score and KL."""
        metrics, rows = evaluate(self.make_experience, self.held_out, self.decode)
        self.pending.rows.append(("answers", step, rows))
        return metrics

    def decode(self, ids: list[int]) -> str:
        return self.models.tokenizer.decode(ids)


def make_monitor(
    prompts: Sequence[TokenizedPrompt],
    make_experience: MakeExperience,
    options: OnlineOptions,
    algorithm: Algorithm,
    models: Models,
    run: Run,
    pending: PendingStep,
    eval_reward: Reward | None = None,
) -> Monitor:
    """Return the monitor that a run's options describe, which adds rows to `pending`. Nothing is sampled yet."""
    room = models.context_length - options.max_new_tokens
    path, count, columns = options.validation, options.eval_prompts, options.columns
    reads = reads_column(models.reward)
    held_out = held_out_prompts(path, models.tokenizer, room, count, run.rejected, columns, reads)
    if (options.keep_weights == "score" or options.kl_budget) and not held_out:
        option = "--kl-budget" if options.kl_budget else "--keep-weights score"
        raise InputError(f"{option} has nothing to answer", options.validation, "give shorter prompts")
    if eval_reward is not None:
        eval_reward.require_columns([each.prompt.meta for each in prompts], join_paths(options.data))
    if held_out:
        models.reward.require_columns([each.prompt.meta for each in held_out], options.validation)
    return Monitor(
        algorithm=algorithm,
        models=models,
        make_experience=make_experience,
        pending=pending,
        schedule=EvalSchedule(options.sample_steps, options.eval_steps, options.max_steps),
        traced=token_trace.evenly_spaced(prompts, options.num_traced_prompts),
        held_out=held_out,
        eval_reward=eval_reward,
        settings=token_trace.Settings(options.temperature, options.max_tokens_per_pass),
    )


def held_out_prompts(
    path: Path | None,
    tokenizer: Tokenizer,
    room: int,
    count: int,
    rejected: RejectedRows | None = None,
    columns: Sequence[str] = (),
    reward_reads: Callable[[str], bool] = no_column,
) -> list[TokenizedPrompt]:
    """Return the first `count` prompts of a file (0: all) that are within `room` tokens; none without a file."""
    if path is None:
        return []
    fitting = fitting_prompts(path, tokenizer, room, 0, rejected, "validation", False, columns, reward_reads)
    return [TokenizedPrompt(*pair) for pair in zip(*fitting)][: count or None]


def load_eval_reward(options: OnlineOptions, models: Models) -> Reward | None:
    """Load the reward that is not trained on; None where none is given."""
    specs = options.eval_reward_model
    base = base_of(options, models.reference)
    limit = options.max_tokens_per_pass
    return load_reward(specs, models.runtime, limit, base, options.scoring) if specs else None


def evaluate(
    make_experience: MakeExperience, held_out: list[TokenizedPrompt], decode: Callable[[list[int]], str]
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Answer the held-out prompts; return their mean score and KL, and a row for each."""
    experience = make_experience(held_out, ("held out",), 1)
    answers = experiences.answer_rows(experience, decode)
    rows = [{"id": prompt.prompt.id, **answer} for prompt, answer in zip(held_out, answers)]
    kl = sum(row["kl"] for row in answers) / len(answers)
    return {"eval/score": float(experience.scores.mean()), "eval/kl": kl}, rows


def heldout_reward_metrics(reward: Reward | None, experience: Experience, tokenizer: Tokenizer) -> dict[str, float]:
    """Score the same answers by a reward that is not trained on; {} without one.

    Returns its mean, standard deviation, and its correlation over the answers with the scores that are trained on (0
    where either gives all of them the same).
    """
    if reward is None:
        return {}
    scores = total_score(reward, experience.rollout, experience.prompts, tokenizer)
    both = torch.stack([scores, experience.raw_scores]).float()
    varies = both.std(dim=1, unbiased=False).min() > 0
    return {
        "eval_rm/score": float(scores.mean()),
        "eval_rm/score_std": float(scores.std(unbiased=False)),
        "eval_rm/correlation": float(both.corrcoef()[0, 1]) if varies else 0.0,
    }
