"""Few-shot prompts for a base model: good completions of other prompts as earlier turns of the conversation.

As in the "GPT-3 (prompted)" of Ouyang et al. (2022).
"""

from __future__ import annotations

import random

from amenable.errors import InputError
from amenable.world.answer_generator import best_answer
from amenable.world.prompts import MAX_ATTEMPTS, Messages, PromptSampler, WorldPrompt
from amenable.world.settings import Rates
from amenable.world.town import Town

TRANSCRIPTS = (
    {"name": "zero-shot", "user": "Post:", "assistant": "Reply:", "end": "\n"},
    {"name": "few-shot", "user": "Visitor:", "assistant": "Clerk:", "end": "\n"},
)
"""speakers of raw text's questions and replies: zero-shot those of the forum, as on the web; few-shot those of the
clerk's desk, where manners are good"""
KINDS = ("open", "brainstorm", "unanswerable", "harmful")
"""kinds of the shots: an answer, an instruction followed, not knowing, and a refusal"""
ROOM = 420
"""characters of all shots, about 110 tokens: a small model's context has to hold the prompt and the answer, too"""


def few_shot(town: Town, rates: Rates, reserved: frozenset[str], rng: random.Random) -> list[Messages]:
    """Return one exchange of each kind, about nothing that is held out; drawn until they are short enough."""
    sampler = PromptSampler(town, rates, rng, reserved=reserved)
    for _ in range(MAX_ATTEMPTS):
        shots = [exchange(sampler.sample(kind), town, rng) for kind in KINDS]
        if sum(len(message["content"]) for shot in shots for message in shot) <= ROOM:
            return shots
    raise InputError(f"no shots of {ROOM} characters in this town", how="take another seed")


def exchange(prompt: WorldPrompt, town: Town, rng: random.Random) -> Messages:
    """Return the prompt and a completion of the best gold."""
    return [*prompt.messages, {"role": "assistant", "content": best_answer(prompt.truth, town, rng)}]
