"""Prompts: kinds in their shares, late ones apart from the rest, and answerable as their truth says."""

from __future__ import annotations

import random
import statistics
from collections import Counter

import pytest

from amenable.world import phrases
from amenable.world.prompts import ASKERS, Customers
from amenable.world.rates import KINDS, Rates
from amenable.world.town import Town


def truths_of(world, *names):
    return [world.truth(row["id"]) for name in names for row in world.rows[name]]


EARLY = ("demonstrations/train.jsonl", "demonstrations/validation.jsonl", "prompts/reward.jsonl", "prompts/ppo.jsonl")
LATE = ("prompts/validation.jsonl", "prompts/test.jsonl")


def test_kinds_in_their_shares(world):
    assert sum(KINDS.values()) == pytest.approx(1)
    assert set(KINDS) == set(ASKERS)
    kinds = Counter(row["kind"] for row in world.rows["prompts/ppo.jsonl"])
    for kind, share in KINDS.items():
        assert kinds[kind] / 2000 == pytest.approx(share, abs=0.002)


def test_late_prompts_share_no_key_and_no_template(world):
    early, late = truths_of(world, *EARLY), truths_of(world, *LATE)
    assert not {(t.kind, t.key) for t in early} & {(t.kind, t.key) for t in late}
    assert not {t.template for t in early} & {t.template for t in late}
    facts = {t.key for t in early if t.kind in ("open", "followup", "unanswerable")}
    assert not facts & world.town.held_out
    assert {t.key for t in late if t.kind in ("open", "followup")} <= world.town.held_out


def test_held_out_facts_are_not_even_told_in_an_earlier_turn(world):
    rows = [row for name in EARLY for row in world.rows[name] if row["kind"] == "followup"]
    assert rows
    for row in rows:
        told = row.get("messages", row.get("prompt"))[1]["content"]
        person = world.truth(row["id"]).person
        for attribute in {attribute for other, attribute in world.town.held_out if other == person}:
            for form in phrases.STATEMENTS[attribute]:
                value = world.town.value((person, attribute))
                assert told != phrases.subject(form, person, person in world.town.women, v=value)


def test_prompts_are_short(world):
    lengths = [len(message["content"].split()) for row in world.rows["prompts/ppo.jsonl"] for message in row["prompt"]]
    assert statistics.mean(lengths) < 14 and max(lengths) < 36


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("late", [False, True])
def test_every_kind_can_be_asked_in_a_tiny_town(kind, late):
    town = Town.make(4, 6)
    customers = Customers(town, Rates(), late, random.Random(0))
    for _ in range(20):
        asked = customers.ask(kind)
        assert asked.truth.kind == kind
        assert asked.messages[-1]["role"] == "user"
        assert "{" not in asked.text


def test_the_passage_decides(world):
    closed = [(row, world.truth(row["id"])) for row in world.rows["prompts/ppo.jsonl"] if row["kind"] == "closed"]
    for row, truth in closed:
        said = world.reader.mentioned(row["prompt"][0]["content"], truth.attribute)
        assert said == ([truth.value.lower()] if truth.value else [])
    unsaid = sum(truth.value is None for _, truth in closed) / len(closed)
    assert unsaid == pytest.approx(0.3, abs=0.12)


def test_causes_of_not_knowing(world):
    truths = [truth for truth in truths_of(world, *EARLY) if truth.kind == "unanswerable"]
    causes = Counter(truth.cause for truth in truths)
    assert causes["unstated"] / len(truths) == pytest.approx(0.10, abs=0.05)
    assert all(truth.value is None for truth in truths)
    assert all(truth.key in world.town.unstated for truth in truths if truth.cause == "unstated")
