"""Models behind an OpenAI-compatible API, as they answer: http://127.0.0.1:8018/v1:MODEL

    POST URL/chat/completions   a request for each completion, with a seed of its own

Replies are kept in the cache folder by their request, so that nothing is asked for twice. The key is the environment's
OPENAI_API_KEY; it is sent to that address alone, and written nowhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from amenable.data.files import iter_json_rows
from amenable.data.types import Conversation
from amenable.errors import InputError
from amenable.files import disk_errors
from amenable.generation.sampling import Sampling
from amenable.hash_cache import cache_folder
from amenable.http_client import PAUSES, TIMEOUT, get, post, require_listener

ADDRESS = re.compile(r"(https?://[^/]+/[^:]*):(.+)")
KEY = "OPENAI_API_KEY"
SHOWN = 8
"""names of models in a message"""


class Reply(NamedTuple):
    """Completion of an API."""

    text: str
    ended: bool
    """False for a completion that was cut at the limit of its length"""
    tokens: int
    """0 where the API does not count them"""


def parse_address(spec: str, prefix: str = "") -> tuple[str, str]:
    """Split URL:MODEL behind a prefix. InputError for another spelling."""
    parts = ADDRESS.fullmatch(spec.removeprefix(prefix))
    if parts is None:
        raise InputError(f"'{spec}' names no model of an API", how=f"write {prefix}http://127.0.0.1:8018/v1:MODEL")
    return parts[1].rstrip("/"), parts[2]


def api_headers() -> dict[str, str]:
    """Return the headers with the environment's key; none without a key."""
    key = os.environ.get(KEY)
    return {"authorization": f"Bearer {key}"} if key else {}


def api_options(sampling: Sampling) -> dict[str, Any]:
    """Return the fields of a request for sampling settings that are given: None, and what is off by default, is not."""
    given = {name: value for name, value in vars(sampling).items() if value is not None}
    options = {name: value for name, value in given.items() if value != getattr(Sampling, name)}
    if "temperature" in given:
        options["temperature"] = given["temperature"]
    options.pop("max_new_tokens", None)
    return options | ({"max_tokens": given["max_new_tokens"]} if "max_new_tokens" in given else {})


def choice_of(reply: bytes, address: str) -> dict[str, Any]:
    """Return the first choice of a chat completion. InputError for anything else."""
    try:
        choice = json.loads(reply)["choices"][0]
        choice["message"]["content"]
        return dict(choice)
    except (ValueError, KeyError, IndexError, TypeError):
        shown = reply[:80].decode("utf-8", "replace")
        raise InputError(f"answered {shown!r}, which is no chat completion", address) from None


@dataclass
class RemoteModel:
    """Model of an API. options: fields of every request, such as temperature. workers: requests at once."""

    url: str
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    workers: int = 8
    timeout: float = TIMEOUT
    pauses: Sequence[float] = PAUSES
    cached: dict[str, Reply] = field(default_factory=dict)
    requests: int = 0
    """requests that were sent"""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.cache_file.exists():
            self.cached.update(read_cache(self.cache_file))
            with self.cache_file.open("ab+") as file:  # a last line that is incomplete is ended
                file.seek(-1, os.SEEK_END)
                file.write(b"" if file.read() == b"\n" else b"\n")

    @property
    def name(self) -> str:
        return f"{self.url}:{self.model}"

    @property
    def cache_file(self) -> Path:
        return cache_folder() / "completions" / f"{hashlib.sha256(self.name.encode()).hexdigest()[:32]}.jsonl"

    def require_model(self) -> None:
        """Require that the API is there and, where it lists its models, has this one. InputError in other cases."""
        require_listener(self.url)
        try:
            models = json.loads(get(f"{self.url}/models", self.timeout, self.pauses, api_headers()))["data"]
            names = [str(model["id"]) for model in models]
        except InputError as error:
            if "answered 404" in error.what or "answered 405" in error.what:
                return  # an API without a list
            raise
        except (ValueError, KeyError, TypeError):
            return
        if names and self.model not in names:
            known = ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")
            raise InputError(f"has no model '{self.model}'", self.url, f"its models are: {known}")

    def complete(self, prompts: Sequence[Conversation], seeds: Sequence[int]) -> list[Reply]:
        """Return a completion of each prompt, with a seed each. InputError where one cannot be had; those that were
        received before it are in the cache."""
        pool = ThreadPoolExecutor(self.workers)
        try:
            futures = [pool.submit(self.complete_one, *each) for each in zip(prompts, seeds, strict=True)]
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def complete_one(self, prompt: Conversation, seed: int) -> Reply:
        """Return a completion, from the cache if it is there."""
        messages = [{"role": message.role, "content": message.content} for message in prompt]
        body = {"model": self.model, "messages": messages, "seed": seed % 2**31, **self.options}
        key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        with self.lock:
            if key in self.cached:
                return self.cached[key]
        address = f"{self.url}/chat/completions"
        answer = post(address, json.dumps(body).encode(), self.timeout, self.pauses, api_headers())
        choice, usage = choice_of(answer, address), json.loads(answer).get("usage") or {}
        ended = choice.get("finish_reason", "stop") == "stop"
        reply = Reply(str(choice["message"]["content"] or ""), ended, int(usage.get("completion_tokens") or 0))
        self.add(key, reply)
        return reply

    def add(self, key: str, reply: Reply) -> None:
        """Add a reply to the cache and its file."""
        with self.lock:
            self.cached[key] = reply
            self.requests += 1
            with disk_errors(self.cache_file, "make room there, or give another folder: AMENABLE_CACHE"):
                self.cache_file.parent.mkdir(parents=True, exist_ok=True)
                with self.cache_file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"request": key, **reply._asdict()}) + "\n")


def read_cache(file: Path) -> dict[str, Reply]:
    """Read the replies of a cache file by the hash of their requests; lines that are incomplete are skipped."""
    replies: dict[str, Reply] = {}
    for _, row in iter_json_rows(file):
        try:
            replies[str(row["request"])] = Reply(str(row["text"]), bool(row["ended"]), int(row["tokens"]))
        except (KeyError, TypeError, ValueError):
            continue
    return replies
