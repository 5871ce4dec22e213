"""Reader of labels in Label Studio's exports, JSON and JSON-MIN.

    Pairwise    `left` is the first name in toName, `right` the second; they are names of tags, not of data fields
    Ranker      ids of a List's items in order, or in buckets; items of one bucket are tied, `_` has those of none
    TextArea    a written answer

The data field of a tag is in the labelling configuration, which exports leave out. A tag with the name of a field shows
that field; otherwise --label-config FILE or --left-field and --right-field are needed, and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from amenable.data.record import InvalidRow, Record, kind
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
from amenable.feedback.hints import Hints, Layout, Unclear

UNPLACED = "_"
"""the bucket of items that were not moved"""
MINIMAL = {"annotation_id", "lead_time"}
"""columns of every row of JSON-MIN"""
ABOUT = ("annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement", "id")
WHERE = "or --label-config FILE (Label Studio: Settings, Labeling Interface, Code)"


def is_task(row: Mapping[str, Any]) -> bool:
    """True for a task of the JSON export."""
    return "annotations" in row and "data" in row


def is_minimal(row: Mapping[str, Any]) -> bool:
    """True for an annotation of the JSON-MIN export."""
    return set(row) >= MINIMAL and not is_task(row)


def task_labels(row: Record, id: str, hints: Hints) -> Iterator[Label]:
    """Yield the labels in the annotations of a task."""
    data, annotations = row.get("data"), row.get("annotations", [])
    if not isinstance(data, Mapping) or not isinstance(annotations, list):
        yield InvalidRow("data is not an object of fields, or annotations not a list")
        return
    for annotation in annotations:
        if not isinstance(annotation, Mapping):
            yield InvalidRow(f"an annotation is {kind(annotation)}, not an object")
        elif not annotation.get("was_cancelled"):
            results = annotation.get("result", [])
            if not isinstance(results, list):
                yield InvalidRow(f"the result of an annotation is {kind(results)}, not a list")
                continue
            about = {key: value for key, value in annotation.items() if key not in ("result", "completed_by")}
            notes = notes_of(results)
            by = name_of(annotation.get("completed_by"))
            for result in results:
                if is_label(result):
                    yield attempt(label_of, data, result, row.id(id), by, {**about, **notes}, hints)
                elif not is_note(result):
                    yield InvalidRow(f"a label of the type '{type_of(result)}' is not read")


def minimal_labels(row: Record, id: str, hints: Hints) -> Iterator[Label]:
    """Yield the labels of an annotation whose results are columns next to the data."""
    layout = hints.layout
    about = {key: row[key] for key in ("lead_time", "created_at", "annotation_id") if key in row}
    by = name_of(row.get("annotator"))
    data = {name: row[name] for name in row if name not in ABOUT and name not in layout.types}
    results = [result for name in row if name not in ABOUT for result in results_of(name, row[name], layout)]
    data = {name: value for name, value in data.items() if name not in {result["from_name"] for result in results}}
    labels = [result for result in results if is_label(result)]
    if not labels:
        yield InvalidRow("no label in it; if a column is a written answer (TextArea), --label-config FILE says which")
    for result in labels:
        yield attempt(label_of, data, result, row.id(id), by, {**about, **notes_of(results)}, hints)


def results_of(name: str, value: Any, layout: Layout) -> list[dict[str, Any]]:
    """Return the results in a column of JSON-MIN, in the form of the JSON export."""
    about = {"from_name": name, "to_name": layout.shows.get(name)}
    if layout.types.get(name) == "textarea":
        return [{**about, "type": "textarea", "value": {"text": value}}]
    if layout.types.get(name) == "choices":
        return [{**about, "type": "choices", "value": {"choices": value}}]
    entries = value if isinstance(value, list) else [value]
    results = []
    for entry in entries:
        if isinstance(entry, Mapping) and ("selected" in entry or "ranker" in entry):
            results.append({**about, "type": "pairwise" if "selected" in entry else "ranker", "value": dict(entry)})
    return results


def type_of(result: Any) -> str:
    """Return the type of an annotation's result, or the kind of value that it is instead."""
    return str(result.get("type", "?")) if isinstance(result, Mapping) else kind(result)


def is_label(result: Any) -> bool:
    """True for a result that is a ranking or a demonstration."""
    return type_of(result) in ("pairwise", "ranker", "textarea")


def is_note(result: Any) -> bool:
    """True for a choice, a rating or a number, which are stored with the annotation's labels."""
    return type_of(result) in ("choices", "rating", "number")


def notes_of(results: Sequence[Any]) -> dict[str, Any]:
    """Return choices, ratings and numbers of an annotation, by their control's name."""
    notes = {str(result.get("from_name")): result.get("value") for result in results if is_note(result)}
    return {"notes": notes} if notes else {}


def label_of(
    data: Mapping[str, Any],
    result: Mapping[str, Any],
    id: str,
    annotator: str | None,
    about: Mapping[str, Any],
    hints: Hints,
) -> Ranking | Demonstration:
    """Return a ranking or demonstration; `InvalidRow` for any other result, `Unclear` for an ambiguous export."""
    value = result.get("value")
    if not isinstance(value, Mapping):
        raise InvalidRow(f"the value of a label is {kind(value)}, not an object")
    texts = texts_of(data)
    if result["type"] == "pairwise":
        names, ranks = compared(value, result, data, hints)
        answers = {name: data.get(name) for name in names}
        prompt_name = prompt_field(texts, names, hints)
    elif result["type"] == "ranker":
        names, ranks = ranked(in_order(value.get("ranker"), result, hints))
        answers = items_of(data, result, hints.layout)
        missing = [name for name in names if name not in answers]
        if missing:
            raise InvalidRow(f"there is no item '{missing[0]:.40}' in the list that is ranked")
        prompt_name = prompt_field(texts, (), hints)
    else:
        prompt_name = prompt_field(texts, (), hints)
        others = {name: value for name, value in data.items() if name != prompt_name}
        return make_demonstration(
            texts[prompt_name], written(value.get("text")), id, annotator, {**about, "fields": others}
        )
    others = {name: value for name, value in data.items() if name not in (prompt_name, *names)}
    meta = {**about, "answers": names, "fields": others}
    return make_ranking(
        (Message("user", texts[prompt_name]),), [answers[name] for name in names], ranks, id, annotator, meta
    )


def written(value: Any) -> str:
    """Return the text of a TextArea, a text or a list of lines."""
    lines = value if isinstance(value, list) else [value]
    if not lines or not all(isinstance(line, str) for line in lines):
        raise InvalidRow(f"the written text is {kind(value)}")
    return "\n".join(lines)


def compared(
    value: Mapping[str, Any], result: Mapping[str, Any], data: Mapping[str, Any], hints: Hints
) -> tuple[list[str], list[float]]:
    """Return the fields that a Pairwise compares, left and right, and their ranks."""
    names, selected = list(sides(result, data, hints)), value.get("selected")
    if selected not in ("left", "right"):
        raise InvalidRow(f"selected is {selected!s:.40}, not left or right")
    return names, [1.0, 2.0] if selected == "left" else [2.0, 1.0]


def ranked(groups: Sequence[Sequence[str]]) -> tuple[list[str], list[float]]:
    """Return the items in groups from the best to the worst, and their ranks; the items of a group share a rank."""
    names = [name for group in groups for name in group]
    if len(set(names)) < len(names):
        raise InvalidRow("an item is ranked twice")
    before = [sum(map(len, groups[:index])) for index in range(len(groups))]
    return names, [1.0 + better for better, group in zip(before, groups) for _ in group]


def sides(result: Mapping[str, Any], data: Mapping[str, Any], hints: Hints) -> tuple[str, str]:
    """Return the data fields on the left and on the right. Raises `Unclear` where they are unknown."""
    layout = hints.layout
    if hints.left_field is not None or hints.right_field is not None:
        fields = (hints.left_field, hints.right_field)
    else:
        named = result.get("to_name") or layout.shows.get(str(result.get("from_name")))
        tags = [tag.strip() for tag in named.split(",")] if isinstance(named, str) else []
        if len(tags) != 2:
            question = f"which fields are compared (there are {', '.join(data)})?"
            raise Unclear(question, f"answer with --left-field NAME --right-field NAME, {WHERE}")
        fields = (layout.fields.get(tags[0], tags[0]), layout.fields.get(tags[1], tags[1]))
        if not set(fields) <= set(data):
            question = (
                f"which fields do the tags '{tags[0]}' (left) and '{tags[1]}' (right) show, of {', '.join(data)}?"
            )
            raise Unclear(question, f"answer with --left-field NAME --right-field NAME, {WHERE}")
    left, right = fields
    if left is None or right is None or left == right or not {left, right} <= set(data):
        question = f"the fields '{left}' and '{right}' are not two of {', '.join(data)}"
        raise Unclear(question, "give --left-field NAME --right-field NAME")
    return left, right


def in_order(columns: Any, result: Mapping[str, Any], hints: Hints) -> list[list[str]]:
    """Return groups of items, the best first; items of one group are tied."""
    if isinstance(columns, list):
        columns = {"": columns}
    if not isinstance(columns, Mapping) or not all(isinstance(items, list) for items in columns.values()):
        raise InvalidRow("the ranker's value is not lists of items by column")
    filled = {str(name): list(map(str, items)) for name, items in columns.items()}
    control = str(result.get("from_name"))
    buckets = hints.buckets or hints.layout.buckets.get(control, ())
    if len(filled) == 1 and not buckets and UNPLACED not in filled:
        return [[item] for item in next(iter(filled.values()))]
    names = [name for name in filled if name != UNPLACED]
    if not set(names) <= set(buckets):
        question = f"which of the buckets {', '.join(names)} is the best, and which follow?"
        raise Unclear(question, f"answer with --buckets NAME NAME ..., the best first, {WHERE}")
    return [filled[name] for name in buckets if filled.get(name)]


def items_of(data: Mapping[str, Any], result: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """Return the texts of the ranked list, by the items' ids."""
    lists = {
        name: value
        for name, value in data.items()
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value)
    }
    tag = result.get("to_name") or layout.shows.get(str(result.get("from_name"))) or ""
    shown = layout.fields.get(str(tag), str(tag))
    if shown not in lists:
        if len(lists) != 1:
            question = f"which field is the list that the tag '{tag}' shows, of {', '.join(data)}?"
            raise Unclear(question, WHERE.removeprefix("or "))
        (shown,) = lists
    return {str(item.get("id")): item.get("body") or item.get("title") or item.get("html") for item in lists[shown]}
