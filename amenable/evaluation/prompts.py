"""Prompts of an evaluation: those that every model can answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from amenable.data import sources
from amenable.data.record import no_column
from amenable.data.types import Prompt
from amenable.models import pretrained
from amenable.rewards.spec import Reward
from amenable.text.chat import render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train.examples import RejectedRows, keep_fitting, keep_usable

Reader = tuple[Tokenizer, int]
"""tokenizer of a model that reads the prompts, and the length of its context"""


def readers_of(folders: Sequence[Path], reward: Reward | None) -> list[Reader]:
    """Return tokenizer and context of the models in folders and of the reward models."""
    readers = [(Tokenizer.load(folder), pretrained.read_context(folder)) for folder in folders]
    return [*readers, *((model.tokenizer, model.context_length) for model in (reward.models if reward else ()))]


def fitting_prompts(
    suite: str,
    path: Path,
    readers: Sequence[Reader],
    max_new_tokens: int,
    rejected: RejectedRows | None = None,
    columns: Sequence[str] = (),
    reward_reads: Callable[[str], bool] = no_column,
) -> list[Prompt]:
    """Read the prompts that leave every reader room for an answer. InputError if none do."""
    prompts = keep_usable(sources.read_prompts(path, columns=columns), rejected, reward_reads)
    rows = [prompt if leaves_room(prompt, readers, max_new_tokens) else None for prompt in prompts]
    room = min(context for _, context in readers) - max_new_tokens
    return keep_fitting(suite, prompts, rows, "prompts", room, rejected, path)[0]


def leaves_room(prompt: Prompt, readers: Sequence[Reader], max_new_tokens: int) -> bool:
    """Return True if the prompt and an answer are within the context of every reader."""
    return all(len(render_prompt(words, prompt.messages)) <= context - max_new_tokens for words, context in readers)
