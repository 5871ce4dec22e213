"""Watching a policy learn: held-out prompts answered again and again, single tokens followed, and a second opinion.

All of it is looked at with the same random numbers every time, and leaves the training as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from amenable.data.types import Prompt
from amenable.evaluation import trace
from amenable.generation import experience as seen
from amenable.generation.experience import Experience
from amenable.models.heads import ScalarModel
from amenable.text.tokenizer import Tokenizer
from amenable.train import artifacts, passes
from amenable.train.actors import Actors
from amenable.train.feed import Sieve, fitting_prompts
from amenable.train.log import Log

Asked = tuple[Prompt, list[int]]
"""a prompt, and its ids"""

Ask = Callable[[list[list[int]], tuple[object, ...]], Experience]
"""gives one answer to each prompt; the second argument, a purpose, decides the random numbers"""


def held_out_prompts(
    path: Path | None, tokenizer: Tokenizer, room: int, count: int, sieve: Sieve | None = None
) -> list[Asked]:
    """The first `count` prompts of a file (0: all) that are within `room` tokens; none where there is no file."""
    if path is None:
        return []
    return list(zip(*fitting_prompts(path, tokenizer, room, sieve=sieve)))[: count or None]


def evaluate(
    ask: Ask, held_out: list[Asked], decode: Callable[[list[int]], str], log: Log, step: int
) -> dict[str, float]:
    """Answer the held-out prompts: rows of answers.jsonl, and their means."""
    experience = ask([ids for _, ids in held_out], ("held out",))
    answers = seen.answer_rows(experience, decode)
    log.rows("answers", step, [{"id": prompt.id, **answer} for (prompt, _), answer in zip(held_out, answers)])
    return {"eval/score": float(experience.scores.mean()), "eval/kl": sum(row["kl"] for row in answers) / len(answers)}


def observe(ask: Ask, watched: list[Asked], actors: Actors, settings: trace.Settings, kl_coef: float) -> trace.Trace:
    """What the policy says to the watched prompts, before this step's updates, token by token, at today's `kl_coef`."""
    experience = ask([ids for _, ids in watched], ("watched",))
    how = replace(settings, kl_coef=kl_coef)
    return trace.observe(actors, [prompt.id for prompt, _ in watched], experience, how)


def load_watcher(folder: Path | None, actors: Actors) -> ScalarModel | None:
    """The reward model that looks on and is not trained on, or None where none was given."""
    if folder is None:
        return None
    return artifacts.load_reward_model(folder, actors.machine, actors.tokenizer).requires_grad_(False)


def second_opinion(
    watcher: ScalarModel | None, experience: Experience, actors: Actors, max_tokens: int
) -> dict[str, float]:
    """What the watching reward model thinks of the same answers: its mean score, and over the answers its correlation
    with the scores that are trained on (0 where either gives all of them the same). Nothing without a watcher."""
    if watcher is None:
        return {}
    scores = passes.row_rewards(watcher, experience.rollout.rows(), actors.machine, max_tokens)
    both = torch.stack([scores, experience.raw_scores]).float()
    told = both.std(dim=1, unbiased=False).min() > 0
    correlation = float(both.corrcoef()[0, 1]) if told else 0.0
    return {
        "watch/score": float(scores.mean()),
        "watch/score_std": float(scores.std(unbiased=False)),
        "watch/correlation": correlation,
    }
