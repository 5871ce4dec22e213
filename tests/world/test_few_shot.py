"""Shots: good answers to prompts of different kinds that training could ask, and short."""

from __future__ import annotations

import random
from itertools import product

import pytest

from amenable.errors import InputError
from amenable.world import few_shot, instruction_topics, prompt_templates
from amenable.world.answer_parser import use_of
from amenable.world.gold import gold
from amenable.world.prompts import PromptSampler


def test_four_short_exchanges_of_different_kinds(world):
    rows = world.rows["few_shot.jsonl"]
    assert len(rows) == len(few_shot.KINDS) == 4 and all(set(row) == {"messages"} for row in rows)
    assert all([message["role"] for message in row["messages"]] == ["user", "assistant"] for row in rows)
    assert sum(len(message["content"]) for row in rows for message in row["messages"]) <= 420
    uses = [{use_of(sentence) for sentence in row["messages"][1]["content"].split(". ")} for row in rows]
    assert "admission" in uses[2] and "refusal" in uses[3] and not {"insult", "chatter"} & set().union(*uses)


def test_an_exchange_is_worth_most_and_nothing_kept_or_held_out_is_shown(small):
    sampler = PromptSampler(small.town, small.rates, random.Random(0))
    for kind in few_shot.KINDS:
        request = sampler.sample(kind)
        *_, report = few_shot.exchange(request, small.town, random.Random(1))
        assert gold(request.truth, report["content"], True, small.parser).gold == pytest.approx(2.3, abs=0.1)
    forms = prompt_templates.TEMPLATES["brainstorm"]
    reserved = frozenset(
        form.format(count=count, category=category)
        for form, count, category in product(forms, ("two", "three"), instruction_topics.CATEGORIES)
    )
    for seed in range(20):
        shots = few_shot.few_shot(small.town, small.rates, reserved, random.Random(seed))
        assert shots[1][0]["content"] not in reserved
        assert not [name for shot in shots for name in small.town.held_out_strangers if name in shot[0]["content"]]


def test_a_town_of_long_words_only_is_refused(small, monkeypatch):
    monkeypatch.setattr(few_shot, "ROOM", 50)
    with pytest.raises(InputError, match="no shots of 50 characters"):
        few_shot.few_shot(small.town, small.rates, frozenset(), random.Random(0))
