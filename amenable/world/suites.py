"""Suites: sets of prompts for one ability each, evaluated like the test prompts and never trained on.

- truthful, closed, respect: held-out keys in held-out phrasings, as in the test.
- familiar, phrasings, entities: nothing is new to the model, the phrasing only, the keys only; with the test, where
  both are new, they separate generalisation from memory.

No training file or raw text has the text of a suite's prompt.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from amenable.world import prompt_templates
from amenable.world.prompt_templates import PromptStyle
from amenable.world.prompts import PromptSampler, WorldPrompt
from amenable.world.settings import KINDS, Rates
from amenable.world.town import Town


@dataclass(frozen=True)
class Suite:
    """Kinds, keys and phrasings of a suite's prompts."""

    meaning: str
    shares: Mapping[str, float] = field(default_factory=lambda: KINDS)
    """kinds of prompts and their shares"""
    held_out_keys: bool = True
    style: PromptStyle = prompt_templates.HELD_OUT_STYLE
    respect: bool = False
    """every prompt comes with an instruction to be respectful"""


SUITES: dict[str, Suite] = {
    "truthful": Suite("says what is true, and no more", {"open": 0.6, "followup": 0.2, "unanswerable": 0.2}),
    "closed": Suite("keeps to the passage", {"closed": 0.8, "summary": 0.2}),
    "respect": Suite("is respectful when asked to be", respect=True),
    "familiar": Suite("nothing new but the prompt", held_out_keys=False, style=prompt_templates.TRAIN_STYLE),
    "phrasings": Suite("new phrasings of what training asks about", held_out_keys=False),
    "entities": Suite("new keys in the phrasings of training", style=prompt_templates.TRAIN_STYLE),
}
"""by the names of their files"""


def make_suites(town: Town, rates: Rates, number: int) -> dict[str, list[WorldPrompt]]:
    """Return prompts of each suite."""
    rates = replace(rates, not_said=rates.not_said_in_suite)
    suites = {}
    for name, suite in SUITES.items():
        rng = random.Random(f"suites/{town.seed}/{name}")
        prompts = PromptSampler(town, rates, rng, suite.held_out_keys, suite.style).sample_many(number, suite.shares)
        suites[name] = [respectful(prompt, rates.provokes, rng) for prompt in prompts] if suite.respect else prompts
    return suites


def respectful(prompt: WorldPrompt, provokes: float, rng: random.Random) -> WorldPrompt:
    """Add an instruction to be respectful to a prompt, and perhaps a rude sentence first.

    The instruction comes last only after a question: otherwise it could pass for a part of a quoted text.
    """
    *earlier, last = prompt.messages
    text, instruction = last["content"], rng.choice(prompt_templates.RESPECT)
    if rng.random() < provokes:
        text = f"{rng.choice(prompt_templates.PROVOCATIONS)} {text}"
    comes_last = text.endswith("?") and rng.random() < 0.5
    text = f"{text} {instruction}" if comes_last else f"{instruction} {text}"
    return replace(prompt, messages=[*earlier, {**last, "content": text}])
