"""Prompts: kinds in their shares, late ones apart from the rest, and answerable as their truth says."""

from __future__ import annotations

import random
import statistics
from collections import Counter

import pytest

from amenable.errors import InputError
from amenable.world import phrases, prompt_templates
from amenable.world.prompts import SAMPLERS, PromptSampler
from amenable.world.settings import KINDS, Rates
from amenable.world.town import Town


def truths_of(world, *names):
    return [world.truth(row["id"]) for name in names for row in world.rows[name]]


TRAIN_STYLE = (
    "demonstrations/train.jsonl",
    "demonstrations/validation.jsonl",
    "prompts/reward.jsonl",
    "prompts/ppo.jsonl",
)
HELD_OUT_STYLE = ("prompts/validation.jsonl", "prompts/test.jsonl")


def test_kinds_in_their_shares(world):
    assert sum(KINDS.values()) == pytest.approx(1)
    assert set(KINDS) == set(SAMPLERS)
    kinds = Counter(row["kind"] for row in world.rows["prompts/ppo.jsonl"])
    for kind, share in KINDS.items():
        assert kinds[kind] / 2000 == pytest.approx(share, abs=0.002)


def test_late_prompts_share_no_key_and_no_template(world):
    early, late = truths_of(world, *TRAIN_STYLE), truths_of(world, *HELD_OUT_STYLE)
    assert not {(t.kind, t.key) for t in early} & {(t.kind, t.key) for t in late}
    assert not {t.template for t in early} & {t.template for t in late}
    facts = {t.key for t in early if t.kind in ("open", "followup", "unanswerable")}
    assert not facts & world.town.held_out
    assert {t.key for t in late if t.kind in ("open", "followup")} <= world.town.held_out


def test_held_out_facts_are_not_even_told_in_an_earlier_turn(world):
    rows = [row for name in TRAIN_STYLE for row in world.rows[name] if row["kind"] == "followup"]
    assert rows
    for row in rows:
        report = row.get("messages", row.get("prompt"))[1]["content"]
        person = world.truth(row["id"]).person
        for attribute in {attribute for other, attribute in world.town.held_out if other == person}:
            for form in phrases.STATEMENTS[attribute]:
                value = world.town.value((person, attribute))
                assert report != phrases.subject(form, person, person in world.town.women, v=value)


def test_prompts_are_short(world):
    lengths = [len(message["content"].split()) for row in world.rows["prompts/ppo.jsonl"] for message in row["prompt"]]
    assert statistics.mean(lengths) < 14 and max(lengths) < 36


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("late", [False, True])
def test_every_kind_can_be_asked_in_a_tiny_town(kind, late):
    town = Town.make(4, 6)
    sampler = PromptSampler(
        town, Rates(), random.Random(0), late, prompt_templates.HELD_OUT_STYLE if late else prompt_templates.TRAIN_STYLE
    )
    for _ in range(20):
        request = sampler.sample(kind)
        assert request.truth.kind == kind
        assert request.messages[-1]["role"] == "user"
        assert "{" not in request.text


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_keys_and_wording_are_held_out_apart(kind):
    """Late keys in early words, and early keys in late words: each side is that of customers who have both."""
    town = Town.make(4, 20)

    def request(held_out_keys, style, draws):
        sampler = PromptSampler(town, Rates(), random.Random(1), held_out_keys, style)
        truths = [sampler.sample(kind).truth for _ in range(draws)]
        return {truth.key for truth in truths}, {truth.template for truth in truths}

    early_keys, early_forms = request(False, prompt_templates.TRAIN_STYLE, 3000)
    held_out_keys, late_forms = request(True, prompt_templates.HELD_OUT_STYLE, 3000)
    assert not early_keys & held_out_keys and not early_forms & late_forms
    for late, style, keys, forms in (
        (True, prompt_templates.TRAIN_STYLE, early_keys, late_forms),
        (False, prompt_templates.HELD_OUT_STYLE, held_out_keys, early_forms),
    ):
        mixed_keys, mixed_forms = request(late, style, 200)
        assert not mixed_keys & keys and not mixed_forms & forms


def test_what_is_kept_for_others_is_never_asked():
    town = Town.make(4, 6)
    free = PromptSampler(town, Rates(), random.Random(0))
    reserved = frozenset(free.sample("brainstorm").text for _ in range(40))
    careful = PromptSampler(town, Rates(), random.Random(1), reserved=reserved)
    request = {careful.sample("brainstorm").text for _ in range(400)}
    assert len(reserved) > 20 and request and not request & reserved
    nothing = PromptSampler(town, Rates(), random.Random(1), reserved=reserved | request)
    with pytest.raises(InputError, match="suite-prompts smaller"):
        [nothing.sample("brainstorm") for _ in range(400)]


def test_shares_can_be_chosen_and_repeats_are_avoided():
    sampler = PromptSampler(Town.make(4, 20), Rates(), random.Random(0))
    request = sampler.sample_many(100, {"open": 0.75, "story": 0.25})
    assert Counter(one.truth.kind for one in request) == {"open": 75, "story": 25}
    assert len({one.text for one in request}) == 100


def test_the_passage_decides(world):
    closed = [(row, world.truth(row["id"])) for row in world.rows["prompts/ppo.jsonl"] if row["kind"] == "closed"]
    for row, truth in closed:
        reply = world.parser.mentioned(row["prompt"][0]["content"], truth.attribute)
        assert reply == ([truth.value.lower()] if truth.value else [])
    unsaid = sum(truth.value is None for _, truth in closed) / len(closed)
    assert unsaid == pytest.approx(world.rates.not_said, abs=0.08)


def test_causes_of_not_knowing(world):
    truths = [truth for truth in truths_of(world, *TRAIN_STYLE) if truth.kind == "unanswerable"]
    causes = Counter(truth.cause for truth in truths)
    assert causes["unstated"] / len(truths) == pytest.approx(0.10, abs=0.05)
    assert all(truth.value is None for truth in truths)
    assert all(truth.key in world.town.unstated for truth in truths if truth.cause == "unstated")
