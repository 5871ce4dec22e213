"""Kill the labelling server under load (SIGKILL), again and again, and count the labels in the store.

    python -m benchmarks.crash_label --kills 1000

Several people label as fast as they can over HTTP while the server is killed at random moments and started anew. A
label whose acknowledgement never came is sent again, as a browser does. In the end every acknowledged label must be in
the store exactly once, under the id that was acknowledged, as it was sent; nobody's task may have two answers; and no
task may have been with two people that was meant for one.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PEOPLE = 4


@dataclass
class Acknowledged:
    """Label that was acknowledged: the event's id, and the ranks that were sent."""

    id: int
    annotator: str
    assignment: int
    ranks: list[int]


@dataclass
class Load:
    """People who label until `stop` is set."""

    port: int
    acknowledged: list[Acknowledged] = field(default_factory=list)
    resent: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    failure: str = ""

    def work(self, name: str, token: str) -> None:
        """Fetch a task, rank it, send the ranks until they are acknowledged; repeat."""
        draw = random.Random(name)
        while not self.stop.is_set():
            response = self.post("/api/next", {"kind": "rank"}, token)
            if response is None:
                continue
            task = response["task"]
            if task is None:
                self.failure = "there are no tasks left: give more with --tasks"
                return
            ranks = [draw.randint(1, 4) for _ in task["completions"]]
            tries = 0
            ranking = {"assignment": task["assignment"], "ranks": ranks, "seconds": 1.0}
            while (reply := self.post("/api/rank", ranking, token)) is None:
                tries += 1
                if self.stop.is_set():
                    return
            self.resent += tries > 0
            self.acknowledged.append(Acknowledged(reply["kept"], name, task["assignment"], ranks))

    def post(self, path: str, body: dict[str, Any], token: str) -> dict[str, Any] | None:
        """Return the server's reply, or None if the server was killed before it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        try:
            connection.request("POST", path, json.dumps(body), headers)
            reply = connection.getresponse()
            text = reply.read()
        except (OSError, http.client.HTTPException):
            time.sleep(0.005)
            return None
        finally:
            connection.close()
        if reply.status != 200:
            self.failure = f"{path}: {reply.status} {text[:200]!r}"
            self.stop.set()
            return None
        return json.loads(text)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="Kill the labelling server under load, and count the labels.")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=0, help="prompts in the pool; 0: fifteen for every kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nursery", nargs=2, metavar=("FOLDER", "PORT"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.nursery:
        return nursery(Path(options.nursery[0]), int(options.nursery[1]))
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options.kills, options.tasks or max(500, 15 * options.kills), options.seed)
    print(json.dumps(result, indent=1))
    return result


def measure(folder: Path, kills: int, tasks: int, seed: int) -> dict[str, Any]:
    """Kill the server `kills` times under load, and count the labels."""
    tokens = prepare(folder, tasks)
    port = free_port()
    load = Load(port)
    command = [sys.executable, "-m", "benchmarks.crash_label", "--nursery", str(folder), str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as mother:
        threads = [threading.Thread(target=load.work, args=item) for item in tokens.items()]
        began = time.monotonic()
        kill_again_and_again(mother, kills, random.Random(seed), threads, load)
        load.stop.set()
        seconds = time.monotonic() - began
        for thread in threads:
            thread.join(30)
        assert mother.stdin is not None
        mother.stdin.close()
    if load.failure:
        raise RuntimeError(load.failure)
    return {"kills": kills, "seconds": round(seconds, 1), "resent": load.resent, **count(folder, load)}


def kill_again_and_again(
    mother: subprocess.Popen[str], kills: int, draw: random.Random, threads: list[threading.Thread], load: Load
) -> None:
    """Start a server, let it work for a moment, kill it; the last server lives until all people are done."""
    for number in range(kills + 1):
        before = len(load.acknowledged)
        child = start(mother)
        if number == 0:
            for thread in threads:
                thread.start()
        patience = time.monotonic() + 30
        while len(load.acknowledged) == before and not load.failure:
            time.sleep(0.001)  # a server that has done nothing yet has nothing to lose
            if time.monotonic() > patience:
                load.failure = "a new server did not keep anything for half a minute"
        time.sleep(draw.uniform(0.0, 0.08))
        if number < kills and not load.failure:
            os.kill(child, signal.SIGKILL)
        if sys.stderr.isatty() and number % 20 == 0:
            print(f"\r{number} kills, {len(load.acknowledged)} labels", end="", file=sys.stderr)
    load.stop.set()
    for thread in threads:
        thread.join(30)
    os.kill(child, signal.SIGKILL)


def start(mother: subprocess.Popen[str]) -> int:
    """Start a server. Returns its process id."""
    assert mother.stdin is not None and mother.stdout is not None
    mother.stdin.write("start\n")
    mother.stdin.flush()
    return int(mother.stdout.readline())


def prepare(folder: Path, tasks: int) -> dict[str, str]:
    """Write a pool of prompts, and add people. Returns their tokens by name."""
    from amenable.feedback import annotators
    from amenable.feedback.store import Store

    with (folder / "samples.jsonl").open("w") as file:
        for number in range(tasks):
            answers = [f"Answer {letter} to {number}." for letter in "abcd"]
            prompt = [{"role": "user", "content": f"Question {number}?"}]
            file.write(json.dumps({"prompt": prompt, "completions": answers, "model": "none"}) + "\n")
    with Store(folder / "labels.db") as store:
        return {name: annotators.add(store, name, "annotator", 0.0) for name in map("person {}".format, range(PEOPLE))}


def free_port() -> int:
    """Return a free port below those that clients are given: a client on such a port could connect to itself."""
    for port in range(20_000, 30_000):
        with socket.socket() as door, contextlib.suppress(OSError):
            door.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")


def nursery(folder: Path, port: int) -> dict[str, Any]:
    """Fork a new server for every line of stdin, so that nothing is imported twice. Prints its process id."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    serve = server(folder, port)
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            serve()
            os._exit(0)
        print(child, flush=True)
    return {}


def server(folder: Path, port: int) -> Callable[[], None]:
    """Return a function that runs the labelling server as `amenable label` does, without its rate limit."""
    from dataclasses import replace

    from amenable.errors import InputError
    from amenable.feedback.store import Store
    from amenable.serve import label, security
    from amenable.serve.security import Limits

    def opened() -> socket.socket:
        """Listen on the port, once the killed server's process has released it."""
        for _ in range(500):
            with contextlib.suppress(InputError):
                return security.listen("127.0.0.1", port)
            time.sleep(0.01)
        return security.listen("127.0.0.1", port)

    config = label.Config(
        data=(folder / "samples.jsonl",),
        labels_db=folder / "labels.db",
        tasks=("rank",),
        port=port,
        require_tokens=True,
    )
    tasks = label.load_tasks(config)

    def serve() -> None:
        door = opened()
        label_app = label.make_label_app(config, Store(config.labels_db), tasks, None, None, None)
        guard = replace(label.protect(config, label_app), limits=Limits(per_minute=10**9))
        security.make_server(guard).run(sockets=[door])

    return serve


def count(folder: Path, load: Load) -> dict[str, Any]:
    """Count acknowledged labels that are lost or differ from what was sent, and labels stored twice."""
    from amenable.feedback.store import Store

    with Store(folder / "labels.db") as store:
        events = {event.id: event.payload for event in store.events("ranking")}
        shown = {event.id: event.payload for event in store.events("shown")}
        whole = store.connection.execute("PRAGMA integrity_check").fetchone()[0]
    lost = [
        label for label in load.acknowledged if not matches(label, events.get(label.id), shown.get(label.assignment))
    ]
    answers = Counter(payload["assignment"] for payload in events.values())
    places = Counter((shown[a]["task"], shown[a]["place"]) for a in answers)
    return {
        "acknowledged": len(load.acknowledged),
        "lost": len(lost),
        "double": sum(n - 1 for n in answers.values()) + sum(n - 1 for n in places.values()),
        "acknowledged_twice": len(load.acknowledged) - len({label.id for label in load.acknowledged}),
        "kept_without_acknowledgement": len(events) - len(load.acknowledged),
        "integrity": whole,
    }


def matches(label: Acknowledged, stored: dict[str, Any] | None, shown: dict[str, Any] | None) -> bool:
    """Return True if the store has this label as it was sent."""
    if stored is None or shown is None:
        return False
    if (stored["annotator"], stored["assignment"]) != (label.annotator, label.assignment):
        return False
    sent = [label.ranks[shown["shown_order"].index(i)] for i in range(len(label.ranks))]
    return stored["ranking"] == [1 + sum(other < rank for other in sent) for rank in sent]


if __name__ == "__main__":
    main()
