"""Values of a table of text (.csv, .tsv), converted where a conventional column is no text.

Empty values are absent. A column of messages, rankings or other lists is parsed as JSON, and one that is text or
messages (`prompt`, `chosen` ...) only where it is a JSON list of objects; numbers and labels are converted. All other
columns stay text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from amenable.data.record import InvalidRow, without_nulls

LISTS = (
    *("messages", "conversations", "history", "completions", "ranking", "ended", "tools", "answers", "summaries"),
    *("info", "summary", "preferred_output", "non_preferred_output", "conversation_a", "conversation_b"),
)
TEXT_OR_MESSAGES = ("prompt", "completion", "chosen", "rejected", "context", "input", "question", "response")
NUMBERS = ("margin", "preference", "winner_model_a", "winner_model_b", "winner_tie")
LABELS = {"true": True, "1": True, "1.0": True, "yes": True, "false": False, "0": False, "0.0": False, "no": False}


def from_text(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a row of text with the values that their conventions have, without empty ones.

    Raises InvalidRow for a list that is no JSON, and for a label that is neither true nor false.
    """
    return {name: value_of(name, value) for name, value in columns.items() if value != ""}


def value_of(name: str, value: Any) -> Any:
    """Return the value of a column that a table has as text."""
    if not isinstance(value, str):
        return value
    if name in LISTS or (name in TEXT_OR_MESSAGES and value.lstrip()[:1] in ("[", "{")):
        return parsed(name, value)
    if name in ("label", "kto_tag"):
        if value.strip().lower() not in LABELS:
            raise InvalidRow(f"{name} is '{value:.40}', neither true nor false")
        return LABELS[value.strip().lower()]
    if name in NUMBERS:
        try:
            return float(value)
        except ValueError:
            return value
    return value


def parsed(name: str, value: str) -> Any:
    """Return the JSON value of a text. Text that may stand for itself stays as it is unless it holds objects."""
    try:
        decoded = json.loads(value)
    except (ValueError, RecursionError) as error:
        if name in TEXT_OR_MESSAGES:
            return value
        raise InvalidRow(f"{name} is no JSON: {error}") from None
    decoded = without_nulls(decoded)
    entries = decoded if isinstance(decoded, list) else [decoded]
    objects = bool(entries) and all(isinstance(entry, Mapping) for entry in entries)
    return decoded if name in LISTS or objects else value
