"""Values of a table of text (.csv, .tsv), converted where a conventional column is no text.

Empty values are absent. A column of messages, rankings or other lists is parsed as JSON where it looks like it, and one
that is text or messages (`prompt`, `chosen` ...) only where it is JSON of messages; numbers and labels are converted.
All other columns stay text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from amenable.data.record import InvalidRow, without_nulls

NEVER_TEXT = ("messages", "conversations", "completions", "ranking")
"""columns that are lists in every format"""
LISTS = (
    *(*NEVER_TEXT, "history", "ended", "tools", "answers", "summaries", "info", "summary"),
    *("preferred_output", "non_preferred_output", "conversation_a", "conversation_b"),
)
TEXT_OR_MESSAGES = ("prompt", "completion", "chosen", "rejected", "context", "input", "question", "response")
KEYS = {"role", "from", "messages", "full_text"}
"""keys one of which every object of a column that may be text has"""
NUMBERS = ("margin", "preference", "winner_model_a", "winner_model_b", "winner_tie")
LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def from_text(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a row of text with the values that their conventions have, without empty ones.

    Raises InvalidRow for a list of messages, completions or ranks that is no JSON.
    """
    return {name: value_of(name, value) for name, value in columns.items() if value != ""}


def value_of(name: str, value: Any) -> Any:
    """Return the value of a column that a table has as text."""
    if not isinstance(value, str):
        return value
    if name in (*LISTS, *TEXT_OR_MESSAGES) and value.lstrip()[:1] in ("[", "{"):
        return parsed(name, value)
    if name in ("label", "kto_tag"):
        return LABELS.get(value.strip().lower(), value)
    if name in NUMBERS:
        try:
            return float(value)
        except ValueError:
            return value
    return value


def parsed(name: str, value: str) -> Any:
    """Return the JSON value of a text; text that may stand for itself stays as it is unless it holds messages."""
    try:
        decoded = without_nulls(json.loads(value))
    except (ValueError, RecursionError) as error:
        if name in NEVER_TEXT:
            raise InvalidRow(f"{name} is no JSON: {error}") from None
        return value
    entries = decoded if isinstance(decoded, list) else [decoded]
    messages = bool(entries) and all(isinstance(entry, Mapping) and not KEYS.isdisjoint(entry) for entry in entries)
    return decoded if name in LISTS or messages else value
