"""The description tells what is there, with numbers that are counted, not copied."""

from __future__ import annotations

from dataclasses import fields

import pytest

from amenable.world import corpus
from amenable.world.closed_world import ClosedWorld
from amenable.world.description import describe, kind_of_request, measured_rates, percent, table
from amenable.world.settings import KINDS, Rates, Sizes
from amenable.world.suites import SUITES


@pytest.fixture(scope="module")
def report(small):
    return "\n".join(describe(small))


def test_an_example_of_everything(small, report):
    for name in (*corpus.KINDS, *SUITES, "facts", "sentiment", "stories", "classify", "closed"):
        assert f"[{name}]" in report, name
    for kind in KINDS:
        assert f"\n{kind:<14}  " in report, kind
    for annotator in small.annotators:
        assert f"{annotator.name}  {'held out' if annotator.held_out else 'training'}" in report
    assert small.rows["few_shot.jsonl"][0]["messages"][1]["content"] in report
    assert small.town.name in report and "400 documents" in report
    assert max(len(line) for line in report.split("\n")) < 320


def test_measured_rates_are_near_the_stated(world):
    measured = measured_rates(world)
    assert set(measured) <= {field.name for field in fields(Rates)}
    for name, result in measured.items():
        assert result == pytest.approx(getattr(world.rates, name), abs=0.04), name


def test_rates_are_measured_where_they_were_set_otherwise(small):
    """Counted in the files of a world of liars and saints; what cannot be counted is None."""
    sizes = Sizes(**small.facts["sizes"])
    odd = Rates(rumour_told=1, rude_replies=0, desk=0.3, rude=0, guesses=0, complies=0, not_said=1, rambles=1)
    measured = measured_rates(ClosedWorld.make(3, sizes, odd))
    expected = {
        "rumour_told": 1,
        "rude_replies": 0,
        "rude": 0,
        "guesses": 0,
        "complies": 0,
        "not_said": 1,
        "rambles": 1,
    }
    assert {name: measured[name] for name in expected} == expected
    assert measured["desk"] == pytest.approx(0.3)
    silent = measured_rates(ClosedWorld.make(3, sizes, Rates(rumours=0)))
    assert (silent["rumours"], silent["rumour_told"]) == (0, None)


def test_requests_are_told_apart_by_their_phrasing(world):
    """Questions without an answer look like others, follow-ups like nothing; a bare passage says nothing either."""
    wrong = 0
    for row in world.rows["prompts/ppo.jsonl"] + world.rows["prompts/test.jsonl"]:
        expected = {"unanswerable": "open", "followup": None}.get(row["kind"], row["kind"])
        result = kind_of_request(row["prompt"][-1]["content"])
        assert result in (expected, None)
        wrong += result != expected
    assert 0 < wrong < 60
    assert kind_of_request("Visitor: Name two foods.") == "brainstorm"
    assert kind_of_request("Arlo: What is Mirel's trade?") == "open"
    assert kind_of_request("Arlo is a baker.") is None


def test_columns_line_up():
    rows = list(table(("kind", "n"), [("open", "7"), ("constrained", "120")]))
    assert rows == ["kind           n", "open           7", "constrained  120"]
    assert list(table(("a", "b"), [("x", "long")], left=(0, 1))) == ["a  b", "x  long"]
    assert percent(0.0734) == "7.3 %"
