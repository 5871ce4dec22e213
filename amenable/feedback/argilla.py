"""Reader of labels in Argilla's exports: JSON, and flat rows of the Hub.

    JSON      {fields, responses: {question: [{value, user_id[, status]}]}}, or before version 2 a list
              [{user_id, status, values: {question: {value}}}]
    Hub, 2    a column for each field; question.responses, question.responses.users, question.responses.status
    Hub, 1    a column for each field; question: [{user_id, value, status}], question-suggestion, external_id, metadata

A response is an order of fields (names, the best first, or {value, rank}), the name of the better of two, or a text.
Responses that are not submitted are left out, and so are suggestions, which are no annotator's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from amenable.data.rankings import from_scores
from amenable.data.record import InvalidRow, Record, is_number, kind
from amenable.data.types import Demonstration, Message, Ranking
from amenable.feedback.formats import (
    Label,
    attempt,
    make_demonstration,
    make_ranking,
    name_of,
    prompt_field,
    texts_of,
)
from amenable.feedback.hints import Hints

RESPONSES = ".responses"
SUGGESTION = "-suggestion"
RESPONSE = {"value", "user_id", "status"}
ABOUT = ("id", "_server_id", "status", "external_id", "metadata")


class Response(NamedTuple):
    """One annotator's answer to one question."""

    question: str
    value: Any
    annotator: str | None
    status: Any = None


def is_record(row: Mapping[str, Any]) -> bool:
    """True for a record of the JSON export."""
    return "fields" in row and "responses" in row


def is_flat(row: Mapping[str, Any]) -> bool:
    """True for a row of the Hub."""
    return bool(flat_questions(row) or old_questions(row))


def flat_questions(row: Mapping[str, Any]) -> list[str]:
    """Return the questions of a row as version 2 flattens it."""
    return [name.removesuffix(RESPONSES) for name in row if name.endswith(RESPONSES)]


def old_questions(row: Mapping[str, Any]) -> list[str]:
    """Return the questions of a row as version 1 flattens it."""
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
    """Return the record's name: its external id, or Argilla's."""
    return str(row.get("external_id") or row.id(id))


def columns_of(row: Record, question: str) -> list[Response]:
    """Return the responses to a question in columns of version 2."""
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
    """Return the responses of a record, listed by question or by annotator."""
    if isinstance(given, Mapping):
        return [response for question, entries in given.items() for response in entries_of(question, entries)]
    if not isinstance(given, list):
        return [Response("?", InvalidRow(f"the responses are {kind(given)}, not a list or an object"), None)]
    responses = []
    for entry in given:
        values = entry.get("values", {}) if isinstance(entry, Mapping) else None
        if not isinstance(values, Mapping):
            responses.append(Response("?", InvalidRow("a response is not an object with values"), None))
            continue
        for question, value in values.items():
            answer = value.get("value") if isinstance(value, Mapping) else value
            responses.append(Response(question, answer, name_of(entry.get("user_id")), entry.get("status")))
    return responses


def entries_of(question: str, entries: Any) -> list[Response]:
    """Return the responses to a question, [{value, user_id, status}] or {value: [], user_id: [], status: []}."""
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
    """Yield the labels in submitted responses, with the annotator's answers to other questions as notes."""
    submitted = [response for response in given if response.status in (None, "submitted")]
    submitted = [response for response in submitted if response.value is not None]
    faults = [response.value for response in submitted if isinstance(response.value, InvalidRow)]
    usable = [response for response in submitted if is_label(response, fields)]
    yield from faults
    for response in usable:
        notes = {
            other.question: other.value
            for other in submitted
            if other.annotator == response.annotator and other not in usable
        }
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
    return bool(ranked_fields(value)) and all(name in texts for name, _ in ranked_fields(value))


def ranked_fields(value: Any) -> list[tuple[str, float]]:
    """Return (field, rank) of an order, 1 the best, without fields that have no rank; [] for any other value."""
    if isinstance(value, Mapping):  # columns, as `datasets` keeps a list of objects
        names, ranks = value.get("value"), value.get("rank")
        if not isinstance(names, list) or not isinstance(ranks, list) or len(names) != len(ranks):
            return []
        value = [{"value": name, "rank": rank} for name, rank in zip(names, ranks)]
    if not isinstance(value, list):
        return []
    if value and all(isinstance(entry, str) for entry in value):
        return [(name, float(rank)) for rank, name in enumerate(value, start=1)]
    if not all(isinstance(entry, Mapping) and isinstance(entry.get("value"), str) for entry in value):
        return []
    return [(entry["value"], float(entry["rank"])) for entry in value if is_number(entry.get("rank"))]


def label_of(
    fields: Mapping[str, Any], response: Response, id: str, about: Mapping[str, Any], hints: Hints
) -> Ranking | Demonstration:
    """Return the ranking or demonstration in a response."""
    texts, meta = texts_of(fields), {**about, "question": response.question}
    order = ranked_fields(response.value)
    if order:
        names = [name for name, _ in order]
        prompt_name = prompt_field(texts, names, hints)
        ranks = from_scores([-rank for _, rank in order])
    elif response.value in texts:
        prompt_name = prompt_field(texts, (response.value,), hints)
        names = [name for name in texts if name != prompt_name]
        if len(names) != 2:
            raise InvalidRow(f"'{response.value:.40}' is the best of {', '.join(names)}, which are not two")
        ranks = [1.0 if name == response.value else 2.0 for name in names]
    else:
        prompt_name = prompt_field(texts, (), hints)
        return make_demonstration(texts[prompt_name], response.value, id, response.annotator, meta)
    meta["answers"] = names
    meta["fields"] = {name: text for name, text in texts.items() if name not in (prompt_name, *names)}
    prompt = (Message("user", texts[prompt_name]),)
    return make_ranking(prompt, [texts[name] for name in names], ranks, id, response.annotator, meta)
