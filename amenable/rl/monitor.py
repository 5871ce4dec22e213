"""Watching a policy learn: held-out prompts answered again and again, single tokens followed, and a second opinion.

All of it is looked at with the same random numbers every time, and leaves the training as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from amenable.data.types import Prompt
from amenable.errors import InputError
from amenable.models.heads import ScalarModel
from amenable.rl import experience as seen
from amenable.rl import token_trace
from amenable.rl.experience import Experience
from amenable.rl.models import Actors
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.examples import Sieve, fitting_prompts
from amenable.train.log import Log
from amenable.train.run import Run

Asked = tuple[Prompt, list[int]]
"""a prompt, and its ids"""

Purpose = tuple[object, ...]
"""what answers are drawn for: names and numbers that decide their random numbers"""

Ask = Callable[[list[list[int]], Purpose], Experience]
"""gives one answer to each prompt"""


@dataclass(frozen=True)
class Calendar:
    """When to look: samples and traces, answers to held-out prompts, and which step is the last."""

    sample_steps: int
    eval_steps: int
    last: int

    def shows(self, step: int) -> bool:
        """Whether a step's samples and traces are kept."""
        return step % self.sample_steps == 0 or step in (1, self.last)

    def examines(self, step: int) -> bool:
        """Whether held-out prompts are answered after a step."""
        return step % self.eval_steps == 0 or step == self.last


@dataclass
class Watch:
    """One run's watch: told before each step's updates and after them, it keeps rows and gives back metrics."""

    actors: Actors
    ask: Ask
    log: Log
    calendar: Calendar
    watched: list[Asked]
    """prompts that are followed token by token"""
    held_out: list[Asked]
    judge: ScalarModel | None
    """a reward model that is not trained on"""
    settings: token_trace.Settings
    traced: token_trace.Trace | None = None

    def before(self, step: int, kl_coef: float) -> None:
        """What the policy says as it is before the updates of a step."""
        if step == 1 and self.held_out:
            evaluate(self.ask, self.held_out, self.decode, self.log, 0)
        shown = self.calendar.shows(step) and self.watched
        self.traced = observe(self.ask, self.watched, self.actors, self.settings, kl_coef) if shown else None

    def after(self, step: int, experience: Experience) -> dict[str, float]:
        """Rows of files and metrics, once the updates on a step's experience are done."""
        if self.calendar.shows(step):
            self.log.samples(step, seen.sample_rows(experience, self.decode))
        if self.traced is not None:
            self.log.rows("traces", step, token_trace.rows_of(self.traced, self.actors))
        metrics = second_opinion(self.judge, experience, self.actors, self.settings.max_tokens)
        if self.held_out and self.calendar.examines(step):
            metrics |= evaluate(self.ask, self.held_out, self.decode, self.log, step)
        return metrics

    def decode(self, ids: list[int]) -> str:
        return self.actors.tokenizer.decode(ids)


def watch_of(asked: list[Asked], ask: Ask, config: Any, actors: Actors, run: Run) -> Watch:
    """The watch over a run by the options of its stage: some of its prompts token by token, held-out ones, and another
    reward model if there is one. Nothing is asked yet."""
    room = actors.policy.config.context_length - config.max_new_tokens
    held_out = held_out_prompts(config.validation, actors.tokenizer, room, config.eval_prompts, run.sieve)
    if config.select == "score" and not held_out:
        raise InputError("--select score has nothing to ask", config.validation, "give prompts that are shorter")
    return Watch(
        actors=actors,
        ask=ask,
        log=run.log,
        calendar=Calendar(config.sample_steps, config.eval_steps, config.max_steps),
        watched=token_trace.evenly(asked, config.watched),
        held_out=held_out,
        judge=load_watcher(config.watch_reward_model, actors),
        settings=token_trace.Settings(0.0, config.gamma, config.lam, config.temperature, config.max_tokens_per_pass),
    )


def held_out_prompts(
    path: Path | None, tokenizer: Tokenizer, room: int, count: int, sieve: Sieve | None = None
) -> list[Asked]:
    """The first `count` prompts of a file (0: all) that are within `room` tokens; none where there is no file."""
    if path is None:
        return []
    fitting = fitting_prompts(path, tokenizer, room, sieve=sieve, split="validation", required=False)
    return list(zip(*fitting))[: count or None]


def evaluate(
    ask: Ask, held_out: list[Asked], decode: Callable[[list[int]], str], log: Log, step: int
) -> dict[str, float]:
    """Answer the held-out prompts: rows of answers.jsonl, and their means."""
    experience = ask([ids for _, ids in held_out], ("held out",))
    answers = seen.answer_rows(experience, decode)
    log.rows("answers", step, [{"id": prompt.id, **answer} for (prompt, _), answer in zip(held_out, answers)])
    return {"eval/score": float(experience.scores.mean()), "eval/kl": sum(row["kl"] for row in answers) / len(answers)}


def observe(
    ask: Ask, watched: list[Asked], actors: Actors, settings: token_trace.Settings, kl_coef: float
) -> token_trace.Trace:
    """What the policy says to the watched prompts, before this step's updates, token by token, at today's `kl_coef`."""
    experience = ask([ids for _, ids in watched], ("watched",))
    how = replace(settings, kl_coef=kl_coef)
    return token_trace.observe(actors, [prompt.id for prompt, _ in watched], experience, how)


def load_watcher(folder: Path | None, actors: Actors) -> ScalarModel | None:
    """The reward model that looks on and is not trained on, or None where none was given."""
    if folder is None:
        return None
    return loading.load_judge(folder, actors.runtime, actors.tokenizer)


def second_opinion(
    watcher: ScalarModel | None, experience: Experience, actors: Actors, max_tokens: int
) -> dict[str, float]:
    """What the watching reward model thinks of the same answers: its mean score, and over the answers its correlation
    with the scores that are trained on (0 where either gives all of them the same). Nothing without a watcher."""
    if watcher is None:
        return {}
    scores = forward.row_rewards(watcher, experience.rollout.rows(), actors.runtime, max_tokens)
    both = torch.stack([scores, experience.raw_scores]).float()
    told = both.std(dim=1, unbiased=False).min() > 0
    correlation = float(both.corrcoef()[0, 1]) if told else 0.0
    return {
        "watch/score": float(scores.mean()),
        "watch/score_std": float(scores.std(unbiased=False)),
        "watch/correlation": correlation,
    }
