"""Rendering of conversations by a chat template, beside encoding their contents alone.

    python -m benchmarks.rendering --model models/smollm2          # 20,000 conversations of one or two exchanges

The conversations are made of common words. Microseconds are the processor's, the median of five parts.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from amenable.data.types import Conversation, Message
from amenable.text.chat import render, render_prompt
from amenable.text.tokenizer import Tokenizer

WORDS = (
    "the",
    "a",
    "quick",
    "brown",
    "fox",
    "asks",
    "what",
    "is",
    "good",
    "about",
    "rice",
    "in",
    "winter",
    "tell",
    "me",
)
PARTS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Print microseconds a conversation: its contents alone, the whole of it, and its prompt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/smollm2"), help="folder with a chat template")
    parser.add_argument("--conversations", type=int, default=20_000)
    options = parser.parse_args(arguments)
    tokenizer, rows = Tokenizer.load(options.model), conversations(options.conversations, seed=0)
    ways: dict[str, Callable[[Conversation], object]] = {
        "contents alone": lambda row: [tokenizer.encode(message.content) for message in row],
        "conversations": lambda row: render(tokenizer, row),
        "prompts": lambda row: render_prompt(tokenizer, row[:-1]),
    }
    alone = 0.0
    for name, work in ways.items():
        micros = microseconds(work, rows)
        alone = alone or micros
        print(f"{name:15} {micros:6.0f} us, {micros / alone:.1f} times that of the contents alone", flush=True)
    return 0


def conversations(count: int, seed: int) -> list[Conversation]:
    """Make conversations of one or two exchanges."""
    draws = random.Random(seed)

    def sentence(least: int, most: int) -> str:
        return " ".join(draws.choices(WORDS, k=draws.randint(least, most))).capitalize() + "."

    def exchange() -> tuple[Message, Message]:
        return Message("user", sentence(5, 20)), Message("assistant", sentence(10, 40))

    return [tuple(turn for _ in range(draws.randint(1, 2)) for turn in exchange()) for _ in range(count)]


def microseconds(work: Callable[[Conversation], object], rows: Sequence[Conversation]) -> float:
    """Return the processor's microseconds a conversation, the median of PARTS parts of the rows."""
    work(rows[0])
    times = []
    for part in (rows[i::PARTS] for i in range(PARTS)):
        begun = time.process_time()
        for row in part:
            work(row)
        times.append((time.process_time() - begun) / max(len(part), 1))
    return 1e6 * statistics.median(times)


if __name__ == "__main__":
    raise SystemExit(main())
