"""Labels out of a store as data files, with their lineage, and data files of others into it.

Out: rankings.jsonl, pairs.jsonl, demonstrations.jsonl in the columns that training reads, and lineage.json. Left out
are answers to items whose order was known beforehand, and orders in which everything is tied: they teach nothing.

In: whatever `sources` reads as rankings or demonstrations (hh-rlhf among them), and the JSON exports of Argilla and
Label Studio. Every row has a name made of its file's content, so that a file that comes twice is kept once.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from amenable.data import sources
from amenable.data.types import Demonstration, Message, Ranking
from amenable.errors import InputError
from amenable.feedback.judges import from_scores
from amenable.feedback.store import Event, Store, demonstration_of, payload_of, ranking_of, turns, write_whole

What = Literal["rankings", "pairs", "demonstrations"]
WHATS: tuple[What, ...] = ("rankings", "pairs", "demonstrations")
TESTS = ("calibration", "screening")


def export(store: Store, out: Path) -> dict[str, int]:
    """Write the files that have rows, and lineage.json; returns the number of rows by file."""
    texts = {what: list(lines(store, what)) for what in WHATS}
    counts = {what: len(rows) for what, rows in texts.items() if rows}
    if not counts:
        raise InputError("there is no label to write", store.path, "'amenable label' collects them")
    for what in counts:
        write_whole(out / f"{what}.jsonl", "".join(f"{row}\n" for row in texts[what]))
    write_whole(out / "lineage.json", json.dumps(lineage(store, out, counts), indent=1))
    return {str(what): rows for what, rows in counts.items()}


def lines(store: Store, what: What) -> Iterator[str]:
    """The rows of one file, as JSON."""
    if what == "demonstrations":
        for event in store.standing("demonstration", "conversation"):
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
        for event in store.standing("ranking")
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
    used = [*standing_rankings(store), *store.standing("demonstration", "conversation")]
    people = Counter(str(event.payload.get("annotator")) for event in used)
    models = {json.dumps(source, sort_keys=True) for event in used for source in event.payload.get("sources", [])}
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


def bring_in(store: Store, file: Path, annotator: str | None, time: float) -> dict[str, int]:
    """Keep the labels of a file; returns how many there were, how many were new, and rows that could not be used.

    annotator: who said them, where the file does not say so.
    """
    if not file.is_file():
        raise InputError("no such file", file, "give a file of labels: .jsonl, .json or .parquet")
    rankings, demonstrations, unusable = read(file)
    hashed = hashlib.sha256(file.read_bytes()).hexdigest()
    meta = {"imported": file.name, "sha256": hashed}
    orders = [
        {**payload_of(ranking), "annotator": ranking.annotator or annotator, "meta": {**ranking.meta, **meta}}
        for ranking in rankings
    ]
    written = [
        {"messages": turns(one.messages), "annotator": one.meta.get("annotator") or annotator, "id": one.id, **meta}
        for one in demonstrations
    ]
    new = 0
    for kind, payloads in (("ranking", orders), ("demonstration", written)):
        once = [f"import {hashed} {kind} {number}" for number in range(len(payloads))]
        new += store.append_new(kind, payloads, time, once)
    return {"labels": len(orders) + len(written), "new": new, "unusable": unusable}


def read(file: Path) -> tuple[list[Ranking], list[Demonstration], int]:
    """Rankings and demonstrations of a file in any of the known formats, and how many rows were unusable."""
    rows = exported_rows(file)
    if rows and "annotations" in rows[0] and "data" in rows[0]:
        return tell(file, [found for number, row in enumerate(rows) for found in label_studio(row, str(number))])
    if rows and "fields" in rows[0]:
        return tell(file, [found for number, row in enumerate(rows) for found in argilla(row, str(number))])
    try:
        ranked = sources.read_rankings(file)
    except InputError as no_rankings:
        try:
            written = sources.read_demonstrations(file)
        except InputError:
            raise no_rankings from None
        return [], written.rows, len(written.rejected)
    return ranked.rows, [], len(ranked.rejected)


Found = Ranking | Demonstration | None
"""what one person said of a row; None where it is no label that is known here"""


def tell(file: Path, found: Sequence[Found]) -> tuple[list[Ranking], list[Demonstration], int]:
    rankings = [one for one in found if isinstance(one, Ranking)]
    written = [one for one in found if isinstance(one, Demonstration)]
    if not rankings and not written:
        how = "known are rankings and preferences between texts, and written answers"
        raise InputError("holds no label that can be used", file, how)
    return rankings, written, len(found) - len(rankings) - len(written)


def exported_rows(file: Path) -> list[dict[str, Any]]:
    """The objects of a .json or .jsonl file; of anything else nothing."""
    try:
        text = file.read_text("utf-8")
        values = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    except (ValueError, OSError):
        return []
    return values if all(isinstance(value, dict) for value in values) else []


def label_studio(row: dict[str, Any], id: str) -> Iterator[Found]:
    """What each annotation of a task says: a choice between two texts (Pairwise), an order (Ranker), or a text."""
    data = row["data"]
    for annotation in row["annotations"] or []:
        if annotation.get("was_cancelled"):
            continue
        who = annotation.get("completed_by")
        who = who.get("email") or who.get("id") if isinstance(who, dict) else who
        for result in annotation.get("result") or []:
            yield studio_label(data, result, str(row.get("id", id)), None if who is None else str(who))


def studio_label(data: dict[str, Any], result: dict[str, Any], id: str, who: str | None) -> Found:
    value, kind = result.get("value", {}), result.get("type")
    prompt, others = asked_and_answers(data)
    if prompt is None:
        return None
    if kind == "pairwise" and len(others) == 2 and value.get("selected") in ("left", "right"):
        ranks = (1.0, 2.0) if value["selected"] == "left" else (2.0, 1.0)
        return ranking_made(prompt, list(others.values()), ranks, id, who)
    if kind == "ranker":
        places = value.get("ranker")
        order = places if isinstance(places, list) else max(places.values(), key=len) if places else []
        items = next((v for v in data.values() if isinstance(v, list) and v and isinstance(v[0], dict)), [])
        texts = {str(item.get("id")): item.get("body") or item.get("title") or item.get("html") for item in items}
        answers = [texts.get(str(name)) for name in order]
        return ranking_made(prompt, answers, tuple(float(n + 1) for n in range(len(answers))), id, who)
    if kind == "textarea" and value.get("text"):
        answer = value["text"] if isinstance(value["text"], str) else "\n".join(value["text"])
        return Demonstration((Message("user", prompt), Message("assistant", answer)), id, {"annotator": who})
    return None


def argilla(row: dict[str, Any], id: str) -> Iterator[Found]:
    """What each response to a record says: an order of fields, the name of the better field, or a text.

    Responses are {question: [{value, user_id}]}, or before version 2 [{user_id, values: {question: {value}}}].
    """
    given = row.get("responses") or {}
    if isinstance(given, dict):
        said = [(answer, question) for question, answers in given.items() for answer in answers or []]
    else:
        said = [
            ({**value, "user_id": answer.get("user_id"), "status": answer.get("status")}, question)
            for answer in given
            for question, value in (answer.get("values") or {}).items()
        ]
    for answer, question in said:
        if answer.get("status") in (None, "submitted"):
            who = answer.get("user_id")
            name = str(row.get("external_id") or row.get("id") or id)
            yield argilla_label(row["fields"], question, answer.get("value"), name, None if who is None else str(who))


def argilla_label(fields: dict[str, Any], question: str, value: Any, id: str, who: str | None) -> Found:
    prompt, others = asked_and_answers(fields)
    if prompt is None:
        return None
    if isinstance(value, list) and value:
        entries = [entry if isinstance(entry, dict) else {"value": entry, "rank": n} for n, entry in enumerate(value)]
        if all(entry.get("value") in others for entry in entries):
            places = [-float(entry.get("rank") or 0) for entry in entries]
            return ranking_made(prompt, [others[entry["value"]] for entry in entries], from_scores(places), id, who)
        return None
    if isinstance(value, str) and value in others and len(others) == 2:
        ranks = [1.0 if name == value else 2.0 for name in others]
        return ranking_made(prompt, list(others.values()), ranks, id, who)
    if isinstance(value, str) and value.strip() and not others:
        return Demonstration((Message("user", prompt), Message("assistant", value)), id, {"annotator": who})
    return None


def asked_and_answers(columns: dict[str, Any]) -> tuple[str | None, dict[str, str]]:
    """The column that asks (prompt, instruction, question, or else the first text), and the other texts by name."""
    texts = {name: value for name, value in columns.items() if isinstance(value, str) and value.strip()}
    usual = ("prompt", "instruction", "question", "input", "context", "text")
    asking = next((name for name in usual if name in texts), next(iter(texts), None))
    if asking is None:
        return None, {}
    return texts[asking], {name: value for name, value in texts.items() if name != asking}


def ranking_made(
    prompt: str, answers: Sequence[Any], ranks: Sequence[float], id: str, who: str | None
) -> Ranking | None:
    if len(answers) < 2 or not all(isinstance(answer, str) for answer in answers) or not any(map(str.strip, answers)):
        return None
    return Ranking((Message("user", prompt),), tuple(answers), tuple(ranks), id, who)
