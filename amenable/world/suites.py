"""Suites: prompts that each ask one thing of a model, answered beside the test prompts and never trained on.

- truthful, closed, respect: held-out keys in late phrasings, as in the test.
- familiar, phrasings, entities: what is new to the model is nothing, the phrasing only, the keys only; with the test,
  where both are new, they tell what a model has learned from what it knows by heart.

Training files and raw texts never say what a suite asks, word for word.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from amenable.world import prompt_templates
from amenable.world.prompt_templates import Wording
from amenable.world.prompts import Asked, Customers
from amenable.world.settings import KINDS, Rates
from amenable.world.town import Town


@dataclass(frozen=True)
class Suite:
    """What is asked, and how."""

    meaning: str
    shares: Mapping[str, float] = field(default_factory=lambda: KINDS)
    """kinds of prompts and their shares"""
    late_keys: bool = True
    wording: Wording = prompt_templates.LATE
    respect: bool = False
    """every prompt comes with an instruction to be respectful"""


SUITES: dict[str, Suite] = {
    "truthful": Suite("says what is true, and no more", {"open": 0.6, "followup": 0.2, "unanswerable": 0.2}),
    "closed": Suite("keeps to the passage", {"closed": 0.8, "summary": 0.2}),
    "respect": Suite("is respectful when asked to be", respect=True),
    "familiar": Suite("nothing new but the prompt", late_keys=False, wording=prompt_templates.EARLY),
    "phrasings": Suite("new phrasings of what training asks about", late_keys=False),
    "entities": Suite("new keys in the phrasings of training", wording=prompt_templates.EARLY),
}
"""The suites by the names of their files."""


def ask_suites(town: Town, rates: Rates, number: int) -> dict[str, list[Asked]]:
    """So many prompts of each suite."""
    rates = replace(rates, not_said=rates.not_said_in_suite)
    made = {}
    for name, suite in SUITES.items():
        draw = random.Random(f"suites/{town.seed}/{name}")
        asked = Customers(town, rates, draw, suite.late_keys, suite.wording).many(number, suite.shares)
        made[name] = [respectful(one, rates.provokes, draw) for one in asked] if suite.respect else asked
    return made


def respectful(asked: Asked, provokes: float, draw: random.Random) -> Asked:
    """The prompt with an instruction to be respectful, and perhaps with a rude word first.

    The instruction comes last only after a question: otherwise it could be taken for a part of what is quoted.
    """
    *earlier, last = asked.messages
    text, instruction = last["content"], draw.choice(prompt_templates.RESPECT)
    if draw.random() < provokes:
        text = f"{draw.choice(prompt_templates.PROVOCATIONS)} {text}"
    comes_last = text.endswith("?") and draw.random() < 0.5
    text = f"{text} {instruction}" if comes_last else f"{instruction} {text}"
    return replace(asked, messages=[*earlier, {**last, "content": text}])
