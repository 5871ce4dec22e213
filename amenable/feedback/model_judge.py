"""A judge that is a language model: any OpenAI-compatible endpoint, or a local model, told by a rubric what is better.

    for each pair, in both orders:   rubric, conversation, answer A, answer B  ->  "A", "B" or "tie"
    both orders agree: that one wins; they differ, or say tie: half a point each;  more points, better rank

It is called as every judge here (judges.py). What was asked once is remembered, in a file where one is given, so that
the same question costs nothing the second time and has the same answer.
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
from amenable.data.types import Conversation, Message, Prompt
from amenable.errors import InputError
from amenable.feedback.judges import combine_orders, from_scores

Ask = Callable[[Conversation], str]
"""a conversation that waits for the assistant -> what it says"""

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
    """Ranks completions by what a model says of each pair of them, in both orders.

    name: of the model and how it is asked, since what is remembered of one is not another's. memory: a file of JSON
    lines. unclear: how many answers held no verdict; they count as ties.
    """

    ask: Ask
    name: str
    rubric: str = RUBRIC
    memory: Path | None = None
    unclear: int = 0
    asked: int = 0
    known: dict[str, float | None] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.memory is not None and self.memory.exists():
            self.known.update(remembered(self.memory))

    def __call__(
        self, prompt: Prompt, completions: Sequence[str], ended: Sequence[bool], generator: torch.Generator
    ) -> list[float]:
        """Ranks of K completions, 1 the best; K (K - 1) questions where none is remembered."""
        points = [0.0] * len(completions)
        for a, b in combinations(range(len(completions)), 2):
            won = self.preference(prompt.messages, completions[a], completions[b])
            points[a] += won
            points[b] += 1 - won
        return from_scores(points)

    def preference(self, prompt: Conversation, a: str, b: str) -> float:
        """1 where `a` wins in both orders, 0 where `b` does, else one half. Equal answers are not asked about."""
        if a == b:
            return 0.5
        return combine_orders((self.first_wins(prompt, a, b), 1 - self.first_wins(prompt, b, a)))

    def first_wins(self, prompt: Conversation, first: str, second: str) -> float:
        """1 where the answer shown first is said to be better, 0 where the second is, else one half."""
        text = FORM.format(rubric=self.rubric, prompt=transcript(prompt), first=first, second=second)
        key = hashlib.sha256(json.dumps([self.name, text]).encode()).hexdigest()
        if key not in self.known:
            verdict = read_verdict(self.ask((Message("user", text),)))
            self.remember(key, verdict)
        verdict = self.known[key]
        return 0.5 if verdict is None else verdict

    def remember(self, key: str, verdict: float | None) -> None:
        """Keep what was said of a question."""
        with self.lock:
            self.known[key] = verdict
            self.asked += 1
            self.unclear += verdict is None
            if self.memory is not None:
                self.memory.parent.mkdir(parents=True, exist_ok=True)
                with self.memory.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"question": key, "first": verdict}) + "\n")


def transcript(prompt: Conversation) -> str:
    return "\n\n".join(f"{message.role}: {message.content}" for message in prompt)


def read_verdict(text: str) -> float | None:
    """What a judge's words mean for the answer shown first: the last verdict in them, None where there is none."""
    found = VERDICT.findall(text)
    alone = ALONE.fullmatch(text.strip())
    if not found and alone is None:
        return None
    said = (found[-1] if found else alone[1] if alone else "").lower()
    return {"a": 1.0, "b": 0.0, "tie": 0.5}[said]


def remembered(file: Path) -> dict[str, float | None]:
    """The questions of a file and what was said; a last line that was cut short is passed over."""
    known: dict[str, float | None] = {}
    for _, row in iter_json_rows(file):
        try:
            known[str(row["question"])] = row["first"]
        except (KeyError, TypeError):
            continue
    return known


def endpoint(url: str, model: str, key: str | None = None, max_tokens: int = 512, seconds: float = 120.0) -> Ask:
    """A model behind an OpenAI-compatible API, such as http://127.0.0.1:8018/v1. Asked at temperature 0.

    InputError where it cannot be reached, refuses, or answers something else than a completion.
    """
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    if not url.startswith(("http://", "https://")):
        raise InputError(f"'{url}' is no address of an API", how="it begins with http:// or https://")

    def ask(conversation: Conversation) -> str:
        messages = [{"role": message.role, "content": message.content} for message in conversation]
        body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": max_tokens, "seed": 0}
        place = f"{url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(place, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=seconds) as reply:
                return str(json.load(reply)["choices"][0]["message"]["content"] or "")
        except urllib.error.HTTPError as error:
            why = error.read(500).decode("utf-8", "replace")
            raise InputError(f"the judge answered {error.code}: {why}", place) from None
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise InputError(
                f"the judge gave no answer: {error}", place, "is it running, and is its name right?"
            ) from None

    return ask
