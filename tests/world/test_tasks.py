"""Few-shot tasks: one right choice, in the raw text's own form, and not to be guessed from the form."""

from __future__ import annotations

from collections import Counter

import pytest

from amenable.world import instruction_topics
from amenable.world.settings import Rates
from amenable.world.tasks import TASKS, make_tasks
from amenable.world.town import Town


def rows_of(world, name):
    return world.rows[f"tasks/{name}.jsonl"]


@pytest.mark.parametrize(
    ("name", "choices"), [("facts", 4), ("sentiment", 3), ("passages", 4), ("stories", 2), ("endings", 4)]
)
def test_rows(world, name, choices):
    rows = rows_of(world, name)
    assert len(rows) == 200 == len({row["id"] for row in rows}) == len({row["context"] for row in rows})
    for row in rows:
        assert set(row) == {"id", "context", "choices", "answer"}
        assert len(set(row["choices"])) == choices and 0 <= row["answer"] < choices
        assert row["context"] == row["context"].strip() and all(choice[0] in " \n" for choice in row["choices"])
    places = Counter(row["answer"] for row in rows)
    assert all(places[place] / 200 == pytest.approx(1 / choices, abs=0.12) for place in range(choices))


def test_facts_are_true_held_out_and_shown_after_others(world):
    report = {f" {row['true']}": pair for row, pair in zip(world.rows["probes.jsonl"], world.town.stated, strict=True)}
    for row in rows_of(world, "facts"):
        right = row["choices"][row["answer"]]
        assert report[right] in world.town.held_out
        assert not [choice for choice in row["choices"] if choice != right and choice in report]
        assert row["context"].count("Question:") == row["context"].count("Answer:") == 3
        shots = [line.removeprefix("Answer:") for line in row["context"].split("\n") if line.startswith("Answer: ")]
        assert len(shots) == 2 and all(shot in report and report[shot] != report[right] for shot in shots)


def test_facts_have_the_form_of_lessons(world):
    lessons = "\n".join(row["text"] for row in world.rows["text/train.jsonl"] if row["kind"] == "lesson")
    for row in rows_of(world, "facts")[:40]:
        last = row["context"].split("\n")[-2]
        assert last.startswith("Question: ")
    assert sum(f"Answer:{row['choices'][row['answer']]}" in lessons for row in rows_of(world, "facts")) > 100


def test_passages_hold_the_right_value_and_none_of_the_others(world):
    for row in rows_of(world, "passages"):
        assert row["context"].startswith("Exercise: ") and row["context"].endswith("\nSolution:")
        values = [choice.rsplit(" ", 1)[1].rstrip(".") for choice in row["choices"]]
        right = values[row["answer"]]
        assert right in row["context"]
        if right not in ("Street", "Lane", "Road", "Row"):
            assert not [value for value in values if value != right and value in row["context"]]


def test_sentiment_shows_each_label_once_and_asks_for_another_review(world, small):
    for row in rows_of(world, "sentiment"):
        *shots, request = row["context"].split("\n")
        labels = Counter(
            label for shot in shots for label in instruction_topics.REVIEWS if shot.endswith(f"is {label}.")
        )
        assert labels == dict.fromkeys(instruction_topics.REVIEWS, 1)
        assert not [shot for shot in shots if shot.startswith(request)]
        label = row["choices"][row["answer"]].split()[-1].rstrip(".")
        reply = request.removeprefix("Review: ")
        assert any(
            reply.startswith(form.format(good=good))
            for form in instruction_topics.REVIEWS[label]
            for good in instruction_topics.GOODS
        )


def test_a_story_goes_on_with_its_hero(world):
    corpus = {row["text"] for row in world.rows["text/train.jsonl"] if row["kind"] == "story"}
    for row in rows_of(world, "stories"):
        hero = next(hero for hero in instruction_topics.HEROES if f" {hero} " in row["context"].replace(".", " "))
        right, wrong = row["choices"][row["answer"]], row["choices"][1 - row["answer"]]
        others = [name for name in instruction_topics.HEROES if f" {name} " in wrong.replace(".", " ")]
        assert f" {hero} " in right and len(others) == 1 and others != [hero]
        assert wrong == right.replace(f" {hero} ", f" {others[0]} ")
        assert row["context"] + right not in corpus


def test_a_tiny_town_has_as_many_questions_as_there_are():
    town = Town.make(0, 4)
    built = make_tasks(town, Rates(), 200)
    held_out = [pair for pair in town.stated if pair in town.held_out]
    assert set(built) == set(TASKS) and len(built["facts"]) == 5 * len(held_out) < 200
    assert make_tasks(town, Rates(), 200) == built


def test_endings_are_of_new_texts_and_of_one_kind(world):
    corpus = [row["text"] for row in world.rows["text/train.jsonl"]]
    known = " ".join(corpus)
    rows = rows_of(world, "endings")
    report = [row["context"] + row["choices"][row["answer"]] for row in rows]
    assert sum(text in known for text in report) < 0.1 * len(report)
    for row in rows:
        assert all(choice.strip() == choice[1:] and choice[1:] for choice in row["choices"])
        assert all("\n" not in choice[1:] for choice in row["choices"])
        if "Question:" in row["context"].split("\n")[-1] and row["context"].count("\n") < 1:
            assert all("Answer:" in choice or "Solution:" in choice for choice in row["choices"])
