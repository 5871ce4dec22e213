"""What gold needs to know about one prompt. Kept apart from the prompts, so that training can't read it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Truth:
    """The truth of one prompt; a field that its kind has no use for is None or empty."""

    kind: str
    key: tuple[str, str]
    """what the prompt is about: (person, attribute), (act, target), ...; never shared with late prompts"""
    template: str
    """the phrasing; never shared with late prompts"""
    person: str | None = None
    woman: bool = False
    attribute: str | None = None
    """what is asked about the person"""
    value: str | None = None
    """the right answer; None where there is none to know"""
    cause: str | None = None
    """why a question has no answer: stranger, unrecorded, unstated"""
    count: int | None = None
    """how many items or sentences are wanted"""
    category: str | None = None
    """the attribute whose values are to be listed"""
    topic: str | None = None
    """the place or the hero to write about"""
    rule: str | None = None
    """count, start or end"""
    words: tuple[str, ...] = ()
    """what the answer must contain, start or end with"""
    reference: str | None = None
    """an answer that is right, where no rule makes one"""

    def as_row(self) -> dict[str, Any]:
        """A row for truths.jsonl, without the fields that are not used."""
        return {name: value for name, value in asdict(self).items() if value not in (None, (), False)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Truth:
        """The truth of a row that `as_row` wrote."""
        fields = {name: value for name, value in row.items() if name != "id"}
        fields["key"] = tuple(fields["key"])
        fields["words"] = tuple(fields.get("words", ()))
        return cls(**fields)
