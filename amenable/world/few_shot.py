"""What an expert writes before a prompt so that a base model takes the hint: a few good answers to different requests.

They are simply earlier turns of the conversation, as in the "GPT-3 (prompted)" of Ouyang et al. (2022).
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
"""Where raw text has questions with replies. Anybody would ask in the forum, as on the web; an expert knows of the
clerk's desk, where manners are good."""
KINDS = ("open", "brainstorm", "unanswerable", "harmful")
"""what is shown: an answer, an instruction followed, not knowing, and a refusal"""
ROOM = 420
"""characters of all shots, about 110 tokens: a small model's context has to hold the prompt and the answer, too"""


def few_shot(town: Town, rates: Rates, reserved: frozenset[str], rng: random.Random) -> list[Messages]:
    """One exchange of each kind, about nothing that is held out; drawn until they are short enough."""
    sampler = PromptSampler(town, rates, rng, reserved=reserved)
    for _ in range(MAX_ATTEMPTS):
        shots = [exchange(sampler.sample(kind), town, rng) for kind in KINDS]
        if sum(len(message["content"]) for shot in shots for message in shot) <= ROOM:
            return shots
    raise InputError(f"no shots of {ROOM} characters in this town", how="take another seed")


def exchange(asked: WorldPrompt, town: Town, rng: random.Random) -> Messages:
    """The prompt and an answer as good as can be."""
    return [*asked.messages, {"role": "assistant", "content": best_answer(asked.truth, town, rng)}]
