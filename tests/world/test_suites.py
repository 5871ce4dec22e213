"""Suites: what they say they ask, apart from everything that is trained on, word for word."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from amenable.world import prompt_templates
from amenable.world.answer_parser import insulting
from amenable.world.ground_truth import Truth
from amenable.world.prompts import WorldPrompt, user
from amenable.world.settings import KINDS
from amenable.world.suites import SUITES, respectful

TRAINING = ("demonstrations/train", "demonstrations/validation", "prompts/reward", "prompts/ppo")


def rows_of(world, name):
    return world.rows[f"suites/{name}.jsonl"]


def truths_of(world, name):
    return [world.truth(row["id"]) for row in rows_of(world, name)]


def report(row):
    return [message["content"] for message in row.get("prompt", row.get("messages"))]


@pytest.fixture(scope="module")
def trained(world):
    """The truths of all that is trained on."""
    return [world.truth(row["id"]) for name in TRAINING for row in world.rows[f"{name}.jsonl"]]


@pytest.mark.parametrize("name", sorted(SUITES))
def test_every_suite_has_its_size_and_its_kinds(world, name):
    rows = rows_of(world, name)
    assert len(rows) == 240 and all(set(row) == {"prompt", "id", "kind"} for row in rows)
    kinds = Counter(row["kind"] for row in rows)
    assert set(kinds) == set(SUITES[name].shares)
    for kind, share in SUITES[name].shares.items():
        assert kinds[kind] / 240 == pytest.approx(share, abs=0.01)
    assert all(row["kind"] == world.truth(row["id"]).kind for row in rows)


def test_the_shares_of_the_suites_about_truth():
    assert SUITES["truthful"].shares == {"open": 0.6, "followup": 0.2, "unanswerable": 0.2}
    assert SUITES["closed"].shares == {"closed": 0.8, "summary": 0.2}
    assert all(sum(suite.shares.values()) == pytest.approx(1) for suite in SUITES.values())
    assert SUITES["respect"].shares == KINDS


@pytest.mark.parametrize(
    ("name", "new_keys", "new_forms"),
    [
        ("truthful", True, True),
        ("closed", True, True),
        ("respect", True, True),
        ("familiar", False, False),
        ("phrasings", False, True),
        ("entities", True, False),
    ],
)
def test_what_is_new_to_a_model(world, trained, name, new_keys, new_forms):
    """New keys and phrasings occur in no training prompt; the others are those of training."""
    keys, forms = {(truth.kind, truth.key) for truth in trained}, {truth.template for truth in trained}
    request = truths_of(world, name)
    known_keys = [(truth.kind, truth.key) in keys for truth in request if truth.kind not in ("closed", "unanswerable")]
    known_forms = [truth.template in forms for truth in request]
    assert not any(known_keys) if new_keys else sum(known_keys) > 0.95 * len(known_keys)
    assert not any(known_forms) if new_forms else sum(known_forms) > 0.95 * len(known_forms)
    strangers = {truth.person for truth in request if truth.cause == "stranger" or truth.kind == "closed"}
    assert strangers and strangers <= set(world.town.held_out_strangers if new_keys else world.town.strangers)


def test_no_suite_prompt_is_trained_on_or_read_word_for_word(world):
    request = {"\n".join(report(row)) for name in SUITES for row in rows_of(world, name)}
    assert len(request) > 1300
    for name in TRAINING:
        for row in world.rows[f"{name}.jsonl"]:
            messages = report(row)[:-1] if "messages" in row else report(row)
            assert "\n".join(messages) not in request
    for name in ("train", "validation"):
        corpus = "\n\n".join(row["text"] for row in world.rows[f"text/{name}.jsonl"])
        assert not [text for text in request if text in corpus]


def test_half_of_the_passages_do_not_hold_the_answer(world):
    closed = [truth for truth in truths_of(world, "closed") if truth.kind == "closed"]
    assert sum(truth.value is None for truth in closed) / len(closed) == pytest.approx(0.5, abs=0.08)


def test_respect_is_asked_for_and_some_customers_are_rude(world):
    prompts = [report(row)[-1] for row in rows_of(world, "respect")]
    assert all(sum(line in text for line in prompt_templates.RESPECT) == 1 for text in prompts)
    assert {line for line in prompt_templates.RESPECT for text in prompts if line in text} == set(
        prompt_templates.RESPECT
    )
    first = sum(text.startswith(prompt_templates.RESPECT) for text in prompts)
    last = sum(text.endswith(prompt_templates.RESPECT) for text in prompts)
    assert first + last == len(prompts) and last > 40
    rude = sum(insulting(text.lower()) for text in prompts) / len(prompts)
    assert rude == pytest.approx(world.rates.provokes, abs=0.08)
    others = [report(row)[-1] for name in SUITES if name != "respect" for row in rows_of(world, name)]
    assert not [
        text for text in others if insulting(text.lower()) or any(line in text for line in prompt_templates.RESPECT)
    ]


def test_an_instruction_is_never_taken_for_what_is_quoted():
    truth = Truth("rewrite", ("open", "the door"), "t")
    quoting = WorldPrompt(user("Say this politely: Open the door!"), truth)
    question = WorldPrompt([*user("Who?"), {"role": "assistant", "content": "I."}, *user("Who else?")], truth)
    rng = random.Random(0)
    for _ in range(50):
        assert respectful(quoting, 0.5, rng).messages[-1]["content"].startswith(prompt_templates.RESPECT)
    request = [respectful(question, 0.0, rng) for _ in range(50)]
    assert {one.messages[-1]["content"].startswith("Who else?") for one in request} == {True, False}
    assert all(one.messages[:2] == question.messages[:2] and one.truth == truth for one in request)
    assert all(insulting(respectful(quoting, 1.0, rng).text.lower()) for _ in range(10))
