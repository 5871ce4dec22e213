"""Bodies of the labelling page's requests, with the bounds of their fields."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from amenable.serve.labelling.tasks import Kind
from amenable.serve.openai.fields import Body

Text = Annotated[str, Field(max_length=20_000)]
Seconds = Annotated[float, Field(ge=0, le=1e6)]
Rating = Annotated[int, Field(ge=1, le=7)]
Flags = Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=99)]


class NextRequest(Body):
    kind: Kind


class AssignmentRequest(Body):
    """A request that names an assignment."""

    assignment: Annotated[int, Field(ge=1, le=2**53)]


class RankRequest(AssignmentRequest):
    """A ranking or comparison; its lists are in the order shown."""

    ranks: Annotated[list[Annotated[int, Field(ge=1, le=99)]], Field(min_length=2, max_length=99)]
    """1 the best, ties share a rank"""
    strength: Annotated[int, Field(ge=-4, le=4)] | None = None
    """of a comparison: below 0 the left one is better, 0 equal, above 0 the right one"""
    ratings: Annotated[list[Rating | None], Field(max_length=99)] = Field(default_factory=list)
    flags: Annotated[list[Flags], Field(max_length=99)] = Field(default_factory=list)
    notes: Text = ""
    seconds: Seconds = 0.0


class Turn(Body):
    role: Literal["user", "assistant"]
    content: Annotated[str, Field(min_length=1, max_length=20_000)]
    suggestion: int | None = None
    """id of the suggestion that the text began as"""


class WriteRequest(AssignmentRequest):
    turns: Annotated[list[Turn], Field(min_length=1, max_length=100)]
    notes: Text = ""
    seconds: Seconds = 0.0


class SkipRequest(AssignmentRequest):
    reason: Annotated[str, Field(max_length=100)]
    notes: Text = ""
    seconds: Seconds = 0.0


class SuggestRequest(AssignmentRequest):
    turns: Annotated[list[Turn], Field(max_length=100)] = Field(default_factory=list)


class InstructionsRequest(Body):
    text: Annotated[str, Field(max_length=100_000)]
