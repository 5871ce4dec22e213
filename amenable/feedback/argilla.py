"""Labels out of Argilla's exports: its JSON, and the flat rows that it puts on the Hub.

    JSON      {fields, responses: {question: [{value, user_id[, status]}]}}, or before version 2 a list
              [{user_id, status, values: {question: {value}}}]
    Hub, 2    a column for each field; question.responses, question.responses.users, question.responses.status
    Hub, 1    a column for each field; question: [{user_id, value, status}], question-suggestion, external_id, metadata

A response is an order of fields (names, the best first, or {value, rank}), the name of the better of two, or a text.
Responses that are not submitted are left out, suggestions too: nobody said them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from amenable.data.record import InvalidRow, Record, is_number, kind
from amenable.data.types import Demonstration, Message, Ranking
from amenable.feedback.formats import (
    Label,
    attempt,
    demonstration_made,
    name_of,
    prompt_field,
    ranking_made,
    texts_of,
)
from amenable.feedback.hints import Hints
from amenable.feedback.judges import from_scores

RESPONSES = ".responses"
SUGGESTION = "-suggestion"
RESPONSE = {"value", "user_id", "status"}
ABOUT = ("id", "_server_id", "status", "external_id", "metadata")


class Response(NamedTuple):
    """One person's answer to one question."""

    question: str
    value: Any
    by: str | None
    status: Any = None


def is_record(row: Mapping[str, Any]) -> bool:
    """True for a record of the JSON export."""
    return "fields" in row and "responses" in row


def is_flat(row: Mapping[str, Any]) -> bool:
    """True for a row as it is on the Hub."""
    return bool(flat_questions(row) or old_questions(row))


def flat_questions(row: Mapping[str, Any]) -> list[str]:
    """The questions of a row as version 2 flattens it."""
    return [name.removesuffix(RESPONSES) for name in row if name.endswith(RESPONSES)]


def old_questions(row: Mapping[str, Any]) -> list[str]:
    """The questions of a row as version 1 flattens it."""
    return [name for name, value in row.items() if name not in ABOUT and is_answered(value)]


def is_answered(value: Any) -> bool:
    """True for a column of responses, [{value, user_id, status}] or as an object of lists."""
    entries = value if isinstance(value, list) else [value]
    objects = [entry for entry in entries if isinstance(entry, Mapping) and entry != {}]
    return bool(entries) and len(objects) == len(entries) and all(set(entry) <= RESPONSE for entry in objects)


def record_labels(row: Record, id: str, hints: Hints) -> Iterator[Label]:
    """Yield the labels in a record of the JSON export."""
    fields = row.get("fields")
    if not isinstance(fields, Mapping):
        yield InvalidRow(f"fields is {kind(fields)}, not an object")
        return
    about = {name: row[name] for name in ("metadata",) if name in row}
    yield from labels(fields, responses_of(row.get("responses", {})), named(row, id), about, hints)


def flat_labels(row: Record, id: str, hints: Hints) -> Iterator[Label]:
    """Yield the labels in a row of the Hub."""
    questions, old = flat_questions(row), old_questions(row.columns)
    apart = {*ABOUT, *old, *(f"{name}{SUGGESTION}" for name in old)}
    prefixes = tuple(f"{question}." for question in questions)
    texts = [name for name in texts_of(row.columns) if name not in apart and not name.startswith(prefixes)]
    fields = {name: row[name] for name in texts}
    given = [response for question in questions for response in columns_of(row, question)]
    given += [response for question in old for response in entries_of(question, row[question])]
    about = {name: row[name] for name in ("metadata",) if name in row}
    yield from labels(fields, given, named(row, id), about, hints)


def named(row: Record, id: str) -> str:
    """The record's name: the one that its owner gave it, or Argilla's."""
    return str(row.get("external_id") or row.id(id))


def columns_of(row: Record, question: str) -> list[Response]:
    """The responses to a question in columns of version 2."""
    values = row[f"{question}{RESPONSES}"]
    columns = [row.get(f"{question}{RESPONSES}.{name}") for name in ("users", "status")]
    if not isinstance(values, list):
        return [Response(question, InvalidRow(f"the responses to '{question}' are {kind(values)}, not a list"), None)]
    unknown = [None] * len(values)
    users, states = (
        column if isinstance(column, list) and len(column) == len(values) else unknown for column in columns
    )
    return [Response(question, *response) for response in zip(values, map(name_of, users), states)]


def responses_of(given: Any) -> list[Response]:
    """The responses of a record, by question or by person."""
    if isinstance(given, Mapping):
        return [response for question, entries in given.items() for response in entries_of(question, entries)]
    if not isinstance(given, list):
        return [Response("?", InvalidRow(f"the responses are {kind(given)}, not a list or an object"), None)]
    responses = []
    for entry in given:
        values = entry.get("values", {}) if isinstance(entry, Mapping) else None
        if not isinstance(values, Mapping):
            responses.append(Response("?", InvalidRow("a response is no object with values"), None))
            continue
        for question, value in values.items():
            answer = value.get("value") if isinstance(value, Mapping) else value
            responses.append(Response(question, answer, name_of(entry.get("user_id")), entry.get("status")))
    return responses


def entries_of(question: str, entries: Any) -> list[Response]:
    """The responses to a question, [{value, user_id, status}] or as columns {value: [], user_id: [], status: []}."""
    if isinstance(entries, Mapping):
        columns = [entries.get(name, []) for name in ("value", "user_id", "status")]
        sized = all(isinstance(column, list) for column in columns) and len(set(map(len, columns))) == 1
        entries = [dict(zip(("value", "user_id", "status"), entry)) for entry in zip(*columns)] if sized else None
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        return [Response(question, InvalidRow(f"the responses to '{question}' are not a list of objects"), None)]
    return [
        Response(question, entry.get("value"), name_of(entry.get("user_id")), entry.get("status")) for entry in entries
    ]


def labels(
    fields: Mapping[str, Any], given: list[Response], id: str, about: Mapping[str, Any], hints: Hints
) -> Iterator[Label]:
    """Yield the labels in submitted responses; a person's answers to other questions are kept with them as notes."""
    submitted = [response for response in given if response.status in (None, "submitted")]
    submitted = [response for response in submitted if response.value is not None]
    faults = [response.value for response in submitted if isinstance(response.value, InvalidRow)]
    usable = [response for response in submitted if is_label(response, fields)]
    yield from faults
    for response in usable:
        notes = {other.question: other.value for other in submitted if other.by == response.by and other not in usable}
        yield attempt(label_of, fields, response, id, {**about, "notes": notes}, hints)
    if submitted and not usable and not faults:
        yield InvalidRow(f"no order of fields, better field or text among the responses to '{submitted[0].question}'")


def is_label(response: Response, fields: Mapping[str, Any]) -> bool:
    """True for an order of fields, the name of a field, or, where nothing is compared, a text."""
    value, texts = response.value, texts_of(fields)
    if isinstance(value, InvalidRow):
        return False
    if isinstance(value, str):
        return value in texts or (len(texts) == 1 and bool(value.strip()))
    return bool(placed(value)) and all(name in texts for name, _ in placed(value))


def placed(value: Any) -> list[tuple[str, float]]:
    """(field, rank) of an order, 1 the best; fields without a rank are left out. Empty where it is none."""
    if isinstance(value, Mapping):  # columns, as `datasets` keeps a list of objects
        names, ranks = value.get("value"), value.get("rank")
        if not isinstance(names, list) or not isinstance(ranks, list) or len(names) != len(ranks):
            return []
        value = [{"value": name, "rank": rank} for name, rank in zip(names, ranks)]
    if not isinstance(value, list):
        return []
    if value and all(isinstance(entry, str) for entry in value):
        return [(name, float(place)) for place, name in enumerate(value, start=1)]
    if not all(isinstance(entry, Mapping) and isinstance(entry.get("value"), str) for entry in value):
        return []
    return [(entry["value"], float(entry["rank"])) for entry in value if is_number(entry.get("rank"))]


def label_of(
    fields: Mapping[str, Any], response: Response, id: str, about: Mapping[str, Any], hints: Hints
) -> Ranking | Demonstration:
    """A ranking or a demonstration."""
    texts, meta = texts_of(fields), {**about, "question": response.question}
    order = placed(response.value)
    if order:
        names = [name for name, _ in order]
        asking = prompt_field(texts, names, hints)
        ranks = from_scores([-rank for _, rank in order])
    elif response.value in texts:
        asking = prompt_field(texts, (response.value,), hints)
        names = [name for name in texts if name != asking]
        if len(names) != 2:
            raise InvalidRow(f"'{response.value:.40}' is the best of {', '.join(names)}, which are not two")
        ranks = [1.0 if name == response.value else 2.0 for name in names]
    else:
        asking = prompt_field(texts, (), hints)
        return demonstration_made(texts[asking], response.value, id, response.by, meta)
    meta["answers"] = names
    meta["fields"] = {name: text for name, text in texts.items() if name not in (asking, *names)}
    prompt = (Message("user", texts[asking]),)
    return ranking_made(prompt, [texts[name] for name in names], ranks, id, response.by, meta)
