"""Export of labels from a store as data files with their lineage, and import of others' data files.

Export: rankings.jsonl, pairs.jsonl, demonstrations.jsonl in the columns that training reads, and lineage.json. Left out
are answers to gold items, whose order was known beforehand, and rankings in which all answers are tied.

Import: all that `sources` reads as rankings or demonstrations (hh-rlhf among them), and the FORMATS of others. Each row
has a name made of its file's content, so that a file imported twice is stored once.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from amenable.data import model_comparisons, readers, sources
from amenable.data.files import row_location
from amenable.data.record import InvalidRow, Record, kind
from amenable.data.types import Demonstration, Ranking
from amenable.errors import InputError
from amenable.feedback import argilla, label_studio, open_assistant, published
from amenable.feedback.formats import Label, Reader
from amenable.feedback.hints import Hints, Unclear
from amenable.feedback.store import Event, Store, demonstration_of, payload_of, ranking_of, turns
from amenable.files import write_text

Kind = Literal["rankings", "pairs", "demonstrations"]
KINDS: tuple[Kind, ...] = ("rankings", "pairs", "demonstrations")
GOLD_PURPOSES = ("calibration", "screening")
"""purposes of tasks whose order was known beforehand"""
KNOWN = "known are rankings and preferences between texts, and written answers"


def export(store: Store, out: Path) -> dict[str, int]:
    """Write the files that have rows, and lineage.json; returns the number of rows by file."""
    texts = {name: list(lines(store, name)) for name in KINDS}
    counts = {name: len(rows) for name, rows in texts.items() if rows}
    if not counts:
        raise InputError("there is no label to write", store.path, "'amenable label' collects them")
    out.mkdir(parents=True, exist_ok=True)
    for name in counts:
        write_text(out / f"{name}.jsonl", "".join(f"{row}\n" for row in texts[name]))
    write_text(out / "lineage.json", json.dumps(lineage(store, out, counts), indent=1))
    return {str(name): rows for name, rows in counts.items()}


def lines(store: Store, name: Kind) -> Iterator[str]:
    """Yield the rows of one file, as JSON."""
    if name == "demonstrations":
        for event in store.active("demonstration", "conversation"):
            example = demonstration_of(event)
            row = {"messages": turns(example.messages), "id": example.id, "annotator": event.payload.get("annotator")}
            yield json.dumps({**row, "event": event.id})
        return
    for event in training_rankings(store):
        yield from map(json.dumps, rankings_rows(event) if name == "rankings" else pairs_rows(event))


def training_rankings(store: Store) -> list[Event]:
    """Return the active rankings that training uses: not of gold items, and not all tied."""
    return [
        event
        for event in store.active("ranking")
        if event.payload.get("purpose") not in GOLD_PURPOSES and len(set(event.payload["ranking"])) > 1
    ]


def rankings_rows(event: Event) -> Iterator[dict[str, Any]]:
    """Yield the row of rankings.jsonl of an event."""
    ranking = ranking_of(event.payload)
    row = {key: value for key, value in payload_of(ranking).items() if key != "meta"}
    yield {**row, "id": ranking.id or f"label-{event.id}", **ended(ranking), "event": event.id}


def ended(ranking: Ranking) -> dict[str, Any]:
    """Return {"ended": a flag for each answer} where known: True for an answer with an end token."""
    known = ranking.meta.get("ended")
    return {"ended": known} if known else {}


def pairs_rows(event: Event) -> Iterator[dict[str, Any]]:
    """Yield every pair that is not tied, with the annotator's certainty (`strength`, 1 to 4) where it was asked for.

    Strength is not exported as `margin`, which training uses, in units of reward. A preferred empty answer is in
    rankings.jsonl only: a pair's `chosen` can't be empty.
    """
    ranking, strength = ranking_of(event.payload), event.payload.get("strength")
    for i, better in enumerate(ranking.completions):
        for j, worse in enumerate(ranking.completions):
            if ranking.ranks[i] < ranking.ranks[j] and better.strip():
                yield {
                    "prompt": turns(ranking.prompt),
                    "chosen": better,
                    "rejected": worse,
                    **({} if strength is None else {"strength": abs(strength)}),
                    **({} if ranking.margin is None else {"margin": ranking.margin}),
                    "annotator": ranking.annotator,
                    "id": f"{ranking.id or f'label-{event.id}'}-{i}-{j}",
                    "event": event.id,
                }


def lineage(store: Store, out: Path, counts: Mapping[Kind, int]) -> dict[str, Any]:
    """Return the lineage of an export: events, annotators, models of the answers, and hashes of the files."""
    used = [*training_rankings(store), *store.active("demonstration", "conversation")]
    people = Counter(str(event.payload.get("annotator")) for event in used)
    models = {json.dumps(source, sort_keys=True) for event in used for source in sources_of(event)}
    return {
        "store": str(store.path),
        "last_event": max(event.id for event in used),
        "labels": len(used),
        "annotators": dict(sorted(people.items())),
        "answers_by": [json.loads(source) for source in sorted(models)],
        "files": {
            f"{name}.jsonl": {
                "rows": rows,
                "sha256": hashlib.sha256((out / f"{name}.jsonl").read_bytes()).hexdigest(),
            }
            for name, rows in counts.items()
        },
    }


def sources_of(event: Event) -> list[dict[str, Any]]:
    """Return the models that gave the answers of an event."""
    others = [source for more in event.payload.get("other_sources", []) for source in more]
    return [*event.payload.get("sources", []), *others]


@dataclass(frozen=True)
class Format:
    """A file format: its name, a test of a row for it, and a reader of its rows."""

    name: str
    matches: Callable[[Mapping[str, Any]], bool]
    read: Reader


FORMATS = (
    Format("Label Studio, JSON", label_studio.is_task, label_studio.task_labels),
    Format("Label Studio, JSON-MIN", label_studio.is_minimal, label_studio.minimal_labels),
    Format("Argilla, JSON", argilla.is_record, argilla.record_labels),
    Format("Argilla, rows of the Hub", argilla.is_flat, argilla.flat_labels),
    Format("Open-Assistant, trees", open_assistant.is_tree, open_assistant.tree_labels),
    Format("Open-Assistant, messages", open_assistant.is_message, open_assistant.tree_labels),
    Format("comparisons of two models", model_comparisons.is_comparison, published.comparison_labels),
)


@dataclass
class Imported:
    """Labels read from a file. Rows are numbered as in `readers`."""

    format: str
    rankings: list[Ranking] = field(default_factory=list)
    demonstrations: list[Demonstration] = field(default_factory=list)
    rejected: list[tuple[int, str]] = field(default_factory=list)
    """invalid labels, or whole rows: number of the row, and reason"""
    dropped: Counter[str] = field(default_factory=Counter)
    """columns that are not stored, by the number of rows that have them"""

    def plan(self, file: Path) -> list[str]:
        """Return lines to print: numbers of labels, columns stored and not stored, reasons of rejection."""
        sizes = {"ranking": len(self.rankings), "demonstration": len(self.demonstrations)}
        counts = ", ".join(f"{size} {noun}{'' if size == 1 else 's'}" for noun, size in sizes.items())
        metas = [*(ranking.meta for ranking in self.rankings), *(row.meta for row in self.demonstrations)]
        columns = dict.fromkeys(key for meta in metas for key in meta)
        lines = [f"{file.name} ({self.format}): {counts}"]
        lines += [f"stored with them: {', '.join(columns)}"] if columns else []
        lines += [f"not stored: {', '.join(self.dropped)}"] if self.dropped else []
        reasons = Counter(reason for _, reason in self.rejected)
        for reason, count in reasons.most_common(3):
            first = next(number for number, other in self.rejected if other == reason)
            lines.append(f"{count} could not be used: {reason} (first: {row_location(file, first)})")
        return lines + ([f"and {len(reasons) - 3} more reasons"] if len(reasons) > 3 else [])


def store_labels(
    store: Store, file: Path, labels: Imported, annotator: str | None, time: float, hints: Hints | None = None
) -> dict[str, int]:
    """Store the labels that `read` returned for a file. Raises InputError where they were stored with other hints."""
    hashed = hashlib.sha256(file.read_bytes()).hexdigest()
    meta: dict[str, Any] = {"imported": file.name, "sha256": hashed}
    if hints is not None and hints != Hints():
        given = asdict(hints) if hints.columns else {k: v for k, v in asdict(hints).items() if k != "columns"}
        meta["hints"] = json.loads(json.dumps(given))
    for event in store.events("ranking") + store.events("demonstration"):
        known = event.payload.get("meta") or {}
        if known.get("sha256") == hashed and known.get("hints") != meta.get("hints"):
            mend = "import into a new store; events stay"
            raise InputError("these labels were imported before, with other options", file, mend)
    rankings = [
        {**payload_of(row), "annotator": row.annotator or annotator, "meta": {**plain(row.meta), **meta}}
        for row in labels.rankings
    ]
    demonstrations = [
        {
            **{"messages": turns(row.messages), "annotator": row.meta.get("annotator") or annotator, "id": row.id},
            "meta": {**plain(row.meta), **meta},
        }
        for row in labels.demonstrations
    ]
    new = 0
    for event_kind, payloads in (("ranking", rankings), ("demonstration", demonstrations)):
        once = [f"import {hashed} {event_kind} {number}" for number in range(len(payloads))]
        new += store.append_new(event_kind, payloads, time, once)
    return {"labels": len(rankings) + len(demonstrations), "new": new, "unusable": len(labels.rejected)}


def read(file: Path, hints: Hints | None = None) -> Imported:
    """Read the labels of a file in any known format. Raises InputError where there is no usable label."""
    if not file.is_file():
        raise InputError("no such file", file, "give a file of labels: .jsonl, .json, .parquet or .csv")
    hints = hints or Hints()
    if hints.columns:
        return read_training_columns(file, hints.columns)
    rows = [(number, plain(row)) for number, row in readers.read_rows(file)]
    first = next((row for _, row in rows if isinstance(row, dict)), {})
    format = next((format for format in FORMATS if format.matches(first)), None)
    if format is None:
        return read_training_columns(file)
    imported = Imported(format.name)
    for number, row in rows_of_format(format, rows, imported):
        record, before = Record(row), len(imported.rankings) + len(imported.demonstrations)
        try:
            for label in format.read(record, f"{file.name}:{number}", hints):
                add(imported, label, number)
        except InvalidRow as error:
            imported.rejected.append((number, str(error)))
        except Unclear as error:
            raise InputError(f"{row_location(file, number)}: {error.question}", file, error.mend) from None
        if len(imported.rankings) + len(imported.demonstrations) > before:
            imported.dropped.update(filter(record.filled, record.rest()))
    imported.rejected.sort(key=lambda rejected: rejected[0])
    if not imported.rankings and not imported.demonstrations:
        number, reason = imported.rejected[0] if imported.rejected else (1, "it is empty")
        raise InputError(f"holds no label that can be used ({row_location(file, number)}: {reason})", file, KNOWN)
    return imported


def rows_of_format(
    format: Format, rows: Sequence[tuple[int, Any]], imported: Imported
) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows of a format, and reject all others. Messages of a flat table are joined to trees."""
    matching = [(number, row) for number, row in rows if isinstance(row, dict) and format.matches(row)]
    numbers = {number for number, _ in matching}
    for number, row in rows:
        if number not in numbers:
            imported.rejected.append((number, f"it is {kind(row)}, and not as other rows are ({format.name})"))
    if format.matches is not open_assistant.is_message:
        return matching
    trees, rejected = open_assistant.trees_of(matching)
    imported.rejected += rejected
    return trees


def add(imported: Imported, label: Label, number: int) -> None:
    """Add a label, or the reason of its rejection."""
    if isinstance(label, InvalidRow):
        imported.rejected.append((number, str(label)))
    elif isinstance(label, Ranking):
        imported.rankings.append(label)
    else:
        imported.demonstrations.append(label)


def read_training_columns(file: Path, columns: Sequence[str] = ()) -> Imported:
    """Read a file in the columns that training reads, or in others that are mapped to them: rankings, or else
    demonstrations."""
    try:
        rankings = sources.read_rankings(file, columns=columns)
    except InputError as no_rankings:
        try:
            demonstrations = sources.read_demonstrations(file, columns=columns)
        except InputError:
            raise no_rankings from None
        return Imported("demonstrations", demonstrations=demonstrations.rows, rejected=reasons_of(demonstrations))
    return Imported("rankings", rankings.rows, rejected=reasons_of(rankings))


def reasons_of(loaded: sources.Loaded[Any]) -> list[tuple[int, str]]:
    """Return (line, reason) of the rows without a label."""
    return sorted((row.line, row.reason) for row in (*loaded.rejected, *loaded.left_out))


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: nan and infinity as None, dates and bytes as text."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
