"""Inputs of benchmarks/before_after.py: a model, a reward model and data in published formats.

    python -m benchmarks.before_after_inputs FOLDER STEPS SIZE

Made-up words from a seed; every row begins with a system prompt of 30 tokens.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace
from pathlib import Path

from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.models.presets import preset
from amenable.seeds import seeded_generator
from amenable.text.tokenizer import Tokenizer
from amenable.train.loading import save_model
from benchmarks.workloads import SIZES

SYSTEM_TOKENS = 30
SYLLABLES = [first + second for first in "bdfgklmnprstvz" for second in ("a", "e", "i", "o", "u", "an", "er")]
ROWS = {"sft": 16, "reward": 8, "dpo": 16}
"""conversations, prompts or pairs of a step"""
ANSWERS = 4
"""ranked answers of a prompt"""
HELD_OUT = 8
"""held-out rows of each kind"""


def main(folder: Path, steps: int, size: str) -> None:
    """Write everything to the folder."""
    draw = random.Random(0)
    words = sorted({"".join(draw.choices(SYLLABLES, k=draw.randint(1, 3))) for _ in range(6000)})
    tokenizer = Tokenizer.train([text(draw, words, 40) for _ in range(2000)], 8192, chat=True)
    shape = SIZES["smoke"].shape if size == "tiny" else preset("tiny-gpt2")
    shape = replace(shape, vocab_size=tokenizer.vocab_size, context_length=512)
    save_model(folder / "model", Decoder(shape), tokenizer)
    scorer = ScalarModel.from_decoder(Decoder(shape), seeded_generator(0, "head"))
    save_model(folder / "reward-model", scorer, tokenizer)
    system = text(draw, words, 1)
    while len(tokenizer.encode(system)) < SYSTEM_TOKENS:
        system += text(draw, words, 1)

    def prompt() -> list[dict[str, str]]:
        question = {"role": "user", "content": text(draw, words, draw.randint(10, 60))}
        return [{"role": "system", "content": system}, question]

    def answers(count: int) -> list[str]:
        return [text(draw, words, draw.randint(20, 80)) for _ in range(count)]

    def demonstration() -> dict:
        return {"messages": [*prompt(), {"role": "assistant", "content": answers(1)[0]}]}

    def ranking() -> dict:
        return {"prompt": prompt(), "completions": answers(ANSWERS), "ranking": list(range(1, ANSWERS + 1))}

    def pair() -> dict:
        return {"prompt": prompt(), **dict(zip(("chosen", "rejected"), answers(2)))}

    for stage, name, make in (
        ("sft", "demonstrations", demonstration),
        ("reward", "rankings", ranking),
        ("dpo", "pairs", pair),
    ):
        write(folder / f"{name}.jsonl", [make() for _ in range(ROWS[stage] * steps)])
        write(folder / f"few-{name}.jsonl", [make() for _ in range(HELD_OUT)])
    write(folder / "prompts.jsonl", [{"prompt": prompt()} for _ in range(128)])


def text(draw: random.Random, words: list[str], count: int) -> str:
    """Return `count` words, each with a space before it."""
    return "".join(f" {word}" for word in draw.choices(words, k=count))


def write(path: Path, rows: list[dict]) -> None:
    """Write rows as JSON lines, each with an id."""
    lines = [json.dumps({"id": f"{path.stem}-{i}", **row}) for i, row in enumerate(rows)]
    path.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
