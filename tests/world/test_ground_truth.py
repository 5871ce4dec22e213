"""A truth survives its row."""

from __future__ import annotations

import json

from amenable.world.ground_truth import Truth


def test_rows_hold_what_is_used_and_give_it_back():
    truth = Truth("constrained", ("mill", "peace or joy"), "t", topic="mill", rule="end", words=("peace", "joy"))
    row = truth.as_row()
    assert set(row) == {"kind", "key", "template", "topic", "rule", "words"}
    assert Truth.from_row(json.loads(json.dumps({"id": "x", **row}))) == truth


def test_every_truth_of_a_world_survives(small):
    for truth in small.truths.values():
        assert Truth.from_row(json.loads(json.dumps(truth.as_row()))) == truth
