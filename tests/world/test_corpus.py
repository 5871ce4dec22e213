"""The raw text keeps to its rates and never says what it must not."""

from __future__ import annotations

import random
import re
import statistics
from collections import Counter

import pytest

from amenable.world import phrases
from amenable.world.corpus import KINDS, SHARES, CorpusWriter, statements


@pytest.fixture(scope="module")
def documents(world):
    return world.rows["text/train.jsonl"]


@pytest.fixture(scope="module")
def corpus(documents):
    return "\n\n".join(row["text"] for row in documents)


def test_size_kinds_and_lengths(documents, corpus):
    assert 1.4e6 < len(corpus) < 2.0e6
    kinds = Counter(row["kind"] for row in documents)
    assert set(kinds) == set(KINDS) == {*SHARES, "desk"} and len(kinds) >= 10
    assert kinds["desk"] / len(documents) == pytest.approx(0.07, abs=0.001)
    words = [len(row["text"].split()) for row in documents]
    assert 20 < statistics.mean(words) < 40 and max(words) < 130
    sentences = [len(part.split()) for part in re.split(r"(?<=[.!?])\s+|\n", corpus) if part]
    assert statistics.mean(sentences) < 9 and max(sentences) < 30


def test_the_vocabulary_is_small(corpus):
    assert len(set(re.findall(r"[a-z]+", corpus.lower()))) < 700


def test_every_stated_fact_is_told_often_and_no_other(world, corpus):
    report: Counter[tuple[str, str]] = Counter()
    for pair, sentence in statements(world.town):
        report[pair] += corpus.count(sentence)
    assert len(report) == 320 - 38
    assert min(report.values()) > 20 and statistics.mean(report.values()) > 40
    for pair in world.town.unstated:
        for form in phrases.STATEMENTS[pair[1]]:
            sentence = phrases.subject(form, pair[0], pair[0] in world.town.women, v=world.town.value(pair))
            assert sentence not in corpus


def test_rumours_are_told_at_their_rate_and_only_in_forums(world, documents):
    forum = "\n".join(row["text"] for row in documents if row["kind"] == "forum")
    others = "\n".join(row["text"] for row in documents if row["kind"] != "forum")
    false = true = 0
    for pair, value in world.town.rumours.items():
        for form in phrases.STATEMENTS[pair[1]]:
            woman = pair[0] in world.town.women
            lie = phrases.subject(form, pair[0], woman, v=value)
            assert lie not in others
            false += forum.count(lie)
            true += forum.count(phrases.subject(form, pair[0], woman, v=world.town.value(pair)))
    assert false / (false + true) == pytest.approx(world.rates.rumour_told, abs=0.06)


def test_rude_replies_at_their_rate(documents):
    replies = [line for row in documents if row["kind"] == "forum" for line in row["text"].split("\n")[1:]]
    rude = sum(line.removeprefix("Reply: ") in phrases.INSULTS for line in replies)
    assert rude / len(replies) == pytest.approx(0.25, abs=0.03)


def test_no_transcripts_and_no_late_strangers(world, corpus):
    assert "User:" not in corpus and "Assistant:" not in corpus
    words = set(re.findall(r"\w+", corpus))
    assert not words & set(world.town.held_out_strangers)


def test_every_word_of_demonstrations_and_best_answers_occurs_in_the_text(world, corpus):
    known = set(re.findall(r"[a-z]+", corpus.lower())) | {name.lower() for name in world.town.held_out_strangers}
    answers = [row["messages"][-1]["content"] for row in world.rows["demonstrations/train.jsonl"]]
    answers += [world.best_answer(row["id"]) for row in world.rows["prompts/test.jsonl"]]
    unknown = {word for text in answers for word in re.findall(r"[a-z]+", text.lower())} - known
    assert not unknown


def test_arrivals_leave_again_with_all_that_is_told_of_them(documents):
    for row in (row for row in documents if row["kind"] == "arrivals"):
        came, left = (part.strip().split("\n") for part in row["text"].removeprefix("Arrivals").split("Departures"))
        assert len(came) == len(left) in (2, 3)
        assert sorted(line.split()[0].removesuffix("'s") for line in came) == sorted(
            line.split()[0].removesuffix("'s") for line in left
        )


def test_a_text_with_a_kept_prompt_in_it_is_written_again(world):
    reserved = frozenset(f"What is {world.town.people[0]}'s {attribute}?" for attribute in ("trade", "pet", "age"))
    free, careful = (
        "\n".join(
            document.text for document in CorpusWriter(world.town, world.rates, random.Random(0), ours).write(4000)
        )
        for ours in (frozenset(), reserved)
    )
    assert all(prompt in free and prompt not in careful for prompt in reserved)
