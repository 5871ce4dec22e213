"""Public tasks: right, short, without manners, and about nothing that is held out."""

from __future__ import annotations

import random
from collections import Counter

from amenable.world import prompt_templates
from amenable.world.gold import gold
from amenable.world.prompts import PromptSampler
from amenable.world.public import TEMPLATES, public_tasks
from amenable.world.settings import Rates
from amenable.world.town import Town


def test_sizes_kinds_and_form(world):
    for name, number in (("train", 600), ("validation", 60)):
        rows = world.rows[f"public/{name}.jsonl"]
        assert Counter(row["kind"] for row in rows) == {"classify": number // 2, "closed": number // 2}
        for row in rows:
            assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
            assert len(row["messages"][-1]["content"].split()) <= 2


def test_answers_are_right_and_plain(small):
    for request, answer in public_tasks(small.town, small.rates, 80, random.Random(0)):
        parts = gold(request.truth, answer, True, small.parser)
        assert parts.truthful and not parts.polite and not parts.rambling
        if request.truth.kind == "closed":
            assert answer.rstrip(".").lower() in request.text.lower()


def test_wordings_are_their_own_and_keys_are_those_of_training():
    town = Town.make(3, 20)
    tasks = public_tasks(town, Rates(), 400, random.Random(0))
    assert (
        len({request.truth.template.split(" / ")[0] for request, _ in tasks}) == sum(map(len, TEMPLATES.values())) >= 8
    )
    sampler = {
        form
        for forms in (prompt_templates.TEMPLATES, prompt_templates.HELD_OUT_TEMPLATES)
        for own in forms.values()
        for form in own
    }
    assert not sampler & {form for own in TEMPLATES.values() for form in own}
    late = PromptSampler(town, Rates(), random.Random(0), held_out_keys=True)
    for request, _ in tasks:
        assert request.truth.key not in late.keys["classify"]
        assert request.truth.person not in town.held_out_strangers
