"""Bodies of the labelling page's requests: their bounds, and no field that is not known."""

from typing import Any

import pytest
from pydantic import ValidationError

from amenable.serve.labelling.schemas import InstructionsRequest, RankRequest, SkipRequest, WriteRequest

RANKS: dict[str, Any] = {"assignment": 1, "ranks": [1, 2]}


def test_a_ranking_needs_no_more_than_an_assignment_and_ranks() -> None:
    body = RankRequest.model_validate(RANKS)
    assert body.strength is None and body.ratings == body.flags == [] and body.seconds == 0.0


@pytest.mark.parametrize(
    "changes",
    [
        {"assignment": 0},
        {"assignment": 2**60},
        {"ranks": [1]},
        {"ranks": [0, 1]},
        {"strength": 5},
        {"ratings": [8, None]},
        {"seconds": -1.0},
        {"seconds": float("inf")},
        {"notes": "a" * 20_001},
        {"purpose": "label"},
    ],
)
def test_a_ranking_out_of_bounds_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RankRequest.model_validate(RANKS | changes)


def test_texts_that_are_empty_or_too_long_are_refused() -> None:
    for turns in ([], [{"role": "user", "content": ""}], [{"role": "system", "content": "Hi"}]):
        with pytest.raises(ValidationError):
            WriteRequest.model_validate({"assignment": 1, "turns": turns})
    with pytest.raises(ValidationError):
        SkipRequest.model_validate({"assignment": 1, "reason": "a" * 101})
    with pytest.raises(ValidationError):
        InstructionsRequest.model_validate({"text": "a" * 100_001})
