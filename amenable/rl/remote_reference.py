"""Reference model on servers: log-probabilities of the ids that were sampled, over HTTP.

    GET  URL    -> {"model": hash, "tokenizer": hash, "precision": "bf16", "num_tokens": 151936, ...}
    POST URL    {"rows": [[id, ...], ...], "first": [12, ...], "temperature": 0.7}
         -> {"logprobs": [[...], ...]}, those of each row from its id `first` on

`amenable serve --models NAME=FOLDER` answers so at /logprobs/NAME. A request is a pass of a reference in memory, so
that on one kind of machine the numbers are the same. Tries and time-outs are those of `http_client`.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amenable import processes
from amenable.errors import InputError
from amenable.generation.addresses import are_rewritten, is_lost, read_addresses, wait_for_others
from amenable.generation.remote_model import api_headers
from amenable.hash_cache import model_hash
from amenable.http_client import PAUSES, TIMEOUT, get, post, require_listener
from amenable.model_folder import count_virtual_tokens
from amenable.text.tokenizer import Tokenizer
from amenable.train.forward import Row, length_sorted_batches
from amenable.train.log import Progress, silent
from amenable.train.runtime import Runtime

MAX_BYTES = 900_000
"""size of a request of several rows: our servers take a million bytes"""
REQUESTS = 2
"""requests at once at each server: a next one waits there while one is computed"""
START = "start one with: amenable serve --models NAME=FOLDER"


@dataclass
class RemoteReference:
    """Frozen model on servers. entries: their addresses, or files of these (generation/addresses.py). folder: that of
    the model, which the servers must have too.

    The first of several processes alone asks for log-probabilities. A server that is lost is replaced by the new one of
    its file.
    """

    entries: Sequence[str]
    folder: Path
    runtime: Runtime
    timeout: float = TIMEOUT
    pauses: Sequence[float] = PAUSES
    replacing: threading.Lock = field(default_factory=threading.Lock)
    required: dict[str, tuple[Any, str]] = field(default_factory=dict)
    """facts that servers must have, by name, with the problem of a server with another"""

    def __post_init__(self) -> None:
        self.urls = read_addresses(self.entries)
        self.num_virtual_tokens = count_virtual_tokens(self.folder)

    def connect(self) -> None:
        """Require that every server has this model and tokenizer, in the precision of the run. InputError for others,
        before anything is loaded."""
        tokenizer = Tokenizer.load(self.folder)
        self.required = {
            "tokenizer": (tokenizer.fingerprint, "has another tokenizer than the policy"),
            "model": (model_hash(self.folder), f"has another model than {self.folder}"),
            "num_tokens": (tokenizer.vocab_size, f"its model lacks tokens of the tokenizer in {self.folder}"),
            "precision": ("bf16" if self.runtime.bf16 else "fp32", "computes in another precision"),
        }
        processes.from_first(lambda: self.require_servers(self.urls))

    def require_servers(self, urls: Iterable[str]) -> None:
        """Raise InputError unless the servers at some addresses are as `connect` requires."""
        for url in urls:
            require_listener(url)
            reply = get(url, self.timeout, self.pauses, api_headers())
            try:
                facts = json.loads(reply)
                theirs = {name: facts[name] for name in self.required}
            except (ValueError, KeyError, TypeError):
                raise InputError("says nothing of a model", url, START) from None
            for name, (value, problem) in self.required.items():
                if theirs[name] != value:
                    hint = f"start it with --precision {value}" if name == "precision" else f"serve {self.folder}"
                    raise InputError(problem, url, hint)

    def logprobs(
        self, rows: Sequence[Row], max_tokens: int, temperature: float = 1.0, progress: Progress = silent
    ) -> list[Tensor]:
        """Return the log-probabilities of each row's loss mask, which is its end, as `forward.compute_logprobs` does.
        InputError where a server does not answer."""
        values = processes.from_first(lambda: self.request_all(rows, max_tokens, temperature, progress))
        return [torch.tensor(row, dtype=torch.float32) for row in values]

    def request_all(
        self, rows: Sequence[Row], max_tokens: int, temperature: float, progress: Progress
    ) -> list[list[float]]:
        """Do what `logprobs` does, in the first of several processes."""
        parts = [indices for indices, _ in length_sorted_batches(rows, self.runtime, max_tokens)]
        values: list[list[float]] = [[]] * len(rows)
        pool = ThreadPoolExecutor(REQUESTS * len(self.urls))

        def request(number: int) -> list[list[float]]:
            return self.request([rows[i] for i in parts[number]], temperature, number)

        try:
            for number, answers in enumerate(pool.map(request, range(len(parts)))):
                progress(number, len(parts))
                for i, answer in zip(parts[number], answers):
                    values[i] = answer
            progress(len(parts), len(parts))
            return values
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def request(self, rows: Sequence[Row], temperature: float, number: int) -> list[list[float]]:
        """Return the log-probabilities of some rows by one of the servers, in smaller requests where they are long."""
        first = [mask.index(True) for _, mask in rows]
        body = json.dumps({"rows": [ids for ids, _ in rows], "first": first, "temperature": temperature}).encode()
        if len(rows) > 1 and len(body) > MAX_BYTES:
            half = len(rows) // 2
            return self.request(rows[:half], temperature, number) + self.request(rows[half:], temperature, number)
        while True:
            url = self.urls[number % len(self.urls)]
            try:
                return logprobs_in(post(url, body, self.timeout, self.pauses, api_headers()), rows, url)
            except InputError as error:
                self.replace(url, error)

    def replace(self, lost: str, error: InputError) -> None:
        """Wait for the server that takes the place of a lost one. Raises `error`, that of a request, where the server
        still listens or no file of addresses can name another."""
        with self.replacing:
            if lost not in self.urls:
                return
            if not are_rewritten(self.entries) or not is_lost(lost):
                raise error
            urls = wait_for_others(self.entries, lost, self.timeout)
            self.require_servers(set(urls) - set(self.urls))
            self.urls = urls


def logprobs_in(body: bytes, rows: Sequence[Row], url: str) -> list[list[float]]:
    """Return the log-probabilities in a reply. InputError unless there is a finite one for each id that was wanted."""
    try:
        values = [[float(value) for value in row] for row in json.loads(body)["logprobs"]]
    except (ValueError, KeyError, TypeError):
        shown = body[:80].decode("utf-8", "replace")
        raise InputError(f'answered {shown!r}, not {{"logprobs": [[...], ...]}}', url, START) from None
    if [len(row) for row in values] != [sum(mask) for _, mask in rows]:
        raise InputError("gives another number of log-probabilities than ids were sent", url, START)
    if not all(map(math.isfinite, (value for row in values for value in row))):
        raise InputError("gives log-probabilities that are no numbers", url, "look at the server's log")
    return values


def connect_reference(
    urls: Sequence[str], folder: Path, runtime: Runtime, timeout: float = TIMEOUT
) -> RemoteReference | None:
    """Return the reference on servers at some addresses; None without any. InputError where they do not fit."""
    if not urls:
        return None
    reference = RemoteReference(urls, folder, runtime, timeout)
    reference.connect()
    return reference
