"""Demonstrations of public tasks, in the manner of FLAN (Wei et al., 2021) and T0 (Sanh et al., 2021).

Only kinds of prompts that a machine can grade: classification, and questions whose answer is in the passage; in terse
templates, with short right answers and no manners.
"""

from __future__ import annotations

import random
from dataclasses import replace

from amenable.world import phrases, prompt_templates
from amenable.world.prompts import PromptSampler, WorldPrompt
from amenable.world.settings import Rates
from amenable.world.town import Town

SHARES = {"classify": 0.5, "closed": 0.5}
TEMPLATES: dict[str, tuple[str, ...]] = {
    "classify": (
        "Classify the review as positive, negative or neutral: {review}",
        "Review: {review}\nSentiment (positive, negative or neutral):",
        "{review}\nOptions: positive, negative, neutral\nAnswer:",
        "Label the sentiment of this review.\n{review}",
    ),
    "closed": (
        "Passage: {passage}\nQuestion: {Q}\nAnswer:",
        "Read the passage and answer the question.\n{passage}\n{Q}",
        "{passage}\nBased on the passage: {Q}",
        "Context: {passage}\n{Q} Answer in a few words.",
    ),
}


def public_tasks(town: Town, rates: Rates, number: int, rng: random.Random) -> list[tuple[WorldPrompt, str]]:
    """Return prompts with their completions, about nothing that is held out."""
    style = replace(prompt_templates.TRAIN_STYLE, templates=TEMPLATES)
    sampler = PromptSampler(town, replace(rates, not_said=0.0), rng, style=style)
    return [(prompt, phrases.capital(f"{prompt.truth.value}.")) for prompt in sampler.sample_many(number, SHARES)]
