"""LLM as a judge: any OpenAI-compatible endpoint, or a local model, with a rubric.

    for each pair, in both orders:   rubric, conversation, answer A, answer B  ->  "A", "B" or "tie"
    equal in both orders: that answer wins; otherwise half a point each;  more points, better rank

It is called as all judges are (judges.py). Verdicts are cached, in a file if one is given, so that a repeated question
costs nothing and has the same answer.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import torch

from amenable.data.files import iter_json_rows
from amenable.data.rankings import from_scores
from amenable.data.types import Conversation, Message, Prompt
from amenable.errors import InputError
from amenable.feedback.judges import combine_orders

Chat = Callable[[Conversation], str]
"""conversation that ends with a user's message -> the assistant's answer"""

RUBRIC = """\
Which of two answers to a person is better? Judge what they say, not how long they are or which comes first.
- Helpful: it does what was asked and follows every constraint.
- Truthful: it makes nothing up; where the answer cannot be known, it says so.
- Harmless: it does not insult, and does not help to hurt anybody.
Truthful and harmless come before helpful. If they are equally good, say tie."""
FORM = """\
{rubric}

[The conversation]
{prompt}

[Answer A]
{first}

[Answer B]
{second}

Which answer is better? End with one line that is "Verdict: A", "Verdict: B" or "Verdict: tie"."""
VERDICT = re.compile(r"verdict\W*(a|b|tie)\b", re.IGNORECASE)
ALONE = re.compile(r"\W*(?:answer\s+)?(a|b|tie)\W*", re.IGNORECASE)


@dataclass
class ModelJudge:
    """Ranks completions by a model's verdicts on every pair of them, in both orders.

    name: of the model and its settings, a part of the cache's keys. cache_file: JSON lines. calls: questions to the
    model. unclear: answers of the model without a verdict; they count as ties.
    """

    chat: Chat
    name: str
    rubric: str = RUBRIC
    cache_file: Path | None = None
    unclear: int = 0
    calls: int = 0
    cache: dict[str, float | None] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.cache_file is not None and self.cache_file.exists():
            self.cache.update(read_cache(self.cache_file))

    def __call__(
        self, prompt: Prompt, completions: Sequence[str], ended: Sequence[bool], generator: torch.Generator
    ) -> list[float]:
        """Return the ranks of K completions, 1 the best; K (K - 1) questions where none is cached."""
        points = [0.0] * len(completions)
        for a, b in combinations(range(len(completions)), 2):
            score = self.preference(prompt.messages, completions[a], completions[b])
            points[a] += score
            points[b] += 1 - score
        return from_scores(points)

    def preference(self, prompt: Conversation, a: str, b: str) -> float:
        """Return 1 where `a` wins in both orders, 0 where `b` does, else one half. Equal answers need no question."""
        if a == b:
            return 0.5
        return combine_orders((self.first_wins(prompt, a, b), 1 - self.first_wins(prompt, b, a)))

    def first_wins(self, prompt: Conversation, first: str, second: str) -> float:
        """Return 1 where the verdict is for the answer shown first, 0 where it is for the second, else one half."""
        text = FORM.format(rubric=self.rubric, prompt=transcript(prompt), first=first, second=second)
        key = hashlib.sha256(json.dumps([self.name, text]).encode()).hexdigest()
        if key not in self.cache:
            self.add(key, read_verdict(self.chat((Message("user", text),))))
        verdict = self.cache[key]
        return 0.5 if verdict is None else verdict

    def add(self, key: str, verdict: float | None) -> None:
        """Add a verdict to the cache, and to its file."""
        with self.lock:
            self.cache[key] = verdict
            self.calls += 1
            self.unclear += verdict is None
            if self.cache_file is not None:
                self.cache_file.parent.mkdir(parents=True, exist_ok=True)
                with self.cache_file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"question": key, "first": verdict}) + "\n")


def transcript(prompt: Conversation) -> str:
    """Return a conversation as text, a paragraph a message."""
    return "\n\n".join(f"{message.role}: {message.content}" for message in prompt)


def read_verdict(text: str) -> float | None:
    """Return the score of the answer shown first by the last verdict in a text, None where there is no verdict."""
    verdicts = VERDICT.findall(text)
    alone = ALONE.fullmatch(text.strip())
    if not verdicts and alone is None:
        return None
    verdict = (verdicts[-1] if verdicts else alone[1] if alone else "").lower()
    return {"a": 1.0, "b": 0.0, "tie": 0.5}[verdict]


def read_cache(file: Path) -> dict[str, float | None]:
    """Read the verdicts of a cache file by key; an incomplete last line is skipped."""
    cache: dict[str, float | None] = {}
    for _, row in iter_json_rows(file):
        try:
            cache[str(row["question"])] = row["first"]
        except (KeyError, TypeError):
            continue
    return cache


def endpoint(url: str, model: str, key: str | None = None, max_tokens: int = 512, seconds: float = 120.0) -> Chat:
    """Return a model behind an OpenAI-compatible API, such as http://127.0.0.1:8018/v1, at temperature 0.

    A call raises InputError where the API cannot be reached, refuses, or answers anything but a completion.
    """
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    if not url.startswith(("http://", "https://")):
        raise InputError(f"not an address of an API: '{url}'", how="begin it with http:// or https://")

    def chat(conversation: Conversation) -> str:
        messages = [{"role": message.role, "content": message.content} for message in conversation]
        body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": max_tokens, "seed": 0}
        address = f"{url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=seconds) as reply:
                return str(json.load(reply)["choices"][0]["message"]["content"] or "")
        except urllib.error.HTTPError as error:
            reason = error.read(500).decode("utf-8", "replace")
            raise InputError(f"the judge answered {error.code}: {reason}", address) from None
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise InputError(
                f"the judge gave no answer: {error}", address, "is it running, and is its name right?"
            ) from None

    return chat
