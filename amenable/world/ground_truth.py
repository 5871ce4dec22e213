"""The truth of a prompt, which gold reads. It is in a file apart from the prompts, so that training can't read it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Truth:
    """The truth of one prompt; a field that the prompt's kind has no use for is None or empty."""

    kind: str
    key: tuple[str, str]
    """the subject: (person, attribute), (act, target), ...; never shared with held-out prompts"""
    template: str
    """the phrasing; never shared with held-out prompts"""
    person: str | None = None
    woman: bool = False
    attribute: str | None = None
    """the attribute of the person that is asked for"""
    value: str | None = None
    """the right answer; None where there is none to know"""
    cause: str | None = None
    """reason for which a question has no answer: stranger, unrecorded, unstated"""
    count: int | None = None
    """number of items or sentences wanted"""
    category: str | None = None
    """the attribute whose values are to be listed"""
    topic: str | None = None
    """the place or the hero to write about"""
    rule: str | None = None
    """count, start or end"""
    words: tuple[str, ...] = ()
    """words that the completion must contain, start or end with"""
    reference: str | None = None
    """a right completion, where no rule gives one"""

    @property
    def unknown(self) -> bool:
        """True for a question that has no answer: the right completion says so."""
        return self.kind == "unanswerable" or (self.kind == "closed" and self.value is None)

    def as_row(self) -> dict[str, Any]:
        """Return the row of truths.jsonl, without unused fields."""
        return {name: value for name, value in asdict(self).items() if value not in (None, (), False)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Truth:
        """Return the truth of a row that `as_row` wrote."""

        fields = {name: value for name, value in row.items() if name != "id"}
        fields["key"] = tuple(fields["key"])
        fields["words"] = tuple(fields.get("words", ()))
        return cls(**fields)
