"""Labels out of a store as data files, with their lineage, and data files of others into it.

Out: rankings.jsonl, pairs.jsonl, demonstrations.jsonl in the columns that training reads, and lineage.json. Left out
are answers to items whose order was known beforehand, and orders in which everything is tied: they teach nothing.

In: whatever `sources` reads as rankings or demonstrations (hh-rlhf among them), and what others publish or export, in
FORMS. Every row has a name made of its file's content, so that a file that comes twice is kept once.
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

from amenable.data import sources
from amenable.data.files import row_location
from amenable.data.record import InvalidRow, Record, kind
from amenable.data.types import Demonstration, Ranking
from amenable.errors import InputError
from amenable.feedback import argilla, label_studio, open_assistant, published
from amenable.feedback.formats import Label, Reader
from amenable.feedback.hints import Hints, Unclear
from amenable.feedback.store import Event, Store, demonstration_of, payload_of, ranking_of, turns
from amenable.files import write_text

What = Literal["rankings", "pairs", "demonstrations"]
WHATS: tuple[What, ...] = ("rankings", "pairs", "demonstrations")
TESTS = ("calibration", "screening")
KNOWN = "known are rankings and preferences between texts, and written answers"


def export(store: Store, out: Path) -> dict[str, int]:
    """Write the files that have rows, and lineage.json; returns the number of rows by file."""
    texts = {what: list(lines(store, what)) for what in WHATS}
    counts = {what: len(rows) for what, rows in texts.items() if rows}
    if not counts:
        raise InputError("there is no label to write", store.path, "'amenable label' collects them")
    out.mkdir(parents=True, exist_ok=True)
    for what in counts:
        write_text(out / f"{what}.jsonl", "".join(f"{row}\n" for row in texts[what]))
    write_text(out / "lineage.json", json.dumps(lineage(store, out, counts), indent=1))
    return {str(what): rows for what, rows in counts.items()}


def lines(store: Store, what: What) -> Iterator[str]:
    """The rows of one file, as JSON."""
    if what == "demonstrations":
        for event in store.active("demonstration", "conversation"):
            made = demonstration_of(event)
            row = {"messages": turns(made.messages), "id": made.id, "annotator": event.payload.get("annotator")}
            yield json.dumps({**row, "event": event.id})
        return
    for event in standing_rankings(store):
        yield from map(json.dumps, rankings_rows(event) if what == "rankings" else pairs_rows(event))


def standing_rankings(store: Store) -> list[Event]:
    """Rankings to learn from."""
    return [
        event
        for event in store.active("ranking")
        if event.payload.get("purpose") not in TESTS and len(set(event.payload["ranking"])) > 1
    ]


def rankings_rows(event: Event) -> Iterator[dict[str, Any]]:
    ranking = ranking_of(event.payload)
    row = {key: value for key, value in payload_of(ranking).items() if key != "meta"}
    yield {**row, "id": ranking.id or f"label-{event.id}", **ended(ranking), "event": event.id}


def ended(ranking: Ranking) -> dict[str, Any]:
    """Whether each answer ended by itself, where that is known."""
    known = ranking.meta.get("ended")
    return {"ended": known} if known else {}


def pairs_rows(event: Event) -> Iterator[dict[str, Any]]:
    """Every pair that is not tied, with how sure the person was (`strength`, 1 to 4), where they were asked.

    It is no `margin`: that is in units of reward, and training would honour it. An empty answer that was preferred is
    in the rankings only: a pair's `chosen` can't be empty.
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


def lineage(store: Store, out: Path, counts: Mapping[What, int]) -> dict[str, Any]:
    """Which events went in, who said it, which models wrote the answers, and the hashes of the files."""
    used = [*standing_rankings(store), *store.active("demonstration", "conversation")]
    people = Counter(str(event.payload.get("annotator")) for event in used)
    models = {json.dumps(source, sort_keys=True) for event in used for source in sources_of(event)}
    return {
        "store": str(store.path),
        "last_event": max(event.id for event in used),
        "labels": len(used),
        "annotators": dict(sorted(people.items())),
        "answers_by": [json.loads(source) for source in sorted(models)],
        "files": {
            f"{what}.jsonl": {
                "rows": rows,
                "sha256": hashlib.sha256((out / f"{what}.jsonl").read_bytes()).hexdigest(),
            }
            for what, rows in counts.items()
        },
    }


def sources_of(event: Event) -> list[dict[str, Any]]:
    """The models that gave the answers of an event."""
    others = [source for more in event.payload.get("other_sources", []) for source in more]
    return [*event.payload.get("sources", []), *others]


@dataclass(frozen=True)
class Form:
    """A form of export: its name, how a row of it is known, and what reads one."""

    name: str
    fits: Callable[[Mapping[str, Any]], bool]
    labels: Reader


FORMS = (
    Form("Label Studio, JSON", label_studio.is_task, label_studio.task_labels),
    Form("Label Studio, JSON-MIN", label_studio.is_minimal, label_studio.minimal_labels),
    Form("Argilla, JSON", argilla.is_record, argilla.record_labels),
    Form("Argilla, rows of the Hub", argilla.is_flat, argilla.flat_labels),
    Form("Open-Assistant, trees", open_assistant.is_tree, open_assistant.tree_labels),
    Form("Open-Assistant, messages", open_assistant.is_message, open_assistant.tree_labels),
    Form("comparisons of two models", published.is_comparison, published.comparison_labels),
)


@dataclass
class Imported:
    """The labels of a file. Rows are numbered as in `sources`."""

    form: str
    rankings: list[Ranking] = field(default_factory=list)
    demonstrations: list[Demonstration] = field(default_factory=list)
    rejected: list[tuple[int, str]] = field(default_factory=list)
    """labels, or whole rows, of which nothing can be made: number of the row, and why"""
    dropped: Counter[str] = field(default_factory=Counter)
    """columns that are not kept, by the number of rows that have them"""

    def plan(self, file: Path) -> list[str]:
        """Lines for a reader: numbers of labels, columns kept with them, columns that are not, reasons for the rest."""
        sizes = {"ranking": len(self.rankings), "demonstration": len(self.demonstrations)}
        counts = ", ".join(f"{size} {noun}{'' if size == 1 else 's'}" for noun, size in sizes.items())
        metas = [*(ranking.meta for ranking in self.rankings), *(made.meta for made in self.demonstrations)]
        kept = dict.fromkeys(key for meta in metas for key in meta)
        lines = [f"{file.name} ({self.form}): {counts}"]
        lines += [f"kept with them: {', '.join(kept)}"] if kept else []
        lines += [f"not kept: {', '.join(self.dropped)}"] if self.dropped else []
        reasons = Counter(why for _, why in self.rejected)
        for why, count in reasons.most_common(3):
            first = next(number for number, reason in self.rejected if reason == why)
            lines.append(f"{count} could not be used: {why} (first: {row_location(file, first)})")
        return lines + ([f"and {len(reasons) - 3} more reasons"] if len(reasons) > 3 else [])


def bring_in(
    store: Store, file: Path, annotator: str | None, time: float, hints: Hints | None = None
) -> dict[str, int]:
    """Keep the labels of a file; returns how many there were, how many were new, and labels that could not be used.

    annotator: who said them, where the file does not say so.
    """
    return keep(store, file, read(file, hints), annotator, time, hints)


def keep(
    store: Store, file: Path, labels: Imported, annotator: str | None, time: float, hints: Hints | None = None
) -> dict[str, int]:
    """Keep the labels that `read` returns for a file. InputError where they are in the store, read with other hints."""
    hashed = hashlib.sha256(file.read_bytes()).hexdigest()
    meta: dict[str, Any] = {"imported": file.name, "sha256": hashed}
    if hints is not None and hints != Hints():
        meta["hints"] = json.loads(json.dumps(asdict(hints)))
    for event in store.events("ranking") + store.events("demonstration"):
        known = event.payload.get("meta") or {}
        if known.get("sha256") == hashed and known.get("hints") != meta.get("hints"):
            how = "what is in a store stays there: import into a new one"
            raise InputError("these labels were imported before, and read in another way", file, how)
    orders = [
        {**payload_of(ranking), "annotator": ranking.annotator or annotator, "meta": {**plain(ranking.meta), **meta}}
        for ranking in labels.rankings
    ]
    written = [
        {
            **{"messages": turns(made.messages), "annotator": made.meta.get("annotator") or annotator, "id": made.id},
            "meta": {**plain(made.meta), **meta},
        }
        for made in labels.demonstrations
    ]
    new = 0
    for event_kind, payloads in (("ranking", orders), ("demonstration", written)):
        once = [f"import {hashed} {event_kind} {number}" for number in range(len(payloads))]
        new += store.append_new(event_kind, payloads, time, once)
    return {"labels": len(orders) + len(written), "new": new, "unusable": len(labels.rejected)}


def read(file: Path, hints: Hints | None = None) -> Imported:
    """The labels of a file in any of the known forms; InputError, by line, where it cannot be read or holds none."""
    if not file.is_file():
        raise InputError("no such file", file, "give a file of labels: .jsonl, .json, .parquet or .csv")
    rows = [(number, plain(row)) for number, row in sources.read_rows(file)]
    first = next((row for _, row in rows if isinstance(row, dict)), {})
    form = next((form for form in FORMS if form.fits(first)), None)
    if form is None:
        return customary(file)
    imported = Imported(form.name)
    hints = hints or Hints()
    for number, row in numbered(form, rows, imported):
        record, before = Record(row), len(imported.rankings) + len(imported.demonstrations)
        try:
            for label in form.labels(record, f"{file.name}:{number}", hints):
                add(imported, label, number)
        except InvalidRow as error:
            imported.rejected.append((number, str(error)))
        except Unclear as error:
            raise InputError(f"{row_location(file, number)}: {error.what}", file, error.how) from None
        if len(imported.rankings) + len(imported.demonstrations) > before:
            imported.dropped.update(filter(record.filled, record.rest()))
    imported.rejected.sort(key=lambda reason: reason[0])
    if not imported.rankings and not imported.demonstrations:
        number, why = imported.rejected[0] if imported.rejected else (1, "it is empty")
        raise InputError(f"holds no label that can be used ({row_location(file, number)}: {why})", file, KNOWN)
    return imported


def numbered(form: Form, rows: Sequence[tuple[int, Any]], imported: Imported) -> list[tuple[int, dict[str, Any]]]:
    """The rows of a form; others are rejected. Messages of a flat table are put together as trees."""
    own = [(number, row) for number, row in rows if isinstance(row, dict) and form.fits(row)]
    known = {number for number, _ in own}
    for number, row in rows:
        if number not in known:
            imported.rejected.append((number, f"it is {kind(row)}, and not as other rows are ({form.name})"))
    if form.fits is not open_assistant.is_message:
        return own
    trees, rejected = open_assistant.trees_of(own)
    imported.rejected += rejected
    return trees


def add(imported: Imported, label: Label, number: int) -> None:
    """Add a label, or the reason why there is none."""
    if isinstance(label, InvalidRow):
        imported.rejected.append((number, str(label)))
    elif isinstance(label, Ranking):
        imported.rankings.append(label)
    else:
        imported.demonstrations.append(label)


def customary(file: Path) -> Imported:
    """A file in the columns that training reads: rankings, or else demonstrations."""
    try:
        ranked = sources.read_rankings(file)
    except InputError as no_rankings:
        try:
            written = sources.read_demonstrations(file)
        except InputError:
            raise no_rankings from None
        rejected = [(row.line, row.reason) for row in written.rejected]
        return Imported("demonstrations", demonstrations=written.rows, rejected=rejected)
    return Imported("rankings", ranked.rows, rejected=[(row.line, row.reason) for row in ranked.rejected])


def plain(value: Any) -> Any:
    """A value as JSON can hold it: no nan or infinity (null), no dates or bytes (their text)."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
