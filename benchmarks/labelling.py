"""Labels a second, each on disk before it is acknowledged, with 1, 8 and 32 people; beside what the disk can do.

    python -m benchmarks.labelling --labels 500

People fetch a task and submit its ranking over HTTP, one after the other without a pause, to the server that `amenable
label` runs, in a process of its own. A label is two events of the store, the task shown and the answer, each committed
with synchronous = FULL. The ceilings are made of the same events on the same disk, in turn with the people: events a
second that the store keeps with nothing before it; and appends of as many bytes to a file with an fsync after each, by
one writer and by as many as there are people (whose fsyncs a disk may serve together: the store commits one by one).
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amenable.feedback import annotators
from amenable.feedback.store import Store
from amenable.serve import label, security

CLIENTS = (1, 8, 32)
ANSWERS = 4


@dataclass(frozen=True)
class Figures:
    """Rates for a number of people: labels a second, milliseconds to a label's acknowledgement, events a second."""

    clients: int
    labels: float
    middle: float
    late: float
    events: float
    store: float
    one_writer: float
    many_writers: float

    @property
    def row(self) -> str:
        times = f"{self.middle:.1f} ms | {self.late:.1f} ms"
        rates = (self.events, self.store, self.one_writer, self.many_writers)
        return f"| {self.clients} | {self.labels:.0f} | {times} | {' | '.join(f'{rate:.0f}' for rate in rates)} |"


def main(arguments: Sequence[str] | None = None) -> list[Figures]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=500, help="in every row")
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument(
        "--folder", type=Path, help="on the disk to measure; the system's for temporary files if absent"
    )
    options = parser.parse_args(arguments)
    print(f"{options.labels} labels in every row, {ANSWERS} answers ranked, {os.cpu_count()} processors")
    heads = ("people", "labels/s", "acknowledged, median", "95 %", "events/s", "the store alone")
    heads += ("append + fsync, one writer", "as many writers")
    print(f"| {' | '.join(heads)} |\n|{'--:|' * len(heads)}")
    rows = []
    for clients in options.clients:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rows.append(measure(Path(folder), clients, options.labels))
            print(rows[-1].row, flush=True)
    return rows


def measure(folder: Path, clients: int, labels: int) -> Figures:
    """Measure `clients` people, and the ceilings before and after: a disk is not always equally fast."""
    payloads, _, _ = people(folder / "first", clients, min(labels, 2 * clients))
    events = (payloads * labels)[:labels]
    before = ceilings(folder / "before", events, clients)
    payloads, times, seconds = people(folder / "people", clients, labels)
    after = ceilings(folder / "after", events, clients)
    store, single, many = (statistics.mean(pair) for pair in zip(before, after))
    return Figures(
        clients=clients,
        labels=len(times) / seconds,
        middle=1000 * statistics.median(times),
        late=1000 * sorted(times)[int(0.95 * (len(times) - 1))],
        events=len(payloads) / seconds,
        store=store,
        one_writer=single,
        many_writers=many,
    )


def people(folder: Path, clients: int, labels: int) -> tuple[list[dict[str, Any]], list[float], float]:
    """Return the stored payloads, seconds to each label's acknowledgement, and seconds of all labels."""
    tokens = prepare(folder, clients, labels)
    with serving(folder) as port:
        times, seconds = submitted(port, tokens, labels)
    with Store(folder / "labels.db") as store:
        payloads = [event.payload for event in store.events() if event.kind in ("shown", "ranking")]
    if len(payloads) != 2 * len(times):
        raise RuntimeError(f"{len(times)} labels were acknowledged, and {len(payloads)} events are in the store")
    return payloads, times, seconds


def ceilings(folder: Path, events: Sequence[dict[str, Any]], writers: int) -> tuple[float, float, float]:
    """Return events a second of the store alone, of one writer that appends to a file, and of many writers."""
    folder.mkdir()
    alone = store_alone(folder / "labels.db", events)
    return alone, raw_appends(folder / "one.jsonl", events, 1), raw_appends(folder / "many.jsonl", events, writers)


def prepare(folder: Path, clients: int, labels: int) -> list[str]:
    """Write a pool of prompts, and add people. Returns their tokens."""
    folder.mkdir()
    with (folder / "samples.jsonl").open("w") as file:
        for number in range(labels):
            answers = [f"Answer {letter} to question {number}, of some length." for letter in "abcd"]
            row = {"prompt": [{"role": "user", "content": f"Question {number}?"}], "completions": answers}
            file.write(json.dumps({**row, "model": "none"}) + "\n")
    with Store(folder / "labels.db") as store:
        return [annotators.add(store, f"person {number}", "annotator", 0.0) for number in range(clients)]


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """Run the labelling server in a process of its own; yield its port."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(folder, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join(20)


def serve(folder: Path, sender: Any) -> None:
    """Serve as `amenable label` does, without its rate limit; send the port."""
    config = label.Config(
        data=(folder / "samples.jsonl",),
        labels_db=folder / "labels.db",
        tasks=("rank",),
        overlap=0.0,
        require_tokens=True,
    )
    label_app = label.make_label_app(config, Store(config.labels_db), label.load_tasks(config), None, None, None)
    guard = replace(label.protect(config, label_app), limits=security.Limits(per_minute=10**9))
    door = security.listen("127.0.0.1", 0)
    sender.send(door.getsockname()[1])
    security.make_server(guard).run(sockets=[door])


def submitted(port: int, tokens: Sequence[str], labels: int) -> tuple[list[float], float]:
    """Return seconds from sending each label to its acknowledgement, and seconds of all labels."""
    times: list[list[float]] = [[] for _ in tokens]
    ready = threading.Barrier(len(tokens) + 1)
    failures: list[BaseException] = []

    def person(number: int) -> None:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as line:
                ask(line, "/api/next", {"kind": "converse"}, tokens[number], expected=404)
                ready.wait()
                times[number] += label_on(line, tokens[number], shares[number], random.Random(number))
        except Exception as error:
            failures.append(error)
            ready.abort()

    shares = [labels // len(tokens) + (number < labels % len(tokens)) for number in range(len(tokens))]
    threads = [threading.Thread(target=person, args=(number,)) for number in range(len(tokens))]
    for thread in threads:
        thread.start()
    try:
        ready.wait()
    except threading.BrokenBarrierError:
        raise failures[0] from None
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if failures:
        raise failures[0]
    return [seconds for person_times in times for seconds in person_times], seconds


def label_on(line: http.client.HTTPConnection, token: str, count: int, draw: random.Random) -> list[float]:
    """Fetch a task and rank its answers, `count` times. Returns the seconds of each submission."""
    times = []
    for _ in range(count):
        task = ask(line, "/api/next", {"kind": "rank"}, token)["task"]
        ranks = [draw.randint(1, ANSWERS) for _ in task["completions"]]
        began = time.perf_counter()
        ask(line, "/api/rank", {"assignment": task["assignment"], "ranks": ranks, "seconds": 1.0}, token)
        times.append(time.perf_counter() - began)
    return times


def ask(
    line: http.client.HTTPConnection, path: str, body: dict[str, Any], token: str, expected: int = 200
) -> dict[str, Any]:
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    line.request("POST", path, json.dumps(body), headers)
    reply = line.getresponse()
    text = reply.read()
    if reply.status != expected:
        raise RuntimeError(f"{path}: {reply.status} {text[:200]!r}")
    body_of_reply: dict[str, Any] = json.loads(text)
    return body_of_reply


def store_alone(path: Path, payloads: Sequence[dict[str, Any]]) -> float:
    """Return events a second that one thread stores."""
    with Store(path) as store:
        began = time.perf_counter()
        for number, payload in enumerate(payloads):
            store.append_once("event", payload, 0.0, str(number))
        return len(payloads) / (time.perf_counter() - began)


def raw_appends(path: Path, payloads: Sequence[dict[str, Any]], writers: int) -> float:
    """Return appends a second, of the same sizes, each with an fsync."""
    lines = [json.dumps(payload).encode() + b"\n" for payload in payloads]

    def write(own: Sequence[bytes]) -> None:
        for line in own:
            file.write(line)
            os.fsync(file.fileno())

    with path.open("ab", buffering=0) as file, ThreadPoolExecutor(writers) as pool:
        began = time.perf_counter()
        list(pool.map(write, [lines[first::writers] for first in range(writers)]))
        return len(payloads) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
