"""Train a byte-level BPE tokenizer on text files.

Any bytes go in and come out unchanged. The special tokens that structure a conversation have ids that no text can
produce. Sennrich et al. (2016); byte level as in Radford et al. (2019, section 2.2).

Reads text (and, if given, demonstrations, so that their words are tokens too); writes tokenizer.json and its company.
Texts go through a temporary file (TMPDIR), so that memory holds their words and not the texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import TextIO

from amenable.data import sources
from amenable.data.types import Demonstration, Text
from amenable.errors import InputError
from amenable.files import disk_errors
from amenable.text.bulk import BulkEncoder
from amenable.text.tokenizer import Tokenizer
from amenable.train import plan
from amenable.train.examples import RejectedRows, keep_usable
from amenable.train.run import Run
from amenable.train.run_options import DataOptions
from amenable.train.stage_report import StageReport

REPORT = StageReport(
    "Tokenizer",
    "Byte-level BPE on the raw text.",
    facts=(("tokens", "vocab_size"), ("bytes a token", "bytes_per_token")),
)


@dataclass(frozen=True)
class Config(DataOptions):
    """Train a byte-level BPE tokenizer."""

    data: Path = Path("runs/world/text/train.jsonl")
    """text: a file, or a folder of files"""
    demonstrations: Path | None = None
    """conversations whose contents count as text as well"""
    out: Path = Path("runs/tokenizer")
    vocab_size: int = 1536
    """tokens, the 256 bytes and 6 special tokens included"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vocab_size < 262:
            raise InputError(f"vocab_size is {self.vocab_size}", how="256 bytes and 6 special tokens need 262 or more")
        plan.require_at_least(262, self, "vocab_size")


def run(config: Config) -> Path:
    """Train the tokenizer and return the run directory."""
    run = Run(config.out, "tokenizer", config, {"data": config.data, "demonstrations": config.demonstrations})
    if run.skip_finished():
        return run.out
    with (
        disk_errors(Path(gettempdir()), "make room there, or set TMPDIR"),
        TemporaryFile("w+", encoding="utf-8") as file,
    ):
        read(config, run.rejected, file)
        run.begin()
        tokenizer = Tokenizer.train(texts_of(file), config.vocab_size)
        encoder, tokens, size = BulkEncoder(tokenizer), 0, 0
        for text in texts_of(file):
            tokens += len(encoder.encode(text)) // encoder.item_size
            size += len(text.encode())
    with disk_errors(run.out):
        tokenizer.save(run.out)
    run.log.info(f"{tokenizer.vocab_size} tokens; {size:,} bytes are {tokens:,} tokens, {size / tokens:.2f} bytes each")
    return run.finish(vocab_size=tokenizer.vocab_size, bytes_per_token=size / tokens, tokens=tokens)


def read(config: Config, rejected: RejectedRows, file: TextIO) -> None:
    """Write every text to learn from to a file, each as a line of JSON."""

    def write(*texts: str) -> None:
        file.writelines(json.dumps(text, ensure_ascii=False) + "\n" for text in texts)

    def write_text(text: Text) -> None:
        write(text.text)

    def write_contents(demonstration: Demonstration) -> None:
        write(*(message.content for message in demonstration.messages))

    keep_usable(sources.read_texts(config.data, columns=config.columns, convert=write_text), rejected)
    if config.demonstrations is not None:
        keep_usable(sources.read_demonstrations(config.demonstrations, convert=write_contents), rejected)


def texts_of(file: TextIO) -> Iterator[str]:
    """Yield the texts that `read` wrote."""
    file.seek(0)
    return map(json.loads, file)
